//! Whose turn it is: the thread that trains one job after the other, and looks after each trainer.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Inner, State, TrainingTrouble, conclude, now_s};
use crate::clock;
use crate::worker::shelved::Card;
use crate::worker::tuning::folder::{self, JobFolder};
use crate::worker::tuning::journal::{self, Level};
use crate::worker::tuning::record::{self, Record, Run, Start, Status, Wish};

/// How often a running trainer is looked at.
const PULSE: Duration = Duration::from_millis(200);
/// How long a trainer may take to write its checkpoint before it is killed; then its last one counts.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the desk waits before it tries again what the disk refused.
const AGAIN: Duration = Duration::from_secs(5);
/// How often a job that is trained is tried to be served before it waits for somebody: for a minute.
pub(super) const MOST_TRIES: u32 = 12;

impl Inner {
    pub(super) fn run(&self) {
        let mut tries = Tries::default();
        while let Some(record) = self.next() {
            if !self.has_its_turn(&record, &mut tries) {
                self.rest(AGAIN);
            }
        }
    }

    /// Whether a job's turn came to something; else it is tried again.
    pub(super) fn has_its_turn(&self, record: &Record, tries: &mut Tries) -> bool {
        let Err(error) = self.train(record) else {
            *tries = Tries::default();
            return true;
        };
        if tries.are_over(&record.id, &error) && self.set_aside(&record.id, &error) {
            tracing::error!(job = record.id, %error, "a job is trained and can't be served: it is paused");
            return true;
        }
        tracing::error!(job = record.id, %error, "a job can't be trained now; tried again soon");
        false
    }

    /// Waits for a job to train: one that was at it first, then the oldest. None at the end.
    pub(super) fn next(&self) -> Option<Record> {
        let mut state = self.state();
        loop {
            if state.ended {
                return None;
            }
            let open =
                state.jobs.values().filter(|job| matches!(job.status, Status::Running | Status::Queued));
            let first =
                open.min_by_key(|job| (job.status != Status::Running, job.created_at, job.id.clone()));
            if let Some(record) = first {
                return Some(record.clone());
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn rest(&self, time: Duration) {
        let state = self.state();
        let ended = |state: &mut State| !state.ended;
        drop(self.news.wait_timeout_while(state, time, ended));
    }

    /// Trains a job until it ends, pauses, or we do.
    pub(super) fn train(&self, record: &Record) -> Result<(), TrainingTrouble> {
        let job = self.folder.job(&record.id);
        // a kill may have come between the trainer's last word and ours
        if folder::read_json::<record::Outcome>(&job.outcome())?.is_none() {
            if record.wish == Some(Wish::Cancel) {
                return self.conclude(&record.id, None);
            }
            if !self.begin(record)? {
                return Ok(());
            }
            let tended = self.spawn(record, &job).and_then(|child| self.tend(&record.id, &job, child));
            if !matches!(tended, Ok(true)) {
                // it did not die by itself
                self.uncount(&record.id);
            }
            if !tended? {
                return Ok(());
            }
        }
        self.conclude(&record.id, Some(&job))
    }

    /// Whether the job is still to be trained.
    pub(super) fn begin(&self, record: &Record) -> Result<bool, TrainingTrouble> {
        let is_new = record.status == Status::Queued;
        let run = folder::read_json::<Run>(&self.folder.job(&record.id).run())?;
        let step = run.map_or(0, |run| run.step);
        // later, what it began with is in its checkpoint
        let has_start = step > 0 || record.model == self.adapters.base();
        // another that was brought under its name is not what was asked for
        let is_it = |card: &Card| record.start.as_ref().is_none_or(|start| *start == Start::of(card));
        let is_gone = !has_start && !self.adapters.find(&record.model).as_ref().is_some_and(is_it);
        let mut state = self.state();
        let Some(now) = state.jobs.get(&record.id).cloned() else { return Ok(false) };
        // paused or called off since it was chosen
        if !matches!(now.status, Status::Queued | Status::Running) {
            return Ok(false);
        }
        if let Some((paused, message)) = conclude::worn_out(&now, step) {
            self.tell(&paused.id, Level::Error, &message);
            self.set(&mut state, paused).map_err(|_| TrainingTrouble::Disk)?;
            return Ok(false);
        }
        if is_gone {
            let (ended, level, message) = conclude::gone(now);
            self.tell(&ended.id, level, &message);
            self.set(&mut state, ended).map_err(|_| TrainingTrouble::Disk)?;
            self.folder.job(&record.id).clear()?;
            return Ok(false);
        }
        // its death is counted before it comes: one that takes us along, such as of a container that is out of memory,
        // would not be counted else, and the next start would go into it again
        let deaths = if now.died_at == Some(step) { now.deaths + 1 } else { 1 };
        self.folder.job(&now.id).keep_room()?;
        let started_at = now.started_at.or_else(|| Some(now_s()));
        let begun = Record { status: Status::Running, started_at, deaths, died_at: Some(step), ..now };
        self.set(&mut state, begun).map_err(|_| TrainingTrouble::Disk)?;
        if is_new {
            self.tell(&record.id, Level::Info, "Fine-tuning job started");
        }
        Ok(true)
    }

    /// Takes back that a trainer's death was counted: we have ended it.
    fn uncount(&self, id: &str) {
        let mut state = self.state();
        let Some(now) = state.jobs.get(id).cloned() else { return };
        let record = Record { deaths: now.deaths.saturating_sub(1), ..now };
        if self.set(&mut state, record).is_err() {
            tracing::warn!(job = id, "a trainer that was ended counts as one that died");
        }
    }

    fn spawn(&self, record: &Record, job: &JobFolder) -> Result<Child, TrainingTrouble> {
        folder::remove(&job.wish())?;
        let training = &self.training;
        let mut command = Command::new(&training.program);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "RUST_LOG" || name == "RUST_BACKTRACE"))
            .env("RAYON_NUM_THREADS", training.threads.to_string())
            .env("CANDLE_NUM_THREADS", training.threads.to_string())
            .arg("trainer")
            .arg("--job")
            .arg(job.path())
            .arg("--model-file")
            .arg(&training.model_file)
            .arg("--training-file")
            .arg(self.shelf.content(&record.training_file))
            .args(["--threads", &training.threads.to_string()])
            .args(["--memory-mib", &training.memory_mib.to_string()])
            .args(["--longest-row", &training.longest_row.to_string()])
            .args(["--checkpoint-ms", &training.checkpoint_every.as_millis().to_string()])
            .args(["--parent", &std::process::id().to_string()])
            // a signal to our group, such as Ctrl-C, is ours to handle: it must not count as a trainer's death
            .process_group(0)
            .stdin(Stdio::null());
        if let Some(file) = &record.validation_file {
            command.arg("--validation-file").arg(self.shelf.content(file));
        }
        // of a model that is gone, only a checkpoint that has it within goes on
        if let Some(adapter) = self.adapters.folder_of(&record.model) {
            command.arg("--start-adapter").arg(adapter);
        }
        Ok(command.spawn()?)
    }

    /// Watches over a trainer; returns whether it ended by itself or as its job's owner wished, and not because we end.
    fn tend(&self, id: &str, job: &JobFolder, child: Child) -> Result<bool, TrainingTrouble> {
        let mut child = Kept(child);
        let mut told_to_pause: Option<Instant> = None;
        // the journal may hold steps of a run before; those are not counted once more
        let told = journal::last_metrics(&job.events()).map_or(0, |metrics| metrics.step);
        let mut seen = Seen { epochs: 0, step: told };
        loop {
            if child.0.try_wait()?.is_some() {
                self.show(id, job, seen);
                return Ok(true);
            }
            let (ended, wish) = {
                let state = self.state();
                (state.ended, state.jobs.get(id).and_then(|job| job.wish))
            };
            if ended {
                return Ok(false);
            }
            match wish {
                Some(Wish::Cancel) => {
                    drop(child);
                    return Ok(true);
                }
                Some(Wish::Pause) => match told_to_pause {
                    None => match folder::write(&job.wish(), b"pause") {
                        Ok(()) => told_to_pause = Some(clock::monotonic()),
                        // such as of a full disk: it trains on, and is told as soon as it can be
                        Err(error) => {
                            tracing::warn!(job = id, %error, "a trainer can't be told to pause yet");
                        }
                    },
                    Some(since) if since.elapsed() > PATIENCE => {
                        drop(child);
                        return Ok(true);
                    }
                    Some(_) => {}
                },
                None => {}
            }
            seen = self.show(id, job, seen);
            let state = self.state();
            drop(self.news.wait_timeout(state, PULSE));
        }
    }

    /// Serves what new epochs have come to, and shows how fast it goes; returns what is known now.
    fn show(&self, id: &str, job: &JobFolder, mut seen: Seen) -> Seen {
        if let Some(metrics) = journal::last_metrics(&job.events()) {
            self.metrics.trains(metrics.train_loss, metrics.tokens_per_second);
            // fewer than before: the trainer goes on from a checkpoint
            self.metrics.trained(metrics.step.saturating_sub(seen.step));
            seen.step = metrics.step;
        }
        let Ok(Some(run)) = folder::read_json::<Run>(&job.run()) else { return seen };
        // on a line of its own: the guard must not be held while files are copied
        let record = self.state().jobs.get(id).cloned();
        if run.epochs.len() > seen.epochs
            && let Some(record) = record
        {
            // what found no room is tried again at the end
            let _ = self.publish_epochs(&record, job, &run);
        }
        Seen { epochs: run.epochs.len(), ..seen }
    }
}

/// How often one job has been tried in vain.
#[derive(Default)]
pub(super) struct Tries {
    id: String,
    count: u32,
}

impl Tries {
    /// Counts one more; whether there were enough. Room on a disk is waited for as long as it takes.
    pub(super) fn are_over(&mut self, id: &str, error: &TrainingTrouble) -> bool {
        if self.id != id {
            *self = Self { id: id.to_owned(), count: 0 };
        }
        if matches!(error, TrainingTrouble::System(error) if !folder::is_full(error)) {
            self.count += 1;
        }
        self.count >= MOST_TRIES
    }
}

/// How far a trainer was when it was looked at last.
#[derive(Clone, Copy)]
struct Seen {
    epochs: usize,
    step: u64,
}

/// A trainer that is killed and waited for when it is dropped.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
