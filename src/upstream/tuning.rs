//! A provider's fine-tuning API, called: files, jobs, events, checkpoints, models, moderation. Each call has limits in
//! time and size; what it brings was made into one form by `provider::tuning`.
//!
//! Nothing is tried twice here but for a token that was refused: who asks knows whether trying again is safe.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::body::FileBody;
use super::call::{Answered, Limits, call, call_with_file};
use super::{Upstream, UpstreamError};
use crate::clock;
use crate::domain::catalog::{Provider, ProviderKind};
use crate::domain::tuning::{Checkpoint, JobOrder, ProviderFile, ProviderJob, TrainingEvent};
use crate::provider::tuning::{self as dialect, Page};
use crate::provider::{self, Outgoing};

pub use crate::provider::tuning::Action;

/// A call with a small answer.
const USUAL: Limits =
    Limits { total: Duration::from_secs(60), silence: Duration::from_secs(60), bytes: 16 << 20 };
/// For a download, or an upload beside its size.
const LONG: Duration = Duration::from_secs(300);
/// Without a byte that moves, an upload or a download has broken.
const SILENCE: Duration = Duration::from_secs(120);
/// The slowest upload that is waited for, bytes a second.
const SLOWEST: u64 = 64 << 10;
/// Pages of one list; of jobs that is 20,000.
const MAX_PAGES: usize = 200;
/// Checkpoints that make sense.
const MAX_CHECKPOINTS: usize = 1_000;
/// What Azure says of a path or a version that it does not know: not that there is no such job.
const NO_SUCH_PATH: &str = "Resource not found";

/// Why a call brought nothing. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainerError {
    /// It was not asked: nothing was done.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// No whole answer came: what was asked for may have been done.
    #[error("it gave no answer: {0}")]
    Broken(String),
    /// What came is not what such an answer is: what was asked for may have been done.
    #[error("its answer can't be read: {0}")]
    Unreadable(String),
    /// It says no.
    #[error("it answered {}: {}", .0.status, .0.message)]
    Refused(Box<Refused>),
    /// It knows nothing of that id.
    #[error("it does not know that: {0}")]
    NotFound(String),
    /// A file of ours can't be read: nothing was done.
    #[error("the file can't be read: {0}")]
    File(String),
}

/// What a provider says with its no.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// The status of its answer.
    pub status: u16,
    /// Its code, such as `invalid_training_file`.
    pub code: Option<String>,
    /// Its words, without anything that looks like a key.
    pub message: String,
    /// The parameter that it names.
    pub param: Option<String>,
    /// How long it asks us to wait, ms.
    pub wait_ms: Option<u64>,
}

impl TrainerError {
    /// Whether what was asked for may have been done all the same: it has to be looked for before it is asked again.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Unreadable(_) => true,
            // a front end's word, not the server's that may be at work
            Self::Refused(refused) => matches!(refused.status, 408 | 500..),
            Self::Unreachable(_) | Self::NotFound(_) | Self::File(_) => false,
        }
    }

    /// Whether the same call may go well later.
    pub fn may_go_well_later(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Unreadable(_) => true,
            Self::Refused(refused) => {
                matches!(refused.status, 408 | 409 | 425 | 429 | 500..)
                    && refused.code.as_deref() != Some("insufficient_quota")
            }
            Self::NotFound(_) | Self::File(_) => false,
        }
    }

    /// How long the provider asks us to wait, ms.
    pub fn wait_ms(&self) -> Option<u64> {
        match self {
            Self::Refused(refused) => refused.wait_ms,
            _ => None,
        }
    }
}

/// A provider that trains.
#[derive(Clone)]
pub struct Trainer {
    upstream: Arc<Upstream>,
}

impl Trainer {
    /// The trainer behind a handle.
    pub const fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream }
    }

    /// The provider.
    pub fn provider(&self) -> &Arc<Provider> {
        self.upstream.provider()
    }

    /// Sends a file of so many bytes under a name; it is never in memory as a whole.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`]: what may have been done is found by its name.
    pub async fn upload(
        &self,
        path: &Path,
        bytes: u64,
        filename: &str,
        purpose: &str,
    ) -> Result<ProviderFile, TrainerError> {
        let boundary = format!("tunegate{:032x}", rand::random::<u128>());
        let upload = dialect::upload(self.provider(), filename, purpose, &boundary);
        let opened = FileBody::open(path, bytes, upload.front, upload.back).await;
        let mut body = opened.map_err(|error| TrainerError::File(error.to_string()))?;
        let total = LONG + Duration::from_secs(bytes / SLOWEST);
        let limits = Limits { total, silence: SILENCE, ..USUAL };
        let answered = self.ask(&upload.outgoing, Some(&mut body), limits).await?;
        self.read(&answered, "a file", |body| dialect::file(self.kind(), body))
    }

    /// The training file that has a name; none where there is none.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn find_file(&self, filename: &str) -> Result<Option<ProviderFile>, TrainerError> {
        let kind = self.kind();
        let list = |after: Option<&str>| dialect::list_files(self.provider(), after);
        let read = |body: &[u8]| dialect::files(kind, body);
        self.find(list, "a list of files", read, |file| *file.filename == *filename).await
    }

    /// A file.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn file(&self, id: &str) -> Result<ProviderFile, TrainerError> {
        let outgoing = dialect::get_file(self.provider(), id);
        self.one(&outgoing, "a file", |body| dialect::file(self.kind(), body)).await
    }

    /// Deletes a file.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn delete_file(&self, id: &str) -> Result<(), TrainerError> {
        let outgoing = dialect::delete_file(self.provider(), id);
        self.one(&outgoing, "a deletion", |body| dialect::is_deleted(body).then_some(())).await
    }

    /// A file's content, where it is not larger; a result file as a plain table with OpenAI's names for the columns.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn file_content(&self, id: &str, max_bytes: usize) -> Result<Bytes, TrainerError> {
        let outgoing = dialect::get_content(self.provider(), id);
        let limits = Limits { total: LONG, silence: SILENCE, bytes: max_bytes };
        let answered = found(self.ask(&outgoing, None, limits).await?)?;
        Ok(dialect::result_file(answered.body))
    }

    /// Makes a job.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`]: what may have been done is found by [`Trainer::find_job`].
    pub async fn create(&self, order: &JobOrder) -> Result<ProviderJob, TrainerError> {
        let outgoing = dialect::create(self.provider(), order).map_err(|not_taken| {
            TrainerError::Refused(Box::new(Refused {
                status: 400,
                code: Some("unsupported_parameter".to_owned()),
                message: not_taken.message,
                param: Some(not_taken.param.to_owned()),
                wait_ms: None,
            }))
        })?;
        let answered = self.ask(&outgoing, None, USUAL).await?;
        self.read(&answered, "a job", |body| dialect::job(self.kind(), body))
    }

    /// The job that was made for one of ours: by our id, where the provider keeps it, else by its training file, which
    /// at Azure is used for this job alone. None where there is none.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn find_job(
        &self,
        job_id: &str,
        training_file: &str,
    ) -> Result<Option<ProviderJob>, TrainerError> {
        let by_file = self.kind() == ProviderKind::Azure && !training_file.is_empty();
        let is_it = |job: &ProviderJob| {
            job.ours.as_deref() == Some(job_id)
                || (by_file && job.training_file.as_deref() == Some(training_file))
        };
        let list = |after: Option<&str>| dialect::list_jobs(self.provider(), after);
        self.find(list, "a list of jobs", |body| dialect::jobs(self.kind(), body), is_it).await
    }

    /// A job.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn job(&self, id: &str) -> Result<ProviderJob, TrainerError> {
        self.one(&dialect::get_job(self.provider(), id), "a job", |body| dialect::job(self.kind(), body))
            .await
    }

    /// Does something to a job.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn act(&self, id: &str, action: Action) -> Result<ProviderJob, TrainerError> {
        self.one(&dialect::act(self.provider(), id, action), "a job", |body| dialect::job(self.kind(), body))
            .await
    }

    /// Ends a job.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn cancel(&self, id: &str) -> Result<ProviderJob, TrainerError> {
        self.act(id, Action::Cancel).await
    }

    /// Stops a job until it is resumed.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn pause(&self, id: &str) -> Result<ProviderJob, TrainerError> {
        self.act(id, Action::Pause).await
    }

    /// Lets a job go on.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn resume(&self, id: &str) -> Result<ProviderJob, TrainerError> {
        self.act(id, Action::Resume).await
    }

    /// The events of a job that came behind a known one, the oldest first, at most so many; the others are told next
    /// time.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn events(
        &self,
        id: &str,
        after_known: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TrainingEvent>, TrainerError> {
        let kind = self.kind();
        let is_known = |event: &TrainingEvent| Some(&*event.id) == after_known;
        let mut all: Vec<TrainingEvent> = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let outgoing = dialect::list_events(self.provider(), id, after.as_deref());
            let mut page = self.one(&outgoing, "a list of events", dialect::events).await?;
            let newest_first = dialect::listed_newest_first(kind, &page.items);
            // what lies behind it is older, and known too
            let known = page.items.iter().position(is_known).filter(|_| newest_first);
            page.items.truncate(known.unwrap_or(page.items.len()));
            all.append(&mut page.items);
            match page.next.filter(|next| known.is_none() && Some(next) != after.as_ref()) {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let mut all = dialect::in_order(kind, all);
        if let Some(at) = all.iter().position(is_known) {
            all.drain(..=at);
        }
        all.truncate(limit);
        Ok(all)
    }

    /// The checkpoints of a job, the earliest first.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn checkpoints(&self, id: &str) -> Result<Vec<Checkpoint>, TrainerError> {
        let mut all: Vec<Checkpoint> = Vec::new();
        let mut after: Option<String> = None;
        while all.len() < MAX_CHECKPOINTS {
            let outgoing = dialect::list_checkpoints(self.provider(), id, after.as_deref());
            let mut page = self.one(&outgoing, "a list of checkpoints", dialect::checkpoints).await?;
            let none = page.items.is_empty();
            all.append(&mut page.items);
            match page.next.filter(|next| !none && Some(next) != after.as_ref()) {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        all.sort_by_key(|checkpoint| checkpoint.step);
        Ok(all)
    }

    /// Whether there is a model.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn has_model(&self, name: &str) -> Result<bool, TrainerError> {
        let outgoing = dialect::get_model(self.provider(), name);
        match self.one(&outgoing, "a model", |_| Some(())).await {
            Ok(()) => Ok(true),
            Err(TrainerError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a fine-tuned model.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn delete_model(&self, name: &str) -> Result<(), TrainerError> {
        let outgoing = dialect::delete_model(self.provider(), name);
        self.one(&outgoing, "a deletion", |body| dialect::is_deleted(body).then_some(())).await
    }

    /// Which of the texts are flagged, in their order.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn moderate(&self, texts: &[&str]) -> Result<Vec<bool>, TrainerError> {
        let outgoing = dialect::moderate(self.provider(), texts);
        let answered = self.ask(&outgoing, None, USUAL).await?;
        self.read(&answered, "a moderation", |body| dialect::flagged(body, texts.len()))
    }

    fn kind(&self) -> ProviderKind {
        self.provider().dialect.kind()
    }

    /// The first of a list that is the one looked for.
    async fn find<T>(
        &self,
        list: impl Fn(Option<&str>) -> Outgoing,
        what: &str,
        read: impl Fn(&[u8]) -> Option<Page<T>>,
        is_it: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, TrainerError> {
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let page = self.one(&list(after.as_deref()), what, &read).await?;
            if let Some(found) = page.items.into_iter().find(|item| is_it(item)) {
                return Ok(Some(found));
            }
            match page.next.filter(|next| Some(next) != after.as_ref()) {
                Some(next) => after = Some(next),
                None => return Ok(None),
            }
        }
        // "there is none" would be taken for leave to make another
        Err(TrainerError::Unreadable(format!("{what} has more than {MAX_PAGES} pages")))
    }

    /// Something that there is, or is not.
    async fn one<T>(
        &self,
        outgoing: &Outgoing,
        what: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, TrainerError> {
        let answered = found(self.ask(outgoing, None, USUAL).await?)?;
        self.read(&answered, what, read)
    }

    fn read<T>(
        &self,
        answered: &Answered,
        what: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, TrainerError> {
        if !answered.is_good() {
            return Err(refused(answered));
        }
        read(&answered.body).ok_or_else(|| TrainerError::Unreadable(format!("it is not {what}")))
    }

    /// Asks; once more with another token where ours was refused.
    async fn ask(
        &self,
        outgoing: &Outgoing,
        mut body: Option<&mut FileBody>,
        limits: Limits,
    ) -> Result<Answered, TrainerError> {
        let link = &self.upstream.link;
        for last in [false, true] {
            let authorization = self.upstream.authorization(clock::monotonic()).await.map_err(of_upstream)?;
            let headers = Vec::from_iter(provider::authorize(self.provider(), &authorization));
            let answered = match body.as_deref_mut() {
                Some(body) => call_with_file(link, body, outgoing, &headers, limits).await,
                None => call(link, outgoing, &headers, limits).await,
            };
            let answered = answered.map_err(of_upstream)?;
            let again =
                !last && answered.status == 401 && self.upstream.refused(&authorization, clock::monotonic());
            if !again {
                return Ok(answered);
            }
        }
        // the second round never asks for a third
        Err(TrainerError::Unreachable("two tokens in a row were refused".to_owned()))
    }
}

/// An answer, unless it says that there is no such thing.
fn found(answered: Answered) -> Result<Answered, TrainerError> {
    match answered.status {
        404 | 410 => {
            let said = provider::said(answered.status, &answered.body);
            match said.message == NO_SUCH_PATH {
                true => Err(refused(&answered)),
                false => Err(TrainerError::NotFound(said.message)),
            }
        }
        200..=299 => Ok(answered),
        _ => Err(refused(&answered)),
    }
}

/// What the provider says with its no.
pub(super) fn refused(answered: &Answered) -> TrainerError {
    let provider::Said { code, message, param } = provider::said(answered.status, &answered.body);
    let (status, wait_ms) = (answered.status, answered.wait_ms());
    TrainerError::Refused(Box::new(Refused { status, code, message, param, wait_ms }))
}

pub(super) fn of_upstream(error: UpstreamError) -> TrainerError {
    match error {
        error if error.nothing_was_sent() => TrainerError::Unreachable(error.to_string()),
        UpstreamError::TooLarge(_) => TrainerError::Unreadable(error.to_string()),
        other => TrainerError::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
