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
    /// How long our own worker computes for a token of input or output, nanoseconds; none of anybody else's machine.
    pub compute_ns_per_token: Option<u64>,
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

/// While so many answers of others came, what is known of a deployment's own fades to a half: then one that was taken for
/// dear by mischance is asked again.
const HALF_LIFE_ANSWERS: f64 = 20_000.0;

/// The answers to one model's requests.
#[derive(Debug, Default)]
pub(super) struct Answers {
    all: Learned,
    /// How many there were.
    noted: u64,
    of: HashMap<Arc<str>, Own>,
}

/// Those of one deployment.
#[derive(Debug, Default)]
struct Own {
    learned: Learned,
    /// How many there were of all at its last one.
    noted: u64,
}

impl Own {
    /// What of it counts still.
    fn kept(&self, noted: u64) -> f64 {
        (-(noted.saturating_sub(self.noted) as f64) / HALF_LIFE_ANSWERS).exp2()
    }
}

impl Answers {
    /// Takes an answer in.
    pub(super) fn note(&mut self, deployment: &Arc<str>, tokens: &TokenCounts, ended: Ended) {
        self.all.note(tokens, ended);
        self.noted += 1;
        if !self.of.contains_key(deployment) {
            self.of.insert(Arc::clone(deployment), Own::default());
        }
        let Some(own) = self.of.get_mut(deployment) else { return };
        own.learned.fade(own.kept(self.noted));
        own.learned.note(tokens, ended);
        own.noted = self.noted;
    }

    /// Forgets the deployments that are not to be kept.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.of.retain(|deployment, _| is_kept(deployment));
    }

    pub(super) fn expected(&self, deployment: &str, cap: Option<u64>) -> Expected {
        let none = Own::default();
        let own = self.of.get(deployment).unwrap_or(&none);
        let expectation = Expectation { route: &self.all, deployment: &own.learned };
        Expected {
            output_milli: expectation.mean_output_milli(cap),
            cached_permille: expectation.cached_permille(),
            // the route's others compute on other machines: they tell nothing of it
            compute_ns_per_token: own.learned.compute_ns_per_token(),
            samples: (own.learned.samples() as f64 * own.kept(self.noted)).round() as u64,
        }
    }

    pub(super) fn lengths(&self) -> Option<Lengths> {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| self.all.percentile(percent));
        Some(Lengths { p50: p50?, p90: p90?, p99: p99? })
    }
}
