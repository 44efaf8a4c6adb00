//! What the answers to one model's requests have been like, on each deployment and on all of them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::learned::{Ended, Expectation, Learned};
use crate::domain::usage::TokenCounts;

/// What to expect of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Output tokens, the mean, thousandths of one; none where no answer was seen.
    pub output_milli: Option<u64>,
    /// The part of the input that comes from the provider's own cache, thousandths; none where no answer was seen.
    pub cached_permille: Option<u16>,
    /// How many answers of this deployment that rests on, the older ones counting less.
    pub samples: u64,
}

/// How long a model's answers are, output tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Lengths {
    /// Half of them are no longer.
    pub p50: u64,
    /// Nine of ten are no longer.
    pub p90: u64,
    /// 99 of 100 are no longer.
    pub p99: u64,
}

/// The answers to one model's requests.
#[derive(Debug, Default)]
pub(super) struct Answers {
    all: Learned,
    of: HashMap<Arc<str>, Learned>,
}

impl Answers {
    /// Takes an answer in.
    pub(super) fn note(&mut self, deployment: &Arc<str>, tokens: &TokenCounts, ended: Ended) {
        self.all.note(tokens, ended);
        match self.of.get_mut(deployment) {
            Some(learned) => learned.note(tokens, ended),
            None => self.of.entry(Arc::clone(deployment)).or_default().note(tokens, ended),
        }
    }

    /// Forgets the deployments that are not to be kept.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.of.retain(|deployment, _| is_kept(deployment));
    }

    pub(super) fn expected(&self, deployment: &str, cap: Option<u64>) -> Expected {
        let none = Learned::default();
        let own = self.of.get(deployment).unwrap_or(&none);
        let expectation = Expectation { route: &self.all, deployment: own };
        Expected {
            output_milli: expectation.mean_output_milli(cap),
            cached_permille: expectation.cached_permille(),
            samples: own.samples(),
        }
    }

    pub(super) fn lengths(&self) -> Option<Lengths> {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| self.all.percentile(percent));
        Some(Lengths { p50: p50?, p90: p90?, p99: p99? })
    }
}
