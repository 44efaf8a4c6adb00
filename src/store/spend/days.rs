//! Sums by the day: a few hundred rows for what would be read of millions of slots. They are folded in with the slots.

use std::collections::BTreeMap;

use sqlx::{AnyConnection, Row as _};

use super::SpendRows;
use crate::domain::ledger::{Entry, Purpose};
use crate::domain::money::Usd;
use crate::domain::spend::recent::{Recent, Spending, day_of};
use crate::store::engine::StoreError;

const ADD_TO_DAY: &str =
    "INSERT INTO spend_days (day, team, model, deployment, provider, purpose, cost_nanos)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (day, team, model, deployment, provider, purpose)
     DO UPDATE SET cost_nanos = spend_days.cost_nanos + excluded.cost_nanos";

/// Accounts and days on which the sums differ from those of the slots.
pub(in crate::store) const DIFFERENT_DAYS: &str =
    "SELECT day, team, model, deployment, provider, purpose, CAST(SUM(days) AS BIGINT), CAST(SUM(slots) AS BIGINT)
     FROM (
         SELECT day, team, model, deployment, provider, purpose, cost_nanos AS days, 0 AS slots FROM spend_days
         UNION ALL SELECT slot_ms / 86400000, team, model, deployment, provider, purpose, 0, cost_nanos
         FROM spend_slots
     ) AS both_sums GROUP BY day, team, model, deployment, provider, purpose HAVING SUM(days) <> SUM(slots)
     ORDER BY day, team, model, deployment, provider, purpose";

/// What entries add to the days.
pub(super) struct Days(BTreeMap<(i64, [String; 5]), Usd>);

impl Days {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut days = BTreeMap::<_, Usd>::new();
        for entry in entries {
            let on = &entry.attribution;
            let team = on.team.as_deref().unwrap_or_default();
            let account = [team, &on.model, &on.deployment, &on.provider, on.purpose.name()];
            *days.entry((day_of(entry.at_ms), account.map(str::to_owned))).or_default() += entry.spends();
        }
        days.retain(|_, cost| *cost != Usd::ZERO);
        Self(days)
    }

    pub(super) async fn add(self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        for ((day, account), cost) in self.0 {
            let query = account.into_iter().fold(sqlx::query(ADD_TO_DAY).bind(day), sqlx::query::Query::bind);
            query.bind(cost.nanos()).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

impl SpendRows {
    /// What was spent lately, by account: of each that had costs within the longest of the stretches.
    pub async fn recent(&self, now_ms: i64) -> Result<Vec<Spending>, StoreError> {
        let first_days = Recent::ALL.map(|recent| recent.first_day(now_ms));
        let mut query = sqlx::query(
            "SELECT team, model, deployment, provider, purpose,
                    CAST(SUM(CASE WHEN day >= $1 THEN cost_nanos ELSE 0 END) AS BIGINT),
                    CAST(SUM(CASE WHEN day >= $2 THEN cost_nanos ELSE 0 END) AS BIGINT),
                    CAST(SUM(CASE WHEN day >= $3 THEN cost_nanos ELSE 0 END) AS BIGINT),
                    CAST(SUM(CASE WHEN day >= $4 THEN cost_nanos ELSE 0 END) AS BIGINT)
             FROM spend_days WHERE day >= $5 GROUP BY team, model, deployment, provider, purpose",
        );
        for day in first_days.into_iter().chain(first_days.into_iter().min()) {
            query = query.bind(day);
        }
        let rows = query.fetch_all(&self.pool).await?;
        let read = rows.iter().map(|row| {
            let purpose: String = row.try_get(4)?;
            let purpose = Purpose::from_name(&purpose)
                .ok_or_else(|| StoreError::Damaged(format!("a sum of the days, for {purpose}")))?;
            let mut cost = [Usd::ZERO; 4];
            for (index, cost) in cost.iter_mut().enumerate() {
                *cost = Usd::from_nanos(row.try_get(5 + index)?);
            }
            Ok(Spending {
                team: row.try_get(0)?,
                model: row.try_get(1)?,
                deployment: row.try_get(2)?,
                provider: row.try_get(3)?,
                purpose,
                cost,
            })
        });
        read.collect()
    }
}
