//! Carrying out what a job needs next, here and at its provider. Each act may come twice; what must not be done twice is
//! looked for first.

use std::sync::Arc;

use super::Jobs;
use crate::clock;
use crate::domain::tuning::lifecycle::{Act, MOST_EVENTS, Side, Told, Wish};
use crate::domain::tuning::request::JobRequest;
use crate::domain::tuning::{JobError, ProviderJob};
use crate::store::jobs::{Beside, JobRow};
use crate::tuning::TuningError;
use crate::upstream::tuning::{Trainer, TrainerError};

/// What a file is for, at every provider.
const PURPOSE: &str = "fine-tune";
/// OpenAI's code for an account that may not train any more (since 2026-05-07).
const NOT_AVAILABLE: &str = "training_not_available";

impl Jobs {
    /// Carries out an act; what it brings beside its answer is put aside.
    pub(super) async fn carry_out(&self, job: &mut JobRow, act: Act, beside: &mut Beside) -> Told {
        match act {
            Act::LookAtFiles => self.look_at_files(job).await,
            Act::Hold => self.hold(job).await,
            Act::Rehold(amount) => self.rehold(job, amount).await,
            Act::Bill => self.bill(job).await,
            Act::Settle => self.settle(job).await,
            Act::Moderate => self.moderate(job).await,
            Act::Close => self.close(job, beside).await,
            Act::Clean => self.clean(job).await,
            Act::FindFile(_)
            | Act::Upload(_)
            | Act::AskFile(_)
            | Act::FindJob
            | Act::Create
            | Act::Ask
            | Act::Tell(_) => match self.trainer(&job.provider) {
                Some(trainer) => self.call(&trainer, job, act).await,
                None => away(false, "the provider is configured no more: put it back, and the job goes on"),
            },
        }
    }

    async fn call(&self, trainer: &Trainer, job: &mut JobRow, act: Act) -> Told {
        let told = match act {
            Act::FindFile(side) => trainer
                .find_file(&copy_name(job, side))
                .await
                .map(|found| found.map_or(Told::NoFile, Told::File)),
            Act::Upload(side) => return self.upload(trainer, job, side).await,
            Act::AskFile(side) => trainer.file(copy_id(job, side)).await.map(Told::File),
            Act::FindJob => {
                match trainer.find_job(&job.id, copy_id(job, Side::Training)).await {
                    // it may have begun, and ended, since
                    Ok(Some(theirs)) => self.with_events(trainer, job, theirs).await,
                    Ok(None) => Ok(Told::NoJob),
                    Err(error) => Err(error),
                }
            }
            Act::Create => return self.make(trainer, job).await,
            Act::Tell(wish) => {
                let id = their_id(job);
                let told = match wish {
                    Wish::Cancel => trainer.cancel(&id).await,
                    Wish::Pause => trainer.pause(&id).await,
                    Wish::Resume => trainer.resume(&id).await,
                };
                match told {
                    // what has happened since it was last asked is part of the bill
                    Ok(theirs) => self.with_events(trainer, job, theirs).await,
                    Err(error) => Err(error),
                }
            }
            _ => match trainer.job(&their_id(job)).await {
                Ok(theirs) => self.with_events(trainer, job, theirs).await,
                Err(error) => Err(error),
            },
        };
        told.unwrap_or_else(|error| untold(act, error))
    }

    async fn upload(&self, trainer: &Trainer, job: &JobRow, side: Side) -> Told {
        let id = match side {
            Side::Training => Some(&job.training_file),
            Side::Validation => job.validation_file.as_ref(),
        };
        let Some(id) = id else { return away(false, "there is no such file") };
        let place = match self.files.held(id).await {
            Ok(file) => self.files.path(&file).await.map(|path| (file, path)),
            Err(error) => Err(error),
        };
        let (file, path) = match place {
            Ok(place) => place,
            Err(error @ TuningError::NotFound { .. }) => {
                return Told::Declined(JobError {
                    code: Some(format!("invalid_{}", side.param())),
                    message: Some(error.to_string()),
                    param: Some(side.param().to_owned()),
                });
            }
            Err(error) => return away(false, error.to_string()),
        };
        let sent = trainer.upload(&path, file.bytes, &copy_name(job, side), PURPOSE).await;
        sent.map_or_else(|error| untold(Act::Upload(side), error), Told::File)
    }

    async fn make(&self, trainer: &Trainer, job: &mut JobRow) -> Told {
        let request = match JobRequest::parse(job.request.as_bytes()) {
            Ok(request) => request,
            Err(error) => {
                return Told::Declined(JobError {
                    code: Some(error.code.to_owned()),
                    message: Some(error.message),
                    param: error.param,
                });
            }
        };
        let mut order = request.order(&job.id.as_str().into(), &job.base.as_str().into(), job.seed);
        order.training_file = copy_id(job, Side::Training).into();
        order.validation_file = job.course.validation.as_ref().map(|copy| Arc::clone(&copy.id));
        // whoever has stood still for long may have been taken for dead: another one would make it, too
        if !self.lease.is_ours(clock::monotonic()) {
            return away(false, "another process looks after the jobs now");
        }
        match trainer.create(&order).await {
            Ok(theirs) => seen(job, theirs),
            Err(error) => untold(Act::Create, error),
        }
    }

    /// A job with what has happened to it since it was last asked. Events are not worth a second call: they come at the
    /// next look, but for the last.
    async fn with_events(
        &self,
        trainer: &Trainer,
        job: &mut JobRow,
        theirs: ProviderJob,
    ) -> Result<Told, TrainerError> {
        let known = job.course.last_event.as_deref();
        let events = match trainer.events(&theirs.id, known, MOST_EVENTS).await {
            Ok(events) => events,
            // what was done decides what is billed
            Err(error) if theirs.status.is_final() && error.may_go_well_later() => return Err(error),
            Err(_) => Vec::new(),
        };
        job.raw = theirs.raw.clone();
        Ok(Told::Job(Box::new(theirs), events))
    }
}

/// A job of which nothing has happened yet.
fn seen(job: &mut JobRow, theirs: ProviderJob) -> Told {
    job.raw = theirs.raw.clone();
    Told::Job(Box::new(theirs), Vec::new())
}

/// The name of a copy at the provider: by it, it is found again.
pub(super) fn copy_name(job: &JobRow, side: Side) -> String {
    match side {
        Side::Training => format!("{}.jsonl", job.id),
        Side::Validation => format!("{}-validation.jsonl", job.id),
    }
}

fn copy_id(job: &JobRow, side: Side) -> &str {
    let copy = match side {
        Side::Training => &job.course.training,
        Side::Validation => &job.course.validation,
    };
    copy.as_ref().map_or("", |copy| &copy.id)
}

fn their_id(job: &JobRow) -> Arc<str> {
    job.course.seen.as_ref().map(|seen| Arc::clone(&seen.id)).unwrap_or_default()
}

fn away(perhaps: bool, words: impl Into<String>) -> Told {
    Told::Away { perhaps, again_ms: None, words: words.into() }
}

/// What an error comes to.
pub(super) fn untold(act: Act, error: TrainerError) -> Told {
    if error.may_go_well_later() {
        return Told::Away {
            perhaps: error.may_have_been_done(),
            again_ms: error.wait_ms(),
            words: error.to_string(),
        };
    }
    match error {
        TrainerError::NotFound(_) if matches!(act, Act::AskFile(_) | Act::FindFile(_)) => Told::NoFile,
        TrainerError::NotFound(_) if matches!(act, Act::Ask | Act::Tell(_) | Act::FindJob) => Told::NoJob,
        TrainerError::Refused(refused) => {
            let winding_down = refused.code.as_deref() == Some(NOT_AVAILABLE);
            let ours = match winding_down {
                true => {
                    " (OpenAI ends fine-tuning for this account: ask for `azure/RESOURCE/MODEL` or a local model)"
                }
                false => "",
            };
            Told::Declined(JobError {
                message: Some(format!("the provider says: {}{ours}", refused.message)),
                code: refused.code.or_else(|| Some("provider_refused".to_owned())),
                param: refused.param,
            })
        }
        TrainerError::NotFound(words) => Told::Declined(JobError {
            code: Some("provider_refused".to_owned()),
            message: Some(format!("the provider does not know it: {words}")),
            param: Some("model".to_owned()),
        }),
        other => away(false, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tuning::Refused;

    #[test]
    fn an_error_is_told_as_what_it_means_for_the_job() {
        let refused = |status, code: Option<&str>| {
            TrainerError::Refused(Box::new(Refused {
                status,
                code: code.map(str::to_owned),
                message: "no".to_owned(),
                param: None,
                wait_ms: Some(7_000),
            }))
        };
        let away = |perhaps, again_ms, words: &str| Told::Away { perhaps, again_ms, words: words.to_owned() };
        let declined = |code: &str, message: &str| {
            Told::Declined(JobError {
                code: Some(code.to_owned()),
                message: Some(message.to_owned()),
                param: None,
            })
        };
        for (act, error, want) in [
            (Act::Ask, TrainerError::NotFound("x".to_owned()), Told::NoJob),
            (Act::Tell(Wish::Pause), TrainerError::NotFound("x".to_owned()), Told::NoJob),
            (Act::AskFile(Side::Training), TrainerError::NotFound("x".to_owned()), Told::NoFile),
            (Act::Create, TrainerError::Broken("x".to_owned()), away(true, None, "it gave no answer: x")),
            (
                Act::Create,
                TrainerError::Unreachable("x".to_owned()),
                away(false, None, "it can't be reached: x"),
            ),
            (Act::Create, refused(503, None), away(true, Some(7_000), "it answered 503: no")),
            (Act::Create, refused(429, None), away(false, Some(7_000), "it answered 429: no")),
            (Act::Create, refused(400, None), declined("provider_refused", "the provider says: no")),
            (
                Act::Create,
                refused(403, Some(NOT_AVAILABLE)),
                declined(
                    NOT_AVAILABLE,
                    "the provider says: no (OpenAI ends fine-tuning for this account: ask for `azure/RESOURCE/MODEL` \
                     or a local model)",
                ),
            ),
        ] {
            assert_eq!(untold(act, error.clone()), want, "{act:?} {error}");
        }
    }
}
