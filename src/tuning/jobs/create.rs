//! A job is asked for: its files are found, its price is looked up, its row written, and what it may cost held. Whoever
//! asks is told at once when that can't be.

use std::sync::Arc;
use std::time::Duration;

use super::{Jobs, WISH_LOOK, conflict, stored};
use crate::clock;
use crate::domain::catalog::ProviderKind;
use crate::domain::key::Tuning;
use crate::domain::ledger::{Attribution, Purpose};
use crate::domain::tuning::lifecycle::{Act, Course, Note, Plan, Stage, Told};
use crate::domain::tuning::request::{JobRequest, JobRequestError};
use crate::domain::tuning::target::{Target, Targets};
use crate::domain::tuning::{Caller, FileStatus, Id, Purpose as FilePurpose, TrainingFile};
use crate::gateway::ledger::HoldError;
use crate::store::StoreError;
use crate::store::jobs::{Beside, EventRow, JobRow};
use crate::tuning::files::must_may;
use crate::tuning::priced::{Untrainable, training_price};
use crate::tuning::{Noun, TuningError};

/// Files up to so many bytes are measured while the client waits; longer ones, while the job waits.
const MEASURED_AT_ONCE: u64 = 16 << 20;
/// Who asks for a job that is just being made for somebody else with the same key waits so long for it.
const MADE_WITHIN: Duration = Duration::from_secs(5);
/// Longest key that a client may make its request unrepeatable by.
const LONGEST_KEY: usize = 255;
/// Azure's names of models hold so much of a suffix (its guides; the schema of 2026 says 64).
const AZURE_SUFFIX: usize = 40;

impl From<JobRequestError> for TuningError {
    fn from(error: JobRequestError) -> Self {
        Self::Invalid { message: error.message, param: error.param, code: error.code }
    }
}

impl From<Untrainable> for TuningError {
    fn from(error: Untrainable) -> Self {
        match error {
            Untrainable::Unpriced(words) => Self::Unpriced(words),
            Untrainable::Retired(words) => Self::invalid("model", words),
        }
    }
}

impl Jobs {
    /// Makes a job of a body. `repeat_key` is the client's `Idempotency-Key`: asked for once more by the same key, the job
    /// that is there is told.
    ///
    /// # Errors
    ///
    /// When the caller may not, the body is wrong, a file is not the caller's or can't be trained on, nobody trains the
    /// model or knows what that costs, or a budget can't pay.
    pub async fn create(
        &self,
        caller: &Caller,
        body: &[u8],
        repeat_key: Option<&str>,
    ) -> Result<JobRow, TuningError> {
        must_may(caller, Tuning::Write)?;
        let request = JobRequest::parse(body)?;
        let repeat_key = repeat_key.map(|key| repeated(caller, key)).transpose()?;
        if let Some(key) = &repeat_key
            && let Some(job) = self.asked_before(key, &request).await?
        {
            return Ok(job);
        }
        let now_ms = clock::unix_ms();
        let target = self.target(caller, request.model.as_str())?;
        fits(&request, &target)?;
        let kind = request.training_type.as_deref();
        training_price(&self.prices.load(), &self.catalog.load().catalog, &target, kind, now_ms)?;
        let training = self.usable(caller, &request.training_file, "training_file").await?;
        let validation = match &request.validation_file {
            Some(id) => Some(self.usable(caller, id, "validation_file").await?),
            None => None,
        };
        let job = self.drafted(caller, body, &request, &target, repeat_key.clone(), now_ms);
        let begun = [note_row(&Note::created(&job.id), now_ms)];
        match self.rows.insert(&job, now_ms.saturating_add(self.guard_ms()), &begun).await {
            Ok(()) => {}
            // somebody was faster with the same key
            Err(StoreError::Taken) => {
                let key = repeat_key.unwrap_or_default();
                let job = self.asked_before(&key, &request).await?;
                return job.ok_or_else(|| conflict("the same job is being made: ask again in a moment"));
            }
            Err(error) => return Err(stored(&error)),
        }
        let files: Vec<&TrainingFile> = std::iter::once(&training).chain(&validation).collect();
        match self.begin(job, &files).await {
            Ok(job) => Ok(job),
            Err((job, error)) => {
                // nothing came of it: it was never there
                let undone = self.rows.delete(&job.id, job.version).await;
                if !undone.map_err(|error| stored(&error))?
                    && let Some(job) = self.rows.get(&job.id).await.map_err(|error| stored(&error))?
                {
                    // it is being stepped, and needs its files: what it comes to is told there
                    return Ok(job);
                }
                self.files.release(&job.id).await?;
                Err(error)
            }
        }
    }

    /// Needs its files, and holds its money where that can be done at once.
    async fn begin(
        &self,
        mut job: JobRow,
        files: &[&TrainingFile],
    ) -> Result<JobRow, (Box<JobRow>, TuningError)> {
        for file in files {
            if let Err(error) = self.files.hold(&file.id, &job.id).await {
                return Err((Box::new(job), error));
            }
        }
        let checked = files.iter().all(|file| file.status == FileStatus::Processed);
        if checked && files.iter().all(|file| file.bytes <= MEASURED_AT_ONCE) {
            match self.quoted(&job, files.first().copied()).await {
                Ok(quote) => {
                    job.course.stage = Stage::Holding;
                    job.course.quote = Some(quote);
                }
                Err(error) => return Err((Box::new(job), error)),
            }
            let held = match self.try_hold(&job).await {
                Ok(held) => held,
                Err(HoldError::Exceeded(exceeded)) => {
                    let words = super::money::too_little(&exceeded);
                    return Err((Box::new(job), TuningError::Budget { exceeded, words }));
                }
                Err(HoldError::Unavailable(why)) => {
                    tracing::error!(%why, "the ledger can't hold what a job costs");
                    let words = "the ledger can't be written right now, and nothing is trained unpaid for: try again \
                                 in a moment";
                    return Err((Box::new(job), TuningError::Unavailable(words.to_owned())));
                }
            };
            let learnt = job.course.learn(Act::Hold, Told::Held(held), clock::unix_ms());
            job.course = learnt.course;
            let now_ms = clock::unix_ms();
            let events = learnt.notes.iter().map(|note| note_row(note, now_ms)).collect();
            let saved =
                self.rows.save(&job, &Beside { events, next_at_ms: now_ms, ..Beside::default() }).await;
            if !matches!(saved, Ok(true)) {
                self.let_go(&job).await;
            }
        } else if let Err(error) = self.rows.save(&job, &Beside::default()).await {
            // it is looked at when its guard is over
            tracing::warn!(%error, job = %job.id, "a new job is begun late");
        }
        self.wake.notify_one();
        match self.rows.get(&job.id).await {
            Ok(Some(job)) => Ok(job),
            Ok(None) => Err((Box::new(job.clone()), TuningError::not_found(Noun::Job, &job.id))),
            Err(_) => Ok(job),
        }
    }

    /// Who steps jobs was faster than we: what we hold is released, unless that is what was found and taken over.
    async fn let_go(&self, job: &JobRow) {
        let Some(seq) = job.course.hold else { return };
        match self.rows.get(&job.id).await {
            // a row without a hold may be about to find ours, unless it is past that
            Ok(Some(now))
                if now.version > job.version
                    && now.course.hold != Some(seq)
                    && (now.course.hold.is_some() || now.course.stage > Stage::Settling) =>
            {
                if let Err(error) = self.ledger.end_standing(seq, None).await {
                    tracing::warn!(%error, job = %job.id, seq, "a second hold of a job could not be released");
                }
            }
            // it is found by the job's id in the ledger
            _ => {}
        }
    }

    /// Who else may step a new job has to wait so long: it is being made.
    fn guard_ms(&self) -> i64 {
        i64::try_from(self.config.lease.as_millis()).unwrap_or(20_000)
    }

    /// Whether whoever was asked for a job has not answered yet: no step of it is written.
    fn is_being_made(&self, job: &JobRow) -> bool {
        let guard_ms = self.guard_ms();
        let age_ms = clock::unix_ms().saturating_sub(job.created_at_ms);
        job.version == 1 && job.course.stage == Stage::Checking && (-guard_ms..guard_ms).contains(&age_ms)
    }

    /// The job that was asked for by a key. One that is just being made is waited for a moment.
    async fn asked_before(&self, key: &str, request: &JobRequest) -> Result<Option<JobRow>, TuningError> {
        let until = clock::monotonic() + MADE_WITHIN;
        let found = loop {
            let found = self.rows.asked_by(key).await.map_err(|error| stored(&error))?;
            match &found {
                // it may yet be refused, and then was never there
                Some(job) if self.is_being_made(job) && clock::monotonic() < until => {
                    tokio::time::sleep(WISH_LOOK).await;
                }
                Some(job) if self.is_being_made(job) => {
                    return Err(conflict("the same job is being made: ask again in a moment"));
                }
                _ => break found,
            }
        };
        match found {
            Some(job) if JobRequest::parse(job.request.as_bytes()).ok().as_ref() != Some(request) => Err(
                conflict(format!("this Idempotency-Key was used for another job, {}: use a new one", job.id)),
            ),
            found => Ok(found),
        }
    }

    /// Who trains a model that is asked for by a name: a fine-tuned one of the caller's goes where it was made.
    pub(super) fn target(&self, caller: &Caller, model: &str) -> Result<Target, TuningError> {
        let live = self.catalog.load();
        if let Some(made) = self.registry.maker_of(caller, model)?
            && let Some(provider) = live.catalog.providers.get(&made)
            && provider.training.is_some()
        {
            return Ok(Target { provider: Arc::clone(provider), model: model.into() });
        }
        let found = Targets::of(&live.catalog).resolve(model);
        let found = found.map_err(|error| TuningError::invalid("model", error.to_string()))?;
        // with a provider in front of it another's is another's, too
        self.registry.maker_of(caller, &found.model)?;
        Ok(found)
    }

    /// A file that a job may be asked for with.
    async fn usable(&self, caller: &Caller, id: &str, param: &str) -> Result<TrainingFile, TuningError> {
        let file = self.files.find(caller, id).await?;
        if file.purpose != FilePurpose::FineTune {
            let words = format!("the file {id} is what a job made: upload one with the purpose `fine-tune`");
            return Err(TuningError::invalid(param, words));
        }
        if file.status == FileStatus::Error {
            return Err(TuningError::Invalid {
                message: format!(
                    "the file {id} can't be trained on: {}",
                    file.status_details.as_deref().unwrap_or("its check found errors")
                ),
                param: Some(param.to_owned()),
                code: "invalid_value",
            });
        }
        Ok(file)
    }

    fn drafted(
        &self,
        caller: &Caller,
        body: &[u8],
        request: &JobRequest,
        target: &Target,
        repeat_key: Option<String>,
        now_ms: i64,
    ) -> JobRow {
        let is_azure = target.provider.dialect.kind() == ProviderKind::Azure;
        let plan = Plan {
            waits_for_files: is_azure,
            moderates: self.config.moderate,
            validates: request.validation_file.is_some(),
            grace_ms: self.config.grace_ms(),
        };
        JobRow {
            id: Id::Job.mint(rand::random()),
            owner: caller.owner(),
            booked_on: Arc::new(booked_on(caller, target)),
            provider: target.provider.name.to_string(),
            base: target.model.to_string(),
            training_file: request.training_file.to_string(),
            validation_file: request.validation_file.as_deref().map(str::to_owned),
            request: String::from_utf8_lossy(body).into_owned(),
            // made up where none was asked for, as OpenAI does
            seed: request.seed.unwrap_or_else(|| i64::from(rand::random::<u32>() >> 1)),
            idempotency: repeat_key,
            version: 1,
            course: Course::new(plan, now_ms),
            raw: serde_json::Value::Null,
            result_files: Vec::new(),
            wish: None,
            wishes: 0,
            created_at_ms: now_ms,
            ended_at_ms: None,
        }
    }
}

/// Whom and what a job's money is booked on: as an inference of the same caller's would be.
fn booked_on(caller: &Caller, target: &Target) -> Attribution {
    let key = caller.key();
    let team = caller.team();
    let mut tags: Vec<Arc<str>> = key.map(|key| key.terms.tags.to_vec()).unwrap_or_default();
    tags.extend(team.iter().flat_map(|team| team.tags.iter().cloned()));
    tags.sort();
    tags.dedup();
    Attribution {
        key_id: key.map(|key| Arc::clone(&key.id)).unwrap_or_default(),
        key: key.map(|key| Arc::clone(&key.alias)).unwrap_or_default(),
        team: team.map(|team| Arc::clone(&team.alias)),
        tags,
        model: Arc::clone(&target.model),
        provider: Arc::clone(&target.provider.name),
        purpose: Purpose::Training,
        ..Attribution::default()
    }
}

/// What a provider takes less of than others.
fn fits(request: &JobRequest, target: &Target) -> Result<(), TuningError> {
    let kind = target.provider.dialect.kind();
    if let (ProviderKind::Azure, Some(suffix)) = (kind, &request.suffix) {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if suffix.len() > AZURE_SUFFIX || !suffix.bytes().all(fits) {
            let words = "Azure takes a suffix of at most 40 letters, digits, `_` and `-`";
            return Err(TuningError::invalid("suffix", words));
        }
    }
    if request.training_type.is_some() && kind != ProviderKind::Azure {
        return Err(TuningError::invalid("trainingType", "only Azure knows it: leave it out"));
    }
    Ok(())
}

/// What a job can't be asked for twice by: nobody's key is another's.
fn repeated(caller: &Caller, key: &str) -> Result<String, TuningError> {
    match key.len() {
        1..=LONGEST_KEY => Ok(format!("{}\n{key}", caller.owner())),
        _ => Err(TuningError::invalid("Idempotency-Key", "an Idempotency-Key has 1 to 255 characters")),
    }
}

/// An event of our own.
pub(super) fn note_row(note: &Note, now_ms: i64) -> EventRow {
    EventRow {
        id: Id::Event.mint(rand::random()),
        provider_id: None,
        created_at: now_ms.div_euclid(1_000),
        level: note.level.to_owned(),
        kind: "message".to_owned(),
        message: note.message.clone(),
        figures: serde_json::Value::Null,
    }
}
