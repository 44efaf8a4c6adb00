//! Files and folders that appear whole or not at all: made beside their place, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Something that is being made. What is not [`published`](Self::publish) is removed again.
pub(super) struct Draft<'a> {
    place: &'a Path,
    path: PathBuf,
}

impl<'a> Draft<'a> {
    /// Prepares to make `place`, which must not exist, or be an empty folder; removes what a killed try left.
    ///
    /// Two that make the same place at once disturb each other.
    pub(super) fn of(place: &'a Path) -> io::Result<Self> {
        let Some(name) = place.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a place without a name"));
        };
        if is_taken(place)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "its place is taken"));
        }
        let mut draft = OsString::from(".");
        draft.push(name);
        draft.push(".draft");
        let draft = Self { place, path: place.with_file_name(draft) };
        match draft.remove() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(draft),
        }
    }

    /// Returns where to make it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place; its maker has made sure that its own bytes are on the disk.
    pub(super) fn publish(self) -> io::Result<()> {
        fs::rename(&self.path, self.place)?;
        match self.place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }

    fn remove(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path)?.is_dir() {
            true => fs::remove_dir_all(&self.path),
            false => fs::remove_file(&self.path),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // The error that led here is the one to tell; once it is published there is nothing to remove.
        let _ = self.remove();
    }
}

fn is_taken(place: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => Ok(fs::read_dir(place)?.next().is_some()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
