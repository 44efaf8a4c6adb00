//! The process that trains one job: reads its rows, goes on from its last checkpoint, and ends with an outcome.
//!
//! Whatever happens to it, the folder holds a whole state: the checkpoint that `run.json` speaks of. A step behind it is
//! computed once more, to the same figures.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tunegate_engine::adapter::{AdapterError, AdapterLimits, LoraWeights, MOST_RANK, peft};
use tunegate_engine::train::{Measure, Row, Step, TrainError, Trainer};
use tunegate_engine::{Gguf, GgufError, Shape};

use super::folder::{self, JobFolder};
use super::journal::{Journal, Level, Metrics};
use super::limits;
use super::record::{Epoch, Outcome, Record, Run, Sums};
use super::rows::{self, Lessons, RowError};
use crate::clock;
use crate::worker::model::Texts;

/// Epochs without a better loss on the validation file before a run whose epochs were left to us ends.
const EPOCHS_WITHOUT_BETTER: usize = 2;

/// Steps that are told of a run, about: of a longer one every second, third and so on, so that what is told stays short
/// enough to be read whole. The last one of an epoch is always told.
const MOST_TOLD: u64 = 10_000;

/// The adapter that is trained on was served, so it is small enough.
const ANY_ADAPTER: AdapterLimits = AdapterLimits { rank: MOST_RANK, size_bytes: 1 << 30 };

/// What a trainer is started with.
#[derive(Debug, Clone)]
pub struct TrainerOptions {
    /// The folder of the job.
    pub job: PathBuf,
    /// The GGUF file of the base model.
    pub model_file: PathBuf,
    /// The rows.
    pub training_file: PathBuf,
    /// Rows to measure with, behind each epoch.
    pub validation_file: Option<PathBuf>,
    /// The adapter that is trained on.
    pub start_adapter: Option<PathBuf>,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// What it may allocate, MiB.
    pub memory_mib: u64,
    /// The longest row, tokens.
    pub longest_row: usize,
    /// How long it goes without a checkpoint.
    pub checkpoint_every: Duration,
    /// The process that started it, and that it ends with.
    pub parent: u32,
}

/// Why a trainer ends without an outcome; it is started again.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// Its folder, or a file it needs, can't be used.
    #[error("something it needs can't be read or written: {0}")]
    System(#[from] io::Error),
    /// There is no job in it.
    #[error("there is no job in the folder")]
    NoJob,
}

/// Why a job can't be trained, now or ever.
struct Hopeless {
    code: &'static str,
    message: String,
}

impl Hopeless {
    fn new(code: &'static str, message: &dyn Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// How a run ended.
enum Ended {
    /// All is trained, or enough.
    Done,
    /// As wished.
    Paused,
}

/// Trains a job until it is done, paused, or hopeless.
///
/// # Errors
/// If its folder can't be used: it may be tried again.
pub fn train(options: &TrainerOptions) -> Result<(), TrainerError> {
    limits::stand_back(options.memory_mib, options.parent)?;
    let folder = JobFolder::at(options.job.clone());
    let record: Record = folder::read_json(&folder.job())?.ok_or(TrainerError::NoJob)?;
    let report = |error: &TrainerError| {
        say(&folder, &record, &format!("The trainer stops, and is tried again: {error}"));
    };
    let mut session = match Session::open(options, &folder, &record) {
        Ok(session) => session,
        Err(trouble) => return end(&folder, &trouble.outcome().inspect_err(report)?),
    };
    let ended = match session.run() {
        Ok(Ended::Paused) => Ok(Outcome::Paused),
        Ok(Ended::Done) => Ok(session.outcome()),
        Err(trouble) => trouble.outcome(),
    };
    let outcome = ended.inspect_err(report)?;
    end(&folder, &outcome)?;
    if matches!(outcome, Outcome::Failed { .. }) {
        session.count_epochs();
    }
    Ok(())
}

/// Leaves word of what the job's owner should know. Lost words lose nothing else.
fn say(folder: &JobFolder, record: &Record, message: &str) {
    let said = Journal::open(&folder.events(), &record.id).and_then(|mut journal| {
        journal.say(now_s(), Level::Warn, message)?;
        journal.sync()
    });
    if let Err(error) = said {
        tracing::warn!(%error, message, "an event can't be written");
    }
}

/// Leaves word of how the run ended, on a full disk, too.
fn end(folder: &JobFolder, outcome: &Outcome) -> Result<(), TrainerError> {
    Ok(folder.insist(|| folder::write_json(&folder.outcome(), outcome))?)
}

/// Why a run stops short.
enum Trouble {
    /// It would the next time, too.
    Hopeless(Hopeless),
    /// It needs a person.
    Waits(String),
    System(io::Error),
}

impl Trouble {
    /// What it means for the job.
    ///
    /// # Errors
    /// If it may go better the next time.
    fn outcome(self) -> Result<Outcome, TrainerError> {
        match self {
            Self::Hopeless(Hopeless { code, message }) => {
                Ok(Outcome::Failed { code: code.to_owned(), message })
            }
            Self::Waits(message) => Ok(Outcome::Waits { message }),
            Self::System(error) if folder::is_full(&error) => Ok(Outcome::Failed {
                code: "disk_full".to_owned(),
                message: format!(
                    "the worker's disk is full ({error}): make room and start the job once more"
                ),
            }),
            Self::System(error) => Err(error.into()),
        }
    }
}

impl From<Hopeless> for Trouble {
    fn from(hopeless: Hopeless) -> Self {
        Self::Hopeless(hopeless)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// How long was computed in all. Short steps are less than a millisecond, and many.
struct Computed(Duration);

impl Computed {
    /// Returns the whole milliseconds with those of one more step.
    fn add(&mut self, took: Duration) -> u64 {
        self.0 = self.0.saturating_add(took);
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

struct Session<'j> {
    options: &'j TrainerOptions,
    folder: &'j JobFolder,
    record: &'j Record,
    shape: Shape,
    base: String,
    lessons: Lessons,
    validation: Option<Lessons>,
    trainer: Trainer,
    run: Run,
    journal: Journal,
    computed: Computed,
    /// When the last checkpoint was written.
    kept: Instant,
}

impl<'j> Session<'j> {
    fn open(options: &'j TrainerOptions, folder: &'j JobFolder, record: &'j Record) -> Result<Self, Trouble> {
        let mut gguf = Gguf::open(&options.model_file).map_err(of_model)?;
        let shape = Shape::read(&gguf).map_err(of_model)?;
        let texts = Texts::load(&gguf).map_err(|error| Hopeless::new("invalid_model", &error))?;
        let longest = options.longest_row.min(shape.context);
        let kind = record.asked.kind.into();
        let lessons = rows::read(&options.training_file, &texts, kind, longest)
            .map_err(|error| of_rows("invalid_training_file", error))?;
        let validation = options.validation_file.as_ref().map(|file| rows::read(file, &texts, kind, longest));
        let validation = validation.transpose().map_err(|error| of_rows("invalid_validation_file", error))?;
        let rows = lessons.len() as u64;
        let before: Option<Run> = folder::read_json(&folder.run())?;
        let plan = before.as_ref().map_or_else(|| record.asked.plan(rows), |run| run.plan);
        let settings = record
            .asked
            .training(&plan, rows, record.seed)
            .map_err(|error| Hopeless::new("invalid_hyperparameters", &error))?;
        let model = digest(&options.model_file)?;
        if before
            .as_ref()
            .is_some_and(|run| run.step > 0 && run.model.as_ref().is_some_and(|was| *was != model))
        {
            return Err(Trouble::Waits(
                "The base model's file is not the one that this job was begun with, so it is paused: put that file \
                 back and resume the job, or cancel it"
                    .to_owned(),
            ));
        }
        let mut journal = Journal::open(&folder.events(), &record.id)?;
        let (trainer, run) = match before.filter(|run| run.step > 0) {
            Some(run) => {
                journal = journal.rewind(run.step)?;
                let trainer = Trainer::resume(&mut gguf, settings, &folder.checkpoint(run.step))
                    .map_err(of_training)?;
                journal.say(
                    now_s(),
                    Level::Info,
                    &format!("The training goes on behind step {}", run.step),
                )?;
                (trainer, run)
            }
            None => {
                let start = options
                    .start_adapter
                    .as_ref()
                    .map(|path| peft::read(path, &shape, ANY_ADAPTER).map_err(of_start));
                let start: Option<LoraWeights> = start.transpose()?;
                let trainer = Trainer::new(&mut gguf, settings, start.as_ref()).map_err(of_training)?;
                let run = Run {
                    rows,
                    plan,
                    model: Some(model),
                    step: 0,
                    trained_tokens: 0,
                    busy_ms: 0,
                    epochs: Vec::new(),
                    sums: Sums::default(),
                };
                journal = journal.rewind(0)?;
                (trainer, run)
            }
        };
        let base = options.model_file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let computed = Computed(Duration::from_millis(run.busy_ms));
        let session = Self {
            options,
            folder,
            record,
            shape,
            base,
            lessons,
            validation,
            trainer,
            run,
            journal,
            computed,
            kept: clock::monotonic(),
        };
        if session.run.step == 0 {
            // from now on everybody knows how many epochs it will be
            folder::write_json(&folder.run(), &session.run)?;
        }
        Ok(session)
    }

    fn run(&mut self) -> Result<Ended, Trouble> {
        let total = self.run.plan.steps(self.run.rows);
        let an_epoch = self.run.plan.steps_an_epoch(self.run.rows);
        while self.run.step < total {
            if self.folder.wish().exists() {
                self.keep()?;
                return Ok(Ended::Paused);
            }
            if self.run.step.is_multiple_of(an_epoch) && self.is_enough() {
                self.journal.say(
                    now_s(),
                    Level::Info,
                    &format!(
                        "Stopped early: {EPOCHS_WITHOUT_BETTER} epochs did no better on the validation file"
                    ),
                )?;
                return Ok(Ended::Done);
            }
            let begun = clock::monotonic();
            let step = match self.step(an_epoch) {
                Ok(step) => step,
                Err(error) => return Err(self.broke(&error)),
            };
            let took = begun.elapsed();
            self.run.step += 1;
            self.run.trained_tokens += step.tokens;
            self.run.sums.add(step.loss, step.accuracy);
            let ends_epoch = self.run.step.is_multiple_of(an_epoch);
            let measured = match (ends_epoch, &self.validation) {
                (true, Some(validation)) => match self.trainer.evaluate(&all(validation)) {
                    Ok(measure) => Some(measure),
                    Err(error) => return Err(self.broke(&error)),
                },
                _ => None,
            };
            // with the look at the validation file: that is computed, too
            self.run.busy_ms = self.computed.add(begun.elapsed());
            if ends_epoch || self.run.step.is_multiple_of(total.div_ceil(MOST_TOLD)) {
                self.tell(&step, measured.as_ref(), took, total)?;
            }
            if ends_epoch {
                self.end_epoch(measured.as_ref())?;
            }
            if ends_epoch || self.kept.elapsed() >= self.options.checkpoint_every {
                self.keep()?;
            }
        }
        Ok(Ended::Done)
    }

    fn step(&mut self, an_epoch: u64) -> Result<Step, TrainError> {
        let (epoch, at) = (self.run.step / an_epoch, self.run.step % an_epoch);
        let order = self.trainer.settings().order(epoch, self.lessons.len());
        let batch = usize::try_from(self.run.plan.batch).unwrap_or(usize::MAX);
        let from = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(batch);
        let rows: Vec<Row<'_>> =
            order.iter().skip(from).take(batch).map(|row| row_of(&self.lessons, *row)).collect();
        self.trainer.step(&rows)
    }

    /// Whether a run whose epochs were left to us only learns by heart from here on.
    fn is_enough(&self) -> bool {
        self.record.asked.epochs.is_none()
            && self.validation.is_some()
            && self.run.epochs_since_best() >= EPOCHS_WITHOUT_BETTER
    }

    fn tell(
        &mut self,
        step: &Step,
        measured: Option<&Measure>,
        took: Duration,
        total: u64,
    ) -> Result<(), io::Error> {
        let left = total - self.run.step;
        let metrics = Metrics {
            step: self.run.step,
            total_steps: total,
            train_loss: step.loss,
            train_mean_token_accuracy: step.accuracy,
            full_valid_loss: measured.map(|measure| measure.loss),
            full_valid_mean_token_accuracy: measured.map(|measure| measure.accuracy),
            learning_rate: step.learning_rate,
            tokens_per_second: u32::try_from(step.tokens).map_or(0.0, f64::from)
                / took.as_secs_f64().max(1e-6),
            eta_seconds: self.run.busy_ms.saturating_mul(left) / self.run.step.max(1) / 1000,
            trained_tokens: self.run.trained_tokens,
            busy_ms: self.run.busy_ms,
        };
        self.journal.measure(now_s(), metrics)
    }

    fn end_epoch(&mut self, measured: Option<&Measure>) -> io::Result<()> {
        let (train_loss, train_accuracy) = std::mem::take(&mut self.run.sums).means();
        self.write_adapter()?;
        self.run.epochs.push(Epoch {
            step: self.run.step,
            created_at: now_s(),
            train_loss,
            train_accuracy,
            valid_loss: measured.map(|measure| measure.loss),
            valid_accuracy: measured.map(|measure| measure.accuracy),
        });
        Ok(())
    }

    fn write_adapter(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder.epochs())?;
        // of a run that was killed before it counted
        folder::remove(&self.folder.epoch(self.run.step))?;
        let weights = self.trainer.weights();
        peft::write(&self.folder.epoch(self.run.step), weights, &self.shape, &self.base)
            .map_err(io_of_adapter)
    }

    /// Writes a checkpoint, then that it counts, then removes the one before and the adapters that are kept no longer.
    fn keep(&mut self) -> io::Result<()> {
        if self.run.step > 0 {
            let checkpoint = self.folder.checkpoint(self.run.step);
            fs::create_dir_all(self.folder.checkpoints())?;
            self.trainer.save(&checkpoint).map_err(io_of_saving)?;
            self.journal.sync()?;
            folder::write_json(&self.folder.run(), &self.run)?;
            for entry in fs::read_dir(self.folder.checkpoints())? {
                let path = entry?.path();
                if path != checkpoint {
                    folder::remove(&path)?;
                }
            }
            for (epoch, _) in self.run.kept().filter(|(_, is_kept)| !is_kept) {
                folder::remove(&self.folder.epoch(epoch.step))?;
            }
        }
        self.kept = clock::monotonic();
        Ok(())
    }

    /// A step can't be computed: what the epochs before it came to is kept.
    fn broke(&mut self, error: &TrainError) -> Trouble {
        if let Err(trouble) = self.keep() {
            return trouble.into();
        }
        match error {
            TrainError::NotFinite { step: ..=1 } if self.options.start_adapter.is_some() => Hopeless {
                code: "training_diverged",
                message: format!(
                    "the loss is not finite before anything was learned: {} holds numbers that are too large to \
                     train on; begin with the base model",
                    self.record.model
                ),
            }
            .into(),
            error => hopeless(error).into(),
        }
    }

    /// Of a run that failed for good: nothing goes on from its checkpoint, and what its epochs came to is kept, also of
    /// one that came after the checkpoint.
    fn count_epochs(&self) {
        let counted = folder::remove(&self.folder.checkpoints())
            .and_then(|()| folder::write_json(&self.folder.run(), &self.run));
        if let Err(error) = counted {
            tracing::warn!(%error, "an epoch behind the last checkpoint may be lost");
        }
    }

    fn outcome(&self) -> Outcome {
        match self.run.best() {
            Some(best) => Outcome::Succeeded { step: best.step },
            None => Outcome::Failed {
                code: "nothing_trained".to_owned(),
                message: "no epoch was trained to its end".to_owned(),
            },
        }
    }
}

/// What tells a model's file from every other.
fn digest(file: &Path) -> io::Result<String> {
    Ok(blake3::Hasher::new().update_reader(File::open(file)?)?.finalize().to_hex().to_string())
}

fn all(lessons: &Lessons) -> Vec<Row<'_>> {
    (0..lessons.len()).map(|row| row_of(lessons, row)).collect()
}

fn row_of(lessons: &Lessons, row: usize) -> Row<'_> {
    match lessons {
        Lessons::Examples(examples) => Row::Example(&examples[row]),
        Lessons::Pairs(pairs) => Row::Pair(&pairs[row]),
    }
}

/// The system's own error where it is one: a full disk must be told from the rest.
fn io_of_adapter(error: AdapterError) -> io::Error {
    match error {
        AdapterError::Io(error) => error,
        other => io::Error::other(other),
    }
}

fn io_of_saving(error: TrainError) -> io::Error {
    match error {
        TrainError::Io(error) => error,
        other => io::Error::other(other),
    }
}

// What it means that something can't be read: the end where it is broken, and another try where the system is to blame,
// which may do better the next time. A volume that is not mounted yet must not cost a checkpoint.

fn of_model(error: GgufError) -> Trouble {
    match error {
        GgufError::Io(error) => error.into(),
        other => Hopeless::new("invalid_model", &other).into(),
    }
}

fn of_rows(code: &'static str, error: RowError) -> Trouble {
    match error {
        RowError::Unreadable(error) => error.into(),
        other => Hopeless::new(code, &other).into(),
    }
}

fn of_start(error: AdapterError) -> Trouble {
    match error {
        AdapterError::Io(error) => error.into(),
        other => Hopeless::new("invalid_start_adapter", &other).into(),
    }
}

fn of_training(error: TrainError) -> Trouble {
    match error {
        TrainError::Io(error) | TrainError::Threads(error) => error.into(),
        TrainError::Model(error) => of_model(error),
        other => hopeless(&other).into(),
    }
}

fn hopeless(error: &TrainError) -> Hopeless {
    let code = match error {
        TrainError::NotFinite { .. } => "training_diverged",
        TrainError::Row { .. } => "invalid_training_file",
        TrainError::Settings(_) => "invalid_hyperparameters",
        _ => "training_failed",
    };
    Hopeless::new(code, error)
}

fn now_s() -> i64 {
    clock::unix_ms() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_steps_add_up() {
        let mut computed = Computed(Duration::from_millis(7));
        let told: Vec<u64> = (0..5).map(|_| computed.add(Duration::from_micros(600))).collect();
        assert_eq!(told, [7, 8, 8, 9, 10]);
    }

    #[test]
    fn only_what_is_broken_ends_a_job() {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let why = || "no".to_owned();
        for (trouble, code) in [
            (of_model(GgufError::Io(io())), None),
            (of_model(GgufError::Malformed(why())), Some("invalid_model")),
            (of_rows("invalid_training_file", RowError::Unreadable(io())), None),
            (of_rows("invalid_training_file", RowError::Empty), Some("invalid_training_file")),
            (of_start(AdapterError::Io(io())), None),
            (of_start(AdapterError::Malformed(why())), Some("invalid_start_adapter")),
            (of_training(TrainError::Io(io())), None),
            (of_training(TrainError::Threads(io())), None),
            (of_training(TrainError::Model(GgufError::Io(io()))), None),
            (of_training(TrainError::NotFinite { step: 1 }), Some("training_diverged")),
        ] {
            let found = match trouble {
                Trouble::Hopeless(hopeless) => Some(hopeless.code),
                Trouble::Waits(_) => Some("waits"),
                Trouble::System(_) => None,
            };
            assert_eq!(found, code);
        }
    }
}
