//! The way of a job from its row to its bill, as two tables: what comes next ([`Course::next`]), and what follows from an
//! answer ([`Course::learn`]). Who steps a job writes its row before and behind each call, so that whoever goes on after a
//! crash reads here what may have been done, and looks for it before it is done again.
//!
//! At the provider there is one job, in the ledger one hold and one settlement, wherever a process dies.

mod learn;
mod passed;
#[cfg(test)]
mod tests;
mod used;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bill::{Bill, Quote};
use super::status::JobStatus;
use super::wire::{JobError, ProviderFile, ProviderJob, TrainingEvent};
use crate::domain::ledger::Seq;
use crate::domain::money::Usd;

pub use learn::{Again, Learnt, Note};

/// A job that its provider has not known for so long is given up.
const GONE_MS: i64 = 3_600_000;
/// Events that are taken in at one look. A job whose end comes with so many is looked at again for the rest.
pub const MOST_EVENTS: usize = 500;
/// A job whose end was held back for events that were not told yet is looked at again after so long, ms.
const REST_MS: u64 = 100;
/// How often results are asked for before a job ends without them.
pub const CLOSE_TRIES: u32 = 5;

/// Where a job is on our own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its files are being checked.
    Checking,
    /// What it costs is known, and is being held.
    Holding,
    /// The money is held.
    Reserved,
    /// Its files go to the provider.
    Uploading,
    /// The provider takes them in.
    Importing,
    /// It is being made at the provider.
    Creating,
    /// It is at the provider, and is looked after.
    Following,
    /// It is over; its bill is written and booked.
    Settling,
    /// Its results are fetched, its model registered.
    Closing,
    /// The provider's copies of its files are taken away.
    Cleaning,
    /// Nothing more is to be done.
    Ended,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Checking,
        Self::Holding,
        Self::Reserved,
        Self::Uploading,
        Self::Importing,
        Self::Creating,
        Self::Following,
        Self::Settling,
        Self::Closing,
        Self::Cleaning,
        Self::Ended,
    ];

    /// The name in rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Holding => "holding",
            Self::Reserved => "reserved",
            Self::Uploading => "uploading",
            Self::Importing => "importing",
            Self::Creating => "creating",
            Self::Following => "following",
            Self::Settling => "settling",
            Self::Closing => "closing",
            Self::Cleaning => "cleaning",
            Self::Ended => "ended",
        }
    }
}

/// What somebody wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// That it ends.
    Cancel,
    /// That it stops, and can go on.
    Pause,
    /// That it goes on.
    Resume,
}

impl Wish {
    /// The name in rows and paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// Reads back what [`Wish::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cancel, Self::Pause, Self::Resume].into_iter().find(|wish| wish.name() == name)
    }
}

/// Which of a job's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// What it is trained on.
    Training,
    /// What it is measured on.
    Validation,
}

/// A file of a job, at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The provider's id.
    pub id: Arc<str>,
    /// Whether it can be used.
    pub ready: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// One of the final ones.
    pub status: JobStatus,
    /// What went wrong.
    pub error: Option<JobError>,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Nobody knows what was trained: the provider forgot the job.
    pub unconfirmed: bool,
}

/// What a provider said last of its job: what is shown and what is decided on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The provider's id.
    pub id: Arc<str>,
    /// How it stands.
    pub status: JobStatus,
    /// When it ended, seconds since 1970 UTC.
    pub finished_at: Option<i64>,
    /// When it is thought to end, seconds since 1970 UTC.
    pub estimated_finish: Option<i64>,
    /// The name of what it made.
    pub model: Option<Arc<str>>,
    /// Billed tokens, over all epochs.
    pub trained_tokens: Option<u64>,
    /// How long a worker of ours has computed for it, seconds.
    #[serde(default)]
    pub compute_seconds: Option<u64>,
    /// Epochs, once they are a number.
    pub epochs: Option<u64>,
    /// The seed.
    pub seed: Option<i64>,
    /// `hyperparameters` as told.
    pub hyperparameters: Option<Value>,
    /// `method` as told.
    pub method: Option<Value>,
    /// The provider's ids of result files.
    pub result_files: Vec<Arc<str>>,
    /// What went wrong.
    pub error: Option<JobError>,
}

impl Seen {
    fn of(job: &ProviderJob) -> Self {
        Self {
            id: Arc::clone(&job.id),
            status: job.status,
            finished_at: job.finished_at,
            estimated_finish: job.estimated_finish,
            model: job.model.clone(),
            trained_tokens: job.trained_tokens,
            compute_seconds: job.compute_seconds,
            epochs: job.epochs,
            seed: job.seed,
            hyperparameters: job.hyperparameters.clone(),
            method: job.method.clone(),
            result_files: job.result_files.clone(),
            error: job.error.clone(),
        }
    }
}

/// How far training has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all; 0 where nobody said.
    pub total: u64,
}

/// How long it ran: only where time is billed does it count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Before it was last started, ms.
    pub before_ms: i64,
    /// Since when it runs, ms since 1970 UTC.
    pub since_ms: Option<i64>,
}

/// What a job's files need at its provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// A file must have been taken in before a job may name it (Azure).
    pub waits_for_files: bool,
    /// Its rows are looked at by a moderation model before they leave us.
    pub moderates: bool,
    /// It has a validation file.
    pub validates: bool,
    /// A call that was lost may still be carried out for so long, ms: only then is what is not found taken for never made.
    pub grace_ms: i64,
}

/// A job on its way: all that its next step goes by. It is kept in the job's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Where it is.
    pub stage: Stage,
    /// What it needs on the way.
    pub plan: Plan,
    /// What it is expected to use; none before its files are checked.
    pub quote: Option<Quote>,
    /// The open hold.
    pub hold: Option<Seq>,
    /// How much is held, nano-dollars.
    pub held_nanos: i64,
    /// The rows have been looked at.
    pub moderated: bool,
    /// This stage's call may have been made, and when, ms since 1970 UTC: it is looked for before it is made again.
    pub tried_ms: Option<i64>,
    /// The training file, at the provider.
    pub training: Option<Copied>,
    /// The validation file, at the provider.
    pub validation: Option<Copied>,
    /// What the provider said last.
    pub seen: Option<Seen>,
    /// The last of the provider's events that is known.
    pub last_event: Option<Arc<str>>,
    /// How far training has come.
    pub progress: Progress,
    /// How long it ran.
    pub running: Running,
    /// The provider has not known it since, ms since 1970 UTC.
    pub gone_ms: Option<i64>,
    /// A budget could not pay for what it turned out to be: it is being cancelled for that.
    pub broke: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it has cost.
    pub bill: Option<Bill>,
    /// Calls that failed one after the other.
    pub failures: u32,
    /// Looks at the provider's job that found nothing new, one after the other.
    pub quiet: u32,
    /// When the provider's job last changed, ms since 1970 UTC.
    pub changed_ms: i64,
    /// What the provider said against the last wish.
    pub declined: Option<String>,
    /// The same, before it is seen whether the wish has come true nevertheless: its answer may have been lost.
    pub doubted: Option<String>,
    /// It is asked how the job stands before it is told anything again.
    pub doubt: bool,
}

/// Something to be carried out. It may be carried out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// See how far the check of the files is.
    LookAtFiles,
    /// Find the job's hold, or make it.
    Hold,
    /// Have the rows looked at.
    Moderate,
    /// Look for a copy of a file at the provider.
    FindFile(Side),
    /// Send one.
    Upload(Side),
    /// See how far the provider is with it.
    AskFile(Side),
    /// Look for the job at the provider.
    FindJob,
    /// Make it there.
    Create,
    /// See how it stands.
    Ask,
    /// Do there what is wished.
    Tell(Wish),
    /// Hold so much instead of what is held.
    Rehold(Usd),
    /// Compute what it has cost.
    Bill,
    /// Book that, and end the hold.
    Settle,
    /// Fetch its results and register its model.
    Close,
    /// Take the copies of its files away at the provider.
    Clean,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The job is there: its row is written, and it goes on.
    Write(Box<Course>),
    /// It is carried out.
    Act(Act),
    /// The row is written, and then at once it is carried out: whoever reads the row later does not know whether it was.
    Intend(Box<Course>, Act),
    /// Nothing, until somebody wishes something.
    Rest,
    /// The wish is fulfilled: it is taken away.
    Granted,
    /// The wish can't come true: it is taken away, and the row says why.
    Denied(Box<Course>),
    /// Nothing ever.
    Over,
}

/// What came of an act.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The files are still being checked.
    Checking,
    /// The files are sound, and this is what the job will use.
    Sound(Quote),
    /// A file can't be used, or the job has no price.
    Unsound(JobError),
    /// Money is held; nothing where nothing is to be paid.
    Held(Option<(Seq, Usd)>),
    /// A budget can't pay.
    NoMoney(String),
    /// The rows may be trained on.
    Clear,
    /// A copy of a file.
    File(ProviderFile),
    /// There is no such copy.
    NoFile,
    /// The provider's job, and what has happened to it since.
    Job(Box<ProviderJob>, Vec<TrainingEvent>),
    /// There is no such job.
    NoJob,
    /// What it has cost.
    Billed(Bill),
    /// It is done.
    Done,
    /// The provider says no, and has done nothing.
    Declined(JobError),
    /// No answer.
    Away {
        /// It may have been done nevertheless.
        perhaps: bool,
        /// When to come again, as it was said, ms.
        again_ms: Option<u64>,
        /// What went wrong.
        words: String,
    },
}

impl Course {
    /// A job that begins.
    pub const fn new(plan: Plan, now_ms: i64) -> Self {
        Self {
            stage: Stage::Checking,
            plan,
            quote: None,
            hold: None,
            held_nanos: 0,
            moderated: false,
            tried_ms: None,
            training: None,
            validation: None,
            seen: None,
            last_event: None,
            progress: Progress { step: 0, total: 0 },
            running: Running { before_ms: 0, since_ms: None },
            gone_ms: None,
            broke: None,
            outcome: None,
            bill: None,
            failures: 0,
            quiet: 0,
            changed_ms: now_ms,
            declined: None,
            doubted: None,
            doubt: false,
        }
    }

    /// How much is held.
    pub const fn held(&self) -> Usd {
        Usd::from_nanos(self.held_nanos)
    }

    /// Whether copies of its files may be at its provider: none goes out before its cost is known and its rows have been
    /// looked at.
    pub const fn may_be_out(&self) -> bool {
        self.quote.is_some() && (self.moderated || !self.plan.moderates)
    }

    /// How the job stands, as it is shown. A final word stands only behind the bill and the model's registration: who reads
    /// it may go on with both.
    pub fn status(&self, wish: Option<Wish>) -> JobStatus {
        match self.stage {
            Stage::Cleaning | Stage::Ended => {
                self.outcome.as_ref().map_or(JobStatus::Failed, |outcome| outcome.status)
            }
            Stage::Following | Stage::Settling | Stage::Closing => {
                let seen = self.seen.as_ref().map(|seen| seen.status).filter(|status| !status.is_final());
                seen.unwrap_or(match self.stage {
                    Stage::Following => JobStatus::Queued,
                    _ if self.seen.is_none() => JobStatus::ValidatingFiles,
                    _ => JobStatus::Running,
                })
            }
            Stage::Reserved | Stage::Uploading | Stage::Importing | Stage::Creating
                if wish == Some(Wish::Pause) && self.tried_ms.is_none() =>
            {
                JobStatus::Paused
            }
            _ => JobStatus::ValidatingFiles,
        }
    }

    /// What comes next.
    pub fn next(&self, wish: Option<Wish>, now_ms: i64) -> Next {
        match self.stage {
            Stage::Checking if wish == Some(Wish::Cancel) => self.ends(self.cancelled(now_ms)),
            Stage::Checking => Next::Act(Act::LookAtFiles),
            // a hold may be there that the row does not know
            Stage::Holding if wish == Some(Wish::Cancel) => self.ends(self.cancelled(now_ms)),
            Stage::Holding => Next::Act(Act::Hold),
            Stage::Reserved | Stage::Uploading | Stage::Importing | Stage::Creating => {
                self.before(wish, now_ms)
            }
            Stage::Following => self.follow(wish, now_ms),
            Stage::Settling if self.bill.is_none() => Next::Act(Act::Bill),
            Stage::Settling => Next::Act(Act::Settle),
            Stage::Closing => Next::Act(Act::Close),
            Stage::Cleaning => Next::Act(Act::Clean),
            Stage::Ended => Next::Over,
        }
    }

    /// Before the job is at the provider.
    fn before(&self, wish: Option<Wish>, now_ms: i64) -> Next {
        if self.tried_ms.is_some() {
            return Next::Act(match self.stage {
                Stage::Creating => Act::FindJob,
                _ => Act::FindFile(self.missing().unwrap_or(Side::Training)),
            });
        }
        match wish {
            Some(Wish::Cancel) => return self.ends(self.cancelled(now_ms)),
            Some(Wish::Pause) => return Next::Rest,
            Some(Wish::Resume) => return Next::Granted,
            None => {}
        }
        match self.stage {
            Stage::Reserved if self.plan.moderates && !self.moderated => Next::Act(Act::Moderate),
            Stage::Reserved => self.at(Stage::Uploading),
            Stage::Uploading => match self.missing() {
                Some(side) => self.intend(Act::Upload(side), now_ms),
                None => self.at(Stage::Importing),
            },
            Stage::Importing => match self.unready().filter(|_| self.plan.waits_for_files) {
                Some(side) => Next::Act(Act::AskFile(side)),
                None => self.at(Stage::Creating),
            },
            _ => self.intend(Act::Create, now_ms),
        }
    }

    fn follow(&self, wish: Option<Wish>, now_ms: i64) -> Next {
        let status = self.seen.as_ref().map_or(JobStatus::Queued, |seen| seen.status);
        if self.doubt {
            return Next::Act(Act::Ask);
        }
        if self.broke.is_some() {
            return Next::Act(Act::Tell(Wish::Cancel));
        }
        if let Some(amount) = self.wants_held(now_ms) {
            return Next::Act(Act::Rehold(amount));
        }
        let tell = match (wish, status) {
            (Some(Wish::Cancel), _) => Wish::Cancel,
            (Some(Wish::Pause), JobStatus::Paused | JobStatus::Pausing) => return Next::Granted,
            // before the first step there is nothing that could be stopped
            (Some(Wish::Pause), JobStatus::Running) => Wish::Pause,
            (Some(Wish::Resume), JobStatus::Paused) => Wish::Resume,
            (Some(Wish::Pause), _) | (Some(Wish::Resume), JobStatus::Pausing) | (None, _) => {
                return Next::Act(Act::Ask);
            }
            (Some(Wish::Resume), _) => return Next::Granted,
        };
        match &self.doubted {
            Some(words) => {
                Next::Denied(Box::new(Self { declined: Some(words.clone()), doubted: None, ..self.clone() }))
            }
            None => Next::Act(Act::Tell(tell)),
        }
    }

    /// How much should be held instead of what is: for another number of epochs, or for the time that it goes on.
    fn wants_held(&self, now_ms: i64) -> Option<Usd> {
        let quote = self.quote.as_ref()?;
        if quote.price.is_nothing() {
            return None;
        }
        if quote.price.is_hourly() {
            // an hour ahead is always held
            let ahead = self.running.seconds(now_ms).saturating_add(3_600);
            let runs = self.running.since_ms.is_some() && quote.price.of_seconds(ahead) > self.held();
            return runs.then(|| quote.price.of_seconds(ahead.saturating_add(quote.seconds() / 2)));
        }
        let epochs = self.seen.as_ref()?.epochs.filter(|epochs| *epochs > 0)?;
        let amount = Quote { epochs, ..quote.clone() }.amount();
        (amount != self.held() && epochs != quote.epochs).then_some(amount)
    }

    /// The file that is not at the provider.
    fn missing(&self) -> Option<Side> {
        match (&self.training, &self.validation) {
            (None, _) => Some(Side::Training),
            (_, None) if self.plan.validates => Some(Side::Validation),
            _ => None,
        }
    }

    /// The file that the provider has not taken in.
    fn unready(&self) -> Option<Side> {
        let waits = |copy: &Option<Copied>| copy.as_ref().is_some_and(|copy| !copy.ready);
        match (waits(&self.training), waits(&self.validation)) {
            (true, _) => Some(Side::Training),
            (_, true) => Some(Side::Validation),
            _ => None,
        }
    }

    fn at(&self, stage: Stage) -> Next {
        Next::Write(Box::new(Self { stage, failures: 0, ..self.clone() }))
    }

    fn intend(&self, act: Act, now_ms: i64) -> Next {
        Next::Intend(Box::new(Self { tried_ms: Some(now_ms), ..self.clone() }), act)
    }

    /// It is over: what remains is its bill.
    fn ends(&self, outcome: Outcome) -> Next {
        Next::Write(Box::new(self.over(outcome)))
    }

    fn over(&self, outcome: Outcome) -> Self {
        Self {
            stage: Stage::Settling,
            outcome: Some(outcome),
            tried_ms: None,
            failures: 0,
            declined: None,
            doubted: None,
            ..self.clone()
        }
    }

    fn cancelled(&self, now_ms: i64) -> Outcome {
        let error = self.broke.clone().map(|words| JobError {
            code: Some("insufficient_quota".to_owned()),
            message: Some(words),
            param: None,
        });
        Outcome { status: JobStatus::Cancelled, error, at_ms: now_ms, unconfirmed: false }
    }
}
