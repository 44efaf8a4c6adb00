//! What becomes of a job whose trainer has ended. All of it can be done again: a kill in its middle changes nothing.

use std::fmt::Display;
use std::io;

use super::{Inner, TrainingTrouble, folder, job_error, now_s};
use crate::worker::adapters::ShelfError;
use crate::worker::shelved::Card;
use crate::worker::tuning::folder::JobFolder;
use crate::worker::tuning::journal::{self, Level};
use crate::worker::tuning::record::{Outcome, Record, Run, Status, Wish};
use crate::worker::tuning::shelf::{self, Stored};

/// How often a trainer may be begun without a step between, and not come to an end of its own.
const MOST_DEATHS: u32 = 3;

/// A job as it is now, and what is told of that.
type Told = (Record, Level, String);

/// What becomes of a job.
pub(super) struct Ending {
    told: Told,
    /// The last word of its trainer.
    outcome: Option<Outcome>,
    /// Behind which step.
    stands_at: u64,
}

impl Inner {
    /// Brings a job to where its trainer has led it.
    pub(super) fn conclude(&self, id: &str, job: Option<&JobFolder>) -> Result<(), TrainingTrouble> {
        let Some(record) = self.state().jobs.get(id).cloned() else { return Ok(()) };
        // paused or called off since it was chosen: that stands
        if !matches!(record.status, Status::Queued | Status::Running) {
            return Ok(());
        }
        let before = record.status;
        let ending = self.ending(record, job)?;
        self.enter(before, ending)
    }

    /// What becomes of a job. Where what it has learned can't be served, it ends as it is wished all the same.
    pub(super) fn ending(&self, record: Record, job: Option<&JobFolder>) -> Result<Ending, TrainingTrouble> {
        let folder = self.folder.job(&record.id);
        let run = folder::read_json::<Run>(&folder.run())?;
        let outcome = match job {
            Some(job) => folder::read_json::<Outcome>(&job.outcome())?,
            None => None,
        };
        let told = match (self.brought(&record, &folder, run.as_ref(), outcome.as_ref()), record.wish) {
            (Err(error), Some(wish)) => {
                tracing::warn!(job = record.id, %error, "what a job has learned can't be served; it ends as it is wished");
                as_wished(record, wish)
            }
            (brought, _) => brought?,
        };
        let stands_at = run.map_or(0, |run| run.step);
        Ok(Ending { told, outcome, stands_at })
    }

    /// Serves what there is to serve of a job, and says what becomes of it.
    fn brought(
        &self,
        record: &Record,
        folder: &JobFolder,
        run: Option<&Run>,
        outcome: Option<&Outcome>,
    ) -> Result<Told, TrainingTrouble> {
        if outcome.is_some_and(is_last) {
            // nothing goes on from there, and on a full disk it is the room for what follows
            folder::remove(&folder.checkpoints())?;
        }
        let mut kept = None;
        if let Some(run) = run {
            folder.insist(|| self.publish_epochs(record, folder, run))?;
            kept = self.best_of(record, run);
        }
        let and_kept = |message: &str| match kept {
            Some(kept) => format!("{message}. {kept}"),
            None => message.to_owned(),
        };
        let record = record.clone();
        Ok(match (outcome, record.wish) {
            (Some(Outcome::Succeeded { step }), _) => return self.succeeded(record, folder, run, *step),
            (Some(Outcome::Failed { code, message }), _) => ended(record, code, &and_kept(message)),
            (_, Some(Wish::Cancel)) => as_wished(record, Wish::Cancel),
            (Some(Outcome::Waits { message }), _) => {
                (Record { status: Status::Paused, wish: None, ..record }, Level::Warn, message.clone())
            }
            // with its checkpoint, or without it where it took too long: then it goes on from the one before
            (_, Some(Wish::Pause)) => as_wished(record, Wish::Pause),
            (Some(Outcome::Paused), None) => {
                let record = Record { status: Status::Queued, deaths: 0, ..record };
                (record, Level::Info, "The job goes on".to_owned())
            }
            (None, None) => died(record, run),
        })
    }

    /// Has a job that was `before` at its end, but for what was wished of it meanwhile.
    pub(super) fn enter(&self, before: Status, ending: Ending) -> Result<(), TrainingTrouble> {
        let Ending { told: (record, level, message), outcome, stands_at } = ending;
        let id = record.id.clone();
        let folder = self.folder.job(&id);
        let is_last = outcome.as_ref().is_some_and(is_last);
        if !is_last {
            // first: left behind by a kill, it would be heard once more when the job goes on; without it a trainer is
            // started, and comes to the same
            folder::remove(&folder.outcome())?;
        }
        let mut state = self.state();
        let Some(now) = state.jobs.get(&id).cloned() else { return Ok(()) };
        if now.status != before {
            // paused or called off while it waited for its turn: that stands
            if now.status.is_final() {
                self.take_back(&record);
            }
            return Ok(());
        }
        let has_stood_still = record.status == Status::Running && record.died_at == Some(stands_at);
        // a wish that came meanwhile is heard at the next turn; a pause that was called off ends here
        let record = match (record.status, now.wish) {
            (status, _) if status.is_final() => record,
            (Status::Paused, Some(Wish::Cancel)) => {
                Record { status: Status::Cancelled, finished_at: Some(now_s()), wish: None, ..record }
            }
            (Status::Paused, _) => Record { wish: None, ..record },
            (_, wish) => Record { wish, ..record },
        };
        if record.status == Status::Cancelled {
            count_unkept(&folder);
            self.take_back(&record);
        }
        let (is_final, is_paused) = (record.status.is_final(), record.status == Status::Paused);
        // told before it is so: whoever sees the status finds the event, and a second one does no harm
        self.tell(&id, level, &message);
        self.set(&mut state, record).map_err(|_| TrainingTrouble::Disk)?;
        drop(state);
        self.metrics.trains(0.0, 0.0);
        // what is trained and can't be served is tried again when it is resumed
        if is_last && !is_paused {
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

    /// Serves no more what a job that is called off has learned: it may have been published, whole or in part.
    pub(super) fn take_back(&self, record: &Record) {
        let name = record.model_name(self.adapters.base(), &self.training.organization);
        if let Err(error) = self.adapters.delete(&name) {
            tracing::warn!(job = record.id, %error, "the model of a job that was called off can't be removed");
        }
        if let Err(error) = self.shelf.delete(&curve_of(record)) {
            tracing::warn!(job = record.id, %error, "the curve of a job that was called off can't be removed");
        }
    }

    /// Has a job that is trained wait, since what it has learned can't be served for good; returns whether it does.
    pub(super) fn set_aside(&self, id: &str, error: &TrainingTrouble) -> bool {
        let outcome = folder::read_json::<Outcome>(&self.folder.job(id).outcome());
        let is_trained = matches!(outcome, Ok(Some(Outcome::Succeeded { .. })));
        let mut state = self.state();
        let Some(now) = state.jobs.get(id).cloned() else { return false };
        let is_open = matches!(now.status, Status::Queued | Status::Running) && now.wish.is_none();
        if !is_trained || !is_open {
            return false;
        }
        let (paused, level, message) = not_served(now, error);
        self.tell(id, level, &message);
        self.set(&mut state, paused).is_ok()
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
    ) -> Result<Told, TrainingTrouble> {
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
            id: curve_of(&record),
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
            let was_served = folder.was_served(epoch.step);
            let done = match (is_kept, is_served) {
                (true, false) if folder.epoch(epoch.step).is_dir() && !was_served.exists() => {
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
                Ok(()) if is_kept && folder.epoch(epoch.step).is_dir() && !was_served.exists() => {
                    if let Err(error) = std::fs::File::create(&was_served) {
                        tracing::debug!(job = record.id, %error, "a checkpoint that is deleted comes back once");
                    }
                }
                Ok(()) => {}
                Err(ShelfError::System { source, .. }) if folder::is_full(&source) => is_done = Err(source),
                Err(error) => tracing::warn!(job = record.id, %error, "a checkpoint is not served"),
            }
        }
        is_done
    }
}

/// The file with a job's curve.
pub(super) fn curve_of(record: &Record) -> String {
    format!("{}{}r", shelf::PREFIX, record.id.rsplit('-').next().unwrap_or_default())
}

/// Whether nothing is trained behind this outcome.
fn is_last(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Succeeded { .. } | Outcome::Failed { .. })
}

/// Counts what a job that is called off has computed since its last checkpoint: nobody will do it again. What can't be
/// counted is left out.
pub(super) fn count_unkept(folder: &JobFolder) {
    let count = || {
        let Some(last) = journal::last_metrics(&folder.events()) else { return Ok(()) };
        let Some(mut run) = folder::read_json::<Run>(&folder.run())? else { return Ok(()) };
        match run.count_unkept(&last) {
            true => folder.insist(|| folder::write_json(&folder.run(), &run)),
            false => Ok(()),
        }
    };
    if let Err(error) = count() {
        tracing::warn!(job = %folder.path().display(), %error, "the last steps of a job that is called off are not counted");
    }
}

fn as_wished(record: Record, wish: Wish) -> Told {
    let record = Record { wish: None, ..record };
    let (record, message) = match wish {
        Wish::Cancel => (
            Record { status: Status::Cancelled, finished_at: Some(now_s()), ..record },
            "The job was cancelled",
        ),
        Wish::Pause => (Record { status: Status::Paused, ..record }, "The job is paused"),
    };
    (record, Level::Info, message.to_owned())
}

fn ended(record: Record, code: &str, message: &str) -> Told {
    let error = Some(job_error(code, message));
    let record = Record { status: Status::Failed, finished_at: Some(now_s()), error, wish: None, ..record };
    (record, Level::Error, message.to_owned())
}

/// All is trained and can't be served as things stand: it waits with its adapter until somebody has mended that.
fn not_served(record: Record, error: &dyn Display) -> Told {
    let message = format!(
        "All is trained, but the model can't be served: {error}. Mend that and resume the job, or cancel it"
    );
    (Record { status: Status::Paused, wish: None, ..record }, Level::Error, message)
}

/// What was to be trained on is gone: the bare base in its place would be another model.
pub(super) fn gone(record: Record) -> Told {
    let message = format!("{} was deleted before the training began: nothing was trained", record.model);
    ended(record, "start_adapter_gone", &message)
}

/// A trainer was killed, by the kernel or by somebody, or broke down.
fn died(record: Record, run: Option<&Run>) -> Told {
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
