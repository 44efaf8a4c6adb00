//! Rows of files: whose they are, how their check stands, and which jobs need them.
//!
//! A file that was deleted is nobody's any more, but its row and its content stay until no job needs it. Each change
//! says what it has seen, so that of two processes one does it.

use futures_util::FutureExt as _;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::contents::{self, Content};
use super::engine::{StoreError, or_taken};
use super::open::Store;
use super::pool::Pool;
use crate::domain::tuning::{FileStatus, Owner, Purpose, TrainingFile};

/// In which order files are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Ascending,
    /// The newest first.
    Descending,
}

/// Which files are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose; none for all.
    pub owner: Option<&'a Owner>,
    /// What for; none for all.
    pub purpose: Option<Purpose>,
    /// In which order.
    pub order: Order,
    /// The id of the file before them.
    pub after: Option<&'a str>,
    /// At most so many.
    pub limit: i64,
}

/// A file whose check is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The file.
    pub file: TrainingFile,
    /// Who checks it; empty for nobody.
    pub checker: String,
    /// How often that has said so.
    pub beat: i64,
}

/// What the check of a file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether it may be trained on.
    pub status: FileStatus,
    /// What is wrong with it.
    pub details: Option<String>,
    /// All that was found, as JSON.
    pub report: Option<String>,
    /// Of the system prompt that its rows have.
    pub system_prompt_sha256: Option<String>,
}

/// How many files there are, and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Files of each status, as in [`FileStatus::ALL`].
    pub by_status: [u64; 3],
    /// Of all contents, each counted once; parts of uploads are among them.
    pub bytes: u64,
}

/// The columns of a file.
macro_rules! columns {
    () => {
        "id, owner, filename, purpose, size_bytes, sha256, status, status_details, created_at_ms, expires_at_ms,
         system_prompt_sha256"
    };
}

/// The table of files.
#[derive(Debug, Clone)]
pub struct FileRows {
    pool: Pool,
}

impl FileRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new file whose content lies in a place. Returns where the content lies: elsewhere, if it was there before
    /// and that is not where it is known to be `lost`.
    pub async fn insert(
        &self,
        file: &TrainingFile,
        place: &str,
        lost: Option<String>,
    ) -> Result<String, StoreError> {
        let content = Content::of_file(file, place, lost);
        let file = file.clone();
        let work = self.pool.transaction(move |connection| {
            async move {
                insert(connection, &file).await?;
                contents::hold(connection, &content).await
            }
            .boxed()
        });
        work.await.map_err(or_taken)
    }

    /// Finds a file that was not deleted.
    pub async fn find(&self, id: &str) -> Result<Option<TrainingFile>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM files WHERE id = $1 AND deleted_at_ms IS NULL"
        ))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(file_row).transpose()
    }

    /// Finds a file that a job needs, deleted or not.
    pub async fn find_used(&self, id: &str) -> Result<Option<TrainingFile>, StoreError> {
        let row = sqlx::query(concat!("SELECT ", columns!(), " FROM files WHERE id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(file_row).transpose()
    }

    /// Where the content with a hash lies.
    pub async fn place(&self, sha256: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT place FROM contents WHERE sha256 = $1")
            .bind(sha256)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get("place")?)).transpose()
    }

    /// What the check of a file has found, as JSON.
    pub async fn report(&self, id: &str) -> Result<Option<String>, StoreError> {
        let row =
            sqlx::query("SELECT report FROM files WHERE id = $1").bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.try_get("report")).transpose()?.flatten())
    }

    /// Lists files that were not deleted; nothing where there is no file `after` which they are to come.
    pub async fn list(&self, wanted: Wanted<'_>) -> Result<Option<Vec<TrainingFile>>, StoreError> {
        let owner = wanted.owner.map(ToString::to_string).unwrap_or_default();
        let (mut at_ms, mut id) = match wanted.order {
            Order::Ascending => (i64::MIN, String::new()),
            Order::Descending => (i64::MAX, String::new()),
        };
        if let Some(after) = wanted.after {
            let row = sqlx::query(
                "SELECT created_at_ms FROM files
                 WHERE id = $1 AND deleted_at_ms IS NULL AND (owner = $2 OR $2 = '')",
            )
            .bind(after)
            .bind(owner.clone())
            .fetch_optional(&self.pool)
            .await?;
            let Some(row) = row else { return Ok(None) };
            (at_ms, id) = (row.try_get("created_at_ms")?, after.to_owned());
        }
        let text = match wanted.order {
            Order::Ascending => {
                concat!(
                    "SELECT ",
                    columns!(),
                    " FROM files
                 WHERE deleted_at_ms IS NULL AND (owner = $1 OR $1 = '') AND (purpose = $2 OR $2 = '')
                 AND (created_at_ms > $3 OR (created_at_ms = $3 AND id > $4))
                 ORDER BY created_at_ms, id LIMIT $5"
                )
            }
            Order::Descending => {
                concat!(
                    "SELECT ",
                    columns!(),
                    " FROM files
                 WHERE deleted_at_ms IS NULL AND (owner = $1 OR $1 = '') AND (purpose = $2 OR $2 = '')
                 AND (created_at_ms < $3 OR (created_at_ms = $3 AND id < $4))
                 ORDER BY created_at_ms DESC, id DESC LIMIT $5"
                )
            }
        };
        let rows = sqlx::query(text)
            .bind(owner)
            .bind(wanted.purpose.map(Purpose::name).unwrap_or_default())
            .bind(at_ms)
            .bind(id)
            .bind(wanted.limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(file_row).collect::<Result<_, _>>().map(Some)
    }

    /// Notes a file as deleted. Whether there was one. What is to be unlinked then comes from [`FileRows::purge`].
    pub async fn delete(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE files SET deleted_at_ms = $2 WHERE id = $1 AND deleted_at_ms IS NULL")
            .bind(id)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes the row of a deleted file away, if no job needs it. Returns what has to be unlinked, if nobody else has the
    /// same content.
    pub async fn purge(&self, id: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "DELETE FROM files WHERE id = $1 AND deleted_at_ms IS NOT NULL AND uses = 0 RETURNING sha256",
        );
        contents::delete(&self.pool, row.bind(id.to_owned())).await
    }

    /// Files that were deleted and that no job needs, or whose time is over.
    pub async fn ended(&self, now_ms: i64, limit: i64) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM files WHERE (deleted_at_ms IS NOT NULL AND uses = 0)
             OR (deleted_at_ms IS NULL AND expires_at_ms <= $1) ORDER BY id LIMIT $2",
        )
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Notes that a job needs a file: its content stays until [`FileRows::release`]. Noting it twice is noting it once.
    /// Whether the file was there.
    pub async fn hold(&self, id: &str, job_id: &str) -> Result<bool, StoreError> {
        let (id, job_id) = (id.to_owned(), job_id.to_owned());
        let work = self.pool.transaction(move |connection| {
            async move {
                let new = sqlx::query(
                    "INSERT INTO file_uses (file_id, job_id) VALUES ($1, $2) ON CONFLICT (file_id, job_id) DO NOTHING",
                )
                .bind(id.clone())
                .bind(job_id)
                .execute(&mut *connection)
                .await?;
                if new.rows_affected() == 0 {
                    return Ok(());
                }
                let held = sqlx::query(
                    "UPDATE files SET uses = uses + 1 WHERE id = $1 AND deleted_at_ms IS NULL",
                )
                .bind(id)
                .execute(&mut *connection)
                .await?;
                // takes back what was inserted
                if held.rows_affected() == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
            }
            .boxed()
        });
        match work.await {
            Ok(()) => Ok(true),
            Err(sqlx::Error::RowNotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes that a job needs its files no longer. Returns them: those among them that were deleted are to be purged.
    pub async fn release(&self, job_id: &str) -> Result<Vec<String>, StoreError> {
        let job_id = job_id.to_owned();
        let work = self.pool.transaction(move |connection| {
            async move {
                let gone = sqlx::query("DELETE FROM file_uses WHERE job_id = $1 RETURNING file_id")
                    .bind(job_id)
                    .fetch_all(&mut *connection)
                    .await?;
                let ids: Result<Vec<String>, _> = gone.iter().map(|row| row.try_get("file_id")).collect();
                let mut ids = ids?;
                ids.sort(); // always in one order: two that wait for each other would wait for ever
                for id in &ids {
                    sqlx::query("UPDATE files SET uses = uses - 1 WHERE id = $1")
                        .bind(id.clone())
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(ids)
            }
            .boxed()
        });
        Ok(work.await?)
    }

    /// Files whose check is not over, the oldest first.
    pub async fn waiting(&self, limit: i64) -> Result<Vec<Waiting>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            ", checker, beat FROM files
             WHERE status = 'checking' AND deleted_at_ms IS NULL ORDER BY created_at_ms, id LIMIT $1",
        ))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let waiting = |row: &AnyRow| {
            let (checker, beat) = (row.try_get("checker")?, row.try_get("beat")?);
            Ok(Waiting { file: file_row(row)?, checker, beat })
        };
        rows.iter().map(waiting).collect()
    }

    /// Takes the check of a file over, from whom it was seen with. Whether it did: not when another process was first.
    pub async fn claim(&self, seen: &Waiting, checker: &str) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE files SET checker = $4, beat = beat + 1
             WHERE id = $1 AND status = 'checking' AND checker = $2 AND beat = $3",
        )
        .bind(seen.file.id.clone())
        .bind(seen.checker.clone())
        .bind(seen.beat)
        .bind(checker)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives back whatever a checker has not come to an end with: anybody may take it at once.
    pub async fn unclaim(&self, checker: &str) -> Result<(), StoreError> {
        let free = sqlx::query("UPDATE files SET checker = '' WHERE status = 'checking' AND checker = $1");
        free.bind(checker).execute(&self.pool).await?;
        Ok(())
    }

    /// Says that the check goes on. Whether it is still this checker's.
    pub async fn beat(&self, id: &str, checker: &str) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE files SET beat = beat + 1 WHERE id = $1 AND status = 'checking' AND checker = $2
             AND deleted_at_ms IS NULL",
        )
        .bind(id)
        .bind(checker)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Writes what a check came to, if it is still this checker's.
    pub async fn checked(&self, id: &str, checker: &str, found: &Checked) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE files SET status = $3, status_details = $4, report = $5, system_prompt_sha256 = $6
             WHERE id = $1 AND status = 'checking' AND checker = $2",
        )
        .bind(id)
        .bind(checker)
        .bind(found.status.name())
        .bind(found.details.clone())
        .bind(found.report.clone())
        .bind(found.system_prompt_sha256.clone())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// How many files there are.
    pub async fn count(&self) -> Result<Count, StoreError> {
        let rows = sqlx::query(
            "SELECT status, CAST(COUNT(*) AS BIGINT) AS files FROM files WHERE deleted_at_ms IS NULL GROUP BY status",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut count = Count { bytes: self.bytes().await?, ..Count::default() };
        for row in &rows {
            let (status, files): (String, i64) = (row.try_get("status")?, row.try_get("files")?);
            let place = FileStatus::ALL.iter().position(|known| known.name() == status);
            if let Some(counted) = place.and_then(|place| count.by_status.get_mut(place)) {
                *counted = files.unsigned_abs();
            }
        }
        Ok(count)
    }

    /// What all contents take, bytes.
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        let sum = sqlx::query("SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS bytes FROM contents")
            .fetch_one(&self.pool)
            .await?;
        Ok(sum.try_get::<i64, _>("bytes")?.unsigned_abs())
    }

    /// Whether a row names a place.
    pub async fn has_place(&self, place: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT sha256 FROM contents WHERE place = $1")
            .bind(place)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }
}

/// Writes the row of a file alone.
pub(super) async fn insert(connection: &mut AnyConnection, file: &TrainingFile) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO files (id, owner, filename, purpose, size_bytes, sha256, status, status_details, created_at_ms,
         expires_at_ms, system_prompt_sha256) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(file.id.clone())
    .bind(file.owner.to_string())
    .bind(file.filename.clone())
    .bind(file.purpose.name())
    .bind(i64::try_from(file.bytes).unwrap_or(i64::MAX))
    .bind(file.sha256.clone())
    .bind(file.status.name())
    .bind(file.status_details.clone())
    .bind(file.created_at_ms)
    .bind(file.expires_at_ms)
    .bind(file.system_prompt_sha256.clone())
    .execute(&mut *connection)
    .await
    .map(drop)
}

fn file_row(row: &AnyRow) -> Result<TrainingFile, StoreError> {
    let id: String = row.try_get("id")?;
    let damaged = || StoreError::Damaged(id.clone());
    let (owner, purpose): (String, String) = (row.try_get("owner")?, row.try_get("purpose")?);
    let (status, bytes): (String, i64) = (row.try_get("status")?, row.try_get("size_bytes")?);
    Ok(TrainingFile {
        owner: owner.parse().map_err(|_| damaged())?,
        filename: row.try_get("filename")?,
        purpose: Purpose::from_name(&purpose).ok_or_else(damaged)?,
        bytes: u64::try_from(bytes).map_err(|_| damaged())?,
        sha256: row.try_get("sha256")?,
        status: FileStatus::from_name(&status).ok_or_else(damaged)?,
        status_details: row.try_get("status_details")?,
        created_at_ms: row.try_get("created_at_ms")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        system_prompt_sha256: row.try_get("system_prompt_sha256")?,
        id,
    })
}
