//! Every metric, declared once; docs/METRICS.md lists them for operators. Labels come from closed sets or from the
//! catalog, never from a client's text.

mod buckets;
mod budgets;
mod cache;
mod captures;
mod declare;
mod evaluations;
mod exact;
mod hosting;
mod labels;
mod ledger;
mod models;
mod money;
mod passed;
mod process;
mod prompts;
mod requests;
mod spend;
mod table;
mod tuning;
mod upstreams;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Encoder, Registry, TextEncoder};

pub use self::cache::Cache;
pub use self::captures::Captures;
pub use self::evaluations::Evaluations;
pub use self::hosting::{HostedNow, Hosting};
pub use self::labels::{NONE, OTHER};
pub use self::ledger::{Ledger, LedgerStands};
pub use self::models::Models;
pub use self::money::Money;
pub use self::passed::{Malformed, passed};
pub use self::process::Process;
pub use self::prompts::Prompts;
pub use self::requests::Requests;
pub use self::tuning::{Progress, Tuning};
pub use self::upstreams::{AttemptSeen, Operation, UNANSWERED, Upstreams, operation_name, provider_name};
pub use self::worker::{Occupancy, WorkerDenial, WorkerEnding, WorkerMetrics, WorkerOperation, with_worker};

use self::budgets::Budgets;
use self::labels::Bounded;
use self::spend::Spend;
use self::upstreams::deployments_of;
use crate::domain::budget::watch::Watched;
use crate::domain::catalog::Catalog;
use crate::domain::ledger::Entry;
use crate::domain::outcome::Outcome;
use crate::domain::spend::recent::Spending;

/// Histograms begin at 0 in catalogs of at most so many pairs of a model and a deployment: each has a hundred lines.
const SHORT_CATALOG: usize = 100;
/// Series of money begin at 0 for each team while there are at most so many together.
const MOST_BORN: usize = 5_000;
/// Accounts of the ledger's sums that have series of their own; each has one for each window.
const MOST_SPENT: usize = 2_000;

/// How much is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Teams, budgets, prompts, and labels of prompts, that get a label of their own.
    pub max_label_values: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_label_values: 500 }
    }
}

/// The metrics of this process.
pub struct Metrics {
    registry: Registry,
    /// What the door sees.
    pub requests: Requests,
    /// Deployments, and the attempts at them.
    pub upstreams: Upstreams,
    /// What was spent.
    pub money: Money,
    /// The ledger at work.
    pub ledger: Ledger,
    /// The response cache.
    pub cache: Cache,
    /// Traffic that is kept to train on.
    pub captures: Captures,
    /// Stored prompts.
    pub prompts: Prompts,
    /// Fine-tuning jobs and their files.
    pub tuning: Tuning,
    /// Deployments that are billed by the hour.
    pub hosting: Hosting,
    /// The registry of models.
    pub models: Models,
    /// Evaluations of models.
    pub evaluations: Evaluations,
    /// The process itself.
    pub process: Process,
    budgets: Budgets,
    spend: Spend,
    teams: Bounded,
}

impl Metrics {
    /// All metrics, registered, with the series of closed labels born at 0.
    ///
    /// # Errors
    ///
    /// When one is declared twice, or wrongly.
    pub fn new(config: Config) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let process = Process::new(&registry)?;
        let teams = Bounded::new(config.max_label_values, process.overflows("team"));
        Ok(Self {
            requests: Requests::new(&registry)?,
            upstreams: Upstreams::new(&registry)?,
            money: Money::new(&registry)?,
            spend: Spend::new(&registry)?,
            ledger: Ledger::new(&registry)?,
            cache: Cache::new(&registry)?,
            captures: Captures::new(&registry)?,
            prompts: Prompts::new(&registry, config.max_label_values, |label| process.overflows(label))?,
            tuning: Tuning::new(&registry, |label| process.overflows(label))?,
            hosting: Hosting::new(&registry, config.max_label_values, |label| process.overflows(label))?,
            models: Models::new(&registry)?,
            evaluations: Evaluations::new(&registry)?,
            budgets: Budgets::new(&registry, config.max_label_values, &process.overflows("budget"))?,
            process,
            teams,
            registry,
        })
    }

    /// Lets the series of what the catalog names begin at 0, and of the teams that are known.
    pub fn born<'t>(&self, catalog: &Catalog, teams: impl Iterator<Item = &'t str>) {
        let pairs: usize = catalog.models().map(|model| deployments_of(model).count()).sum();
        self.upstreams.born(catalog, pairs <= SHORT_CATALOG);
        for model in catalog.models() {
            self.requests.born(model);
            self.cache.born(model);
        }
        self.captures.born(catalog);
        self.prompts.born(catalog);
        self.tuning.born(catalog);
        self.hosting.born(catalog);
        let all: Vec<&str> = teams.collect();
        self.teams.seat(all.iter().copied());
        let teams: Vec<&str> = all.into_iter().filter(|team| self.teams.label(team) == *team).collect();
        self.money.born(catalog, &teams, MOST_BORN);
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: &Outcome) {
        self.requests.ended(outcome);
        if let (Some(cached), Some(model)) = (&outcome.cache, &outcome.model) {
            self.cache.answered(model, cached.result);
        }
    }

    /// Counts entries that are durable, written in one go that took so long, if that is known.
    pub fn wrote(&self, entries: &[Arc<Entry>], took: Option<Duration>) {
        self.ledger.wrote(entries, took);
    }

    /// Says how all budgets stand.
    pub fn budgets_stand(&self, all: &[Watched]) {
        self.budgets.stand(all);
    }

    /// Says what the ledger had when it was read, ms since 1970 UTC.
    pub fn spent(&self, all: &[Spending], catalog: &Catalog, read_at_ms: i64) {
        self.spend.is(all, catalog, &self.teams, MOST_SPENT, read_at_ms);
    }

    /// Counts what an entry spends or saves.
    pub fn booked(&self, entry: &Entry) {
        self.money.booked(entry, &self.teams);
        self.prompts.spent(entry);
        self.tuning.spent(entry);
        self.hosting.accrued(entry);
    }

    /// The text that Prometheus reads, version 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        written(&self.registry)
    }
}

/// All that is registered, as text.
fn written(registry: &Registry) -> Vec<u8> {
    let mut out = Vec::new();
    // writing into memory fails only where a metric is malformed, which registering has ruled out
    let _ = TextEncoder::new().encode(&registry.gather(), &mut out);
    out
}
