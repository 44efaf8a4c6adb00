//! The tokens of a request's input, counted once for each family of models that its route leads to, and shared by all
//! that need them.

use super::catalog::Live;
use super::forms::Forms;
use crate::domain::catalog::{Deployment, Resolved};
use crate::domain::route::Route;
use crate::domain::tokens::{Counted, TokenCounter};

/// A text that is counted in less time than another thread takes to take over.
pub(super) const QUICK_BYTES: usize = 4 << 10;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    of: Vec<(TokenCounter, Counted)>,
    /// As many as there can be at most: what holds where nothing was counted.
    bytes: u64,
}

impl Counts {
    /// Nothing counted: a byte-level encoding never makes more tokens than there are bytes.
    pub(super) fn in_bytes(forms: &Forms) -> Self {
        Self { of: Vec::new(), bytes: forms.asked().body().len() as u64 }
    }

    /// Counts for all deployments of the routes, where they, or a condition, need it.
    pub(super) async fn of(
        live: &Live,
        forms: &Forms,
        resolved: &Resolved,
        routes: &[&Route],
        wanted: bool,
    ) -> Self {
        let mut counts = Self::in_bytes(forms);
        let request = forms.asked();
        let longest = counts.bytes.saturating_add(request.output_cap().unwrap_or(1));
        let all = || routes.iter().flat_map(|route| &route.deployments);
        let too_long_perhaps = all().any(|deployment| deployment.context_window.is_some_and(|w| w < longest));
        if !wanted && !too_long_perhaps {
            return counts;
        }
        let mut counters: Vec<TokenCounter> = Vec::new();
        for deployment in all() {
            let counter = live.counter(deployment, &resolved.upstream_model(deployment));
            if !counters.contains(&counter) {
                counters.push(counter);
            }
        }
        let (endpoint, body) = (request.endpoint, request.body().clone());
        let count =
            move || counters.into_iter().map(|counter| (counter, counter.count(endpoint, &body))).collect();
        counts.of = match request.body().len() <= QUICK_BYTES {
            true => count(),
            // a counter that fails leaves the bytes
            false => tokio::task::spawn_blocking(count).await.unwrap_or_default(),
        };
        counts
    }

    /// The input's tokens on a deployment.
    pub(super) fn input(&self, live: &Live, deployment: &Deployment, upstream_model: &str) -> u64 {
        if self.of.is_empty() {
            return self.bytes;
        }
        let counted = self.counted(live.counter(deployment, upstream_model));
        counted.map_or(self.bytes, |counted| counted.input)
    }

    /// What a counter has counted.
    pub(super) fn counted(&self, counter: TokenCounter) -> Option<Counted> {
        self.of.iter().find(|(known, _)| *known == counter).map(|(_, counted)| *counted)
    }

    /// The input's tokens for a condition: as the route's first deployment counts them.
    pub(super) fn for_conditions(&self) -> u64 {
        self.of.first().map_or(self.bytes, |(_, counted)| counted.input)
    }
}
