//! The check of what was uploaded, behind the clients' backs: one file at a time in each process, off the async threads.
//!
//! Whoever checks a file says so in its row, again and again. A process that sees nothing new there for a while, on its
//! own clock, takes the check over: so what was not over goes on after a crash, and of two gateways one checks. A process
//! that ends gives its check back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pingora::time::{sleep, timeout};
use tunegate_dataset::{Options, Report};

use super::{Files, blocking, stored};
use crate::clock;
use crate::domain::dataset;
use crate::domain::tuning::{Caller, FileStatus};
use crate::store::files::{Checked, Waiting};
use crate::tuning::TuningError;

/// Files that are looked at to find one to check.
const LOOKED_AT: i64 = 100;
/// Between two words that a check goes on.
const BEAT: Duration = Duration::from_secs(5);
/// A check that has said nothing for so long is another's to take over.
const TAKEN_OVER_AFTER: Duration = Duration::from_secs(20);
/// A file that can't be read is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(20);
/// Between two looks for what another process has left.
const LOOK: Duration = Duration::from_secs(5);

/// Is told what came of a check, and how long it took.
pub type Told = Box<dyn Fn(FileStatus, Duration) + Send + Sync>;

/// Checks the files that wait for it.
pub struct Checker {
    files: Arc<Files>,
    /// Tells this process from all others.
    pub(super) name: String,
    /// Told of each check that is over: what came of it, and how long it took.
    told: Told,
    /// Who checks what, how often it said so, and since when that has not changed.
    seen: HashMap<String, (String, i64, Instant)>,
    /// What could not be read, and until when it is left alone.
    put_off: HashMap<String, Instant>,
}

impl Checker {
    /// One of this process.
    pub fn new(files: Arc<Files>, told: Told) -> Self {
        let name = format!("{:032x}", rand::random::<u128>());
        Self { files, name, told, seen: HashMap::new(), put_off: HashMap::new() }
    }

    /// Resolves when there may be something to check.
    pub async fn wait(&self) {
        let _ = timeout(LOOK, self.files.waits.notified()).await;
    }

    /// Checks one file, if one waits. Whether it did, or tried to.
    ///
    /// # Errors
    ///
    /// When the database or the folder fails.
    pub async fn step(&mut self, now: Instant) -> Result<bool, TuningError> {
        let files = Arc::clone(&self.files);
        let rows = &files.rows;
        let waiting = rows.waiting(LOOKED_AT).await.map_err(|error| stored(&error))?;
        self.seen.retain(|id, _| waiting.iter().any(|one| one.file.id == *id));
        self.put_off.retain(|_, until| *until > now);
        for one in &waiting {
            if self.may_take(one, now) && rows.claim(one, &self.name).await.map_err(|error| stored(&error))? {
                if !self.check(one).await? {
                    self.put_off.insert(one.file.id.clone(), clock::monotonic() + AGAIN_AFTER);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back a check that was cut off, as this process ends: whoever comes next need not wait for our silence.
    pub async fn give_back(&self) {
        if let Err(error) = self.files.rows.unclaim(&self.name).await {
            tracing::debug!(%error, "a check was not given back: it is taken over by itself");
        }
    }

    /// Whether nobody else checks a file, and it was not put off.
    fn may_take(&mut self, one: &Waiting, now: Instant) -> bool {
        if self.put_off.contains_key(&one.file.id) {
            return false;
        }
        if one.checker.is_empty() || one.checker == self.name {
            return true;
        }
        let seen =
            self.seen.entry(one.file.id.clone()).or_insert_with(|| (one.checker.clone(), one.beat, now));
        if (&seen.0, seen.1) != (&one.checker, one.beat) {
            *seen = (one.checker.clone(), one.beat, now);
        }
        now.saturating_duration_since(seen.2) >= TAKEN_OVER_AFTER
    }

    /// Checks a file. Not so where its content can't be read just now.
    async fn check(&self, one: &Waiting) -> Result<bool, TuningError> {
        let path = self.files.path(&one.file).await?;
        let given_up = GivenUp::default();
        let began = clock::monotonic();
        let mut work = {
            let given_up = Arc::clone(&given_up.0);
            tokio::task::spawn_blocking(move || judge(&path, &given_up))
        };
        let judged = loop {
            tokio::select! {
                judged = &mut work => break judged,
                () = sleep(BEAT) => {
                    let rows = &self.files.rows;
                    // deleted meanwhile, or taken over; a database that fails is told when the end is written
                    if matches!(rows.beat(&one.file.id, &self.name).await, Ok(false)) {
                        return Ok(true);
                    }
                }
            }
        };
        let found = match judged {
            Ok(Ok(found)) => found,
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, file = one.file.id, "a training file can't be read; it is tried again");
                return Ok(false);
            }
            Ok(Err(error)) => unreadable(&error),
            // what our own check stumbles over once, it stumbles over again
            Err(error) => unreadable(&io::Error::other(error)),
        };
        let took = clock::monotonic().saturating_duration_since(began);
        tracing::info!(
            file = one.file.id,
            bytes = one.file.bytes,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            status = found.status.name(),
            "a training file was checked"
        );
        let rows = &self.files.rows;
        if rows.checked(&one.file.id, &self.name, &found).await.map_err(|error| stored(&error))? {
            (self.told)(found.status, took);
        }
        Ok(true)
    }
}

/// Stops a check that nobody waits for any more.
#[derive(Debug, Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A source that ends once nobody waits for what is made of it.
struct Watched<'a, R> {
    source: R,
    given_up: &'a AtomicBool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.given_up.load(Ordering::Relaxed) {
            true => Err(io::Error::other("nobody waits for this check any more")),
            false => self.source.read(buffer),
        }
    }
}

/// What is said of a file whose content is not to be had.
fn unreadable(error: &io::Error) -> Checked {
    tracing::error!(%error, "a training file could not be checked");
    Checked {
        status: FileStatus::Error,
        details: Some("the file's content could not be checked: upload it again".to_owned()),
        report: None,
        system_prompt_sha256: None,
    }
}

/// Checks a content whose model is not known yet: against what any model takes, counted with o200k.
fn judge(path: &Path, given_up: &AtomicBool) -> io::Result<Checked> {
    let source = Watched { source: File::open(path)?, given_up };
    let (options, counter) = (dataset::options_for(""), dataset::counter_for(""));
    let report = tunegate_dataset::check(source, None::<io::Empty>, &options, &counter, &mut |_| {})?;
    Ok(Checked {
        status: if report.is_trainable() { FileStatus::Processed } else { FileStatus::Error },
        details: report.first_error_message(),
        system_prompt_sha256: report.system_prompt.as_ref().map(|prompt| prompt.sha256.clone()),
        report: Some(serde_json::to_string(&report).map_err(io::Error::other)?),
    })
}

/// A check that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The training file's id.
    pub file: String,
    /// The model that is to be trained.
    pub model: String,
    /// The validation file's id.
    pub validation_file: Option<String>,
    /// How often the file is trained on; none for what the cookbook guesses.
    pub epochs: Option<u32>,
}

impl Files {
    /// Checks a file of the caller's for a model, now. It takes as long as it takes: about a second for 5 MB.
    ///
    /// # Errors
    ///
    /// When a file is not the caller's, or enough such checks are under way.
    pub async fn check_for(&self, caller: &Caller, asked: &Asked) -> Result<Report, TuningError> {
        let training = self.find(caller, &asked.file).await?;
        let training = self.path(&training).await?;
        let validation = match &asked.validation_file {
            None => None,
            Some(id) => Some(self.path(&self.find(caller, id).await?).await?),
        };
        let _place = self.checks.try_acquire().map_err(|_| {
            TuningError::Busy(
                "the gateway checks as many data sets at once as it may: try again in a moment".to_owned(),
            )
        })?;
        let given_up = GivenUp::default();
        let watched = Arc::clone(&given_up.0);
        let (model, epochs) = (asked.model.clone(), asked.epochs);
        blocking(move || {
            let open = |path: PathBuf| File::open(path).map(|source| Watched { source, given_up: &watched });
            let validation = validation.map(open).transpose()?;
            let options = Options { epochs, ..dataset::options_for(&model) };
            let counter = dataset::counter_for(&model);
            tunegate_dataset::check(open(training)?, validation, &options, &counter, &mut |_| {})
        })
        .await
    }
}
