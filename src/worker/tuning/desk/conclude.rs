//! What becomes of a job whose trainer has ended. All of it can be done again: a kill in its middle changes nothing.

use std::io;

use super::{Inner, MOST_DEATHS, TrainingTrouble, folder, job_error, now_s};
use crate::worker::adapters::ShelfError;
use crate::worker::shelved::Card;
use crate::worker::tuning::folder::JobFolder;
use crate::worker::tuning::journal::{self, Level};
use crate::worker::tuning::record::{Outcome, Record, Run, Status, Wish};
use crate::worker::tuning::shelf::{self, Stored};

impl Inner {
    /// Brings a job to where its trainer has led it.
    pub(super) fn conclude(&self, id: &str, job: Option<&JobFolder>) -> Result<(), TrainingTrouble> {
        let Some(record) = self.state().jobs.get(id).cloned() else { return Ok(()) };
        // paused or called off since it was chosen: that stands
        if !matches!(record.status, Status::Queued | Status::Running) {
            return Ok(());
        }
        let folder = self.folder.job(id);
        let run = folder::read_json::<Run>(&folder.run())?;
        let outcome = match job {
            Some(job) => folder::read_json::<Outcome>(&job.outcome())?,
            None => None,
        };
        let is_trained = matches!(outcome, Some(Outcome::Succeeded { .. }));
        if matches!(outcome, Some(Outcome::Succeeded { .. } | Outcome::Failed { .. })) {
            // nothing goes on from there, and on a full disk it is the room for what follows
            folder::remove(&folder.checkpoints())?;
        }
        let mut kept = None;
        if let Some(run) = &run {
            folder.insist(|| self.publish_epochs(&record, &folder, run))?;
            kept = self.best_of(&record, run);
        }
        let and_kept = |message: String| kept.map_or(message.clone(), |kept| format!("{message}. {kept}"));
        let (record, level, message) = match outcome {
            Some(Outcome::Succeeded { step }) => self.succeeded(record, &folder, run.as_ref(), step)?,
            Some(Outcome::Failed { code, message }) => ended(record, &code, &and_kept(message)),
            _ if record.wish == Some(Wish::Cancel) => {
                let record =
                    Record { status: Status::Cancelled, finished_at: Some(now_s()), wish: None, ..record };
                (record, Level::Info, "The job was cancelled".to_owned())
            }
            Some(Outcome::Waits { message }) => {
                (Record { status: Status::Paused, wish: None, ..record }, Level::Warn, message)
            }
            // with its checkpoint, or without it where it took too long: then it goes on from the one before
            _ if record.wish == Some(Wish::Pause) => {
                let record = Record { status: Status::Paused, wish: None, ..record };
                (record, Level::Info, "The job is paused".to_owned())
            }
            Some(Outcome::Paused) => {
                let record = Record { status: Status::Queued, deaths: 0, ..record };
                (record, Level::Info, "The job goes on".to_owned())
            }
            None => died(record, run.as_ref()),
        };
        let has_stood_still = record.status == Status::Running
            && record.died_at == Some(run.as_ref().map_or(0, |run| run.step));
        // what is trained and can't be served is told again when it is resumed
        let waits = is_trained && record.status == Status::Paused;
        let is_final = record.status.is_final();
        // told before it is so: whoever sees the status finds the event, and a second one does no harm
        self.tell(id, level, &message);
        let mut state = self.state();
        // a wish that came meanwhile is heard at the next turn; a pause that was called off ends here
        let wish = state.jobs.get(id).and_then(|now| now.wish).filter(|_| !is_final);
        let record = match (record.status, wish) {
            (Status::Paused, Some(Wish::Cancel)) => {
                Record { status: Status::Cancelled, finished_at: Some(now_s()), wish: None, ..record }
            }
            (Status::Paused, _) => Record { wish: None, ..record },
            _ => Record { wish, ..record },
        };
        let is_final = record.status.is_final();
        self.set(&mut state, record).map_err(|_| TrainingTrouble::Disk)?;
        drop(state);
        self.metrics.trains(0.0, 0.0);
        if !waits {
            folder::remove(&folder.outcome())?;
        }
        if is_final {
            folder.clear()?;
        }
        match has_stood_still {
            // what it died of may pass, such as a folder that is not mounted yet
            true => Err(TrainingTrouble::Died),
            false => Ok(()),
        }
    }

    /// What is kept of a job that failed, in words; none where nothing is.
    fn best_of(&self, record: &Record, run: &Run) -> Option<String> {
        let best = run.best()?;
        let name = record.checkpoint_name(self.adapters.base(), &self.training.organization, best.step);
        let at = run.epochs.iter().position(|epoch| epoch.step == best.step)? + 1;
        self.adapters.find(&name)?;
        Some(format!("What it was behind epoch {at} of {} is kept, and served as {name}", run.plan.epochs))
    }

    /// Serves the model and writes the curve.
    fn succeeded(
        &self,
        record: Record,
        folder: &JobFolder,
        run: Option<&Run>,
        step: u64,
    ) -> Result<(Record, Level, String), TrainingTrouble> {
        let base = self.adapters.base();
        let name = record.model_name(base, &self.training.organization);
        let card = Card {
            name: name.clone(),
            base: base.to_owned(),
            created_at: now_s(),
            job: Some(record.id.clone()),
        };
        if let Err(error) = self.adapters.publish(&folder.epoch(step), &record.id, card) {
            return match error.into_system() {
                // all is trained: that is not lost for what may pass, such as a full disk
                Ok(error) => Err(error.into()),
                Err(error) => Ok(not_served(record, &error)),
            };
        }
        let events = journal::read(&folder.events())?;
        let curve = journal::curve(&events);
        let result = Stored {
            id: format!("{}{}r", shelf::PREFIX, record.id.rsplit('-').next().unwrap_or_default()),
            bytes: curve.len() as u64,
            created_at: now_s(),
            filename: "step_metrics.csv".to_owned(),
            purpose: "fine-tune-results".to_owned(),
        };
        folder::write(&self.shelf.content(&result.id), curve.as_bytes())?;
        self.shelf.keep(&result)?;
        let epochs = run.map_or(0, |run| run.epochs.len());
        let chosen = run.and_then(|run| run.epochs.iter().position(|epoch| epoch.step == step));
        let message = match chosen {
            Some(at) if at + 1 < epochs => format!(
                "New fine-tuned model created: {name}, of epoch {} of {epochs}: it does best on the validation file",
                at + 1
            ),
            _ => format!("New fine-tuned model created: {name}"),
        };
        let record = Record {
            status: Status::Succeeded,
            finished_at: Some(now_s()),
            fine_tuned_model: Some(name),
            result_file: Some(result.id),
            wish: None,
            ..record
        };
        Ok((record, Level::Info, message))
    }

    /// Serves the adapters of the last epochs and of the best one, and no others of this job. One that can't be served is
    /// said so: the job itself does not need them.
    ///
    /// # Errors
    /// If one of them finds no room on the disk: it may later.
    pub(super) fn publish_epochs(&self, record: &Record, folder: &JobFolder, run: &Run) -> io::Result<()> {
        let mut is_done = Ok(());
        let base = self.adapters.base();
        let organization = &self.training.organization;
        for (epoch, is_kept) in run.kept() {
            let name = record.checkpoint_name(base, organization, epoch.step);
            let is_served = self.adapters.find(&name).is_some();
            let done = match (is_kept, is_served) {
                (true, false) if folder.epoch(epoch.step).is_dir() => {
                    let card = Card {
                        name,
                        base: base.to_owned(),
                        created_at: epoch.created_at,
                        job: Some(record.id.clone()),
                    };
                    self.adapters.publish(
                        &folder.epoch(epoch.step),
                        &format!("{}-step-{}", record.id, epoch.step),
                        card,
                    )
                }
                (false, true) => self.adapters.delete(&name).map(drop),
                _ => Ok(()),
            };
            match done {
                Ok(()) => {}
                Err(ShelfError::System { source, .. }) if folder::is_full(&source) => is_done = Err(source),
                Err(error) => tracing::warn!(job = record.id, %error, "a checkpoint is not served"),
            }
        }
        is_done
    }
}

fn ended(record: Record, code: &str, message: &str) -> (Record, Level, String) {
    let error = Some(job_error(code, message));
    let record = Record { status: Status::Failed, finished_at: Some(now_s()), error, wish: None, ..record };
    (record, Level::Error, message.to_owned())
}

/// All is trained and can't be served as things stand: it waits with its adapter until somebody has mended that.
fn not_served(record: Record, error: &ShelfError) -> (Record, Level, String) {
    let message = format!(
        "All is trained, but the model can't be served: {error}. Mend that and resume the job, or cancel it"
    );
    (Record { status: Status::Paused, wish: None, ..record }, Level::Error, message)
}

/// What was to be trained on is gone: the bare base in its place would be another model.
pub(super) fn gone(record: Record) -> (Record, Level, String) {
    let message = format!("{} was deleted before the training began: nothing was trained", record.model);
    ended(record, "start_adapter_gone", &message)
}

/// A trainer was killed, by the kernel or by somebody, or broke down.
fn died(record: Record, run: Option<&Run>) -> (Record, Level, String) {
    let step = run.map_or(0, |run| run.step);
    match worn_out(&record, step) {
        Some((record, message)) => (record, Level::Error, message),
        None => {
            let message = format!("The trainer died; it goes on from step {step}");
            (record, Level::Warn, message)
        }
    }
}

/// A job whose trainers were begun behind `step` as often as they may be, paused; none of any other.
pub(super) fn worn_out(record: &Record, step: u64) -> Option<(Record, String)> {
    let is_worn_out = record.deaths >= MOST_DEATHS && record.died_at == Some(step);
    let message = format!(
        "The trainer died {} times behind step {step}, so the job is paused with all that it has learned. Was it without \
         a word, then it was out of memory: give it more with tuning_memory_mib, within what the worker's container has, \
         or cut the longest rows. Then resume it",
        record.deaths
    );
    is_worn_out.then(|| (Record { status: Status::Paused, wish: None, ..record.clone() }, message))
}
