//! The end of a job: its results are fetched and kept, its model is registered, the copies of its files are taken away.
//! And what is counted of jobs on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::Jobs;
use super::act::{copy_name, untold};
use super::checkpoints::{checkpoint, rows};
use super::rows::{texts, unsafe_rows};
use crate::clock;
use crate::domain::catalog::ProviderKind;
use crate::domain::money::Usd;
use crate::domain::tuning::lifecycle::{Act, CLOSE_TRIES, Side, Told};
use crate::domain::tuning::{Id, JobError, JobStatus, Purpose};
use crate::store::jobs::{Beside, JobRow};
use crate::telemetry::metrics::Progress;
use crate::tuning::TuningError;
use crate::tuning::files::NewFile;
use crate::tuning::registry::Finished;
use crate::upstream::tuning::{Trainer, TrainerError};

/// The largest result file that is kept.
const RESULT_BYTES: usize = 32 << 20;
/// The most result files of a job.
const MOST_RESULTS: usize = 8;
/// Texts that are moderated in one call.
const MODERATED_AT_ONCE: usize = 32;
/// Copies of one name that are looked for: a lost call may have made a second one.
const MOST_COPIES: usize = 3;
/// So long after its end a job's curve is told.
const TOLD_FOR: Duration = Duration::from_secs(3_600);

impl Jobs {
    /// Fetches what a job has made, and registers its model. A provider that is away for long keeps the results, but not
    /// the model, which has its name already.
    pub(super) async fn close(&self, job: &mut JobRow, beside: &mut Beside) -> Told {
        let last_try = job.course.failures.saturating_add(1) >= CLOSE_TRIES;
        let mut curve = None;
        if job.is_there() {
            match self.fetch(job, beside, &mut curve).await {
                Ok(()) => {}
                Err(_) if last_try => {
                    tracing::warn!(job = %job.id, "the results of a fine-tuning job could not be fetched");
                }
                Err(words) => return Told::Away { perhaps: true, again_ms: None, words },
            }
        }
        let finished = match self.finished(job, beside, curve).await {
            Ok(Some(finished)) => finished,
            Ok(None) => return Told::Done,
            Err(words) => return Told::Away { perhaps: true, again_ms: None, words },
        };
        match self.registry.register(finished).await {
            Ok(()) => Told::Done,
            Err(error) => Told::Away { perhaps: true, again_ms: None, words: error.to_string() },
        }
    }

    async fn fetch(
        &self,
        job: &mut JobRow,
        beside: &mut Beside,
        curve: &mut Option<String>,
    ) -> Result<(), String> {
        let words = |error: TrainerError| error.to_string();
        let Some(trainer) = self.trainer(&job.provider) else {
            return Err("the provider is configured no more".to_owned());
        };
        let Some(seen) = job.course.seen.clone() else { return Ok(()) };
        match trainer.checkpoints(&seen.id).await {
            Ok(made) => beside.checkpoints = rows(job, &made),
            Err(TrainerError::NotFound(_)) => {}
            Err(error) => return Err(words(error)),
        }
        for id in seen.result_files.iter().take(MOST_RESULTS) {
            let content = match trainer.file_content(id, RESULT_BYTES).await {
                Ok(content) => content,
                Err(TrainerError::NotFound(_)) => continue,
                Err(error) => return Err(words(error)),
            };
            if curve.is_none() {
                *curve = std::str::from_utf8(&content).ok().map(str::to_owned);
            }
            let ours = derived(Id::File, job, id);
            if !job.result_files.contains(&ours) {
                // as OpenAI gives them out
                let text = Bytes::from(STANDARD.encode(&content));
                let new = NewFile {
                    filename: "step_metrics.csv".to_owned(),
                    purpose: Purpose::FineTuneResults,
                    expires_after_ms: None,
                };
                let kept = self.files.put_bytes(ours, job.owner.clone(), new, text, clock::unix_ms()).await;
                job.result_files.push(kept.map_err(|error| error.to_string())?.id);
            }
        }
        Ok(())
    }

    /// What is told about the model; none where there is none. Where the database fails, that and nothing less: a model is
    /// registered once, and what it was trained on is asked for at the gate.
    async fn finished(
        &self,
        job: &JobRow,
        beside: &Beside,
        curve: Option<String>,
    ) -> Result<Option<Finished>, String> {
        let (Some(outcome), Some(seen)) = (job.course.outcome.as_ref(), job.course.seen.as_ref()) else {
            return Ok(None);
        };
        let Some(name) = seen.model.clone().filter(|_| outcome.status == JobStatus::Succeeded) else {
            return Ok(None);
        };
        // where they could not be had at the end, there are those that were fetched on the way
        let made = match beside.checkpoints.as_slice() {
            [] => &self.rows.checkpoints(&job.id).await.map_err(|error| error.to_string())?,
            made => made,
        };
        let file = match self.files.held(&job.training_file).await {
            Ok(file) => Some(file),
            Err(TuningError::NotFound { .. }) => None,
            Err(error) => return Err(error.to_string()),
        };
        let report = self.files.report(&job.training_file).await.map_err(|error| error.to_string())?;
        let report = report.unwrap_or_default();
        let prompt = report.pointer("/system_prompt/text").and_then(Value::as_str);
        let bill = job.course.bill;
        Ok(Some(Finished {
            name,
            owner: job.owner.clone(),
            provider: job.provider.as_str().into(),
            base: job.base.as_str().into(),
            job_id: job.id.as_str().into(),
            dataset_sha256: file.map(|file| file.sha256.as_str().into()).unwrap_or_default(),
            system_prompt: prompt.map(Arc::from),
            checkpoints: made.iter().map(checkpoint).collect(),
            price_version: job
                .course
                .quote
                .as_ref()
                .map(|quote| Arc::clone(&quote.price.version))
                .unwrap_or_default(),
            trained_tokens: bill.map(|bill| bill.tokens),
            cost: bill.map_or(Usd::ZERO, |bill| bill.cost()),
            results: curve,
            created_at_ms: job.created_at_ms,
            finished_at_ms: outcome.at_ms,
        }))
    }

    /// Takes the copies of a job's files away at its provider, and lets ours go. What can't be taken away stays: it costs
    /// nothing, and its name says whose it was.
    pub(super) async fn clean(&self, job: &JobRow) -> Told {
        if let Some(trainer) = self.trainer(&job.provider)
            && job.course.may_be_out()
            && job.course.failures.saturating_add(1) < CLOSE_TRIES
            && let Err(error) = self.clean_there(&trainer, job).await
            && error.may_go_well_later()
        {
            return Told::Away { perhaps: true, again_ms: error.wait_ms(), words: error.to_string() };
        }
        match self.files.release(&job.id).await {
            Ok(()) => Told::Done,
            Err(error) => Told::Away { perhaps: true, again_ms: None, words: error.to_string() },
        }
    }

    async fn clean_there(&self, trainer: &Trainer, job: &JobRow) -> Result<(), TrainerError> {
        let sides = [(Side::Training, &job.course.training), (Side::Validation, &job.course.validation)];
        for (side, copy) in sides {
            if let Some(copy) = copy {
                gone(trainer.delete_file(&copy.id).await)?;
            }
            if side == Side::Validation && job.validation_file.is_none() {
                continue;
            }
            for _ in 0..MOST_COPIES {
                match trainer.find_file(&copy_name(job, side)).await? {
                    Some(other) => gone(trainer.delete_file(&other.id).await)?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Has the texts of a training file looked at, by the first provider that can.
    pub(super) async fn moderate(&self, job: &JobRow) -> Told {
        let live = self.catalog.load();
        let own = live.catalog.providers.get(job.provider.as_str());
        let speaks = |kind: ProviderKind| kind == ProviderKind::OpenAi;
        let moderator = own.filter(|own| speaks(own.dialect.kind())).or_else(|| {
            live.catalog.providers.values().find(|one| speaks(one.dialect.kind()) && one.training.is_some())
        });
        let Some(trainer) = moderator.and_then(|one| self.trainer(&one.name)) else {
            return away("no provider of kind `openai` is configured that could moderate the rows");
        };
        let path = match self.files.held(&job.training_file).await {
            Ok(file) => self.files.path(&file).await,
            Err(error) => Err(error),
        };
        let path = match path {
            Ok(path) => path,
            Err(error) => return away(&error.to_string()),
        };
        let mut rows = texts(path, MODERATED_AT_ONCE);
        let mut flagged: Vec<u64> = Vec::new();
        while let Some(some) = rows.recv().await {
            let some = match some {
                Ok(some) => some,
                Err(error) => return away(&format!("the training file can't be read: {error}")),
            };
            let asked: Vec<&str> = some.iter().map(|row| row.text.as_str()).collect();
            match trainer.moderate(&asked).await {
                Ok(marks) => {
                    let marked = some.iter().zip(marks).filter(|(_, mark)| *mark);
                    flagged.extend(marked.map(|(row, _)| row.line));
                }
                Err(error) => return unlooked(untold(Act::Moderate, error)),
            }
        }
        if flagged.is_empty() { Told::Clear } else { Told::Declined(unsafe_rows(&flagged)) }
    }

    /// Tells the metrics what came of an act.
    pub(super) fn count(&self, job: &JobRow, act: Act, told: &Told) {
        if !matches!(act, Act::Ask | Act::Tell(_)) {
            return;
        }
        let result = match told {
            Told::Job(..) => "ok",
            Told::NoJob => "not_found",
            Told::Declined(_) => "refused",
            _ => "unreachable",
        };
        self.metrics.tuning.polled(&job.provider, result);
        if let Told::Job(_, events) = told
            && let Some(last) = events.iter().rev().find(|event| &*event.kind == "metrics")
        {
            let figure = |name: &str| last.data.get(name).and_then(Value::as_f64);
            let count = |name: &str| last.data.get(name).and_then(Value::as_u64);
            let progress = Progress {
                provider: job.provider.as_str().into(),
                base: job.base.as_str().into(),
                step: count("step"),
                steps: count("total_steps"),
                train_loss: figure("train_loss"),
                valid_loss: figure("full_valid_loss").or_else(|| figure("valid_loss")),
                token_accuracy: figure("train_mean_token_accuracy"),
            };
            self.metrics.tuning.progress(&job.id, progress);
        }
    }

    /// Tells the metrics that a job has ended.
    pub(super) fn count_end(&self, job: &JobRow) {
        let Some(outcome) = &job.course.outcome else { return };
        let took = u64::try_from(outcome.at_ms - job.created_at_ms).unwrap_or(0);
        let tokens = job.course.bill.map_or(0, |bill| bill.tokens);
        self.metrics.tuning.ended(&job.provider, outcome.status, Duration::from_millis(took), tokens);
        self.told.lock().insert(job.id.clone(), clock::monotonic() + TOLD_FOR);
    }

    /// Tells the metrics how all jobs stand.
    pub(super) async fn tell_standing(&self) {
        let now = clock::monotonic();
        self.told.lock().retain(|job, until| {
            if *until <= now {
                self.metrics.tuning.forget(job);
            }
            *until > now
        });
        let (Ok(counts), Ok(open)) = (self.rows.counts().await, self.rows.open().await) else { return };
        let mut by_status: BTreeMap<(Arc<str>, JobStatus), u64> = BTreeMap::new();
        let mut held: BTreeMap<&str, Usd> = BTreeMap::new();
        for count in &counts {
            *by_status.entry((count.provider.as_str().into(), count.status)).or_default() += count.jobs;
            *held.entry(&count.provider).or_default() += Usd::from_nanos(count.held_nanos);
        }
        self.metrics.tuning.jobs(&by_status);
        let now_ms = clock::unix_ms();
        for (provider, amount) in held {
            self.metrics.tuning.held(provider, amount);
            let own = open.iter().filter(|job| job.provider == provider && job.course.outcome.is_none());
            let longest = own.map(|job| now_ms - job.course.changed_ms).max().unwrap_or(0);
            self.metrics.tuning.silent(provider, Duration::from_millis(u64::try_from(longest).unwrap_or(0)));
        }
    }
}

fn away(words: &str) -> Told {
    Told::Away { perhaps: false, again_ms: None, words: words.to_owned() }
}

/// A no to the question says nothing of the rows: it is told which call it was for.
fn unlooked(told: Told) -> Told {
    match told {
        Told::Declined(error) => Told::Declined(JobError {
            message: error.message.map(|words| format!("the rows can't be moderated: {words}")),
            ..error
        }),
        told => told,
    }
}

/// What is not there any more is taken away.
fn gone(done: Result<(), TrainerError>) -> Result<(), TrainerError> {
    match done {
        Err(TrainerError::NotFound(_)) => Ok(()),
        done => done,
    }
}

/// The id of what a job has made, the same however often it is fetched.
pub(super) fn derived(kind: Id, job: &JobRow, which: &str) -> String {
    let hash = blake3::hash(format!("{}\n{which}", job.id).as_bytes());
    let (bits, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 16], &[]));
    kind.mint(u128::from_le_bytes(*bits))
}
