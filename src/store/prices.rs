//! Overrides of prices: a journal of their changes. Nothing is ever rewritten, so that each version of the prices that
//! the ledger names can be put together again.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, audited};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;

/// One change of one model's override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceChangeRow {
    /// Its number: 1, 2, 3, … without gaps.
    pub change: i64,
    /// Whose price, `openai`, `azure` or `candle`.
    pub provider: String,
    /// The model's name, or a family's.
    pub model: String,
    /// The override as JSON; none where it was taken away.
    pub body: Option<String>,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
}

/// The journal.
#[derive(Debug, Clone)]
pub struct PriceRows {
    pool: Pool,
}

impl PriceRows {
    /// The journal in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Writes a change, and its row of the audit log. [`StoreError::Taken`] when another process has written one with
    /// this number.
    pub async fn append(&self, row: &PriceChangeRow, audit: &AuditRow) -> Result<(), StoreError> {
        let change = sqlx::query(
            "INSERT INTO price_changes (change_no, provider, model, body, at_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(row.change)
        .bind(row.provider.clone())
        .bind(row.model.clone())
        .bind(row.body.clone())
        .bind(row.at_ms);
        audited(&self.pool, change, Vec::new(), audit).await.map(drop)
    }

    /// Returns the changes behind a number, in order.
    pub async fn after(&self, change: i64) -> Result<Vec<PriceChangeRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT change_no, provider, model, body, at_ms FROM price_changes WHERE change_no > $1
             ORDER BY change_no",
        )
        .bind(change)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(change_row).collect()
    }
}

fn change_row(row: &AnyRow) -> Result<PriceChangeRow, StoreError> {
    Ok(PriceChangeRow {
        change: row.try_get("change_no")?,
        provider: row.try_get("provider")?,
        model: row.try_get("model")?,
        body: row.try_get("body")?,
        at_ms: row.try_get("at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::for_each_database;

    fn told(id: &str) -> AuditRow {
        AuditRow {
            id: format!("audit_{id}"),
            at_ms: 1_700_000_000_000,
            actor: "admin".to_owned(),
            action: "price.set".to_owned(),
            subject: "openai/ft:gpt-4o".to_owned(),
            detail: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn changes_are_numbered_and_stay() {
        for_each_database(async |database| {
            let rows = PriceRows::new(&database.open().await);
            let row = |change, body: Option<&str>| PriceChangeRow {
                change,
                provider: "openai".to_owned(),
                model: "ft:gpt-4o".to_owned(),
                body: body.map(str::to_owned),
                at_ms: 1_700_000_000_000,
            };
            let (set, removed) = (row(1, Some("{}")), row(2, None));
            rows.append(&set, &told("1")).await.expect("written");
            assert!(matches!(rows.append(&set, &told("2")).await, Err(StoreError::Taken)));
            rows.append(&removed, &told("3")).await.expect("written");
            assert_eq!(rows.after(0).await.expect("read"), [set, removed.clone()]);
            assert_eq!(rows.after(1).await.expect("read"), [removed]);
        })
        .await;
    }
}
