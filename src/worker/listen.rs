//! Where a worker is reached, and that it is alone there.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener};

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket; only its owner may connect.
    Unix(PathBuf),
    /// `host:port`. Whoever reaches it may use the model.
    Tcp(String),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ListenError::Malformed(text.to_owned())),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Self::Tcp(text.to_owned()))
            }
            None => Err(ListenError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// Why a place cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is neither `host:port` nor `unix:path`.
    #[error("`{0}` is neither HOST:PORT nor unix:PATH")]
    Malformed(String),
    /// Another worker serves this socket.
    #[error("another worker serves {}", .0.display())]
    Taken(PathBuf),
    /// There is a file that is no socket; it is not ours to remove.
    #[error("{} exists and is no socket", .0.display())]
    InTheWay(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {place}: {source}")]
    Io {
        /// The place.
        place: Listen,
        /// Why.
        source: io::Error,
    },
}

/// A bound place.
pub(super) enum Bound {
    Unix(UnixListener, Claim),
    Tcp(TcpListener),
}

/// The right to one socket path. Dropped, it removes the socket.
pub(super) struct Claim {
    socket: PathBuf,
    /// Holds the lock as long as it is open; the kernel lets go of it however the process ends.
    _lock: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Gone or not, the next worker removes what is left.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Binds `listen`.
pub(super) async fn bind(listen: &Listen) -> Result<Bound, ListenError> {
    let failed = |source| ListenError::Io { place: listen.clone(), source };
    match listen {
        Listen::Tcp(address) => Ok(Bound::Tcp(TcpListener::bind(address).await.map_err(failed)?)),
        Listen::Unix(path) => {
            let claim = claim(path, listen)?;
            let listener = bind_private(path).map_err(failed)?;
            Ok(Bound::Unix(listener, claim))
        }
    }
}

/// Takes the path for this process; what a dead worker left there is removed.
fn claim(path: &Path, listen: &Listen) -> Result<Claim, ListenError> {
    let failed = |source| ListenError::Io { place: listen.clone(), source };
    let beside = beside(path, "lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(beside)
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ListenError::Taken(path.to_owned())),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(ListenError::InTheWay(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(Claim { socket: path.to_owned(), _lock: lock })
}

/// Binds and closes the socket to others. It is bound under its own name, not moved there: a client's pool compares
/// the peer's name with the path it dialled, and would never reuse a connection. Until the mode is set, the folder's
/// own mode guards it (the state folder has 0700).
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!("unix:/run/a.sock".parse::<Listen>().unwrap(), Listen::Unix("/run/a.sock".into()));
        for address in ["127.0.0.1:8090", "[::1]:80", "localhost:0"] {
            assert_eq!(address.parse::<Listen>().unwrap().to_string(), address);
        }
        for bad in ["", "8090", ":8090", "a:b", "a:70000", "unix:"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn one_worker_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.sock");
        let listen = Listen::Unix(path.clone());
        let first = bind(&listen).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&listen).await, Err(ListenError::Taken(_))));
        assert!(tokio::net::UnixStream::connect(&path).await.is_ok(), "the first is untouched");
        drop(first);
        assert!(!path.exists());
        // What a dead worker left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(bind(&listen).await.is_ok());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&listen).await, Err(ListenError::InTheWay(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
