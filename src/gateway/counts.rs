//! The tokens of a request's input, counted once for each family of models that its route leads to and the words that
//! they get, and shared by all that need them.

use super::catalog::Live;
use super::forms::Forms;
use crate::domain::catalog::{Deployment, Resolved};
use crate::domain::route::Route;
use crate::domain::tokens::{Counted, QUICK_BYTES, TokenCounter};

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By the words it was counted with.
    of: Vec<(usize, TokenCounter, Counted)>,
    /// As many as there can be at most as the request came: what holds where nothing was counted.
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
        let longest = forms.most_bytes().saturating_add(forms.asked().output_cap().unwrap_or(1));
        let all = || routes.iter().flat_map(|route| &route.deployments);
        let too_long_perhaps = all().any(|deployment| deployment.context_window.is_some_and(|w| w < longest));
        if !wanted && !too_long_perhaps {
            return counts;
        }
        let mut counters: Vec<(usize, TokenCounter)> = Vec::new();
        for deployment in all() {
            let counter = live.counter(deployment, &resolved.upstream_model(deployment));
            let one = (forms.wording_of(deployment), counter);
            if !counters.contains(&one) {
                counters.push(one);
            }
        }
        let endpoint = forms.asked().endpoint;
        let bodies: Vec<_> =
            counters.iter().map(|(wording, _)| forms.worded_as(*wording).body().clone()).collect();
        let count = move || {
            let all = counters.into_iter().zip(bodies);
            all.map(|((wording, counter), body)| (wording, counter, counter.count(endpoint, &body))).collect()
        };
        counts.of = match forms.most_bytes() <= QUICK_BYTES as u64 {
            true => count(),
            // a counter that fails leaves the bytes
            false => tokio::task::spawn_blocking(count).await.unwrap_or_default(),
        };
        counts
    }

    /// The input's tokens on a deployment.
    pub(super) fn input(
        &self,
        live: &Live,
        forms: &Forms,
        deployment: &Deployment,
        upstream_model: &str,
    ) -> u64 {
        let wording = forms.wording_of(deployment);
        let bytes = || forms.bytes_of(wording);
        if self.of.is_empty() {
            return bytes();
        }
        let counted = self.counted(wording, live.counter(deployment, upstream_model));
        counted.map_or_else(bytes, |counted| counted.input)
    }

    /// What a counter has counted with some words.
    pub(super) fn counted(&self, wording: usize, counter: TokenCounter) -> Option<Counted> {
        let mut all = self.of.iter();
        let found = all.find(|(known, by, _)| (*known, *by) == (wording, counter));
        found.map(|(.., counted)| *counted)
    }

    /// The input's tokens for a condition: as the route's first deployment counts them.
    pub(super) fn for_conditions(&self) -> u64 {
        self.of.first().map_or(self.bytes, |(.., counted)| counted.input)
    }
}
