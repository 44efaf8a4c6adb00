//! What was spent in the past, summed up as far as budgets need it: from the slots, and from the ledger's entries where
//! a slot is too coarse.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::engine::{Store, StoreError};
use super::ledger::attribution;
use super::pool::Pool;
use crate::domain::budget::Spent;
use crate::domain::budget::reach::{Entries, Reach, Stretch};
use crate::domain::ledger::Seq;
use crate::domain::money::Usd;

/// How often the sums are read again where entries were folded in meanwhile.
const TRIES: u32 = 20;

/// The sums of the past.
#[derive(Debug, Clone)]
pub struct History {
    pool: Pool,
}

impl History {
    /// The history in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// What was spent within reach, and the number of the last entry that is part of it.
    ///
    /// # Errors
    ///
    /// When the database can't be read, or entries are folded in faster than the sums can be read.
    pub async fn read(&self, reach: &Reach) -> Result<(Vec<Spent>, Seq), StoreError> {
        for _ in 0..TRIES {
            let before = self.heads().await?;
            let mut spent = Vec::new();
            for stretch in &reach.slots {
                self.add_slots(*stretch, &mut spent).await?;
            }
            if let Some(entries) = reach.entries {
                self.add_entries(entries, before.0, &mut spent).await?;
            }
            // unchanged, so all of these were read of one state: each statement has a view of its own on PostgreSQL
            if self.heads().await? == before {
                return Ok((spent, before.0));
            }
        }
        Err(StoreError::Moving)
    }

    /// The numbers of the last entry in the slots and of the last one that was cleaned up.
    async fn heads(&self) -> Result<(Seq, Seq), StoreError> {
        let row = sqlx::query("SELECT folded_seq, closed_seq FROM spend_head WHERE id = 1")
            .fetch_one(&self.pool)
            .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    async fn add_slots(&self, within: Stretch, spent: &mut Vec<Spent>) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT key_id, key_alias, team, end_user, tags, model, deployment, provider, purpose,
                    CAST(SUM(cost_nanos) AS BIGINT)
             FROM spend_slots WHERE slot_ms >= $1 AND slot_ms < $2
             GROUP BY key_id, key_alias, team, end_user, tags, model, deployment, provider, purpose
             HAVING SUM(cost_nanos) <> 0",
        )
        .bind(within.from_ms)
        .bind(within.to_ms)
        .fetch_all(&self.pool)
        .await?;
        for row in &rows {
            spent.push(sum(row, within.from_ms)?);
        }
        Ok(())
    }

    async fn add_entries(
        &self,
        entries: Entries,
        until: Seq,
        spent: &mut Vec<Spent>,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT key_id, key_alias, team, end_user, tags, model, deployment, provider, purpose,
                    CAST(SUM(cost_nanos) AS BIGINT), at_ms / $1
             FROM ledger WHERE kind <> 'hold' AND at_ms >= $2 AND seq <= $3
             GROUP BY key_id, key_alias, team, end_user, tags, model, deployment, provider, purpose, at_ms / $1
             HAVING SUM(cost_nanos) <> 0",
        )
        .bind(entries.bucket_ms)
        .bind(entries.from_ms)
        .bind(until)
        .fetch_all(&self.pool)
        .await?;
        for row in &rows {
            let bucket: i64 = row.try_get(10)?;
            spent.push(sum(row, bucket * entries.bucket_ms)?);
        }
        Ok(())
    }
}

fn sum(row: &AnyRow, at_ms: i64) -> Result<Spent, StoreError> {
    let on = attribution(row, 0)?.ok_or_else(|| StoreError::Damaged("a sum of the ledger".to_owned()))?;
    Ok(Spent { attribution: Arc::new(on), at_ms, cost: Usd::from_nanos(row.try_get(9)?) })
}
