//! Rows of contents: which lies where, and how many files and parts have it. They are only changed in the transaction of
//! the row that has or had them, one content a transaction, so that two never wait for each other.

use futures_util::FutureExt as _;
use sqlx::{AnyConnection, Row as _};

use super::audit::Statement;
use super::engine::StoreError;
use super::pool::Pool;
use crate::domain::tuning::TrainingFile;

/// A content, as a row is to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// 64 hex digits.
    pub sha256: String,
    /// Where it was written, if nobody has it yet.
    pub place: String,
    /// How long it is, bytes.
    pub bytes: u64,
    /// Where it lay before and was lost: if the row still says so, the new place takes over.
    pub lost: Option<String>,
}

/// Counts one more who has a content. Returns where it lies: elsewhere than it was just written, if somebody had it
/// before.
pub(super) async fn hold(connection: &mut AnyConnection, content: &Content) -> Result<String, sqlx::Error> {
    sqlx::query(
        "INSERT INTO contents (sha256, place, size_bytes, refs) VALUES ($1, $2, $3, 1)
         ON CONFLICT (sha256) DO UPDATE SET refs = contents.refs + 1,
         place = CASE WHEN contents.place = $4 THEN excluded.place ELSE contents.place END",
    )
    .bind(content.sha256.clone())
    .bind(content.place.clone())
    .bind(i64::try_from(content.bytes).unwrap_or(i64::MAX))
    // no place is empty
    .bind(content.lost.clone().unwrap_or_default())
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query("SELECT place FROM contents WHERE sha256 = $1")
        .bind(content.sha256.clone())
        .fetch_one(&mut *connection)
        .await?;
    row.try_get("place")
}

impl Content {
    /// That of a new file.
    pub(super) fn of_file(file: &TrainingFile, place: &str, lost: Option<String>) -> Self {
        Self { sha256: file.sha256.clone(), place: place.to_owned(), bytes: file.bytes, lost }
    }
}

/// Deletes a row that has a content, and lets go of that: `delete` returns its `sha256`. Returns what has to be unlinked,
/// if nobody else has the same content.
pub(super) async fn delete(pool: &Pool, delete: Statement) -> Result<Option<String>, StoreError> {
    let work = pool.transaction(move |connection| {
        async move {
            let Some(gone) = delete.fetch_optional(&mut *connection).await? else { return Ok(None) };
            let sha256: String = gone.try_get("sha256")?;
            release(connection, &sha256).await
        }
        .boxed()
    });
    Ok(work.await?)
}

/// Counts one less. Returns where it lay, if nobody has it any more: to be unlinked once this is committed.
async fn release(connection: &mut AnyConnection, sha256: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query("UPDATE contents SET refs = refs - 1 WHERE sha256 = $1")
        .bind(sha256.to_owned())
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query("SELECT place FROM contents WHERE sha256 = $1 AND refs <= 0")
        .bind(sha256.to_owned())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    sqlx::query("DELETE FROM contents WHERE sha256 = $1")
        .bind(sha256.to_owned())
        .execute(&mut *connection)
        .await?;
    row.try_get("place").map(Some)
}
