//! Where everything lies, and how it is written so that a kill leaves the old or the new, never half of it.
//!
//! ```text
//! FOLDER/lock                            held by the worker that trains here
//! FOLDER/files/ID.json, ID.data          uploaded and result files
//! FOLDER/jobs/ID/job.json                a job, as the desk knows it
//!               /events.jsonl            what happened to it, a line each
//!               /run.json                how far the trainer is, and its last checkpoint
//!               /checkpoints/step-N/     what the trainer goes on from
//!               /epochs/step-N/          the adapter behind an epoch, and `served` once it was
//!               /wish                    what the trainer shall do next
//!               /outcome.json            how the trainer ended
//!               /reserve                 room for the last word about it, should the disk be full by then
//! FOLDER/adapters/ID/                    an adapter that is served, in PEFT's form, with tunegate.json
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What each open job keeps back of the disk: its record, its last event and the card of an adapter fit in.
const RESERVE_BYTES: usize = 64 << 10;

/// The folder of a worker's training.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Folder(PathBuf);

/// The right to a folder of training, as long as it is held; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(in crate::worker) struct Claim(#[expect(dead_code, reason = "it is held by being open")] File);

/// Why a folder is not ours.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum ClaimError {
    #[error("another worker trains there")]
    Taken,
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Whether a file system has no locks, or none now: an NFS whose server grants none.
fn knows_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(libc::ENOLCK)
}

/// The folder of one job.
#[derive(Debug, Clone)]
pub(in crate::worker) struct JobFolder(PathBuf);

impl Folder {
    /// Makes what is missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub(in crate::worker) fn open(path: &Path) -> io::Result<Self> {
        let folder = Self(path.to_path_buf());
        for part in [folder.files(), folder.jobs(), folder.adapters()] {
            fs::create_dir_all(part)?;
        }
        Ok(folder)
    }

    /// Takes the folder for this process: two workers would each train its jobs and remove what the other writes.
    ///
    /// # Errors
    /// If another has it, or the system says so.
    pub(in crate::worker) fn claim(&self) -> Result<Claim, ClaimError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Claim(file)),
            Err(TryLockError::WouldBlock) => Err(ClaimError::Taken),
            Err(TryLockError::Error(error)) if knows_no_locks(&error) => {
                tracing::warn!(folder = %self.0.display(), "its file system knows no locks: no second worker may train there");
                Ok(Claim(file))
            }
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(in crate::worker) fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    pub(in crate::worker) fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    pub(in crate::worker) fn adapters(&self) -> PathBuf {
        self.0.join("adapters")
    }

    /// The folder of a job, whose id has been checked or minted here.
    pub(in crate::worker) fn job(&self, id: &str) -> JobFolder {
        JobFolder(self.jobs().join(id))
    }
}

impl JobFolder {
    /// That which lies at `path`.
    pub(in crate::worker) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(in crate::worker) fn path(&self) -> &Path {
        &self.0
    }

    pub(in crate::worker) fn job(&self) -> PathBuf {
        self.0.join("job.json")
    }

    pub(in crate::worker) fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    pub(in crate::worker) fn run(&self) -> PathBuf {
        self.0.join("run.json")
    }

    pub(in crate::worker) fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    pub(in crate::worker) fn checkpoint(&self, step: u64) -> PathBuf {
        self.checkpoints().join(format!("step-{step}"))
    }

    pub(in crate::worker) fn epochs(&self) -> PathBuf {
        self.0.join("epochs")
    }

    /// The adapter behind the epoch that ended with `step`.
    pub(in crate::worker) fn epoch(&self, step: u64) -> PathBuf {
        self.epochs().join(format!("step-{step}"))
    }

    /// There once the adapter behind the epoch was served: who deletes it then does not get it back.
    pub(in crate::worker) fn was_served(&self, step: u64) -> PathBuf {
        self.epoch(step).join("served")
    }

    pub(in crate::worker) fn wish(&self) -> PathBuf {
        self.0.join("wish")
    }

    pub(in crate::worker) fn outcome(&self) -> PathBuf {
        self.0.join("outcome.json")
    }

    fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    /// Keeps room back for what [`Self::insist`] has to write; does nothing where it is kept already.
    ///
    /// # Errors
    /// As the system says, such as that the disk is full; then nothing is kept back.
    pub(in crate::worker) fn keep_room(&self) -> io::Result<()> {
        if self.reserve().exists() {
            return Ok(());
        }
        let mut bytes = vec![0; RESERVE_BYTES];
        // by chance: what a file system can shorten keeps nothing back
        rand::fill(&mut bytes[..]);
        write(&self.reserve(), &bytes)
    }

    /// Writes something that has to be written on a full disk, too: then in the room that was kept back.
    ///
    /// # Errors
    /// As the system says, such as that there is no room all the same.
    pub(in crate::worker) fn insist<T>(&self, write: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) => {
                remove(&self.reserve())?;
                write()
            }
            done => done,
        }
    }

    /// Removes what only a job that goes on needs.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn clear(&self) -> io::Result<()> {
        let spent = [self.checkpoints(), self.epochs(), self.wish(), self.reserve()];
        spent.iter().try_for_each(|path| remove(path))
    }
}

/// Whether `id` is one of ours: it becomes a part of a path.
pub(in crate::worker) fn is_id(id: &str, prefix: &str) -> bool {
    let rest = id.strip_prefix(prefix);
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && rest.len() <= 64
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Whether the disk has no more room for us.
pub(in crate::worker) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes `value` in the place of what was there, whole or not at all, and has it on the disk when it returns.
///
/// # Errors
/// As the system says; then what was there still is.
pub(in crate::worker) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(value)?)
}

/// The same of bytes.
///
/// # Errors
/// As the system says; then what was there still is.
pub(in crate::worker) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    sync_folder_of(path)
}

/// Has the name of a new or renamed file on the disk.
///
/// # Errors
/// As the system says.
pub(in crate::worker) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads what [`write_json`] wrote; none where there is nothing.
///
/// # Errors
/// As the system says, or what is there is something else.
pub(in crate::worker) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file or a folder with all that is in it; what is gone already is as good.
///
/// # Errors
/// As the system says.
pub(in crate::worker) fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_minted_here_becomes_a_path() {
        for (id, good) in [
            ("ftjob-0aZ", true),
            ("ftjob-", false),
            ("file-1", false),
            ("ftjob-../x", false),
            ("ftjob-a.b", false),
            ("ftjob-a/b", false),
        ] {
            assert_eq!(is_id(id, "ftjob-"), good, "{id}");
        }
    }

    #[test]
    fn a_folder_is_one_workers() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("opened");
        let first = folder.claim().expect("free");
        assert!(matches!(folder.claim(), Err(ClaimError::Taken)));
        drop(first);
        folder.claim().expect("free again");
    }

    #[test]
    fn what_is_written_is_read_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        assert_eq!(read_json::<Vec<u32>>(&path).expect("nothing"), None);
        write_json(&path, &[1, 2]).expect("written");
        write_json(&path, &[3]).expect("written");
        assert_eq!(read_json::<Vec<u32>>(&path).expect("something"), Some(vec![3]));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
