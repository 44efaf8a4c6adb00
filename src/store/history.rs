//! What was spent in the past, summed up as far as budgets need it: from the slots, and from the ledger's entries where
//! a slot is too coarse.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::engine::StoreError;
use super::ledger::attribution;
use super::open::Store;
use super::pool::Pool;
use crate::domain::budget::Spent;
use crate::domain::budget::reach::{Entries, Reach};
use crate::domain::ledger::Seq;
use crate::domain::money::Usd;
use crate::domain::window::Stretch;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ledger::{Attribution, Entry, EntryKind};
    use crate::domain::usage::TokenCounts;
    use crate::store::ledger::LedgerRows;
    use crate::store::testing::for_each_database;

    const SLOT_MS: i64 = 15 * 60_000;

    fn on(end_user: Option<&str>) -> Arc<Attribution> {
        let tags = vec!["a".into(), "b=c".into()];
        Arc::new(Attribution {
            key: "app".into(),
            end_user: end_user.map(Into::into),
            tags,
            ..Attribution::default()
        })
    }

    fn adjustment(seq: Seq, at_ms: i64, on: &Arc<Attribution>, nanos: i64) -> Entry {
        Entry {
            seq,
            kind: EntryKind::Adjustment,
            at_ms,
            written_at_ms: at_ms,
            of: 0,
            request_id: "req_1".into(),
            instance: "i".into(),
            attribution: Arc::clone(on),
            tokens: TokenCounts::default(),
            source: None,
            held: Usd::ZERO,
            cost: Usd::from_nanos(nanos),
            saved: Usd::ZERO,
            price: "p".into(),
            note: None,
            injected: None,
        }
    }

    async fn slot(store: &Store, slot_ms: i64, booked_on: &str, end_user: &str, nanos: i64) {
        sqlx::query(
            "INSERT INTO spend_slots (slot_ms, booked_on, key_id, key_alias, team, end_user, tags, model, deployment,
             provider, purpose, entries, requests, cache_hits, reported, estimated, unconfirmed, prompt, cached,
             cache_write, audio_prompt, completion, reasoning, audio_completion, reserved_nanos, cost_nanos, saved_nanos)
             VALUES ($1, $2, '', 'app', '', $3, $4, '', '', '', 'inference', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $5, 0)",
        )
        .bind(slot_ms)
        .bind(booked_on)
        .bind(end_user)
        .bind("a\nb=c")
        .bind(nanos)
        .execute(store.pool())
        .await
        .expect("written");
    }

    #[tokio::test]
    async fn sums_come_from_slots_and_then_from_entries_each_once() {
        for_each_database(async |database| {
            let store = database.open().await;
            let history = History::new(&store);
            let empty = Reach { slots: vec![Stretch { from_ms: 0, to_ms: i64::MAX }], entries: None };
            assert_eq!(history.read(&empty).await.expect("read"), (Vec::new(), 0));

            let (nobody, user) = (on(None), on(Some("u")));
            slot(&store, 0, "x", "", 1).await;
            slot(&store, SLOT_MS, "x", "", 2).await;
            slot(&store, SLOT_MS, "y", "u", 4).await;
            slot(&store, 2 * SLOT_MS, "x", "", 8).await;
            let written = [
                // in a slot that is read as one
                adjustment(1, SLOT_MS, &nobody, 2),
                adjustment(2, 2 * SLOT_MS + 5, &nobody, 3),
                adjustment(3, 2 * SLOT_MS + 9, &nobody, 5),
                adjustment(4, 2 * SLOT_MS + 10, &user, 7),
                // nothing in sum
                adjustment(5, 2 * SLOT_MS + 30, &user, 1),
                adjustment(6, 2 * SLOT_MS + 31, &user, -1),
                // not in the slots yet: the ledger adds it itself
                adjustment(7, 2 * SLOT_MS + 40, &user, 100),
            ];
            LedgerRows::new(&store).append(&written).await.expect("written");
            sqlx::query("UPDATE spend_head SET folded_seq = 6").execute(store.pool()).await.expect("written");

            let stretch = |from: i64, to: i64| Stretch { from_ms: from * SLOT_MS, to_ms: to * SLOT_MS };
            let reach = Reach {
                slots: vec![stretch(0, 1), stretch(1, 2)],
                entries: Some(Entries { from_ms: 2 * SLOT_MS, bucket_ms: 10 }),
            };
            let (mut spent, until) = history.read(&reach).await.expect("read");
            spent.sort_by_key(|spent| (spent.at_ms, spent.cost));
            let sum = |on: &Arc<Attribution>, at_ms, nanos| Spent {
                attribution: Arc::clone(on),
                at_ms,
                cost: Usd::from_nanos(nanos),
            };
            let want = [
                sum(&nobody, 0, 1),
                sum(&nobody, SLOT_MS, 2),
                sum(&user, SLOT_MS, 4),
                sum(&nobody, 2 * SLOT_MS, 8),
                sum(&user, 2 * SLOT_MS + 10, 7),
            ];
            assert_eq!((spent.as_slice(), until), (&want[..], 6));
        })
        .await;
    }
}
