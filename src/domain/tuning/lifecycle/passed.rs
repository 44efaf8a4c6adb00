//! Where a provider makes a model in the middle of a job: behind each epoch, and where the job is paused.

use super::{Course, JobStatus, Progress, Stage};

impl Course {
    /// Whether its provider has made a model on the way that it had not before: an epoch has passed since, or it is
    /// paused. What comes with the end is fetched there.
    pub fn has_new_checkpoint(&self, before: &Self) -> bool {
        let is_paused = |course: &Self| course.stands() == Some(JobStatus::Paused);
        let has_passed = self.epochs_passed() > before.epochs_passed();
        self.stage == Stage::Following && (has_passed || is_paused(self) && !is_paused(before))
    }

    /// Whether its provider may have made one that nobody has told us of yet.
    pub fn may_have_checkpoints(&self) -> bool {
        let trains =
            matches!(self.stands(), Some(JobStatus::Running | JobStatus::Pausing | JobStatus::Paused));
        self.stage == Stage::Following && trains
    }

    fn stands(&self) -> Option<JobStatus> {
        self.seen.as_ref().map(|seen| seen.status)
    }

    /// Epochs that its steps have passed; 0 where nobody has said of how many.
    fn epochs_passed(&self) -> u128 {
        let Progress { step, total } = self.progress;
        let epochs = self.seen.as_ref().and_then(|seen| seen.epochs).unwrap_or(0);
        (u128::from(step) * u128::from(epochs)).checked_div(u128::from(total)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::super::{Plan, Seen};
    use super::*;
    use crate::domain::tuning::wire::ProviderJob;

    fn course(status: JobStatus, step: u64) -> Course {
        let job = ProviderJob { epochs: Some(3), ..job(status) };
        Course {
            stage: Stage::Following,
            seen: Some(Seen::of(&job)),
            progress: Progress { step, total: 30 },
            ..Course::new(Plan::default(), 0)
        }
    }

    #[test]
    fn a_checkpoint_is_made_behind_an_epoch_and_at_a_pause() {
        use JobStatus::{Paused, Running};
        for (before, after, want) in [
            ((Running, 0), (Running, 9), false),
            ((Running, 9), (Running, 10), true),
            ((Running, 10), (Running, 19), false),
            ((Running, 9), (Running, 30), true),
            ((Running, 12), (Paused, 12), true),
            ((Paused, 12), (Paused, 12), false),
            ((Paused, 12), (Running, 13), false),
        ] {
            let (before, after) = (course(before.0, before.1), course(after.0, after.1));
            assert_eq!(after.has_new_checkpoint(&before), want, "{:?} {:?}", before.progress, after.progress);
        }
        let (before, mut over) = (course(Running, 9), course(Running, 30));
        over.stage = Stage::Settling;
        assert!(!over.has_new_checkpoint(&before), "its end fetches them");
        over.stage = Stage::Following;
        over.progress.total = 0;
        assert!(!over.has_new_checkpoint(&before), "nobody has said of how many steps");
    }

    #[test]
    fn only_a_job_that_trains_may_have_some() {
        for (status, want) in [
            (JobStatus::ValidatingFiles, false),
            (JobStatus::Queued, false),
            (JobStatus::Running, true),
            (JobStatus::Paused, true),
            (JobStatus::Succeeded, false),
        ] {
            assert_eq!(course(status, 1).may_have_checkpoints(), want, "{status:?}");
        }
    }
}
