//! The board: how each deployment stands just now, and what its answers have been like.
//!
//! Requests look at it before they choose, enter before they send, and say afterwards what they met. It outlives
//! reloads, and holds no more than the catalog does.

mod answers;
mod entry;
mod places;
mod stay;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::answers::Answers;
pub use self::answers::{Expected, Lengths};
use self::entry::Entry;
pub use self::places::Full;
pub use self::stay::Stay;
use crate::domain::breaker::State;
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::learned::Ended;
use crate::domain::speed::Speed;
use crate::domain::usage::TokenCounts;
use crate::telemetry::metrics::Metrics;

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Whether it is worth asking.
    pub breaker: State,
    /// Until it may be asked again, ms; 0 where it may, or where only the end of a probe is waited for.
    pub wait_ms: u64,
    /// What went wrong there last, of a closed set; empty where nothing has.
    pub cause: &'static str,
    /// How fast it is, where that was measured.
    pub speed: Option<Speed>,
    /// What is left of its quota at the provider, thousandths; none where no quota is known.
    pub quota_left_permille: Option<u16>,
    /// Until the request fits into that quota, ms.
    pub quota_wait_ms: u64,
    /// That quota, where it is known.
    pub tokens_per_minute: Option<u64>,
    /// Requests being served.
    pub in_flight: u32,
    /// Most of them at once.
    pub at_once: Option<u32>,
    /// Requests in the queue.
    pub waiting: u32,
    /// Most of them.
    pub queue: u32,
}

impl Standing {
    /// Whether a request would find a place at once.
    pub fn has_place(&self) -> bool {
        self.waiting == 0 && self.at_once.is_none_or(|at_once| self.in_flight < at_once)
    }

    /// Whether a request would find neither a place nor room in the queue.
    pub fn is_full(&self) -> bool {
        !self.has_place() && self.waiting >= self.queue
    }
}

/// Why a deployment can't be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// Its breaker is open, or it cools down.
    Shut {
        /// Which.
        state: State,
        /// Until it may be asked, ms; 0 where only the end of a probe is waited for.
        wait_ms: u64,
        /// What went wrong there last: a closed set.
        cause: &'static str,
    },
    /// Its quota at the provider does not last for this request.
    Quota {
        /// Until it does, ms.
        wait_ms: u64,
    },
    /// Nobody else fits in.
    Full(Full),
}

impl Unready {
    /// When to come again, ms.
    pub const fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Shut { wait_ms, .. } | Self::Quota { wait_ms } => *wait_ms,
            Self::Full(full) => full.retry_after_ms,
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The provider is there and answers.
    Well,
    /// It is not, or it is in trouble.
    Ill,
}

/// What the catalog has.
#[derive(Default)]
struct Known {
    deployments: HashMap<Arc<str>, Arc<Entry>>,
    /// By the name of the catalog's entry, so of a pattern, not of all that it matches.
    models: HashMap<Arc<str>, Arc<Mutex<Answers>>>,
}

/// How all deployments stand.
pub struct Board {
    metrics: Arc<Metrics>,
    /// Times are counted from here.
    started: Instant,
    known: ArcSwap<Known>,
}

impl Board {
    /// A board for a catalog, of which nothing is known yet.
    pub fn new(catalog: &Catalog, metrics: Arc<Metrics>, now: Instant) -> Self {
        let board = Self { metrics, started: now, known: ArcSwap::default() };
        board.replace(catalog, now);
        board
    }

    /// Takes another catalog over. What is known of a deployment stays, unless it is another model now, or another
    /// provider's.
    pub fn replace(&self, catalog: &Catalog, now: Instant) {
        let before = self.known.load();
        let mut known = Known::default();
        for (name, deployment) in &catalog.deployments {
            let entry = match before.deployments.get(name) {
                Some(same) if same.is_of(deployment) => {
                    same.set(deployment, now);
                    Arc::clone(same)
                }
                _ => Arc::new(self.unknown(deployment)),
            };
            known.deployments.insert(Arc::clone(name), entry);
        }
        let is_same = |name: &str| {
            let entry = |all: &Known| all.deployments.get(name).map(Arc::as_ptr);
            entry(&before).is_some() && entry(&before) == entry(&known)
        };
        let mut models = HashMap::new();
        for model in catalog.models() {
            let answers = before.models.get(model.name.as_str()).cloned().unwrap_or_default();
            answers.lock().keep(is_same);
            models.insert(model.name.as_str().into(), answers);
        }
        known.models = models;
        self.known.store(Arc::new(known));
    }

    /// How a deployment stands, for a request of so many tokens. Looking takes nothing.
    pub fn standing(&self, deployment: &Deployment, tokens: u64, now: Instant) -> Standing {
        let known = self.known.load();
        match known.deployments.get(&deployment.name) {
            Some(entry) => entry.standing(tokens, now),
            None => self.unknown(deployment).standing(tokens, now),
        }
    }

    /// Goes in where there is a place at once.
    ///
    /// # Errors
    ///
    /// With what stands against it.
    pub fn try_enter(&self, deployment: &Deployment, tokens: u64, now: Instant) -> Result<Stay, Unready> {
        self.entry(deployment).try_enter(tokens, now)
    }

    /// Goes in, or waits in the queue, as long as the deployment's queue and the caller allow. A caller that drops the
    /// future has left the queue.
    ///
    /// # Errors
    ///
    /// With what stands against it.
    pub async fn enter(
        &self,
        deployment: &Deployment,
        tokens: u64,
        longest: Duration,
        now: Instant,
    ) -> Result<Stay, Unready> {
        let entry = self.entry(deployment);
        entry.enter(tokens, longest, now).await
    }

    /// What to expect of a deployment's answer to a model's request; with the request's cap on its output.
    pub fn expected(&self, model: &str, deployment: &str, cap: Option<u64>) -> Expected {
        let known = self.known.load();
        known.models.get(model).map(|answers| answers.lock().expected(deployment, cap)).unwrap_or_default()
    }

    /// How long a model's answers have been, on all its deployments; none where none was seen.
    pub fn lengths(&self, model: &str) -> Option<Lengths> {
        self.known.load().models.get(model)?.lock().lengths()
    }

    /// Learns from an answer whose provider has said what it used.
    pub fn note_usage(&self, model: &str, deployment: &Arc<str>, tokens: &TokenCounts, ended: Ended) {
        let known = self.known.load();
        if !known.deployments.contains_key(deployment) {
            return;
        }
        if let Some(answers) = known.models.get(model) {
            answers.lock().note(deployment, tokens, ended);
        }
    }

    /// A check beside the requests has found a deployment's provider well, or not.
    pub fn checked(&self, deployment: &Deployment, health: Health, now: Instant) {
        let entry = self.entry(deployment);
        let cause = matches!(health, Health::Ill).then_some("health_check");
        entry.shut(now, cause, |breaker, policy, now_ms| match health {
            Health::Well => breaker.found_well(now_ms),
            Health::Ill => breaker.found_ill(policy, now_ms),
        });
    }

    /// Where it counts.
    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes into the metrics how all stand now.
    pub fn publish(&self, now: Instant) {
        self.metrics.upstreams.nobody_stands();
        for entry in self.known.load().deployments.values() {
            let standing = entry.standing(0, now);
            let state = match standing.breaker {
                State::Closed => 0,
                State::HalfOpen { .. } => 1,
                State::Open { .. } => 2,
                State::CoolingDown { .. } => 3,
            };
            self.metrics.upstreams.stands(&entry.name, state, standing.in_flight, standing.waiting);
        }
    }

    /// The entry of a deployment. One that has just left the catalog gets one that nobody shares.
    fn entry(&self, deployment: &Deployment) -> Arc<Entry> {
        let known = self.known.load();
        match known.deployments.get(&deployment.name) {
            Some(entry) => Arc::clone(entry),
            None => Arc::new(self.unknown(deployment)),
        }
    }

    fn unknown(&self, deployment: &Deployment) -> Entry {
        Entry::new(deployment, self.started, self.metrics.upstreams.sheds(&deployment.name))
    }
}

#[cfg(test)]
mod tests;
