//! Traffic that is kept to train on: written behind the requests, told what people thought of it, made into training
//! files, and let go when its time is over.

mod export;
mod keep;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub use self::export::{Exported, Order};

use super::lease::Lease;
use super::{Noun, TuningError};
use crate::clock;
use crate::domain::capture::{Feedback, Policy};
use crate::domain::catalog::Catalog;
use crate::domain::prompt::hash::sha256_of;
use crate::domain::request::label;
use crate::domain::tuning::Owner;
use crate::gateway::ServedRequest;
use crate::gateway::capture::Capturer;
use crate::gateway::catalog::LiveCatalog;
use crate::store::captures::{CaptureRows, Count, Erasure, FeedbackRow};
use crate::store::leases::LeaseRows;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// The lease of who says how much is kept.
const LEASE: &str = "captures";
/// Between two looks at how much there is.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Most batches of one sweep: what is beyond waits for the next.
const MOST_BATCHES: u32 = 50;
/// What was said so long before the last sweep is not looked at again, ms.
const DAY_MS: i64 = 86_400_000;
/// How long an erasure waits for what is on its way.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// What kept traffic is built from.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// This process's id.
    pub instance: Arc<str>,
    /// How long the process that says how much is kept may be silent before another one says it.
    pub lease: Duration,
    /// Whose traffic is kept.
    pub catalog: Arc<LiveCatalog>,
    /// What is on its way.
    pub capturer: Capturer,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

/// Kept traffic.
pub struct Captures {
    rows: CaptureRows,
    lease: Lease,
    catalog: Arc<LiveCatalog>,
    capturer: Capturer,
    metrics: Arc<Metrics>,
    /// When this process has begun the last sweep that came to its end, ms since 1970 UTC.
    swept_ms: AtomicI64,
}

/// What an operator wants to be gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forget {
    /// Of this request.
    pub request_id: Option<String>,
    /// Of this user, as the application named them in `safety_identifier`, or else in `user`.
    pub user: Option<String>,
    /// Of this owner.
    pub owner: Option<Owner>,
    /// Of this model.
    pub model: Option<String>,
}

/// What became of a word about an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The request's id.
    pub request_id: String,
    /// Whether it is kept: only beside an exchange that is kept, too.
    pub kept: bool,
}

/// What is said when our database fails; why stands in the log.
fn stored(error: &StoreError) -> TuningError {
    tracing::error!(%error, "the store failed the kept traffic");
    TuningError::Unavailable(
        "the gateway's database can't be used right now: try again in a moment".to_owned(),
    )
}

impl Captures {
    /// The kept traffic of a store.
    pub fn new(parts: Parts) -> Self {
        let Parts { store, instance, lease, catalog, capturer, metrics } = parts;
        Self {
            rows: CaptureRows::new(&store),
            lease: Lease::new(LeaseRows::new(&store), LEASE, instance, lease),
            catalog,
            capturer,
            metrics,
            swept_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Takes what somebody says about an answer of an owner's; the last word counts. `served` tells of the request where
    /// no row does: its row may be on its way, or it was not drawn.
    ///
    /// # Errors
    ///
    /// When the owner has no such request, or the database fails.
    pub async fn hear(
        &self,
        owner: &Owner,
        id: &str,
        said: Feedback,
        served: Option<ServedRequest>,
        now_ms: i64,
    ) -> Result<Heard, TuningError> {
        let known = self.rows.known(&owner.to_string(), id).await.map_err(|error| stored(&error))?;
        let rating = said.rating;
        let (request_id, model, until_ms) = match (known, served) {
            (Some(known), _) => (known.request_id, known.model, Some(known.until_ms)),
            (None, Some(served)) => {
                let policy = self.drawn(&served.model, id).filter(|_| !served.reused);
                let until_ms = policy.map(|policy| now_ms + policy.retention_ms);
                (id.to_owned(), served.model.to_string(), until_ms)
            }
            (None, None) => return Err(TuningError::not_found(Noun::Request, id)),
        };
        if let Some(until_ms) = until_ms {
            let said = self.masked(&model, said);
            let owner = owner.to_string();
            let row = FeedbackRow {
                request_id: request_id.clone(),
                owner,
                model: model.clone(),
                said,
                at_ms: now_ms,
                until_ms,
            };
            self.rows.say(&row).await.map_err(|error| stored(&error))?;
        }
        if self.catalog.load().catalog.models().any(|known| known.name.as_str() == model) {
            self.metrics.captures.told(&model, rating);
        }
        Ok(Heard { request_id, kept: until_ms.is_some() })
    }

    /// What is kept of a model's traffic, where a request of it was drawn.
    fn drawn(&self, model: &str, request_id: &str) -> Option<Arc<Policy>> {
        policy_of(&self.catalog.load().catalog, model).filter(|policy| policy.draws(request_id))
    }

    /// Masked, unless the model's policy says otherwise.
    fn masked(&self, model: &str, said: Feedback) -> Feedback {
        match policy_of(&self.catalog.load().catalog, model) {
            Some(policy) if !policy.mask => said,
            _ => said.masked(),
        }
    }

    /// How much is kept, by model and deployment.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn counts(&self) -> Result<Vec<Count>, TuningError> {
        self.rows.counts().await.map_err(|error| stored(&error))
    }

    /// Deletes what an operator names, what is on its way among it, here and at other gateways. Returns how many exchanges
    /// went.
    ///
    /// # Errors
    ///
    /// When the database fails; some of it may be gone then.
    pub async fn forget(&self, what: &Forget, now_ms: i64) -> Result<u64, TuningError> {
        let which = Erasure {
            request_id: what.request_id.clone(),
            // as it was cut when it was kept
            end_user: what.user.as_deref().map(|user| sha256_of(&label(user).unwrap_or_default())),
            owner: what.owner.as_ref().map(Owner::to_string),
            model: what.model.clone(),
        };
        // what this process has is written first, so that it is counted; what comes behind the note is let go
        if tokio::time::timeout(FLUSH_LIMIT, self.capturer.flushed()).await.is_err() {
            return Err(TuningError::Unavailable(
                "what is on its way to the database is not there yet: try again in a moment".to_owned(),
            ));
        }
        self.rows.note_erasure(&which, now_ms).await.map_err(|error| stored(&error))?;
        self.rows.erase(&which).await.map_err(|error| stored(&error))
    }

    /// Lets go what is over: by its own time, by its model's, and the oldest of too many. Bounded: what is left waits for
    /// the next time. Returns how many rows went.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn sweep(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut gone = self.rows.erase_late(now_ms).await?;
        // the first one looks at all that is old: nobody may have swept for days
        let looked_ms = self.swept_ms.load(Ordering::Relaxed).saturating_sub(DAY_MS);
        for _ in 0..MOST_BATCHES {
            match self.rows.sweep(now_ms, looked_ms).await? {
                0 => {
                    self.swept_ms.store(now_ms, Ordering::Relaxed);
                    break;
                }
                swept => gone += swept,
            }
        }
        let live = self.catalog.load();
        for model in live.catalog.models() {
            let Some(policy) = &model.capture else { continue };
            let most = i64::try_from(policy.max_rows).unwrap_or(i64::MAX);
            for _ in 0..MOST_BATCHES {
                match self.rows.trim(model.name.as_str(), now_ms - policy.retention_ms, most).await? {
                    0 => break,
                    trimmed => gone += trimmed,
                }
            }
        }
        Ok(gone)
    }

    /// Says in the metrics how much is kept, for ever, while this process has the lease: of all that share a database one
    /// says it.
    pub async fn tell(&self) {
        let mut told = None;
        loop {
            self.tell_in_turn(&mut told, clock::monotonic()).await;
            sleep(self.lease.beat_every()).await;
        }
    }

    /// Says it where it is this process's turn, once a minute. A database that fails leaves what it said last.
    async fn tell_in_turn(&self, told: &mut Option<Instant>, now: Instant) {
        match self.lease.keep(now).await {
            Ok(true) => {
                let is_due = |at: Instant| now.saturating_duration_since(at) >= TOLD_EVERY;
                if told.is_some_and(|at| !is_due(at)) {
                    return;
                }
                match self.tell_sizes().await {
                    Ok(()) => *told = Some(now),
                    Err(error) => {
                        tracing::debug!(%error, "the kept traffic could not be counted; it is tried again");
                    }
                }
            }
            // another one says it
            Ok(false) => {
                *told = None;
                self.metrics.captures.stand(&[]);
            }
            Err(error) => {
                tracing::debug!(%error, "the lease of who counts the kept traffic can't be kept right now");
            }
        }
    }

    async fn tell_sizes(&self) -> Result<(), StoreError> {
        let sizes = self.rows.sizes().await?;
        let sizes: Vec<(Arc<str>, i64, i64)> =
            sizes.into_iter().map(|size| (size.model.into(), size.rows, size.bytes)).collect();
        self.metrics.captures.stand(&sizes);
        Ok(())
    }

    /// Lets another process say how much is kept.
    pub async fn stand_down(&self) {
        self.lease.free().await;
    }
}

/// What is kept of a model's traffic, by its name in the catalog.
fn policy_of(catalog: &Catalog, model: &str) -> Option<Arc<Policy>> {
    catalog.models().find(|known| known.name.as_str() == model)?.capture.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::capture::Rating;
    use crate::domain::catalog::Model;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::ids::ModelName;
    use crate::domain::route::Plan;
    use crate::store::captures::CaptureRow;
    use crate::store::testing::TestDatabase;

    const LEASE_LENGTH: Duration = Duration::from_secs(20);

    /// One process on a database, which keeps the traffic of `bot`.
    async fn process(database: &TestDatabase, instance: &str) -> Captures {
        let policy = Policy {
            sample_ppm: Policy::ALL,
            retention_ms: 100 * DAY_MS,
            mask: true,
            max_rows: 9,
            max_row_bytes: 1_000,
            deployments: None,
        };
        let deployment = deployment("d", "m");
        let mut bot =
            Model::plain(ModelName::parse("bot").expect("a name"), Plan::To(Arc::clone(&deployment)));
        bot.capture = Some(Arc::new(policy));
        let deployments = [(Arc::clone(&deployment.name), deployment)].into();
        let catalog = Catalog::new([].into(), deployments, vec![bot]);
        let metrics = Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics");
        metrics.born(&catalog, std::iter::empty());
        let metrics = Arc::new(metrics);
        Captures::new(Parts {
            store: database.open().await,
            instance: instance.into(),
            lease: LEASE_LENGTH,
            catalog: Arc::new(LiveCatalog::new(catalog)),
            capturer: Capturer::new(Arc::clone(&metrics)).0,
            metrics,
        })
    }

    fn said(at_ms: i64) -> FeedbackRow {
        FeedbackRow {
            request_id: format!("req_{at_ms}"),
            owner: "team:a".to_owned(),
            model: "bot".to_owned(),
            said: Feedback { rating: Rating::Up, comment: String::new(), correction: String::new() },
            at_ms,
            until_ms: i64::MAX,
        }
    }

    #[tokio::test]
    async fn what_was_said_of_nothing_outlives_no_pause() {
        let database = TestDatabase::sqlite();
        let captures = process(&database, "gw_a").await;
        let (said_at, now) = (DAY_MS, 5 * DAY_MS);
        captures.rows.say(&said(said_at)).await.expect("written");
        assert_eq!(captures.sweep(now).await.expect("swept"), 1, "nobody has swept for days");
        captures.rows.say(&said(said_at)).await.expect("written");
        assert_eq!(captures.sweep(now).await.expect("swept"), 0, "that was looked at already");
        let pause = now + 3 * DAY_MS;
        captures.rows.say(&said(now)).await.expect("written");
        assert_eq!(captures.sweep(pause).await.expect("swept"), 1, "it has slept itself");
    }

    #[tokio::test]
    async fn one_of_all_that_share_a_database_says_how_much_there_is() {
        let database = TestDatabase::sqlite();
        let (one, other) = (process(&database, "gw_a").await, process(&database, "gw_b").await);
        let row = CaptureRow {
            request_id: "req_1".to_owned(),
            owner: "team:a".to_owned(),
            end_user: String::new(),
            model: "bot".to_owned(),
            deployment: "d".to_owned(),
            upstream: "m".to_owned(),
            answer_id: String::new(),
            prompt_hash: String::new(),
            at_ms: 1,
            until_ms: i64::MAX,
            masked: 0,
            prompt: "{}".to_owned(),
            answer: "{}".to_owned(),
        };
        one.rows.insert(&[row]).await.expect("written");
        let start = clock::monotonic();
        let tells = async |captures: &Captures, told: &mut Option<Instant>, seconds| {
            captures.tell_in_turn(told, start + Duration::from_secs(seconds)).await;
            let text = String::from_utf8(captures.metrics.text()).expect("text");
            let name = "tunegate_captured_rows{model=\"bot\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
        };
        let [mut first, mut second] = [None; 2];
        assert_eq!(tells(&one, &mut first, 0).await.as_deref(), Some("1"));
        assert_eq!(tells(&other, &mut second, 1).await.as_deref(), Some("0"), "the one has said it");
        // the one stands still
        assert_eq!(tells(&other, &mut second, 30).await.as_deref(), Some("1"));
        assert_eq!(tells(&one, &mut first, 31).await.as_deref(), Some("0"));
        other.stand_down().await;
        assert_eq!(tells(&one, &mut first, 32).await.as_deref(), Some("1"), "at once");
    }
}
