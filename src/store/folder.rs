//! The folder of contents: each is kept once, under its SHA-256, whoever has it and how often. Rows say who that is; this
//! file only writes, reads and unlinks, and blocks while it does.
//!
//! A content is written to a draft under `drafts/`, flushed to the disk and renamed to its place, `ab/cdef…-RANDOM`, before
//! any row names it. Each place is used once: unlinking one that no row names any more can't take a newer content away.
//! Who writes holds a lock on the file until the row is there; what nobody holds and no row names is left from a crash.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// Where contents are written before their name is known.
const DRAFTS: &str = "drafts";
/// How much of a file is read at a time when it is copied.
const COPIED_AT_ONCE: usize = 1 << 20;

/// The folder. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Opens the folder, and makes it where there is none yet.
    ///
    /// # Errors
    ///
    /// When it can't be made.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = Self { root: root.into() };
        folder.make(&folder.root.join(DRAFTS))?;
        Ok(folder)
    }

    /// Begins a content that nobody knows yet. `random` tells it from all others.
    ///
    /// # Errors
    ///
    /// When no file can be made.
    pub fn begin(&self, random: u128) -> io::Result<Draft> {
        let path = self.root.join(DRAFTS).join(format!("{random:032x}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let draft = Draft { path: Some(path), file, sha256: Sha256::new(), md5: None, bytes: 0 };
        // nobody else can have it: only who sweeps an old file ever locks one that is not its own
        draft.file.try_lock().map_err(io::Error::from)?;
        Ok(draft)
    }

    /// Where a content is.
    pub fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }

    /// Whether a content is there.
    ///
    /// # Errors
    ///
    /// When that can't be told.
    pub fn has(&self, place: &str) -> io::Result<bool> {
        self.path(place).try_exists()
    }

    /// Unlinks a content. Who is reading it reads on.
    ///
    /// # Errors
    ///
    /// When it is there and can't be unlinked.
    pub fn remove(&self, place: &str) -> io::Result<()> {
        match fs::remove_file(self.path(place)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves a draft to its place, and says which that is. What comes back holds the lock.
    fn settle(&self, draft: &mut Draft, random: u128) -> io::Result<(String, String)> {
        let sha256 = hex(&draft.sha256.clone().finalize());
        let (first, rest) = sha256.split_at(2);
        let place = format!("{first}/{rest}-{:08x}", random >> 96);
        let parent = self.root.join(first);
        self.make(&parent)?;
        if let Some(path) = &draft.path {
            fs::rename(path, self.path(&place))?;
            draft.path = Some(self.path(&place));
        }
        // the name, too, has to survive a power cut
        File::open(&parent)?.sync_all()?;
        Ok((place, sha256))
    }

    /// What was last written before a moment: drafts, and contents by their places.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn older_than(&self, before: SystemTime) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            let name = folder.file_name();
            let Some(name) = name.to_str().filter(|name| *name == DRAFTS || is_hex_pair(name)) else {
                continue;
            };
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                // what another process has just unlinked
                let Ok(written) = file.metadata().and_then(|metadata| metadata.modified()) else { continue };
                if let Some(below) = file.file_name().to_str().filter(|_| written < before) {
                    found.push(format!("{name}/{below}"));
                }
            }
        }
        Ok(found)
    }

    /// Whether a place that [`Folder::older_than`] named is a draft's.
    pub fn is_draft(place: &str) -> bool {
        place.starts_with(DRAFTS)
    }

    /// Takes the lock on what may be left over; nothing where somebody is writing it, or it is gone.
    ///
    /// # Errors
    ///
    /// When it can't be opened.
    pub fn take_leftover(&self, place: &str) -> io::Result<Option<Leftover>> {
        let path = self.path(place);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Leftover { path, _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }
}

/// What a crash has left, locked: nobody is writing it.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    _lock: File,
}

impl Leftover {
    /// Unlinks it.
    ///
    /// # Errors
    ///
    /// When it can't be unlinked.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// A content being written. Dropped before it is kept, nothing of it stays.
#[derive(Debug)]
pub struct Draft {
    /// Where it lies; nothing once somebody else answers for it.
    path: Option<PathBuf>,
    /// Locked.
    file: File,
    sha256: Sha256,
    md5: Option<Md5>,
    bytes: u64,
}

impl Draft {
    /// Counts its MD5 as well, from here on.
    pub fn with_md5(mut self) -> Self {
        self.md5 = Some(Md5::new());
        self
    }

    /// Writes more of it.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; the draft is of no more use then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Writes a whole file.
    ///
    /// # Errors
    ///
    /// As [`Draft::write`], or when the file can't be read.
    pub fn append(&mut self, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; COPIED_AT_ONCE];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => self.write(&buffer[..read])?,
            }
        }
    }

    /// How much was written, bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes it to the disk and gives it its place. `random` tells this writing of the content from all others.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; nothing stays then.
    pub fn keep(mut self, folder: &Folder, random: u128) -> io::Result<Kept> {
        self.file.sync_all()?;
        let (place, sha256) = folder.settle(&mut self, random)?;
        let md5 = self.md5.take().map(|md5| hex(&md5.finalize()));
        Ok(Kept { place, sha256, md5, bytes: self.bytes, draft: self })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // what can't be unlinked now is swept later
            let _ = fs::remove_file(path);
        }
    }
}

/// A content in its place, locked. It is still unlinked when this is dropped, unless a row may name it.
#[derive(Debug)]
pub struct Kept {
    /// Its place.
    pub place: String,
    /// 64 hex digits.
    pub sha256: String,
    /// 32 hex digits, where they were asked for.
    pub md5: Option<String>,
    /// How long it is, bytes.
    pub bytes: u64,
    draft: Draft,
}

impl Kept {
    /// Leaves it where it is from now on: a row names it, or may soon name it, whoever still waits to hear so. The lock
    /// is held until this is dropped.
    pub fn leave(&mut self) {
        self.draft.path = None;
    }
}

fn is_hex_pair(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A moment so long before another.
pub fn before(now: SystemTime, age: Duration) -> SystemTime {
    now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(root.path().join("files")).expect("made");
        (root, folder)
    }

    /// Everything in it, as if it were old.
    fn all(folder: &Folder) -> Vec<String> {
        let later = fs::metadata(&folder.root).expect("there").modified().expect("a time");
        let mut all = folder.older_than(later + Duration::from_secs(3_600)).expect("read");
        all.sort();
        all
    }

    #[test]
    fn a_content_lies_under_its_hash() {
        let (_root, folder) = folder();
        let mut draft = folder.begin(1).expect("begun").with_md5();
        draft.write(b"ab").expect("written");
        draft.write(b"c").expect("written");
        assert_eq!(draft.bytes(), 3);
        let mut kept = draft.keep(&folder, 7 << 96).expect("kept");
        let place = "ba/7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad-00000007";
        assert_eq!((kept.place.as_str(), kept.bytes), (place, 3));
        assert_eq!(kept.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(kept.md5.as_deref(), Some("900150983cd24fb0d6963f7d28e17f72"));
        assert!(folder.take_leftover(place).expect("looked").is_none(), "it is being written");
        kept.leave();
        assert!(folder.take_leftover(place).expect("looked").is_none(), "its row is being written");
        drop(kept);
        assert_eq!(fs::read(folder.path(place)).expect("there"), b"abc");
        assert_eq!(all(&folder), [place]);
        folder.take_leftover(place).expect("looked").expect("nobody's").remove().expect("removed");
        assert_eq!(all(&folder), [""; 0]);
        assert!(folder.take_leftover(place).expect("looked").is_none(), "it is gone");
        folder.remove(place).expect("already");
    }

    #[test]
    fn what_is_not_kept_leaves_nothing() {
        let (_root, folder) = folder();
        let mut draft = folder.begin(1).expect("begun");
        draft.write(b"abc").expect("written");
        let [place] = &all(&folder)[..] else { unreachable!("one draft") };
        assert!(Folder::is_draft(place));
        assert!(folder.take_leftover(place).expect("looked").is_none(), "it is being written");
        drop(draft);
        assert_eq!(all(&folder), [""; 0]);
        let kept = folder.begin(2).expect("begun").keep(&folder, 1).expect("kept");
        drop(kept);
        assert_eq!(all(&folder), [""; 0], "no row was written");
    }

    #[test]
    fn parts_are_put_together() {
        let (_root, folder) = folder();
        let part = |number: u128, text: &[u8]| {
            let mut draft = folder.begin(number).expect("begun");
            draft.write(text).expect("written");
            let mut kept = draft.keep(&folder, number << 96).expect("kept");
            let path = folder.path(&kept.place);
            kept.leave();
            path
        };
        let (first, second) = (part(1, b"ab"), part(2, b"c"));
        let mut whole = folder.begin(3).expect("begun");
        whole.append(&first).expect("copied");
        whole.append(&second).expect("copied");
        let whole = whole.keep(&folder, 0).expect("kept");
        assert!(whole.sha256.starts_with("ba7816bf") && whole.bytes == 3);
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_nothing() {
        let (root, folder) = folder();
        let path = root.path().join("full");
        fs::write(&path, "").expect("a name");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut draft =
            Draft { path: Some(path.clone()), file: full, sha256: Sha256::new(), md5: None, bytes: 0 };
        let error = draft.write(b"abc").expect_err("it is full");
        assert_eq!((error.kind(), draft.bytes()), (io::ErrorKind::StorageFull, 0));
        drop(draft);
        assert!(!path.exists());
        assert_eq!(all(&folder), [""; 0]);
    }

    #[test]
    fn only_what_is_old_is_found() {
        let (_root, folder) = folder();
        let draft = folder.begin(1).expect("begun");
        let written = draft.file.metadata().expect("there").modified().expect("a time");
        assert_eq!(folder.older_than(before(written, Duration::from_secs(60))).expect("read"), [""; 0]);
        assert_eq!(folder.older_than(written + Duration::from_secs(1)).expect("read").len(), 1);
    }
}
