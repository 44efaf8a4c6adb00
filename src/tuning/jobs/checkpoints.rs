//! The models of the middle of a job. They are fetched when an epoch is seen to have passed, when the job is seen to be
//! paused, when somebody asks for them while it trains, and at its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::results::derived;
use super::{Config, Jobs, Page, cut, page_size, stored, unknown_after};
use crate::clock;
use crate::domain::tuning::{Caller, Checkpoint, Id};
use crate::store::jobs::{CheckpointRow, JobRow};
use crate::tuning::TuningError;

/// The longest time that one fetch takes: whoever asks waits for it, or whoever steps the job.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// When a job's provider may be asked again because somebody asks us.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<BTreeMap<String, Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    next: Instant,
    wait: Duration,
}

impl Looks {
    /// Whether the provider may be asked now; whoever may has to tell how it went.
    fn begin(&self, job: &str, now: Instant, config: &Config) -> bool {
        let mut looks = self.0.lock();
        // whose wait is long over begins anew
        looks.retain(|_, look| look.next + config.poll_max > now);
        let wait = match looks.get(job) {
            Some(look) if look.next > now => return false,
            Some(look) => look.wait,
            None => config.poll,
        };
        looks.insert(job.to_owned(), Look { next: now + FETCH_LIMIT.max(wait), wait });
        true
    }

    /// The next look comes after the usual time, or after twice the time before where this one was in vain.
    fn end(&self, job: &str, went_well: bool, now: Instant, config: &Config) {
        if let Some(look) = self.0.lock().get_mut(job) {
            let doubled = look.wait.saturating_mul(2).min(config.poll_max.max(config.poll));
            look.next = now + if went_well { config.poll } else { doubled };
            look.wait = if went_well { config.poll } else { doubled };
        }
    }
}

impl Jobs {
    /// Lists the models of the middle of a job, the latest first. While it trains its provider is asked, but not more often
    /// than jobs are looked at.
    ///
    /// # Errors
    ///
    /// As [`Jobs::find`], or when `after` is no checkpoint of the job.
    pub async fn checkpoints(
        &self,
        caller: &Caller,
        id: &str,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Page<CheckpointRow>, TuningError> {
        let job = self.find(caller, id).await?;
        let limit = page_size(limit, 10)?;
        self.look_for_checkpoints(&job).await;
        let mut all = self.rows.checkpoints(&job.id).await.map_err(|error| stored(&error))?;
        if let Some(after) = after {
            let at = all.iter().position(|one| one.id == after).ok_or_else(unknown_after)?;
            all.drain(..=at);
        }
        Ok(cut(all, limit))
    }

    /// Fetches what a job may have made since; where it can't be had, what is known is told.
    async fn look_for_checkpoints(&self, job: &JobRow) {
        if !job.course.may_have_checkpoints() || !self.looks.begin(&job.id, clock::monotonic(), &self.config)
        {
            return;
        }
        let made = self.made_on_the_way(job).await;
        self.looks.end(&job.id, made.is_some(), clock::monotonic(), &self.config);
        if let Some(made) = made
            && let Err(error) = self.rows.keep_checkpoints(&job.id, &made).await
        {
            tracing::warn!(%error, job = %job.id, "the checkpoints of a fine-tuning job could not be kept");
        }
    }

    /// What a job has made on the way; none where its provider does not tell: they come at its end.
    pub(super) async fn made_on_the_way(&self, job: &JobRow) -> Option<Vec<CheckpointRow>> {
        let theirs = &job.course.seen.as_ref()?.id;
        let trainer = self.trainer(&job.provider)?;
        // a call is large: whoever waits here may be a request's own future
        match timeout(FETCH_LIMIT, Box::pin(trainer.checkpoints(theirs))).await {
            Ok(Ok(made)) => Some(rows(job, &made)),
            Ok(Err(error)) => {
                tracing::info!(%error, job = %job.id, "the checkpoints of a running job can't be had");
                None
            }
            Err(_) => {
                tracing::info!(job = %job.id, "the checkpoints of a running job take too long");
                None
            }
        }
    }
}

/// What a provider tells of a job's checkpoints, under our own ids.
pub(super) fn rows(job: &JobRow, made: &[Checkpoint]) -> Vec<CheckpointRow> {
    let row = |made: &Checkpoint| CheckpointRow {
        id: derived(Id::Checkpoint, job, &made.step.to_string()),
        created_at: made.created_at,
        step: i64::try_from(made.step).unwrap_or(i64::MAX),
        model: made.model.to_string(),
        metrics: made.metrics.clone(),
    };
    made.iter().map(row).collect()
}

/// A checkpoint under our own id.
pub(super) fn checkpoint(row: &CheckpointRow) -> Checkpoint {
    Checkpoint {
        id: row.id.as_str().into(),
        created_at: row.created_at,
        step: u64::try_from(row.step).unwrap_or(0),
        model: row.model.as_str().into(),
        metrics: row.metrics.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_asked_as_often_as_jobs_are_looked_at_and_seldom_where_it_fails() {
        let (looks, start) = (Looks::default(), clock::monotonic());
        let config =
            Config { poll: Duration::from_secs(15), poll_max: Duration::from_secs(40), ..Config::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        let begins = |job: &str, seconds| looks.begin(job, at(seconds), &config);
        assert!(begins("a", 0) && !begins("a", 1), "one look at a time");
        looks.end("a", true, at(2), &config);
        assert!(!begins("a", 16) && begins("a", 17));
        assert!(begins("b", 17), "each job for itself");
        looks.end("a", false, at(17), &config);
        assert!(!begins("a", 46) && begins("a", 47));
        looks.end("a", false, at(47), &config);
        assert!(!begins("a", 86) && begins("a", 87), "no longer than `poll_max`");
        looks.end("a", true, at(87), &config);
        assert!(!begins("a", 101) && begins("a", 102));
        // one that was cut off holds nobody up for long
        assert!(begins("a", 117));
    }
}
