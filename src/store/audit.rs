//! Rows of the audit log: who changed what, and when. They are only ever added, in the transaction of what they tell of.

use futures_util::FutureExt as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, Row as _};

use super::engine::{StoreError, or_taken};
use super::open::Store;
use super::pool::Pool;

/// A statement with its values bound.
pub(super) type Statement = Query<'static, Any, AnyArguments>;

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
    pool: Pool,
}

impl AuditRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Adds a change of what has no transaction of its own here.
    pub async fn insert(&self, row: &AuditRow) -> Result<(), StoreError> {
        insertion(row).execute(&self.pool).await?;
        Ok(())
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

/// Runs a change with its audit row, and what else belongs to it, in one transaction. Nothing is written, and it says so,
/// when the change itself finds no row. [`StoreError::Taken`] when a unique value is there already.
pub(super) async fn audited(
    pool: &Pool,
    change: Statement,
    then: Vec<Statement>,
    audit: &AuditRow,
) -> Result<bool, StoreError> {
    let steps = std::iter::once(change).chain(then).chain([insertion(audit)]);
    write(pool, steps.collect()).await
}

/// Runs changes, each of which has to find its row, with their audit rows in one transaction: all of them or none.
/// [`StoreError::Taken`] when another process has changed what one of them builds on.
pub(super) async fn all_audited(
    pool: &Pool,
    changes: impl Iterator<Item = Statement>,
    audit: &[AuditRow],
) -> Result<(), StoreError> {
    let steps: Vec<Statement> = changes.chain(audit.iter().map(insertion)).collect();
    let work = pool.transaction(|connection| {
        let all = async move {
            for step in steps {
                if step.execute(&mut *connection).await?.rows_affected() == 0 {
                    return Err(sqlx::Error::RowNotFound);
                }
            }
            Ok(())
        };
        all.boxed()
    });
    work.await.map_err(|error| match error {
        // what it claims to have seen is there no longer
        sqlx::Error::RowNotFound => StoreError::Taken,
        other => or_taken(other),
    })
}

/// Runs statements in one transaction; nothing is changed where the first finds no row. Whether it did.
/// [`StoreError::Taken`] when a unique value is there already.
pub(super) async fn write(pool: &Pool, steps: Vec<Statement>) -> Result<bool, StoreError> {
    let work = pool.transaction(|connection| {
        let all = async move {
            for (index, step) in steps.into_iter().enumerate() {
                let found = step.execute(&mut *connection).await?.rows_affected();
                if index == 0 && found == 0 {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        all.boxed()
    });
    work.await.map_err(or_taken)
}

/// The statement that adds a change.
pub(super) fn insertion(row: &AuditRow) -> Statement {
    sqlx::query(
        "INSERT INTO audit_log (id, at_ms, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(row.id.clone())
    .bind(row.at_ms)
    .bind(row.actor.clone())
    .bind(row.action.clone())
    .bind(row.subject.clone())
    .bind(row.detail.clone())
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
    use crate::store::testing::for_each_database;

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
        for_each_database(async |database| {
            let rows = AuditRows::new(&database.open().await);
            for id in ["1", "3", "2"] {
                rows.insert(&change(id)).await.expect("written");
            }
            let page = rows.page(None, 2).await.expect("read");
            assert_eq!(page, [change("3"), change("2")]);
            assert_eq!(rows.page(Some(&page[1].id), 2).await.expect("read"), [change("1")]);
        })
        .await;
    }
}
