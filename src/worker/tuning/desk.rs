//! Who is trained, and what becomes of it.
//!
//! One thread trains one job after the other, each in a process of its own that can be killed at any moment: whatever
//! is told to anybody is on the disk before. A worker that starts again goes on with what it was at.

mod conclude;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::folder::{self, Claim, Folder, JobFolder};
use super::journal::{self, Event, Journal, Level};
use super::record::{Epoch, Record, Run, Start, Status, Wish};
use super::settings::Asked;
use super::shelf::Shelf;
use crate::clock;
use crate::domain::tuning::request::{JobRequest, OUR_METADATA};
use crate::domain::tuning::{Id, JobError};
use crate::telemetry::metrics::WorkerMetrics;
use crate::worker::adapters::Adapters;
use crate::worker::wire::Refusal;

/// Jobs that have not ended, at most.
const MOST_OPEN: usize = 100;
/// Jobs at all; those that ended first are forgotten beyond.
const MOST_JOBS: usize = 2_000;

/// How jobs are trained.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Training {
    /// This program.
    pub(in crate::worker) program: PathBuf,
    /// The GGUF file of the base model.
    pub(in crate::worker) model_file: PathBuf,
    /// What stands for us in the names of models.
    pub(in crate::worker) organization: String,
    pub(in crate::worker) threads: NonZeroUsize,
    /// What a trainer may allocate, MiB.
    pub(in crate::worker) memory_mib: u64,
    /// The longest row, tokens.
    pub(in crate::worker) longest_row: usize,
    /// How long a run may go without a checkpoint.
    pub(in crate::worker) checkpoint_every: Duration,
}

/// The handle; ends the thread, and with it a running trainer, when dropped.
pub(in crate::worker) struct TuningDesk {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    folder: Folder,
    /// Held for as long as a job may be trained here.
    _claim: Claim,
    shelf: Shelf,
    adapters: Arc<Adapters>,
    training: Training,
    metrics: Arc<WorkerMetrics>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<String, Record>,
    /// Jobs that are there and whose records can't be read.
    unreadable: BTreeSet<String>,
    ended: bool,
}

impl State {
    fn find(&self, id: &str) -> Result<Record, Refusal> {
        self.jobs.get(id).cloned().ok_or_else(|| match self.unreadable.contains(id) {
            // whoever heard that there is none would give it up
            true => Refusal::unreadable_job(id),
            false => Refusal::unknown_job(id),
        })
    }
}

/// A piece of a list, as OpenAI pages it.
pub(in crate::worker) struct Page<T> {
    pub(in crate::worker) items: Vec<T>,
    pub(in crate::worker) has_more: bool,
}

impl<T> Page<T> {
    /// The first `limit` of `all` behind the one called `after`.
    pub(in crate::worker) fn of(
        all: Vec<T>,
        after: Option<&str>,
        limit: usize,
        id: impl Fn(&T) -> &str,
    ) -> Self {
        let from = after
            .map_or(0, |after| all.iter().position(|item| id(item) == after).map_or(all.len(), |at| at + 1));
        let has_more = all.len() > from.saturating_add(limit);
        Self { items: all.into_iter().skip(from).take(limit).collect(), has_more }
    }
}

impl TuningDesk {
    /// Reads what there is, and goes on with it.
    ///
    /// # Errors
    /// If the folder can't be read or written, or the system gives no thread.
    pub(in crate::worker) fn start(
        (folder, claim): (Folder, Claim),
        adapters: Arc<Adapters>,
        training: Training,
        metrics: Arc<WorkerMetrics>,
    ) -> io::Result<Self> {
        let shelf = Shelf::new(&folder);
        // what is left over is no reason not to serve
        if let Err(error) = shelf.sweep() {
            tracing::warn!(%error, "what is left of uploads can't be removed");
        }
        let (jobs, unreadable) = read_all(&folder)?;
        for ended in jobs.values().filter(|job| job.status.is_final()) {
            // a kill may have come between a job's end and this
            if let Err(error) = folder.job(&ended.id).clear() {
                tracing::warn!(job = ended.id, %error, "what an ended job has learned can't be removed");
            }
        }
        let state = Mutex::new(State { jobs, unreadable, ended: false });
        let (_claim, news) = (claim, Condvar::new());
        let inner = Arc::new(Inner { folder, _claim, shelf, adapters, training, metrics, state, news });
        inner.count(&inner.state());
        let runner = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("tuning".to_owned()).spawn(move || runner.run())?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// The files of this worker.
    pub(in crate::worker) fn shelf(&self) -> &Shelf {
        &self.inner.shelf
    }

    /// What stands for us in the names of models.
    pub(in crate::worker) fn organization(&self) -> &str {
        &self.inner.training.organization
    }

    /// Whether the thread runs; it ends only when told to, unless it is broken.
    pub(in crate::worker) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread and a running trainer, which goes on from its last checkpoint at the next start.
    pub(in crate::worker) fn end(&self) {
        self.inner.state().ended = true;
        self.inner.news.notify_all();
    }

    /// Takes a job in.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::worker) fn create(&self, body: &[u8]) -> Result<Record, Refusal> {
        let (request, ours) = read_request(body)?;
        let inner = &self.inner;
        let asked = Asked::of(&request)?;
        let form = asked.lora().map_err(|why| Refusal::invalid("hyperparameters", &why))?;
        inner
            .adapters
            .takes(&form)
            .map_err(|error| Refusal::invalid("hyperparameters.lora_r", &error.to_string()))?;
        let model = request.model.as_str();
        let model = model.strip_prefix("local/").unwrap_or(model);
        let start = match model == inner.adapters.base() {
            true => None,
            false => {
                let card = inner.adapters.find(model).ok_or_else(|| Refusal::unknown_model(model))?;
                Some(Start::of(&card))
            }
        };
        let mut metadata = request.metadata.clone().unwrap_or_default();
        metadata.extend(ours.map(|ours| (OUR_METADATA.to_owned(), ours)));
        let record = Record {
            id: Id::Job.mint(rand::random()),
            created_at: now_s(),
            model: model.to_owned(),
            start,
            training_file: request.training_file.to_string(),
            validation_file: request.validation_file.as_deref().map(ToOwned::to_owned),
            suffix: request.suffix.as_deref().map(ToOwned::to_owned),
            seed: request.seed.map_or_else(|| u64::from(rand::random::<u32>() >> 1), i64::unsigned_abs),
            asked,
            metadata,
            integrations: request.integrations.clone(),
            status: Status::Queued,
            wish: None,
            started_at: None,
            finished_at: None,
            deaths: 0,
            died_at: None,
            fine_tuned_model: None,
            result_file: None,
            error: None,
        };
        inner.admit(record)
    }

    /// Removes a file that no open job needs.
    ///
    /// # Errors
    /// Which job needs it, or what the system says.
    pub(in crate::worker) fn delete_file(&self, id: &str) -> Result<(), Refusal> {
        let inner = &self.inner;
        // held to the end: no job that needs it is taken in between
        let state = inner.state();
        let mut open = state.jobs.values().filter(|job| !job.status.is_final());
        if let Some(job) = open.find(|job| job.files().any(|(_, file)| file == id)) {
            return Err(Refusal::file_in_use(id, &job.id));
        }
        if let Some(job) = state.unreadable.first() {
            // it may need it
            return Err(Refusal::unreadable_job(job));
        }
        inner.shelf.delete(id).map_err(|error| broken(&error))
    }

    /// Finds a job.
    ///
    /// # Errors
    /// If there is none, or it can't be read.
    pub(in crate::worker) fn find(&self, id: &str) -> Result<Record, Refusal> {
        self.inner.state().find(id)
    }

    /// All jobs, newest first.
    ///
    /// # Errors
    /// If there are some that can't be read: whoever looks for one of them would take it for none, and order it again.
    pub(in crate::worker) fn all(&self) -> Result<Vec<Record>, Refusal> {
        let state = self.inner.state();
        if let Some(id) = state.unreadable.first() {
            return Err(Refusal::unreadable_job(id));
        }
        let mut all: Vec<Record> = state.jobs.values().cloned().collect();
        drop(state);
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(all)
    }

    /// How far a job's trainer is; none before it has read the rows.
    ///
    /// # Errors
    /// If it can't be read.
    pub(in crate::worker) fn run_of(&self, id: &str) -> io::Result<Option<Run>> {
        folder::read_json(&self.inner.folder.job(id).run())
    }

    /// What a job's epochs came to, as far as they are served, newest first.
    pub(in crate::worker) fn checkpoints(&self, record: &Record) -> Vec<(String, Epoch)> {
        let run = self.run_of(&record.id).ok().flatten();
        let adapters = &self.inner.adapters;
        let name = |epoch: &Epoch| record.checkpoint_name(adapters.base(), self.organization(), epoch.step);
        let epochs = run.into_iter().flat_map(|run| run.epochs).map(|epoch| (name(&epoch), epoch));
        let mut served: Vec<_> = epochs.filter(|(name, _)| adapters.find(name).is_some()).collect();
        served.reverse();
        served
    }

    /// What happened to a job, newest first: the first `limit` events behind the one called `after`.
    ///
    /// # Errors
    /// If it can't be read.
    pub(in crate::worker) fn events(
        &self,
        id: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Event>, Refusal> {
        let path = self.inner.folder.job(id).events();
        let (items, has_more) = journal::newest(&path, after, limit).map_err(|error| broken(&error))?;
        Ok(Page { items, has_more })
    }

    /// Calls a job off.
    ///
    /// # Errors
    /// If there is none, or it has ended.
    pub(in crate::worker) fn cancel(&self, id: &str) -> Result<Record, Refusal> {
        self.inner.wish(id, Wish::Cancel)
    }

    /// Has a job wait, with all that it has learned.
    ///
    /// # Errors
    /// If there is none, or it has ended.
    pub(in crate::worker) fn pause(&self, id: &str) -> Result<Record, Refusal> {
        self.inner.wish(id, Wish::Pause)
    }

    /// Lets a paused job go on.
    ///
    /// # Errors
    /// If there is none, or it is not paused.
    pub(in crate::worker) fn resume(&self, id: &str) -> Result<Record, Refusal> {
        let inner = &self.inner;
        let mut state = inner.state();
        let record = state.find(id)?;
        if record.status != Status::Paused {
            return Err(Refusal::job_is(id, record.status.name(), "resumed"));
        }
        let record = Record { status: Status::Queued, wish: None, deaths: 0, ..record };
        inner.set(&mut state, record.clone())?;
        inner.tell(id, Level::Info, "The job is resumed");
        drop(state);
        inner.news.notify_all();
        Ok(record)
    }
}

impl Drop for TuningDesk {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            // A broken thread was reported by `is_alive`; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where its holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, record: Record) -> Result<Record, Refusal> {
        let mut state = self.state();
        if state.ended {
            return Err(Refusal::stopping());
        }
        if state.jobs.values().filter(|job| !job.status.is_final()).count() >= MOST_OPEN {
            return Err(Refusal::too_many_jobs(MOST_OPEN));
        }
        // here, and not before: until its job is known, a file may be deleted
        for (member, file) in record.files() {
            if self.shelf.find(file).map_err(|error| broken(&error))?.is_none() {
                return Err(Refusal::unknown_file(member, file));
            }
        }
        self.forget_the_oldest(&mut state);
        let job = self.folder.job(&record.id);
        let room = std::fs::create_dir_all(job.path()).and_then(|()| job.keep_room());
        let taken = room.map_err(|error| broken(&error)).and_then(|()| self.set(&mut state, record.clone()));
        if let Err(refusal) = taken {
            // what is left all the same has no record, and is swept at the next start
            let _ = folder::remove(job.path());
            return Err(refusal);
        }
        self.tell(&record.id, Level::Info, "The local worker has taken the job in");
        drop(state);
        self.news.notify_all();
        Ok(record)
    }

    fn forget_the_oldest(&self, state: &mut State) {
        while state.jobs.len() >= MOST_JOBS {
            let ended = state.jobs.values().filter(|job| job.status.is_final());
            let Some(old) = ended.min_by_key(|job| job.finished_at) else { return };
            let id = old.id.clone();
            let curve = old.result_file.as_ref().map_or(Ok(()), |file| self.shelf.delete(file));
            if let Err(error) = curve.and_then(|()| folder::remove(self.folder.job(&id).path())) {
                tracing::warn!(job = id, %error, "an old job can't be removed");
                return;
            }
            state.jobs.remove(&id);
        }
    }

    /// Has a record on the disk, then in memory.
    fn set(&self, state: &mut State, record: Record) -> Result<(), Refusal> {
        let job = self.folder.job(&record.id);
        job.insist(|| folder::write_json(&job.job(), &record)).map_err(|error| broken(&error))?;
        state.jobs.insert(record.id.clone(), record);
        self.count(state);
        Ok(())
    }

    fn count(&self, state: &State) {
        let of = |status| state.jobs.values().filter(|job| job.status == status).count();
        self.metrics.training_jobs([Status::Queued, Status::Running, Status::Paused].map(of));
    }

    /// Tells an event of a job whose trainer does not run. An event that is lost loses nothing else.
    fn tell(&self, id: &str, level: Level, message: &str) {
        let job = self.folder.job(id);
        let told = job.insist(|| {
            let mut journal = Journal::open(&job.events(), id)?;
            journal.say(now_s(), level, message)?;
            journal.sync()
        });
        if let Err(error) = told {
            tracing::warn!(job = id, %error, message, "an event can't be written");
        }
    }

    fn wish(&self, id: &str, wish: Wish) -> Result<Record, Refusal> {
        let mut state = self.state();
        let record = state.find(id)?;
        let record = match (record.status, wish) {
            (status, _) if status.is_final() => {
                let done = if wish == Wish::Cancel { "cancelled" } else { "paused" };
                return Err(Refusal::job_is(id, status.name(), done));
            }
            (Status::Paused, Wish::Pause) => return Ok(record),
            // called off stays called off
            (Status::Running, Wish::Pause) if record.wish == Some(Wish::Cancel) => return Ok(record),
            (Status::Running, _) => Record { wish: Some(wish), ..record },
            (_, Wish::Pause) => Record { status: Status::Paused, ..record },
            (_, Wish::Cancel) => Record { status: Status::Cancelled, finished_at: Some(now_s()), ..record },
        };
        self.set(&mut state, record.clone())?;
        if record.status == Status::Cancelled {
            // of one that was paused without a checkpoint, since that took too long; only now: one that goes on does them
            // again
            conclude::count_unkept(&self.folder.job(id));
            // of one that was paused since it could be served in part alone
            self.take_back(&record);
        }
        if record.wish.is_none() {
            let message = if wish == Wish::Cancel { "The job was cancelled" } else { "The job is paused" };
            self.tell(id, Level::Info, message);
        }
        if record.status.is_final()
            && let Err(error) = self.folder.job(id).clear()
        {
            tracing::warn!(job = id, %error, "what an ended job has learned can't be removed; tried again at the next start");
        }
        drop(state);
        self.news.notify_all();
        Ok(record)
    }
}

/// Why a job can't be trained just now.
#[derive(Debug, thiserror::Error)]
enum TrainingTrouble {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("its record can't be written")]
    Disk,
    #[error("its trainer died")]
    Died,
}

fn now_s() -> i64 {
    clock::unix_ms() / 1000
}

/// What is said of a folder that can't be used.
pub(in crate::worker) fn broken(error: &io::Error) -> Refusal {
    tracing::error!(%error, "the folder of local training can't be used");
    match folder::is_full(error) {
        true => Refusal::disk_full(),
        false => Refusal::failed(),
    }
}

/// Reads a request, and apart from it what the gateway wrote into its metadata.
fn read_request(body: &[u8]) -> Result<(JobRequest, Option<serde_json::Value>), Refusal> {
    let mut value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error.to_string()))?;
    let metadata = value.get_mut("metadata").and_then(serde_json::Value::as_object_mut);
    let ours =
        metadata.and_then(|metadata| metadata.remove(OUR_METADATA)).filter(serde_json::Value::is_string);
    let request = JobRequest::parse(value.to_string().as_bytes()).map_err(|error| Refusal::of_job(&error))?;
    Ok((request, ours))
}

/// Reads all jobs, and which there are that can't be read.
fn read_all(folder: &Folder) -> io::Result<(BTreeMap<String, Record>, BTreeSet<String>)> {
    let (mut jobs, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
    for entry in std::fs::read_dir(folder.jobs())? {
        let path = entry?.path();
        match folder::read_json::<Record>(&JobFolder::at(path.clone()).job()) {
            Ok(Some(record)) => {
                jobs.insert(record.id.clone(), record);
            }
            // a kill came before the record: nobody was told of this job
            Ok(None) => {
                if let Err(error) = folder::remove(&path) {
                    tracing::warn!(path = %path.display(), %error, "what is left of a job can't be removed");
                }
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a job can't be read; left alone");
                unreadable.extend(path.file_name().map(|id| id.to_string_lossy().into_owned()));
            }
        }
    }
    Ok((jobs, unreadable))
}

/// A job's own words for what went wrong.
fn job_error(code: &str, message: &str) -> JobError {
    JobError { code: Some(code.to_owned()), message: Some(message.to_owned()), param: None }
}

#[cfg(test)]
mod tests;
