//! The state folder's secrets: made once, readable by us only, read back ever after.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::domain::secret::Secret;

const PEPPER_FILE: &str = "pepper";
const ADMIN_KEY_FILE: &str = "admin_key";
/// What the admin key starts with; secret scanners look for it.
const ADMIN_KEY_PREFIX: &str = "sk-tg-admin-";

/// The state folder, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What virtual keys are hashed with. Without it, all keys are lost.
    pub pepper: Secret,
    /// The key of the control plane.
    pub admin_key: Secret,
    /// What works but an operator should know, a line each.
    pub notices: Vec<String>,
}

/// Why the state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("can't {what} {}: {error}", path.display())]
    Io {
        /// What we wanted.
        what: &'static str,
        /// Of which file or folder.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A secret's file has nothing in it.
    #[error("{} is empty: put its content back, or remove it to have a new one made", .0.display())]
    Empty(PathBuf),
    /// The operating system has no random bits.
    #[error("no random bits: {0}")]
    Random(rand::rand_core::OsError),
}

/// Opens the state folder and makes what is missing in it: the folder (0700), the pepper and, where none is
/// configured, the admin key (0600).
pub fn open(folder: &Path, configured_admin_key: Option<&Secret>) -> Result<State, StateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| StateError::Io {
        what: "make the folder",
        path: folder.to_owned(),
        error,
    })?;
    let mut notices = Vec::new();
    let pepper = read_or_make(&folder.join(PEPPER_FILE), "", &mut notices)?;
    let admin_key = match configured_admin_key {
        Some(key) => key.clone(),
        None => read_or_make(&folder.join(ADMIN_KEY_FILE), ADMIN_KEY_PREFIX, &mut notices)?,
    };
    Ok(State { pepper, admin_key, notices })
}

/// Reads the admin key that a gateway has made in its state folder; none before its first start.
pub fn read_admin_key(folder: &Path) -> Result<Option<Secret>, StateError> {
    read(&folder.join(ADMIN_KEY_FILE))
}

fn read_or_make(path: &Path, prefix: &str, notices: &mut Vec<String>) -> Result<Secret, StateError> {
    if let Some(secret) = read(path)? {
        notices.extend(readable_by_others(path));
        return Ok(secret);
    }
    let mut random = [0; 32];
    OsRng.try_fill_bytes(&mut random).map_err(StateError::Random)?;
    let secret = Secret::new(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random)));
    match write_new(path, &secret) {
        Ok(()) => Ok(secret),
        // Another process was faster: its secret is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| StateError::Io { what: "read", path: path.to_owned(), error })
        }
        Err(error) => Err(StateError::Io { what: "write", path: path.to_owned(), error }),
    }
}

fn read(path: &Path) -> Result<Option<Secret>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Err(StateError::Empty(path.to_owned())),
        Ok(text) => Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n'])))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::Io { what: "read", path: path.to_owned(), error }),
    }
}

/// Writes beside its place first: nobody ever sees half a secret, and a crash leaves none.
fn write_new(path: &Path, secret: &Secret) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let written = write_draft(&draft, secret).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    written?;
    removed?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn write_draft(draft: &Path, secret: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(secret.expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn readable_by_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0)
        .then(|| format!("{} can be read by others (mode {mode:o}): chmod 600", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_are_ours_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("a/var");
        let first = open(&folder, None).expect("made");
        assert!(first.admin_key.expose().starts_with(ADMIN_KEY_PREFIX));
        assert_eq!(first.pepper.expose().len(), 43);
        assert_eq!(open(&folder, None).expect("read back"), first);
        assert_eq!(read_admin_key(&folder).expect("read"), Some(first.admin_key));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(PEPPER_FILE)), 0o600);
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2, "no draft is left");
    }

    #[test]
    fn a_configured_admin_key_is_not_written_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = Secret::new("configured-key-0123");
        assert_eq!(open(folder.path(), Some(&key)).expect("made").admin_key, key);
        assert_eq!(read_admin_key(folder.path()).expect("read"), None);
    }

    #[test]
    fn odd_files_are_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let pepper = folder.path().join(PEPPER_FILE);
        fs::write(&pepper, "grain\r\n").expect("written");
        fs::set_permissions(&pepper, fs::Permissions::from_mode(0o644)).expect("set");
        let state = open(folder.path(), None).expect("opened");
        assert_eq!(state.pepper.expose(), "grain");
        assert!(state.notices[0].contains("mode 644"), "{:?}", state.notices);
        fs::write(&pepper, "\n").expect("written");
        assert!(matches!(open(folder.path(), None), Err(StateError::Empty(_))));
        assert!(matches!(open(&pepper, None), Err(StateError::Io { .. })));
    }
}
