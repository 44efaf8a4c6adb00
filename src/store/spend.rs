//! Rows of what was spent: sums by quarter of an hour, kept apart from the journal and folded from it in small steps, off
//! every request's path. Old entries can then be cleaned up: their sums stay, as closings.
//!
//! Closings stand in a table of their own and not in the journal: they are no entries that anybody may fold again, and
//! their number is that of the attributions, however often is cleaned up.

mod days;
mod prompts;
mod report;
mod row;
mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use sqlx::{AnyConnection, Row as _};

pub(super) use self::days::DIFFERENT_DAYS;
use self::days::Days;
pub(super) use self::prompts::PromptDays;
pub use self::prompts::{PromptPlace, PromptSums};
pub use self::report::{Dimension, SpendQuery, SpendRow};
pub(super) use self::row::{AFTER_ATTRIBUTION, booked_on, on_columns, sum_columns, summed_columns, sums};
use self::row::{add_to, bind};
pub use self::served::ServedDay;
use super::engine::StoreError;
use super::ledger;
use super::open::Store;
use super::pool::Pool;
use crate::domain::ledger::{Attribution, Entry, Seq};
use crate::domain::spend::{Sums, slot_of};

/// How far the journal has been worked up. Each is at most the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Heads {
    /// The last entry that is in the slots.
    #[serde(rename = "folded_seq")]
    pub folded: Seq,
    /// The last entry up to which every hold has ended, with its end in the slots.
    #[serde(rename = "settled_seq")]
    pub settled: Seq,
    /// The last entry that is in the closings, and no longer in the journal.
    #[serde(rename = "closed_seq")]
    pub closed: Seq,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Nothing,
    /// So many entries were worked up; there may be more.
    Done(usize),
    /// Another process took the same step first.
    Elsewhere,
}

/// The tables of sums.
#[derive(Debug, Clone)]
pub struct SpendRows {
    pool: Pool,
}

impl SpendRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// How far the journal has been worked up.
    pub async fn heads(&self) -> Result<Heads, StoreError> {
        let row = sqlx::query(HEADS).fetch_one(&self.pool).await?;
        Ok(heads(&row)?)
    }

    /// Adds the next entries of the journal to the slots and the days; at most `limit`. Two processes never add the same
    /// twice.
    pub async fn fold_next(&self, limit: usize) -> Result<Step, StoreError> {
        let before = self.heads().await?;
        let Some(entries) = self.entries_behind(before.folded, before, limit).await? else {
            return Ok(Step::Elsewhere);
        };
        let Some(last) = entries.last() else { return Ok(Step::Nothing) };
        let folded = last.seq;
        let settled = self.settled_up_to(before.settled, folded).await?;
        let mut slots = BTreeMap::<(i64, String), (&Attribution, Sums)>::new();
        for entry in &entries {
            let at = (slot_of(entry.at_ms), booked_on(&entry.attribution));
            slots.entry(at).or_insert((&entry.attribution, Sums::default())).1.add(&Sums::of(entry));
        }
        let upserts: Vec<_> = slots
            .into_iter()
            .map(|((slot_ms, booked_on), (on, sums))| {
                let query = sqlx::query(ADD_TO_SLOT).bind(slot_ms).bind(booked_on);
                bind(query, on, &sums)
            })
            .collect();
        let (days, prompt_days) = (Days::of(&entries), PromptDays::of(&entries));
        let step = async move |connection: &mut AnyConnection| {
            let moved = sqlx::query(
                "UPDATE spend_head SET folded_seq = $2, settled_seq = $3 WHERE id = 1 AND folded_seq = $1",
            );
            let moved = moved.bind(before.folded).bind(folded).bind(settled);
            if moved.execute(&mut *connection).await?.rows_affected() == 0 {
                return Ok(Step::Elsewhere);
            }
            for upsert in upserts {
                upsert.execute(&mut *connection).await?;
            }
            days.add(&mut *connection).await?;
            prompt_days.add(connection).await?;
            Ok(Step::Done(entries.len()))
        };
        Ok(self.pool.transaction(|connection| step(connection).boxed()).await?)
    }

    /// Takes the oldest entries out of the journal whose sums are in the slots, whose holds have ended, and that were
    /// written before a time; at most `limit`. Their sums are added to the closings in the same transaction. An end may
    /// stay a little longer than its hold; an open hold, and all behind it, stays.
    pub async fn clean_up(&self, older_than_ms: i64, limit: usize) -> Result<Step, StoreError> {
        let before = self.heads().await?;
        let Some(mut entries) = self.entries_behind(before.closed, before, limit).await? else {
            return Ok(Step::Elsewhere);
        };
        let kept = |entry: &Entry| entry.seq > before.settled || entry.written_at_ms >= older_than_ms;
        entries.truncate(entries.iter().position(kept).unwrap_or(entries.len()));
        let Some(last) = entries.last() else { return Ok(Step::Nothing) };
        let closed = last.seq;
        let mut closings = BTreeMap::<String, (&Attribution, Sums)>::new();
        for entry in &entries {
            let closing = closings.entry(booked_on(&entry.attribution));
            closing.or_insert((&entry.attribution, Sums::default())).1.add(&Sums::of(entry));
        }
        let upserts: Vec<_> = closings
            .into_iter()
            .map(|(booked_on, (on, sums))| bind(sqlx::query(ADD_TO_CLOSING).bind(booked_on), on, &sums))
            .collect();
        let count = entries.len();
        let step = async move |connection: &mut AnyConnection| {
            let moved = sqlx::query("UPDATE spend_head SET closed_seq = $2 WHERE id = 1 AND closed_seq = $1");
            let moved = moved.bind(before.closed).bind(closed);
            if moved.execute(&mut *connection).await?.rows_affected() == 0 {
                return Ok(Step::Elsewhere);
            }
            for upsert in upserts {
                upsert.execute(&mut *connection).await?;
            }
            sqlx::query("DELETE FROM ledger WHERE seq <= $1").bind(closed).execute(&mut *connection).await?;
            Ok(Step::Done(count))
        };
        Ok(self.pool.transaction(|connection| step(connection).boxed()).await?)
    }

    /// The entries behind a number, in order and without a gap; none when another process has worked on since.
    async fn entries_behind(
        &self,
        seq: Seq,
        before: Heads,
        limit: usize,
    ) -> Result<Option<Vec<Entry>>, StoreError> {
        let rows = ledger::after(seq, limit).fetch_all(&self.pool).await?;
        let entries: Vec<Entry> = rows.iter().map(ledger::entry).collect::<Result<_, _>>()?;
        let gap = entries.iter().zip(seq + 1..).find(|(entry, due)| entry.seq != *due);
        match gap {
            None => Ok(Some(entries)),
            // folded and cleaned up by now
            Some(_) if self.heads().await? != before => Ok(None),
            Some((_, due)) => Err(StoreError::Damaged(format!("ledger entry {due}, which is missing"))),
        }
    }

    /// The last entry before the first hold that has no end up to `folded`.
    async fn settled_up_to(&self, settled: Seq, folded: Seq) -> Result<Seq, StoreError> {
        let open: Option<i64> = sqlx::query_scalar(
            "SELECT seq FROM ledger h WHERE kind = 'hold' AND seq > $1 AND seq <= $2
             AND NOT EXISTS (SELECT 1 FROM ledger e WHERE e.ends_seq = h.seq AND e.seq <= $2)
             ORDER BY seq LIMIT 1",
        )
        .bind(settled)
        .bind(folded)
        .fetch_optional(&self.pool)
        .await?;
        Ok(open.map_or(folded, |open| open - 1))
    }
}

pub(super) const HEADS: &str = "SELECT folded_seq, settled_seq, closed_seq FROM spend_head WHERE id = 1";

pub(super) fn heads(row: &sqlx::any::AnyRow) -> Result<Heads, sqlx::Error> {
    Ok(Heads { folded: row.try_get(0)?, settled: row.try_get(1)?, closed: row.try_get(2)? })
}

const ADD_TO_SLOT: &str = concat!(
    "INSERT INTO spend_slots (slot_ms, booked_on, ",
    on_columns!(),
    ", ",
    sum_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
       $24, $25, $26, $27, $28) ON CONFLICT (slot_ms, booked_on) ",
    add_to!("spend_slots")
);

const ADD_TO_CLOSING: &str = concat!(
    "INSERT INTO ledger_closings (booked_on, ",
    on_columns!(),
    ", ",
    sum_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
       $24, $25, $26, $27) ON CONFLICT (booked_on) ",
    add_to!("ledger_closings")
);
