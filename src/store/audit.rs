//! Rows of the audit log: who changed what, and when. They are only ever added, in the transaction of what they tell of.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyPool, Row as _};

use super::engine::{Store, StoreError};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// `audit_` and 24 hex digits, ordered by time.
    pub id: String,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What was done, such as `key.create`.
    pub action: String,
    /// To what: an id.
    pub subject: String,
    /// What changed, as JSON; no secret is in it.
    pub detail: String,
}

/// The table of changes.
#[derive(Debug, Clone)]
pub struct AuditRows {
    pool: AnyPool,
}

impl AuditRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Adds a change of what has no transaction of its own here.
    pub async fn insert(&self, row: &AuditRow) -> Result<(), StoreError> {
        append(&mut *self.pool.acquire().await?, row).await
    }

    /// Returns at most so many changes, newest first; those before an id, or the last ones.
    pub async fn page(&self, before: Option<&str>, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        // no id sorts behind "b"
        let rows = sqlx::query(
            "SELECT id, at_ms, actor, action, subject, detail FROM audit_log WHERE id < $1
             ORDER BY id DESC LIMIT $2",
        )
        .bind(before.unwrap_or("b"))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(audit_row).collect()
    }
}

/// Adds a change within the transaction that makes it.
pub(super) async fn append(connection: &mut AnyConnection, row: &AuditRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_log (id, at_ms, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(row.id.as_str())
    .bind(row.at_ms)
    .bind(row.actor.as_str())
    .bind(row.action.as_str())
    .bind(row.subject.as_str())
    .bind(row.detail.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

fn audit_row(row: &AnyRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        id: row.try_get("id")?,
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        detail: row.try_get("detail")?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn change(id: &str) -> AuditRow {
        AuditRow {
            id: format!("audit_{id}"),
            at_ms: 1_700_000_000_000,
            actor: "admin".to_owned(),
            action: "key.create".to_owned(),
            subject: "key_1".to_owned(),
            detail: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn pages_go_back_in_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = AuditRows::new(&Store::open(folder.path()).await.expect("opened"));
        for id in ["1", "3", "2"] {
            rows.insert(&change(id)).await.expect("written");
        }
        let page = rows.page(None, 2).await.expect("read");
        assert_eq!(page, [change("3"), change("2")]);
        assert_eq!(rows.page(Some(&page[1].id), 2).await.expect("read"), [change("1")]);
    }
}
