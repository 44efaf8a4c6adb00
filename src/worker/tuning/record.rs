//! A job as the desk knows it, and as OpenAI tells it.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::journal::Metrics;
use super::settings::{Asked, Plan};
use crate::domain::tuning::{COMPUTE_SECONDS, JobError};
use crate::worker::shelved::Card;

/// What stands in front of a job's id.
pub(in crate::worker) const PREFIX: &str = "ftjob-";
/// Letters of a model's name that say which job made it.
const SHORT: usize = 8;
/// What stands between the name of a model and the step of a checkpoint of it.
pub(in crate::worker) const CHECKPOINT: &str = ":ckpt-step-";

/// Epochs whose adapters are kept, besides the best one: as many as OpenAI keeps.
const KEPT_EPOCHS: usize = 3;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::worker) enum Status {
    /// It waits for its turn.
    Queued,
    /// Its trainer runs, or is started again.
    Running,
    /// It goes on when it is resumed.
    Paused,
    /// Its model is served.
    Succeeded,
    /// It ended in an error.
    Failed,
    /// It was called off.
    Cancelled,
}

impl Status {
    /// Whether nothing more happens.
    pub(in crate::worker) const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// In OpenAI's word.
    pub(in crate::worker) const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What was asked of a job that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::worker) enum Wish {
    Pause,
    Cancel,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Record {
    pub(in crate::worker) id: String,
    /// Seconds since 1970 UTC, as all times here.
    pub(in crate::worker) created_at: i64,
    /// The base model, or the adapter that is trained on.
    pub(in crate::worker) model: String,
    /// Which adapter of that name; none of the base, and of jobs that were taken in before it was kept.
    #[serde(default)]
    pub(in crate::worker) start: Option<Start>,
    pub(in crate::worker) training_file: String,
    pub(in crate::worker) validation_file: Option<String>,
    pub(in crate::worker) suffix: Option<String>,
    pub(in crate::worker) seed: u64,
    pub(in crate::worker) asked: Asked,
    pub(in crate::worker) metadata: Map<String, Value>,
    /// As they were asked for; nothing is sent anywhere.
    pub(in crate::worker) integrations: Option<Value>,
    pub(in crate::worker) status: Status,
    pub(in crate::worker) wish: Option<Wish>,
    pub(in crate::worker) started_at: Option<i64>,
    pub(in crate::worker) finished_at: Option<i64>,
    /// How often a trainer was begun without a step between, and came to no end of its own: counted when it begins.
    #[serde(default)]
    pub(in crate::worker) deaths: u32,
    /// Behind which step it was begun last.
    #[serde(default)]
    pub(in crate::worker) died_at: Option<u64>,
    pub(in crate::worker) fine_tuned_model: Option<String>,
    pub(in crate::worker) result_file: Option<String>,
    pub(in crate::worker) error: Option<JobError>,
}

/// What tells an adapter from another that was brought under its name later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::worker) struct Start {
    created_at: i64,
    job: Option<String>,
}

impl Start {
    pub(in crate::worker) fn of(card: &Card) -> Self {
        Self { created_at: card.created_at, job: card.job.clone() }
    }
}

/// How far a trainer is: written with each checkpoint, and what it goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Run {
    /// Rows of the training file.
    pub(in crate::worker) rows: u64,
    pub(in crate::worker) plan: Plan,
    /// BLAKE3 of the base model's file, in hexadecimal digits; none of a run that was begun before it was kept.
    #[serde(default)]
    pub(in crate::worker) model: Option<String>,
    /// Steps done and kept.
    pub(in crate::worker) step: u64,
    /// Tokens of the rows that were gone through, prompts too.
    pub(in crate::worker) trained_tokens: u64,
    /// Time spent computing steps, and how they do on the validation file, ms: what a job costs on a machine that is paid
    /// for by the hour.
    pub(in crate::worker) busy_ms: u64,
    /// The epochs behind it, oldest first.
    pub(in crate::worker) epochs: Vec<Epoch>,
    /// Of the epoch that it is in.
    #[serde(default)]
    pub(in crate::worker) sums: Sums,
}

/// Sums over steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Sums {
    loss: f64,
    accuracy: f64,
    steps: u32,
}

impl Sums {
    pub(in crate::worker) fn add(&mut self, loss: f64, accuracy: f64) {
        *self = Self { loss: self.loss + loss, accuracy: self.accuracy + accuracy, steps: self.steps + 1 };
    }

    /// The means of both; 0 of no step.
    pub(in crate::worker) fn means(&self) -> (f64, f64) {
        let steps = f64::from(self.steps.max(1));
        (self.loss / steps, self.accuracy / steps)
    }
}

/// What an epoch came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(in crate::worker) struct Epoch {
    /// The last of its steps.
    pub(in crate::worker) step: u64,
    /// Seconds since 1970 UTC.
    pub(in crate::worker) created_at: i64,
    pub(in crate::worker) train_loss: f64,
    pub(in crate::worker) train_accuracy: f64,
    pub(in crate::worker) valid_loss: Option<f64>,
    pub(in crate::worker) valid_accuracy: Option<f64>,
}

/// How a trainer ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ended")]
pub(in crate::worker) enum Outcome {
    /// All is trained; the adapter of this step is the one to serve.
    Succeeded {
        /// The last step of an epoch.
        step: u64,
    },
    /// As it was told to: it has a checkpoint of its last step.
    Paused,
    /// It can't go on before somebody has done something about it.
    Waits {
        /// What, and why.
        message: String,
    },
    /// It can't go on, and would not the next time either.
    Failed {
        /// Such as `invalid_training_file`.
        code: String,
        /// For people.
        message: String,
    },
}

impl Run {
    /// The epoch with the lowest loss on the validation file, or the last one without such a file.
    pub(in crate::worker) fn best(&self) -> Option<&Epoch> {
        let validated = self.epochs.iter().filter(|epoch| epoch.valid_loss.is_some());
        let loss = |epoch: &Epoch| epoch.valid_loss.unwrap_or(f64::INFINITY);
        validated.min_by(|a, b| loss(a).total_cmp(&loss(b))).or(self.epochs.last())
    }

    /// The epochs with whether their adapters are kept: those of the last ones and of the best one are.
    pub(in crate::worker) fn kept(&self) -> impl Iterator<Item = (&Epoch, bool)> {
        let best = self.best().map(|epoch| epoch.step);
        let last = self.epochs.len().saturating_sub(KEPT_EPOCHS);
        let is_kept = move |at: usize, epoch: &Epoch| at >= last || Some(epoch.step) == best;
        self.epochs.iter().enumerate().map(move |(at, epoch)| (epoch, is_kept(at, epoch)))
    }

    /// Counts the steps behind the last checkpoint, too, of which nothing but figures is left; returns whether there
    /// were any. What goes on from the checkpoint does them again: only for a job that does not.
    pub(in crate::worker) fn count_unkept(&mut self, last: &Metrics) -> bool {
        let before = (self.trained_tokens, self.busy_ms);
        self.trained_tokens = self.trained_tokens.max(last.trained_tokens);
        self.busy_ms = self.busy_ms.max(last.busy_ms);
        (self.trained_tokens, self.busy_ms) != before
    }

    /// Epochs since the best one.
    pub(in crate::worker) fn epochs_since_best(&self) -> usize {
        let best = self.best().map(|epoch| epoch.step);
        self.epochs.iter().rev().take_while(|epoch| Some(epoch.step) != best).count()
    }
}

impl Record {
    /// The letters of its id that its model is called by.
    pub(in crate::worker) fn short(&self) -> &str {
        let digits = self.id.strip_prefix(PREFIX).unwrap_or(&self.id);
        digits.get(..SHORT).unwrap_or(digits)
    }

    /// The files that it learns from and is measured with, each with the member of a request that names it.
    pub(in crate::worker) fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let validation = self.validation_file.as_deref().map(|file| ("validation_file", file));
        std::iter::once(("training_file", self.training_file.as_str())).chain(validation)
    }

    /// The name of its model: `ft:BASE:ORGANIZATION:SUFFIX:ID`.
    pub(in crate::worker) fn model_name(&self, base: &str, organization: &str) -> String {
        format!("ft:{base}:{organization}:{}:{}", self.suffix.as_deref().unwrap_or_default(), self.short())
    }

    /// The name of what it was behind a step.
    pub(in crate::worker) fn checkpoint_name(&self, base: &str, organization: &str, step: u64) -> String {
        format!("{}{CHECKPOINT}{step}", self.model_name(base, organization))
    }

    /// As OpenAI writes it; `known` is how far its trainer is, or that nobody can say. One that has ended before its
    /// trainer had read the rows has used nothing, and says so: what is not told would be guessed, and charged.
    pub(in crate::worker) fn told(
        &self,
        known: &io::Result<Option<Run>>,
        organization: &str,
        now_s: i64,
    ) -> Value {
        let run = known.as_ref().ok().and_then(Option::as_ref);
        let hyperparameters = self.asked.told(run.map(|run| &run.plan));
        let method = match self.asked.kind {
            super::settings::Kind::Supervised => "supervised",
            super::settings::Kind::Dpo => "dpo",
        };
        let ended = self.status.is_final();
        let used = match known {
            Ok(Some(run)) => Some((run.trained_tokens, run.busy_ms.div_ceil(1_000))),
            Ok(None) if ended => Some((0, 0)),
            Ok(None) | Err(_) => None,
        };
        json!({
            "object": "fine_tuning.job",
            "id": self.id,
            "model": self.model,
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "fine_tuned_model": self.fine_tuned_model,
            "organization_id": organization,
            "result_files": self.result_file.as_slice(),
            "status": self.status.name(),
            "validation_file": self.validation_file,
            "training_file": self.training_file,
            "hyperparameters": hyperparameters,
            "trained_tokens": used.filter(|_| ended).map(|(tokens, _)| tokens),
            "error": self.error.clone().unwrap_or_default(),
            "user_provided_suffix": self.suffix,
            "seed": self.seed,
            "estimated_finish": run.filter(|_| self.status == Status::Running).and_then(|run| run.finish(now_s)),
            "integrations": self.integrations.clone().unwrap_or_else(|| json!([])),
            "metadata": self.metadata,
            "usage_metrics": used.map(|(_, seconds)| json!({COMPUTE_SECONDS: seconds})),
            "shared_with_openai": false,
            "method": { "type": method, method: { "hyperparameters": hyperparameters } },
        })
    }
}

impl Run {
    /// When it will end at this speed, seconds since 1970 UTC; none before the first step.
    fn finish(&self, now_s: i64) -> Option<i64> {
        let left = self.plan.steps(self.rows).saturating_sub(self.step);
        let seconds = self.busy_ms.checked_mul(left)?.checked_div(self.step)? / 1000;
        now_s.checked_add(i64::try_from(seconds).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(step: u64, valid_loss: Option<f64>) -> Epoch {
        Epoch { step, created_at: 0, train_loss: 0.0, train_accuracy: 0.0, valid_loss, valid_accuracy: None }
    }

    fn run(losses: &[Option<f64>]) -> Run {
        let epochs = losses.iter().zip(1..).map(|(loss, at)| epoch(at * 15, *loss)).collect();
        let plan = Plan { epochs: 6, batch: 1, rate_multiplier: 1.0 };
        Run {
            rows: 15,
            plan,
            model: None,
            step: 30,
            trained_tokens: 0,
            busy_ms: 60_000,
            epochs,
            sums: Sums::default(),
        }
    }

    #[test]
    fn the_best_epoch_is_that_of_the_lowest_validation_loss() {
        for (losses, best, since) in [
            (&[][..], None, 0),
            (&[None, None], Some(30), 0),
            (&[Some(2.0), Some(1.0), Some(1.5), Some(1.2)], Some(30), 2),
            (&[Some(2.0), Some(1.0)], Some(30), 0),
        ] {
            let run = run(losses);
            assert_eq!(run.best().map(|epoch| epoch.step), best, "{losses:?}");
            assert_eq!(run.epochs_since_best(), since, "{losses:?}");
        }
    }

    fn record(status: Status) -> Record {
        serde_json::from_value(json!({
            "id": "ftjob-1", "created_at": 0, "model": "m", "training_file": "file-1", "seed": 1,
            "asked": {"kind": "supervised", "rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": []}, "metadata": {},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_job_tells_how_long_was_computed_for_it() {
        for (busy_ms, want) in [(0, 0), (1, 1), (60_000, 60), (60_001, 61)] {
            let run = Run { busy_ms, ..run(&[]) };
            let told = record(Status::Running).told(&Ok(Some(run)), "org", 0);
            assert_eq!(told["usage_metrics"], json!({"compute_seconds": want}));
        }
    }

    #[test]
    fn what_has_ended_before_it_began_has_used_nothing_and_says_so() {
        let unreadable = || Err(io::Error::from(io::ErrorKind::InvalidData));
        let none = (json!(null), json!(null));
        let nothing = (json!(0), json!({"compute_seconds": 0}));
        let some = (json!(7), json!({"compute_seconds": 60}));
        let run = Run { trained_tokens: 7, ..run(&[]) };
        for (status, known, want) in [
            (Status::Queued, Ok(None), &none),
            (Status::Running, Ok(None), &none),
            (Status::Cancelled, Ok(None), &nothing),
            (Status::Failed, Ok(None), &nothing),
            (Status::Cancelled, Ok(Some(run)), &some),
            // how much it was, nobody can say
            (Status::Cancelled, unreadable(), &none),
        ] {
            let told = record(status).told(&known, "org", 0);
            let found = (told["trained_tokens"].clone(), told["usage_metrics"].clone());
            assert_eq!(found, *want, "{status:?} {known:?}");
        }
    }

    #[test]
    fn steps_behind_the_last_checkpoint_are_counted_once() {
        for (trained_tokens, busy_ms, want, is_more) in
            [(0, 0, (7, 60_000), false), (7, 60_000, (7, 60_000), false), (9, 60_500, (9, 60_500), true)]
        {
            let mut run = Run { trained_tokens: 7, ..run(&[]) };
            let last = Metrics { trained_tokens, busy_ms, ..Metrics::default() };
            assert_eq!(run.count_unkept(&last), is_more);
            assert_eq!((run.trained_tokens, run.busy_ms), want);
            assert!(!run.count_unkept(&last));
        }
    }

    #[test]
    fn the_last_three_epochs_and_the_best_one_are_kept() {
        let kept = |losses: &[Option<f64>]| -> Vec<u64> {
            let run = run(losses);
            run.kept().filter(|(_, is_kept)| *is_kept).map(|(epoch, _)| epoch.step).collect()
        };
        assert_eq!(kept(&[None, None]), [15, 30]);
        assert_eq!(kept(&[None; 5]), [45, 60, 75]);
        assert_eq!(kept(&[Some(1.0), Some(2.0), Some(2.0), Some(2.0), Some(2.0)]), [15, 45, 60, 75]);
    }

    #[test]
    fn the_end_is_told_by_the_speed_so_far() {
        assert_eq!(run(&[]).finish(1000), Some(1120), "60 steps at 2 s");
        assert_eq!(Run { step: 0, ..run(&[]) }.finish(1000), None);
    }
}
