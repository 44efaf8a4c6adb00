//! Files that were handed in, and result files.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::folder::{self, Folder};

/// What stands in front of a file's id.
pub(in crate::worker) const PREFIX: &str = "file-";
/// The largest file, bytes: OpenAI's own limit.
pub(in crate::worker) const MAX_BYTES: u64 = 512 << 20;
/// The most files; beyond, some have to be deleted.
const MOST_FILES: usize = 10_000;

/// A file, without what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::worker) struct Stored {
    pub(in crate::worker) id: String,
    pub(in crate::worker) bytes: u64,
    /// Seconds since 1970 UTC.
    pub(in crate::worker) created_at: i64,
    pub(in crate::worker) filename: String,
    /// `fine-tune` or `fine-tune-results`.
    pub(in crate::worker) purpose: String,
}

impl Stored {
    /// As OpenAI writes it.
    pub(in crate::worker) fn told(&self) -> Value {
        json!({
            "object": "file",
            "id": self.id,
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": null,
        })
    }
}

/// All files.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Shelf(PathBuf);

impl Shelf {
    pub(in crate::worker) fn new(folder: &Folder) -> Self {
        Self(folder.files())
    }

    /// Where the bytes of a file are, or will be.
    pub(in crate::worker) fn content(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.data"))
    }

    fn description(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    /// Whether one more fits.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn has_room(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.0)?.take(2 * MOST_FILES).count() < 2 * MOST_FILES)
    }

    /// Makes a file whose bytes are written already known.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn keep(&self, file: &Stored) -> io::Result<()> {
        folder::write_json(&self.description(&file.id), file)
    }

    /// Finds a file.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn find(&self, id: &str) -> io::Result<Option<Stored>> {
        match folder::is_id(id, PREFIX) {
            true => folder::read_json(&self.description(id)),
            false => Ok(None),
        }
    }

    /// Returns all, newest first.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn all(&self) -> io::Result<Vec<Stored>> {
        let mut all: Vec<Stored> = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                all.extend(folder::read_json(&path)?);
            }
        }
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(all)
    }

    /// Removes a file. Its description goes first: what has none is nothing, and is swept at the next start.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn delete(&self, id: &str) -> io::Result<()> {
        folder::remove(&self.description(id))?;
        folder::remove(&self.content(id))
    }

    /// Removes the bytes that no description speaks of: uploads and deletions that were cut off.
    ///
    /// # Errors
    /// As the system says.
    pub(in crate::worker) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_known = path.extension().is_some_and(|extension| extension == "json")
                || (path.extension().is_some_and(|extension| extension == "data")
                    && path.with_extension("json").exists());
            if !is_known {
                folder::remove(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_once_it_is_described_and_gone_without() {
        let place = tempfile::tempdir().expect("a folder");
        let shelf = Shelf::new(&Folder::open(place.path()).expect("opened"));
        let file = Stored {
            id: "file-1".into(),
            bytes: 2,
            created_at: 1,
            filename: "a.jsonl".into(),
            purpose: "fine-tune".into(),
        };
        for id in ["file-1", "file-2"] {
            fs::write(shelf.content(id), "{}").expect("written");
        }
        shelf.keep(&file).expect("kept");
        shelf.sweep().expect("swept");
        assert!(shelf.content("file-1").exists() && !shelf.content("file-2").exists());
        assert_eq!(shelf.all().expect("listed"), std::slice::from_ref(&file));
        assert_eq!(shelf.find("file-1").expect("found"), Some(file));
        assert_eq!(shelf.find("../x").expect("nothing"), None);
        shelf.delete("file-1").expect("deleted");
        assert_eq!(fs::read_dir(&shelf.0).expect("a folder").count(), 0);
    }
}
