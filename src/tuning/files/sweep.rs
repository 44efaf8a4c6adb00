//! Takes away what nobody has: files whose time is over, uploads that nobody completed, what a crash left in the folder.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use super::{Files, blocking, stored};
use crate::store::folder::{Folder, before};
use crate::tuning::TuningError;

/// Rows that are looked at together.
const BATCH: i64 = 200;
/// So long after its time a row of an upload still says how it ended.
const UPLOADS_KEPT_MS: i64 = 86_400_000;
/// What was written since may be somebody's who is about to lock it.
const LEFT_ALONE: Duration = Duration::from_secs(60);

impl Files {
    /// Takes away all that nobody has. `machine_ms` is what the machine says that it is now, which writes the times of
    /// files. Returns how many contents a crash had left.
    ///
    /// # Errors
    ///
    /// When the database or the folder fails; the rest is for the next time.
    pub async fn sweep(&self, now_ms: i64, machine_ms: i64) -> Result<u64, TuningError> {
        self.end_uploads(now_ms).await?;
        self.end_files(now_ms).await?;
        self.remove_leftovers(machine_ms).await
    }

    async fn end_files(&self, now_ms: i64) -> Result<(), TuningError> {
        loop {
            let ended = self.rows.ended(now_ms, BATCH).await.map_err(|error| stored(&error))?;
            for id in &ended {
                self.rows.delete(id, now_ms).await.map_err(|error| stored(&error))?;
                if let Some(place) = self.rows.purge(id).await.map_err(|error| stored(&error))? {
                    self.unlink(place).await;
                }
            }
            if ended.len() < usize::try_from(BATCH).unwrap_or_default() {
                return Ok(());
            }
        }
    }

    async fn end_uploads(&self, now_ms: i64) -> Result<(), TuningError> {
        self.uploads.expire(now_ms).await.map_err(|error| stored(&error))?;
        loop {
            let parts = self.uploads.ended_parts(BATCH).await.map_err(|error| stored(&error))?;
            for id in &parts {
                if let Some(place) = self.uploads.remove_part(id).await.map_err(|error| stored(&error))? {
                    self.unlink(place).await;
                }
            }
            if parts.len() < usize::try_from(BATCH).unwrap_or_default() {
                break;
            }
        }
        let forgotten = self.uploads.forget(now_ms.saturating_sub(UPLOADS_KEPT_MS)).await;
        forgotten.map(drop).map_err(|error| stored(&error))
    }

    /// Removes what a crash has left: drafts that nobody writes, and contents that no row names. The lock comes first and
    /// the look at the rows after it, so that a row is seen that was written meanwhile.
    async fn remove_leftovers(&self, machine_ms: i64) -> Result<u64, TuningError> {
        let folder = self.folder.clone();
        let now = UNIX_EPOCH + Duration::from_millis(machine_ms.unsigned_abs());
        let found = blocking(move || folder.older_than(before(now, LEFT_ALONE))).await?;
        let mut removed = 0;
        for place in found {
            let named = async || self.rows.has_place(&place).await.map_err(|error| stored(&error));
            if !Folder::is_draft(&place) && named().await? {
                continue;
            }
            let (folder, there) = (self.folder.clone(), place.clone());
            let Some(leftover) = blocking(move || folder.take_leftover(&there)).await? else { continue };
            if !Folder::is_draft(&place) && named().await? {
                continue;
            }
            blocking(move || match leftover.remove() {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
            .await?;
            removed += 1;
        }
        Ok(removed)
    }
}
