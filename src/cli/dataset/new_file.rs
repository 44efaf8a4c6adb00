//! A file that is there whole or not at all, and takes no other one's place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A file in the making; dropped before it is finished, nothing is left of it.
pub(super) struct NewFile {
    path: PathBuf,
    draft: PathBuf,
    out: Option<BufWriter<File>>,
}

impl NewFile {
    /// Begins a file that must not be there yet.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            bail!("{} is there already: name another file, or move it away", path.display());
        }
        let name = path.file_name().with_context(|| format!("{} is no name of a file", path.display()))?;
        let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&draft)
            .with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Self { path: path.to_owned(), draft, out: Some(BufWriter::new(file)) })
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let failed = || format!("{} can't be written", self.path.display());
        if let Some(out) = self.out.take() {
            out.into_inner()
                .map_err(io::IntoInnerError::into_error)
                .with_context(failed)?
                .sync_all()
                .with_context(failed)?;
        }
        // a link never takes the place of a file that has come meanwhile; not every file system has links
        match fs::hard_link(&self.draft, &self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} has come into being meanwhile: it was left as it is", self.path.display())
            }
            Err(_) => fs::rename(&self.draft, &self.path).with_context(failed),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Some(out) => out.write(bytes),
            None => Err(io::Error::other("the file is finished")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // after a rename it is gone already
        let _ = fs::remove_file(&self.draft);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.jsonl");
        let entries = || fs::read_dir(folder.path()).expect("a folder").count();
        let mut dropped = NewFile::create(&path).expect("begun");
        dropped.write_all(b"half").expect("written");
        drop(dropped);
        assert_eq!(entries(), 0);

        let mut file = NewFile::create(&path).expect("begun");
        file.write_all(b"whole").expect("written");
        assert!(!path.exists());
        file.finish().expect("finished");
        assert_eq!((fs::read_to_string(&path).expect("text").as_str(), entries()), ("whole", 1));

        let error = NewFile::create(&path).err().expect("it is there").to_string();
        assert!(error.contains("is there already"), "{error}");
        let other = folder.path().join("other.jsonl");
        let late = NewFile::create(&other).expect("begun");
        fs::write(&other, "theirs").expect("written");
        assert!(late.finish().expect_err("it has come").to_string().contains("left as it is"));
        assert_eq!((fs::read_to_string(&other).expect("text").as_str(), entries()), ("theirs", 2));
    }
}
