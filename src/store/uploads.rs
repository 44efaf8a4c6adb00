//! Rows of uploads and of their parts. Whatever changes an upload touches its own row first, so that of a part that comes
//! and an upload that ends at the same time one sees the other.

use futures_util::FutureExt as _;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::contents::{self, Content};
use super::engine::{StoreError, or_taken};
use super::files;
use super::open::Store;
use super::pool::Pool;
use crate::domain::tuning::{Purpose, TrainingFile, Upload, UploadPart, UploadStatus};

/// What became of a new part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is there; its content lies here.
    At(String),
    /// The upload takes no more: it has ended, or has had too many parts or bytes.
    Refused,
}

/// How much an upload's parts may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How many.
    pub parts: i64,
    /// How long together, bytes.
    pub bytes: i64,
}

/// The tables of uploads and parts.
#[derive(Debug, Clone)]
pub struct UploadRows {
    pool: Pool,
}

impl UploadRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a new upload.
    pub async fn insert(&self, upload: &Upload) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO uploads (id, owner, filename, purpose, mime_type, size_bytes, status, file_id,
             file_expires_after_ms, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(upload.id.clone())
        .bind(upload.owner.to_string())
        .bind(upload.filename.clone())
        .bind(upload.purpose.name())
        .bind(upload.mime_type.clone())
        .bind(i64::try_from(upload.bytes).unwrap_or(i64::MAX))
        .bind(upload.status.name())
        .bind(upload.file_id.clone())
        .bind(upload.file_expires_after_ms)
        .bind(upload.created_at_ms)
        .bind(upload.expires_at_ms)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Finds an upload.
    pub async fn find(&self, id: &str) -> Result<Option<Upload>, StoreError> {
        let row = sqlx::query(
            "SELECT id, owner, filename, purpose, mime_type, size_bytes, status, file_id, file_expires_after_ms,
             created_at_ms, expires_at_ms FROM uploads WHERE id = $1",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(upload_row).transpose()
    }

    /// The parts of an upload.
    pub async fn parts(&self, upload_id: &str) -> Result<Vec<UploadPart>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, upload_id, sha256, size_bytes, created_at_ms FROM upload_parts WHERE upload_id = $1 ORDER BY id",
        )
        .bind(upload_id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(part_row).collect()
    }

    /// Adds a part whose content lies in a place, if the upload still takes it. `lost` is as for a file.
    pub async fn add_part(
        &self,
        part: &UploadPart,
        place: &str,
        lost: Option<String>,
        bounds: Bounds,
    ) -> Result<Added, StoreError> {
        let content =
            Content { sha256: part.sha256.clone(), place: place.to_owned(), bytes: part.bytes, lost };
        let part = part.clone();
        let work = self.pool.transaction(move |connection| {
            async move {
                let bytes = i64::try_from(part.bytes).unwrap_or(i64::MAX);
                let taken = sqlx::query(
                    "UPDATE uploads SET parts = parts + 1, received_bytes = received_bytes + $2
                     WHERE id = $1 AND status = 'pending' AND expires_at_ms > $3
                     AND parts < $4 AND received_bytes <= $5",
                )
                .bind(part.upload_id.clone())
                .bind(bytes)
                .bind(part.created_at_ms)
                .bind(bounds.parts)
                .bind(bounds.bytes.saturating_sub(bytes))
                .execute(&mut *connection)
                .await?;
                if taken.rows_affected() == 0 {
                    return Ok(Added::Refused);
                }
                sqlx::query(
                    "INSERT INTO upload_parts (id, upload_id, sha256, size_bytes, created_at_ms)
                     VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(part.id)
                .bind(part.upload_id)
                .bind(part.sha256)
                .bind(bytes)
                .bind(part.created_at_ms)
                .execute(&mut *connection)
                .await?;
                contents::hold(connection, &content).await.map(Added::At)
            }
            .boxed()
        });
        work.await.map_err(or_taken)
    }

    /// Makes a pending upload the file that its parts were put together to. Returns where the content lies, or nothing
    /// when the upload has ended meanwhile. `lost` is as for a file.
    pub async fn complete(
        &self,
        upload_id: &str,
        file: &TrainingFile,
        place: &str,
        lost: Option<String>,
    ) -> Result<Option<String>, StoreError> {
        let content = Content::of_file(file, place, lost);
        let (upload_id, file) = (upload_id.to_owned(), file.clone());
        let work = self.pool.transaction(move |connection| {
            async move {
                let done = sqlx::query(
                    "UPDATE uploads SET status = 'completed', file_id = $2
                     WHERE id = $1 AND status = 'pending' AND expires_at_ms > $3",
                )
                .bind(upload_id)
                .bind(file.id.clone())
                .bind(file.created_at_ms)
                .execute(&mut *connection)
                .await?;
                if done.rows_affected() == 0 {
                    return Ok(None);
                }
                files::insert(connection, &file).await?;
                contents::hold(connection, &content).await.map(Some)
            }
            .boxed()
        });
        work.await.map_err(or_taken)
    }

    /// Gives a pending upload up. Whether there was one.
    pub async fn cancel(&self, id: &str) -> Result<bool, StoreError> {
        let done =
            sqlx::query("UPDATE uploads SET status = 'cancelled' WHERE id = $1 AND status = 'pending'")
                .bind(id)
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends the uploads whose time is over. Returns how many.
    pub async fn expire(&self, now_ms: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE uploads SET status = 'expired' WHERE status = 'pending' AND expires_at_ms <= $1",
        )
        .bind(now_ms)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Deletes the uploads that have ended, have no part any more, and whose time was over at a moment. Returns how many.
    pub async fn forget(&self, before_ms: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM uploads WHERE status <> 'pending' AND expires_at_ms <= $1
             AND NOT EXISTS (SELECT 1 FROM upload_parts WHERE upload_parts.upload_id = uploads.id)",
        )
        .bind(before_ms)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Parts of uploads that have ended.
    pub async fn ended_parts(&self, limit: i64) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(
            "SELECT upload_parts.id AS id FROM upload_parts JOIN uploads ON uploads.id = upload_parts.upload_id
             WHERE uploads.status <> 'pending' ORDER BY upload_parts.id LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Takes a part away. Returns what has to be unlinked, if nobody else has the same content.
    pub async fn remove_part(&self, id: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("DELETE FROM upload_parts WHERE id = $1 RETURNING sha256");
        contents::delete(&self.pool, row.bind(id.to_owned())).await
    }
}

fn upload_row(row: &AnyRow) -> Result<Upload, StoreError> {
    let id: String = row.try_get("id")?;
    let damaged = || StoreError::Damaged(id.clone());
    let (owner, purpose): (String, String) = (row.try_get("owner")?, row.try_get("purpose")?);
    let (status, bytes): (String, i64) = (row.try_get("status")?, row.try_get("size_bytes")?);
    Ok(Upload {
        owner: owner.parse().map_err(|_| damaged())?,
        filename: row.try_get("filename")?,
        purpose: Purpose::from_name(&purpose).ok_or_else(damaged)?,
        mime_type: row.try_get("mime_type")?,
        bytes: u64::try_from(bytes).map_err(|_| damaged())?,
        status: UploadStatus::from_name(&status).ok_or_else(damaged)?,
        file_id: row.try_get("file_id")?,
        file_expires_after_ms: row.try_get("file_expires_after_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        id,
    })
}

fn part_row(row: &AnyRow) -> Result<UploadPart, StoreError> {
    let (id, bytes): (String, i64) = (row.try_get("id")?, row.try_get("size_bytes")?);
    let bytes = u64::try_from(bytes).map_err(|_| StoreError::Damaged(id.clone()))?;
    Ok(UploadPart {
        upload_id: row.try_get("upload_id")?,
        sha256: row.try_get("sha256")?,
        bytes,
        created_at_ms: row.try_get("created_at_ms")?,
        id,
    })
}
