//! Evaluations: held-out rows asked of several models through the gateway's own way, metered and paid like any request, and
//! what was found. One process asks, whoever has the lease; what was answered is kept row by row, so that whoever goes on
//! after a crash asks only what is missing.

mod ask;
mod create;
mod judging;
mod plan;
mod rows;
mod run;
mod trouble;
mod view;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, watch};

use super::TuningError;
use super::files::Files;
use super::lease::Lease;
use crate::clock;
use crate::control::audit::{self, Actor};
use crate::control::form::Problem;
use crate::control::random::NoRandom;
use crate::control::teams::{Teams, TeamsError};
use crate::domain::evaluation::Report;
use crate::gateway::admit::Admitted;
use crate::gateway::{Gateway, StatusOf};
use crate::store::evaluations::{AnswerFilter, AnswerRow, EvaluationRow, EvaluationRows};
use crate::store::leases::LeaseRows;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

use self::plan::{Payer, Plan};
pub use self::view::{answer_json, evaluation_json};

/// The lease of who asks.
const LEASE: &str = "evaluations";
/// The most that one list has.
pub const MOST_LISTED: i64 = 100;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent; nothing is evaluated", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// There is none of that id.
    #[error("there is no evaluation {0}: `tunegate evaluations list` has them all")]
    Unknown(String),
    /// It is over.
    #[error("the evaluation {0} has ended already")]
    Ended(String),
    /// It has no report.
    #[error("the evaluation {id} has no report: it {stands}")]
    NoReport {
        /// Which.
        id: String,
        /// How it stands.
        stands: String,
    },
    /// Of its file.
    #[error(transparent)]
    File(#[from] TuningError),
    /// Of the team that is to pay.
    #[error(transparent)]
    Team(#[from] TeamsError),
    /// The machine has no random bits for the audit log.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What evaluations are built from.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// This process's id.
    pub instance: Arc<str>,
    /// How long the process that asks may be silent before another one does it.
    pub lease: Duration,
    /// How many are asked at once.
    pub at_once: usize,
    /// The held-out files.
    pub files: Arc<Files>,
    /// The way of all requests.
    pub gateway: Arc<Gateway>,
    /// The teams that may pay.
    pub teams: Arc<Teams>,
    /// The status of a refusal.
    pub status_of: StatusOf,
}

/// The evaluations.
pub struct Evaluations {
    rows: EvaluationRows,
    lease: Lease,
    files: Arc<Files>,
    gateway: Arc<Gateway>,
    teams: Arc<Teams>,
    metrics: Arc<Metrics>,
    status_of: StatusOf,
    at_once: usize,
    /// Told when one waits.
    wake: Notify,
    /// Told when one is to end: all that are asked look whether it is theirs.
    cancels: watch::Sender<()>,
}

impl Evaluations {
    /// The evaluations of a store. [`Evaluations::run`] asks; whoever runs it owns it.
    pub fn new(parts: Parts) -> Self {
        let Parts { store, instance, lease, at_once, files, gateway, teams, status_of } = parts;
        Self {
            rows: EvaluationRows::new(&store),
            lease: Lease::new(LeaseRows::new(&store), LEASE, instance, lease),
            files,
            metrics: Arc::clone(gateway.book.metrics()),
            gateway,
            teams,
            status_of,
            at_once,
            wake: Notify::new(),
            cancels: watch::Sender::new(()),
        }
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// When there is none of that id.
    pub async fn get(&self, id: &str) -> Result<EvaluationRow, EvaluationError> {
        self.rows.get(id).await?.ok_or_else(|| EvaluationError::Unknown(id.chars().take(128).collect()))
    }

    /// At most so many, the latest first, behind one of them.
    ///
    /// # Errors
    ///
    /// When there is none of the id in `after`.
    pub async fn list(&self, after: Option<&str>, limit: i64) -> Result<Vec<EvaluationRow>, EvaluationError> {
        let last = match after {
            Some(id) => Some(self.get(id).await?),
            None => None,
        };
        let position = last.as_ref().map(|row| (row.created_at_ms, row.id.as_str()));
        Ok(self.rows.page(position, limit.clamp(1, MOST_LISTED)).await?)
    }

    /// What was found.
    ///
    /// # Errors
    ///
    /// When there is none of that id, or nothing was found yet.
    pub async fn report(&self, id: &str) -> Result<Report, EvaluationError> {
        let row = self.get(id).await?;
        row.report.ok_or_else(|| EvaluationError::NoReport {
            id: row.id,
            stands: match row.why.is_empty() {
                true => format!("is {}", row.status.name()),
                false => format!("is {}: {}", row.status.name(), row.why),
            },
        })
    }

    /// Answers that are kept, with their words where those are.
    ///
    /// # Errors
    ///
    /// When there is none of that id.
    pub async fn answers(&self, id: &str, which: &AnswerFilter) -> Result<Vec<AnswerRow>, EvaluationError> {
        let row = self.get(id).await?;
        Ok(self.rows.answers_page(&row.id, which).await?)
    }

    /// Ends one that has not ended: what is being asked is still answered, and nothing more is asked.
    ///
    /// # Errors
    ///
    /// When there is none of that id, or it has ended.
    pub async fn cancel(&self, id: &str) -> Result<EvaluationRow, EvaluationError> {
        let row = self.get(id).await?;
        if row.status.is_final() {
            return Err(EvaluationError::Ended(row.id));
        }
        let told = audit::row(Actor::Admin, "evaluation.cancel", &row.id, &json!({}), clock::unix_ms())?;
        self.rows.cancel(&row.id, &told).await?;
        self.cancels.send_replace(());
        self.get(id).await
    }

    /// Who asks and pays, as they are now.
    async fn admitted(&self, payer: &Payer) -> Result<Admitted, EvaluationError> {
        Ok(match payer {
            Payer::Operator => Admitted::operator(None),
            Payer::Team(team) => Admitted::operator(Some(self.teams.get(team).await?.team)),
            Payer::Key(key) => {
                let found = self.gateway.keys.on_behalf_of(key, clock::unix_ms());
                found.ok_or_else(|| {
                    let message = format!("no live key has the id or alias {key}");
                    EvaluationError::Invalid(vec![Problem { path: "key".to_owned(), message }])
                })?
            }
        })
    }
}

/// The plan of a row.
fn plan_of(row: &EvaluationRow) -> Result<Plan, StoreError> {
    serde_json::from_str(&row.plan).map_err(|_| StoreError::Damaged(row.id.clone()))
}
