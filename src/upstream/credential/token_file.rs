//! A token that somebody else renews in a file.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::domain::secret::Secret;

use super::CredentialError;

/// How often the file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A token in a file, read again when the file changes.
pub(super) struct TokenFile {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Secret>,
    /// As the file was when the token was read.
    stamp: Option<Stamp>,
    looked: Option<Instant>,
}

/// What changes when a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { modified: file.modified().ok(), len: file.len() }
    }
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::default() }
    }

    /// Returns the file's token, at most a second old. Where the file can't be read any more, the last one that could.
    pub(super) async fn token(&self, now: Instant) -> Result<Secret, CredentialError> {
        let last_stamp = {
            let mut held = self.held.lock();
            let looked_lately =
                held.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY);
            if let Some(token) = held.token.as_ref().filter(|_| looked_lately) {
                return Ok(token.clone());
            }
            held.looked = Some(now);
            held.stamp
        };
        match self.read_if_changed(last_stamp).await {
            Ok(Some((stamp, token))) => {
                let mut held = self.held.lock();
                (held.token, held.stamp) = (Some(token.clone()), Some(stamp));
                Ok(token)
            }
            Ok(None) => self.last().ok_or_else(|| self.failed("it could not be read")),
            Err(error) => match self.last() {
                Some(token) => {
                    tracing::warn!(%error, "the last token that could be read is used");
                    Ok(token)
                }
                None => Err(error),
            },
        }
    }

    /// Looks whether the file has changed since a refused token was read from it; then another try may go better.
    pub(super) fn reject(&self, refused: &Secret) -> bool {
        // A look at one file's metadata, after a refusal only: not worth another thread.
        let stamp = std::fs::metadata(&self.path).ok().map(|file| Stamp::of(&file));
        let mut held = self.held.lock();
        let changed = held.token.as_ref() != Some(refused) || stamp != held.stamp;
        if changed {
            held.looked = None;
        }
        changed
    }

    fn last(&self) -> Option<Secret> {
        self.held.lock().token.clone()
    }

    async fn read_if_changed(&self, last: Option<Stamp>) -> Result<Option<(Stamp, Secret)>, CredentialError> {
        let failed = |error: std::io::Error| self.failed(&error.to_string());
        // The stamp is taken first: a write between the two is then seen at the next look.
        let stamp = Stamp::of(&tokio::fs::metadata(&self.path).await.map_err(failed)?);
        if last == Some(stamp) {
            return Ok(None);
        }
        let token = Secret::new(tokio::fs::read_to_string(&self.path).await.map_err(failed)?.trim());
        if token.is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.failed("it holds no token"));
        }
        Ok(Some((stamp, token)))
    }

    fn failed(&self, reason: &str) -> CredentialError {
        CredentialError::File { path: self.path.display().to_string(), reason: reason.to_owned() }
    }
}
