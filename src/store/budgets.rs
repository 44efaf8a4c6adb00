//! Rows of budgets that operators made by the admin API.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::engine::{Store, StoreError};
use super::pool::Pool;
use crate::domain::budget::{Budget, Raise};
use crate::domain::money::Usd;
use crate::domain::window::Window;

/// The table of budgets.
#[derive(Debug, Clone)]
pub struct BudgetRows {
    pool: Pool,
}

impl BudgetRows {
    /// The table in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Returns all budgets by name.
    pub async fn all(&self) -> Result<Vec<Budget>, StoreError> {
        let rows = sqlx::query(
            "SELECT name, scope, limit_nanos, time_window, time_zone, alert_at, action, raise_by_nanos, raise_until_ms
             FROM budgets ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(budget).collect()
    }
}

fn budget(row: &AnyRow) -> Result<Budget, StoreError> {
    let name: String = row.try_get("name")?;
    let damaged = || StoreError::Damaged(format!("the budget {name}"));
    let text = |column: &str| -> Result<String, StoreError> { Ok(row.try_get(column)?) };
    let (window, zone) = (text("time_window")?, text("time_zone")?);
    let zone = Some(zone.as_str()).filter(|zone| !zone.is_empty());
    let (by, until): (Option<i64>, Option<i64>) =
        (row.try_get("raise_by_nanos")?, row.try_get("raise_until_ms")?);
    let raise = by.zip(until).map(|(by, until_ms)| Raise { by: Usd::from_nanos(by), until_ms });
    Ok(Budget {
        scope: serde_json::from_str(&text("scope")?).map_err(|_| damaged())?,
        limit: Usd::from_nanos(row.try_get("limit_nanos")?),
        window: Window::parse(&window, zone).map_err(|_| damaged())?,
        alert_at: serde_json::from_str(&text("alert_at")?).map_err(|_| damaged())?,
        action: serde_json::from_value(text("action")?.into()).map_err(|_| damaged())?,
        raise,
        declared: false,
        name: name.as_str().into(),
    })
}
