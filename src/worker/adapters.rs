//! The adapters that are served beside the base model: on disk all of them, in memory those asked for last.
//!
//! A request holds the adapter it began with: one that is put out of memory, replaced or deleted serves its running
//! requests to their end.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tunegate_engine::Shape;
use tunegate_engine::adapter::{Adapter, AdapterError, AdapterLimits, LoraConfig, Target, peft};

use super::shelved::{self, Card, Taken};
use super::tuning::{folder, record};
use crate::clock;
use crate::telemetry::metrics::WorkerMetrics;

/// How often the folder is looked at for what others put there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most adapters on disk; beyond, some have to be deleted.
const MOST_ADAPTERS: usize = 10_000;
/// What a file says of each of its matrices, bytes at most: its name, form and place.
const MATRIX_HEAD_BYTES: usize = 256;

/// How much is held in memory, and what is taken at all.
#[derive(Debug, Clone, Copy)]
pub struct AdapterBounds {
    /// Adapters in memory.
    pub resident: usize,
    /// Bytes of all adapters in memory; also of the largest one.
    pub bytes: usize,
    /// The largest rank.
    pub rank: usize,
}

impl Default for AdapterBounds {
    fn default() -> Self {
        Self { resident: 32, bytes: 1 << 30, rank: 128 }
    }
}

/// Why an adapter is not served.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Its files can't be read or written.
    #[error("{}: {source}", path.display())]
    System {
        /// Which.
        path: PathBuf,
        /// As the system says.
        source: io::Error,
    },
    /// It is broken, of another model, or too large.
    #[error("the adapter {name}: {source}")]
    Adapter {
        /// Which.
        name: String,
        /// What is wrong with it.
        source: AdapterError,
    },
    /// It alone is larger than what may be in memory.
    #[error("the adapter {name} takes {bytes} bytes of memory, and {most} are allowed for all")]
    TooLarge {
        /// Which.
        name: String,
        /// Its bytes.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// There are too many on disk.
    #[error("there are {MOST_ADAPTERS} adapters: delete some")]
    TooMany,
}

impl ShelfError {
    /// The system's own error, which may be none the next time.
    ///
    /// # Errors
    /// What will be the same then.
    pub(super) fn into_system(self) -> Result<io::Error, Self> {
        match self {
            Self::System { source, .. } | Self::Adapter { source: AdapterError::Io(source), .. } => {
                Ok(source)
            }
            other => Err(other),
        }
    }
}

/// All adapters of a model.
pub(super) struct Adapters {
    folder: PathBuf,
    base: String,
    shape: Shape,
    bounds: AdapterBounds,
    metrics: Arc<WorkerMetrics>,
    /// Never held while a file is read or written: who asks for what is in memory waits for no disk.
    state: Mutex<State>,
    /// Told when one has been read.
    was_read: Condvar,
}

#[derive(Default)]
struct State {
    /// By name, with their folders.
    cards: BTreeMap<String, (Card, PathBuf)>,
    /// In memory, the one asked for last at the end.
    resident: Vec<(String, Arc<Adapter>)>,
    /// Those that are being read into memory.
    reading: HashSet<String>,
    /// Folders that were looked at.
    seen: HashSet<PathBuf>,
    /// When the folder was looked at last.
    looked: Option<Instant>,
}

impl State {
    /// Returns one that is in memory, and keeps it there before those that were asked for earlier.
    fn use_again(&mut self, name: &str) -> Option<Arc<Adapter>> {
        let at = self.resident.iter().position(|(resident, _)| resident == name)?;
        let used = self.resident.remove(at);
        let adapter = Arc::clone(&used.1);
        self.resident.push(used);
        Some(adapter)
    }

    fn bytes(&self) -> usize {
        self.resident.iter().map(|(_, adapter)| adapter.size_bytes()).sum()
    }
}

/// An adapter that is being read; the others who want it are told when this is dropped, whatever has come of it.
struct Reading<'a> {
    adapters: &'a Adapters,
    name: &'a str,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.adapters.state().reading.remove(self.name);
        self.adapters.was_read.notify_all();
    }
}

impl Adapters {
    /// Reads which there are. What is no adapter of `base` is left alone, and said so.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub(super) fn open(
        path: &Path,
        base: &str,
        shape: Shape,
        bounds: AdapterBounds,
        metrics: Arc<WorkerMetrics>,
    ) -> Result<Self, ShelfError> {
        metrics.adapter_limits(bounds.resident.max(1), bounds.bytes);
        let (folder, base, state) = (path.to_path_buf(), base.to_owned(), Mutex::default());
        let was_read = Condvar::new();
        let adapters = Self { folder, base, shape, bounds, metrics, state, was_read };
        let system = |source| ShelfError::System { path: path.to_path_buf(), source };
        for entry in fs::read_dir(path).map_err(system)? {
            let at = entry.map_err(system)?.path();
            // what a kill left of a publication or of a deletion
            if at.extension().is_some_and(|extension| extension == "new" || extension == "gone")
                && let Err(error) = folder::remove(&at)
            {
                tracing::warn!(path = %at.display(), %error, "what is left of an adapter can't be removed");
            }
        }
        adapters.look().map_err(system)?;
        Ok(adapters)
    }

    /// Takes up what was put into the folder since it was looked at last, such as by `tunegate adapters import`.
    fn look(&self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let at = entry?.path();
            if shelved::is_whole(&at) && !self.state().seen.contains(&at) {
                found.push((shelved::card(&at), at));
            }
        }
        let mut state = self.state();
        for (card, at) in found {
            // published by ourselves since it was read, or deleted
            if !state.seen.contains(&at) && at.is_dir() {
                self.take_up(&mut state, card, at);
            }
        }
        self.show(&state);
        Ok(())
    }

    fn take_up(&self, state: &mut State, card: io::Result<Option<Card>>, at: PathBuf) {
        match card {
            Ok(Some(card)) if card.base == self.base => {
                state.cards.insert(card.name.clone(), (card, at.clone()));
            }
            Ok(Some(card)) => {
                tracing::warn!(
                    adapter = card.name,
                    base = card.base,
                    "an adapter of another model is not served"
                );
            }
            Ok(None) => {
                tracing::warn!(path = %at.display(), "not an adapter that was imported: `tunegate adapters import` takes it in");
            }
            Err(error) => {
                tracing::warn!(path = %at.display(), %error, "an adapter can't be read");
                // the system may do better the next time
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
                    return;
                }
            }
        }
        state.seen.insert(at);
    }

    /// Looks at the folder again, where that was not done a moment ago.
    fn look_again(&self) {
        let now = clock::monotonic();
        {
            let mut state = self.state();
            if state.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
                return;
            }
            state.looked = Some(now);
        }
        if let Err(error) = self.look() {
            tracing::warn!(path = %self.folder.display(), %error, "the folder of adapters can't be read");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where its holder could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all, by name. May read the folder.
    pub(super) fn all(&self) -> Vec<Card> {
        self.look_again();
        self.state().cards.values().map(|(card, _)| card.clone()).collect()
    }

    /// Finds the one meant by `asked`; `local/` before the name is accepted too. May read the folder.
    pub(super) fn find(&self, asked: &str) -> Option<Card> {
        let name = asked.strip_prefix("local/").unwrap_or(asked);
        let known = || self.state().cards.get(name).map(|(card, _)| card.clone());
        known().or_else(|| {
            self.look_again();
            known()
        })
    }

    /// Returns the folder of an adapter.
    pub(super) fn folder_of(&self, name: &str) -> Option<PathBuf> {
        self.state().cards.get(name).map(|(_, path)| path.clone())
    }

    /// Returns the adapter meant by `asked` where it is in memory. Waits for no disk.
    pub(super) fn resident(&self, asked: &str) -> Option<Arc<Adapter>> {
        self.state().use_again(asked.strip_prefix("local/").unwrap_or(asked))
    }

    /// Returns an adapter to compute with, read from disk where it is not in memory, by the first who asks; none where
    /// there is none of that name. May block for the time of the reading.
    ///
    /// # Errors
    /// If it is broken or too large.
    pub(super) fn load(&self, name: &str) -> Result<Option<Arc<Adapter>>, ShelfError> {
        let path = {
            let mut state = self.state();
            loop {
                if let Some(adapter) = state.use_again(name) {
                    return Ok(Some(adapter));
                }
                let Some((_, path)) = state.cards.get(name) else { return Ok(None) };
                let path = path.clone();
                if state.reading.insert(name.to_owned()) {
                    break path;
                }
                state = self.was_read.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let _reading = Reading { adapters: self, name };
        let adapter = Arc::new(self.read(name, &path)?);
        let mut state = self.state();
        // deleted or replaced meanwhile: who asked before that is served all the same
        if state.cards.get(name).is_some_and(|(_, now)| *now == path) {
            state.resident.retain(|(resident, _)| resident != name);
            state.resident.push((name.to_owned(), Arc::clone(&adapter)));
            while state.resident.len() > self.bounds.resident.max(1) || state.bytes() > self.bounds.bytes {
                state.resident.remove(0);
                self.metrics.adapter_evicted();
            }
        }
        self.show(&state);
        drop(state);
        self.metrics.adapter_loaded();
        Ok(Some(adapter))
    }

    /// Whether an adapter of this form would be served once it is trained: asked before hours are spent on it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn takes(&self, form: &LoraConfig) -> Result<(), AdapterError> {
        let LoraConfig { rank, targets, .. } = form;
        let AdapterLimits { rank: most, size_bytes } = self.limits();
        if *rank > most {
            return Err(AdapterError::TooLarge { what: "rank", found: *rank as u64, most: most as u64 });
        }
        let matrices = |target: &Target| {
            let numbers = rank * (target.width_in(&self.shape) + target.width_out(&self.shape));
            numbers * size_of::<f32>() + 2 * MATRIX_HEAD_BYTES
        };
        let found = (self.shape.layers * targets.iter().map(matrices).sum::<usize>()) as u64;
        match found <= size_bytes {
            true => Ok(()),
            false => Err(AdapterError::TooLarge { what: "size in bytes", found, most: size_bytes }),
        }
    }

    fn limits(&self) -> AdapterLimits {
        AdapterLimits { rank: self.bounds.rank, size_bytes: self.bounds.bytes as u64 }
    }

    fn read(&self, name: &str, path: &Path) -> Result<Adapter, ShelfError> {
        let wrong = |source| ShelfError::Adapter { name: name.to_owned(), source };
        let weights = peft::read(path, &self.shape, self.limits()).map_err(wrong)?;
        let adapter = Adapter::new(&weights, &self.shape).map_err(wrong)?;
        let (bytes, most) = (adapter.size_bytes(), self.bounds.bytes);
        match bytes <= most {
            true => Ok(adapter),
            false => Err(ShelfError::TooLarge { name: name.to_owned(), bytes, most }),
        }
    }

    /// Serves the adapter at `from`, whose files never change, from now on, as what `card` says, in the folder `id`. One
    /// that is there already under this id is left as it is.
    ///
    /// # Errors
    /// If it is no adapter of this model, or can't be copied; then nothing has changed.
    pub(super) fn publish(&self, from: &Path, id: &str, card: Card) -> Result<(), ShelfError> {
        let to = self.folder.join(id);
        if !to.is_dir() {
            if self.state().cards.len() >= MOST_ADAPTERS {
                return Err(ShelfError::TooMany);
            }
            self.read(&card.name, from)?;
            shelved::place(from, &self.folder, id, &card, Taken::Shared)
                .map_err(|source| ShelfError::System { path: to.clone(), source })?;
        }
        let mut state = self.state();
        state.resident.retain(|(resident, _)| *resident != card.name);
        state.seen.insert(to.clone());
        state.cards.insert(card.name.clone(), (card, to));
        self.show(&state);
        Ok(())
    }

    /// Serves an adapter no longer; running requests keep it. Returns whether there was one.
    ///
    /// # Errors
    /// If its files can't be put away; then it is served as before.
    pub(super) fn delete(&self, name: &str) -> Result<bool, ShelfError> {
        let (card, path) = {
            let mut state = self.state();
            state.resident.retain(|(resident, _)| resident != name);
            let removed = state.cards.remove(name);
            self.show(&state);
            match removed {
                Some(removed) => removed,
                None => return Ok(false),
            }
        };
        let gone = path.with_extension("gone");
        if let Err(source) = fs::rename(&path, &gone) {
            let mut state = self.state();
            // not where another was published under its name meanwhile
            state.cards.entry(card.name.clone()).or_insert((card, path.clone()));
            self.show(&state);
            return Err(ShelfError::System { path, source });
        }
        // another may be put there under the same name
        self.state().seen.remove(&path);
        if let Err(error) = folder::remove(&gone) {
            tracing::warn!(path = %gone.display(), %error, "what is left of an adapter can't be removed; tried again at the next start");
        }
        Ok(true)
    }

    /// Serves a model no longer, nor what it was behind its epochs: nobody could ask for those to be deleted once it is
    /// gone. Returns whether there was one.
    ///
    /// # Errors
    /// As [`Self::delete`]; the model goes last, so that it can be asked for again.
    pub(super) fn delete_model(&self, name: &str) -> Result<bool, ShelfError> {
        for checkpoint in self.checkpoints_of(name) {
            self.delete(&checkpoint)?;
        }
        self.delete(name)
    }

    fn checkpoints_of(&self, name: &str) -> Vec<String> {
        let state = self.state();
        let Some(job) = state.cards.get(name).and_then(|(card, _)| card.job.as_deref()) else {
            return Vec::new();
        };
        let is_on_its_way = |other: &&Card| {
            let behind = other.name.strip_prefix(name);
            other.job.as_deref() == Some(job)
                && behind.is_some_and(|rest| rest.starts_with(record::CHECKPOINT))
        };
        let cards = state.cards.values().map(|(card, _)| card);
        cards.filter(is_on_its_way).map(|card| card.name.clone()).collect()
    }

    fn show(&self, state: &State) {
        self.metrics.adapters(state.cards.len(), state.resident.len(), state.bytes());
    }

    /// The name of the model that all of them are of.
    pub(super) fn base(&self) -> &str {
        &self.base
    }
}

#[cfg(test)]
pub(super) mod tests;
