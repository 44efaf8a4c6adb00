//! Fine-tuning jobs: asked for in OpenAI's form, paid for before they begin, stepped by one process, and settled once.
//!
//! Whoever is asked writes rows; whatever steps them in the process that has the lease does everything else. What a job
//! does next, and what follows from an answer, is decided in `domain::tuning::lifecycle`; here it is carried out.

mod act;
mod checkpoints;
mod create;
mod measure;
mod money;
mod poll;
mod results;
mod rows;
mod step;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::files::{Files, must_may};
use super::lease::Lease;
use super::registry::Registry;
use super::{Noun, TuningError};
use crate::clock;
use crate::control::prices::Prices;
use crate::domain::key::Tuning;
use crate::domain::tuning::lifecycle::{Stage, Wish};
use crate::domain::tuning::{Caller, JobStatus};
use crate::gateway::catalog::LiveCatalog;
use crate::gateway::ledger::Ledger;
use crate::store::jobs::{EventRow, JobRow, JobRows};
use crate::store::leases::LeaseRows;
use crate::store::ledger::LedgerPages;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::upstream::tuning::Trainer;

pub use view::{checkpoint_json, event_json, job_json};

/// The lease of who steps jobs.
const LEASE: &str = "tuning";
/// How long somebody who wishes something waits for it to come true before they are told how it stands.
const WISH_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it did.
const WISH_LOOK: Duration = Duration::from_millis(50);
/// The most that one list of jobs or events has (OpenAI's is 100 in practice).
const MOST_LISTED: i64 = 100;
/// Jobs that are looked through for their metadata, at most.
const MOST_LOOKED_THROUGH: usize = 10_000;

/// How jobs are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Between two looks at a job.
    pub poll: Duration,
    /// The same, where nothing happens for a long time.
    pub poll_max: Duration,
    /// Whether the rows of a training file are moderated before they leave us.
    pub moderate: bool,
    /// How long the process that steps jobs may be silent before another one does it.
    pub lease: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(15),
            poll_max: Duration::from_secs(120),
            moderate: false,
            lease: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// A call whose answer was lost may still be carried out for so long, ms.
    fn grace_ms(&self) -> i64 {
        let four = self.poll.saturating_mul(4).clamp(Duration::from_secs(1), Duration::from_secs(20));
        i64::try_from(four.as_millis()).unwrap_or(20_000)
    }
}

/// The jobs.
pub struct Jobs {
    config: Config,
    rows: JobRows,
    lease: Lease,
    files: Arc<Files>,
    catalog: Arc<LiveCatalog>,
    prices: Arc<Prices>,
    ledger: Arc<Ledger>,
    entries: LedgerPages,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    /// Told when a job waits to be stepped.
    wake: Notify,
    /// Held while a bill is drawn and written: a day's free tokens are given away once.
    billing: tokio::sync::Mutex<()>,
    /// Jobs whose row this process has compared with the ledger since it has the lease.
    compared: Mutex<BTreeSet<String>>,
    /// When whoever asks for checkpoints of a running job makes us ask for them.
    looks: checkpoints::Looks,
    /// Jobs that have ended and whose curves are told until then.
    told: Mutex<BTreeMap<String, Instant>>,
}

/// What the jobs are built from.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// This process's id.
    pub instance: Arc<str>,
    /// The files.
    pub files: Arc<Files>,
    /// What may be asked, and the handles to ask it.
    pub catalog: Arc<LiveCatalog>,
    /// All prices.
    pub prices: Arc<Prices>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Who takes the models.
    pub registry: Arc<Registry>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Which jobs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The id of the job before them.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<i64>,
    /// Only those whose metadata has these.
    pub metadata: BTreeMap<String, String>,
    /// Only those without any.
    pub without_metadata: bool,
}

/// Some of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// They.
    pub items: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What is said when our database fails; why stands in the log.
fn stored(error: &StoreError) -> TuningError {
    tracing::error!(%error, "the store failed the fine-tuning jobs");
    TuningError::Unavailable(
        "the gateway's database can't be used right now: try again in a moment".to_owned(),
    )
}

fn conflict(message: impl Display) -> TuningError {
    TuningError::Conflict { message: message.to_string(), param: None }
}

impl Jobs {
    /// The jobs of a store. [`Jobs::run`] steps them; whoever runs it owns it.
    pub fn new(config: Config, parts: Parts) -> Self {
        let Parts { store, instance, files, catalog, prices, ledger, registry, metrics } = parts;
        Self {
            lease: Lease::new(LeaseRows::new(&store), LEASE, instance, config.lease),
            rows: JobRows::new(&store),
            entries: LedgerPages::new(&store),
            config,
            files,
            catalog,
            prices,
            ledger,
            registry,
            metrics,
            wake: Notify::new(),
            billing: tokio::sync::Mutex::default(),
            compared: Mutex::default(),
            looks: checkpoints::Looks::default(),
            told: Mutex::default(),
        }
    }

    /// Finds a job of the caller's.
    ///
    /// # Errors
    ///
    /// When the caller may not, or has none of that id.
    pub async fn find(&self, caller: &Caller, id: &str) -> Result<JobRow, TuningError> {
        must_may(caller, Tuning::Read)?;
        self.find_own(caller, id).await
    }

    async fn find_own(&self, caller: &Caller, id: &str) -> Result<JobRow, TuningError> {
        let found = self.rows.get(id).await.map_err(|error| stored(&error))?;
        found.filter(|job| caller.finds(&job.owner)).ok_or_else(|| TuningError::not_found(Noun::Job, id))
    }

    /// Lists jobs of the caller's, the latest first.
    ///
    /// # Errors
    ///
    /// When the caller may not, or `after` is no job of theirs.
    pub async fn list(&self, caller: &Caller, asked: &Listing) -> Result<Page<JobRow>, TuningError> {
        must_may(caller, Tuning::Read)?;
        let limit = usize::try_from(page_size(asked.limit, 20)?).unwrap_or(20);
        let owner = caller.scope();
        let mut after = match &asked.after {
            None => None,
            Some(id) => {
                let before = self.find_own(caller, id).await.map_err(|_| unknown_after())?;
                Some((before.created_at_ms, before.id))
            }
        };
        let (mut items, mut looked) = (Vec::new(), 0);
        // metadata is no column: jobs are looked through page by page
        while items.len() <= limit && looked < MOST_LOOKED_THROUGH {
            let position = after.as_ref().map(|(at_ms, id)| (*at_ms, id.as_str()));
            let page = self.rows.page(owner.as_ref(), position, MOST_LISTED + 1).await;
            let page = page.map_err(|error| stored(&error))?;
            let Some(last) = page.last() else { break };
            after = Some((last.created_at_ms, last.id.clone()));
            looked += page.len();
            items.extend(page.into_iter().filter(|job| asked.lets_through(job)));
        }
        let has_more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { items, has_more })
    }

    /// Lists what happened to a job, the latest first.
    ///
    /// # Errors
    ///
    /// As [`Jobs::find`], or when `after` is no event of the job.
    pub async fn events(
        &self,
        caller: &Caller,
        id: &str,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Page<EventRow>, TuningError> {
        let job = self.find(caller, id).await?;
        let limit = page_size(limit, 20)?;
        let events = self.rows.events(&job.id, after, limit + 1).await.map_err(|error| stored(&error))?;
        Ok(cut(events.ok_or_else(unknown_after)?, limit))
    }

    /// Notes what the caller wants of a job, and waits a while for it to come true.
    ///
    /// # Errors
    ///
    /// When the caller may not, has no such job, the job is over, or its provider says no.
    pub async fn wish(&self, caller: &Caller, id: &str, wish: Wish) -> Result<JobRow, TuningError> {
        must_may(caller, Tuning::Write)?;
        let job = self.find_own(caller, id).await?;
        let noted = self.rows.wish(&job.id, wish).await.map_err(|error| stored(&error))?;
        self.wake.notify_one();
        let ended = job.course.outcome.as_ref().map(|outcome| outcome.status);
        match (noted, wish, ended) {
            // who wants it cancelled and finds it so has what they want
            (true, ..) | (false, Wish::Cancel, None | Some(JobStatus::Cancelled)) => {}
            (false, _, None) => return Err(conflict(format!("the job {id} is being cancelled"))),
            (false, _, Some(status)) => {
                let how = match status {
                    JobStatus::Succeeded => "succeeded",
                    JobStatus::Failed => "failed",
                    _ => "been cancelled",
                };
                return Err(conflict(format!(
                    "the job {id} has already {how}: nothing can be changed about it"
                )));
            }
        }
        let job = self.see_wish(caller, id, wish).await?;
        match &job.course.declined {
            Some(words) if job.wish != Some(wish) => Err(conflict(words)),
            _ => Ok(job),
        }
    }

    /// Waits until a wish has come true, or can't; not for long.
    async fn see_wish(&self, caller: &Caller, id: &str, wish: Wish) -> Result<JobRow, TuningError> {
        let until = clock::monotonic() + WISH_LIMIT;
        loop {
            let job = self.find_own(caller, id).await?;
            let status = job.course.status(job.wish);
            let is_so = match wish {
                Wish::Cancel => status.is_final(),
                Wish::Pause => matches!(status, JobStatus::Pausing | JobStatus::Paused),
                Wish::Resume => job.wish != Some(Wish::Resume),
            };
            let given_up = job.course.declined.is_some() && job.wish != Some(wish);
            if is_so || given_up || clock::monotonic() >= until {
                return Ok(job);
            }
            tokio::time::sleep(WISH_LOOK).await;
        }
    }

    /// What calls a provider that trains; none where the configuration has it no more.
    fn trainer(&self, provider: &str) -> Option<Trainer> {
        let live = self.catalog.load();
        let found = live.upstreams().find(|upstream| *upstream.provider().name == *provider);
        found.map(|upstream| Trainer::new(Arc::clone(upstream)))
    }
}

impl Listing {
    fn lets_through(&self, job: &JobRow) -> bool {
        if self.metadata.is_empty() && !self.without_metadata {
            return true;
        }
        let request: Value = serde_json::from_str(&job.request).unwrap_or_default();
        let metadata = request.get("metadata").and_then(Value::as_object).filter(|pairs| !pairs.is_empty());
        match metadata {
            None => self.without_metadata,
            Some(pairs) => {
                !self.without_metadata
                    && self
                        .metadata
                        .iter()
                        .all(|(key, value)| pairs.get(key).and_then(Value::as_str) == Some(value))
            }
        }
    }
}

impl JobRow {
    /// Whether it is at its provider.
    fn is_there(&self) -> bool {
        self.course.stage >= Stage::Following && self.course.seen.is_some()
    }
}

fn unknown_after() -> TuningError {
    TuningError::invalid("after", "nothing of yours has the id in `after`: begin without it")
}

/// How many are listed.
fn page_size(asked: Option<i64>, usual: i64) -> Result<i64, TuningError> {
    match asked {
        None => Ok(usual),
        Some(limit @ 1..=MOST_LISTED) => Ok(limit),
        Some(_) => {
            Err(TuningError::invalid("limit", format!("`limit` is a whole number of 1 to {MOST_LISTED}")))
        }
    }
}

/// One more than asked was read, to know whether there are more.
fn cut<T>(mut items: Vec<T>, limit: i64) -> Page<T> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let has_more = items.len() > limit;
    items.truncate(limit);
    Page { items, has_more }
}
