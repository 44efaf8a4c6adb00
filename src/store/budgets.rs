//! Rows of budgets that operators made by the admin API.

use serde::Serialize;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, audited};
use super::engine::StoreError;
use super::open::Store;
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

    /// Writes a new budget. [`StoreError::Taken`] when one has its name, or counts the same money.
    pub async fn insert(&self, budget: &Budget, now_ms: i64, audit: &AuditRow) -> Result<(), StoreError> {
        let change = sqlx::query(
            "INSERT INTO budgets (name, scope, limit_nanos, time_window, time_zone, alert_at, action, created_at_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(budget.name.to_string())
        .bind(json(&budget.scope))
        .bind(budget.limit.nanos())
        .bind(budget.window.to_string())
        .bind(budget.window.zone_name().unwrap_or_default().to_owned())
        .bind(json(&budget.alert_at))
        .bind(word(&budget.action))
        .bind(now_ms);
        audited(&self.pool, change, Vec::new(), audit).await.map(drop)
    }

    /// Writes all of a budget but its raise. Whether there is one of its name. [`StoreError::Taken`] when another counts
    /// the same money.
    pub async fn replace(&self, budget: &Budget, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query(
            "UPDATE budgets SET scope = $2, limit_nanos = $3, time_window = $4, time_zone = $5, alert_at = $6, action = $7
             WHERE name = $1",
        )
        .bind(budget.name.to_string())
        .bind(json(&budget.scope))
        .bind(budget.limit.nanos())
        .bind(budget.window.to_string())
        .bind(budget.window.zone_name().unwrap_or_default().to_owned())
        .bind(json(&budget.alert_at))
        .bind(word(&budget.action));
        audited(&self.pool, change, Vec::new(), audit).await
    }

    /// Raises a budget, or ends its raise. Whether there is one of that name.
    pub async fn set_raise(
        &self,
        name: &str,
        raise: Option<Raise>,
        audit: &AuditRow,
    ) -> Result<bool, StoreError> {
        let change =
            sqlx::query("UPDATE budgets SET raise_by_nanos = $2, raise_until_ms = $3 WHERE name = $1")
                .bind(name.to_owned())
                .bind(raise.map(|raise| raise.by.nanos()))
                .bind(raise.map(|raise| raise.until_ms));
        audited(&self.pool, change, Vec::new(), audit).await
    }

    /// Deletes a budget. Whether there was one.
    pub async fn delete(&self, name: &str, audit: &AuditRow) -> Result<bool, StoreError> {
        let change = sqlx::query("DELETE FROM budgets WHERE name = $1").bind(name.to_owned());
        audited(&self.pool, change, Vec::new(), audit).await
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

#[expect(clippy::expect_used, reason = "names and numbers are always JSON")]
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it is JSON")
}

/// The name of a variant, without the quotes of JSON.
fn word(value: &impl Serialize) -> String {
    json(value).trim_matches('"').to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::budget::draft::Draft;
    use crate::domain::budget::{Action, Each, Scope};
    use crate::domain::ledger::Purpose;
    use crate::store::audit::AuditRows;
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn budget(name: &str, window: &str, zone: Option<&str>) -> Budget {
        let draft = Draft {
            limit_usd: Some("12.5".to_owned()),
            window: Some(window.to_owned()),
            time_zone: zone.map(str::to_owned),
            ..Draft::default()
        };
        draft.check(name, false, &mut |path, what| panic!("{path}: {what}")).expect("a budget")
    }

    #[tokio::test]
    async fn a_budget_from_insert_to_delete() {
        for_each_database(async |database| {
            let store = database.open().await;
            let (rows, log) = (BudgetRows::new(&store), AuditRows::new(&store));
            let mut made = budget("a", "month", Some("Europe/Zurich"));
            made.scope = Scope {
                team: Some("t'1\"; --".into()),
                purpose: Some(Purpose::Training),
                each: Some(Each::EndUser),
                ..Scope::default()
            };
            rows.insert(&made, 5, &change("1")).await.expect("written");
            assert!(matches!(rows.insert(&made, 5, &change("2")).await, Err(StoreError::Taken)), "its name");
            let twin = Budget { name: "b".into(), ..made.clone() };
            assert!(
                matches!(rows.insert(&twin, 5, &change("3")).await, Err(StoreError::Taken)),
                "its counter"
            );
            let other = budget("b", "rolling 24h", None);
            rows.insert(&other, 6, &change("4")).await.expect("written");
            let raise = Some(Raise { by: Usd::dollars(3), until_ms: 9 });
            assert!(rows.set_raise("a", raise, &change("5")).await.expect("written"));
            made.raise = raise;
            made.action = Action::Downgrade;
            made.alert_at = Vec::new();
            made.limit = Usd::from_nanos(1);
            assert!(
                rows.replace(&Budget { raise: None, ..made.clone() }, &change("6")).await.expect("written")
            );
            assert_eq!(rows.all().await.expect("read"), [made.clone(), other.clone()]);
            let clash = Budget { name: "b".into(), ..made.clone() };
            assert!(matches!(rows.replace(&clash, &change("7")).await, Err(StoreError::Taken)));
            assert!(rows.set_raise("a", None, &change("8")).await.expect("written"));
            assert_eq!(rows.all().await.expect("read")[0].raise, None);
            assert!(rows.delete("a", &change("9")).await.expect("written"));
            assert!(!rows.delete("a", &change("x")).await.expect("asked"), "already");
            assert!(!rows.replace(&made, &change("y")).await.expect("asked"));
            assert_eq!(rows.all().await.expect("read"), [other]);
            let told: Vec<String> =
                log.page(None, 99).await.expect("read").into_iter().map(|row| row.id).collect();
            assert_eq!(told, ["9", "8", "6", "5", "4", "1"].map(|id| format!("audit_{id}")), "what was done");
        })
        .await;
    }
}
