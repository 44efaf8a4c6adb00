//! What a job has used when it is over, from what is known of it.

use super::{Course, Running};
use crate::domain::tuning::bill::Used;
use crate::domain::tuning::status::JobStatus;
use crate::domain::usage::UsageSource;

impl Running {
    /// How long it ran up to a moment, seconds.
    pub fn seconds(&self, now_ms: i64) -> u64 {
        let now = self.since_ms.map_or(0, |since_ms| (now_ms - since_ms).max(0));
        u64::try_from(self.before_ms.saturating_add(now)).unwrap_or(0).div_ceil(1_000)
    }

    /// It is seen to run, or not to, since a moment.
    pub(super) fn turn(&mut self, runs: bool, at_ms: i64) {
        match (runs, self.since_ms) {
            (true, None) => self.since_ms = Some(at_ms),
            (false, Some(since_ms)) => {
                self.before_ms += (at_ms - since_ms).max(0);
                self.since_ms = None;
            }
            _ => {}
        }
    }

    /// It is told when it began: where that was before it was first seen to run, its time counts from there.
    pub(super) fn began(&mut self, at_ms: Option<i64>) {
        if let (0, Some(since_ms), Some(at_ms)) = (self.before_ms, self.since_ms, at_ms) {
            self.since_ms = Some(since_ms.min(at_ms));
        }
    }
}

/// A job that ran for so long, s, without a word of any step is taken to have trained: providers tell the first step
/// sooner, where they tell any.
const SILENT_S: u64 = 60;

impl Course {
    /// What it has used. The provider's figure counts; without one the steps that were done do, as a part of all. A job
    /// that failed is not billed (OpenAI and Azure, guides of 2026), unless its provider says how much was trained.
    ///
    /// Its time is what a worker of ours says that it computed: neither pauses nor waits are in it, nor steps that were lost
    /// with a trainer and done again. Of anybody else's machine it is how long the job was seen to run.
    pub fn used(&self) -> Used {
        let Some(seen) = &self.seen else { return Used::NOTHING };
        let Some(outcome) = &self.outcome else { return Used::NOTHING };
        let seconds = seen.compute_seconds.unwrap_or_else(|| self.running.seconds(outcome.at_ms));
        let computed_seconds = seen.compute_seconds.unwrap_or(0);
        let known = |tokens, source| Used { tokens, seconds, computed_seconds, source };
        if outcome.unconfirmed {
            // nobody said which step it is at: all of it, if it ran at all
            let tokens =
                if self.progress.total == 0 && seconds > 0 { self.planned() } else { self.by_steps() };
            return known(tokens, UsageSource::Unconfirmed);
        }
        if let Some(tokens) = seen.trained_tokens {
            return known(tokens, UsageSource::Reported);
        }
        match outcome.status {
            JobStatus::Failed => Used::NOTHING,
            JobStatus::Succeeded => known(self.planned(), UsageSource::Estimated),
            _ if self.progress.step == 0 && seconds == 0 => Used::NOTHING,
            // it ran for long enough to have trained, and nobody said of how many steps
            _ if self.progress.total == 0 && seconds >= SILENT_S => {
                known(self.planned(), UsageSource::Estimated)
            }
            _ => known(self.by_steps(), UsageSource::Estimated),
        }
    }

    fn planned(&self) -> u64 {
        let Some(quote) = &self.quote else { return 0 };
        let epochs = self.seen.as_ref().and_then(|seen| seen.epochs).unwrap_or(quote.epochs);
        quote.tokens.saturating_mul(epochs)
    }

    /// The part of all tokens that the steps done are of all steps, rounded up.
    fn by_steps(&self) -> u64 {
        let (step, total) = (self.progress.step, self.progress.total);
        if total == 0 {
            return 0;
        }
        let part = u128::from(self.planned()) * u128::from(step.min(total));
        u64::try_from(part.div_ceil(u128::from(total))).unwrap_or(u64::MAX)
    }
}
