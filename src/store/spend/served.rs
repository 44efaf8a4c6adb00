//! What a model's requests have come to on each day.

use sqlx::Row as _;

use super::SpendRows;
use crate::domain::ledger::Seq;
use crate::domain::spend::slot_of;
use crate::domain::usage::TokenCounts;
use crate::store::engine::StoreError;
use crate::store::ledger::counts;

/// A day (UTC) of a model's requests. Answers from our cache are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedDay {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Requests that were answered.
    pub requests: u64,
    /// Answers from our cache among them.
    pub cache_hits: u64,
    /// Tokens of all of them.
    pub tokens: TokenCounts,
    /// The last entry that is in these sums.
    pub folded: Seq,
}

impl SpendRows {
    /// A model's days with requests, from one time's quarter of an hour to another's, ms since 1970 UTC, both included.
    pub async fn served(&self, model: &str, from_ms: i64, to_ms: i64) -> Result<Vec<ServedDay>, StoreError> {
        // the head is read in the same statement: no entry comes between it and the sums
        let rows = sqlx::query(
            "SELECT slot_ms / 86400000, CAST(SUM(requests) AS BIGINT), CAST(SUM(cache_hits) AS BIGINT),
                 CAST(SUM(prompt) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(cache_write) AS BIGINT),
                 CAST(SUM(audio_prompt) AS BIGINT), CAST(SUM(completion) AS BIGINT), CAST(SUM(reasoning) AS BIGINT),
                 CAST(SUM(audio_completion) AS BIGINT), CAST(SUM(compute_us) AS BIGINT),
                 (SELECT folded_seq FROM spend_head WHERE id = 1)
             FROM spend_slots WHERE slot_ms >= $1 AND slot_ms <= $2 AND model = $3 AND purpose = 'inference'
             GROUP BY slot_ms / 86400000 HAVING SUM(requests) > 0 ORDER BY slot_ms / 86400000",
        )
        .bind(slot_of(from_ms))
        .bind(slot_of(to_ms))
        .bind(model.to_owned())
        .fetch_all(&self.pool)
        .await?;
        let read = rows.iter().map(|row| {
            let count =
                |index: usize| row.try_get::<i64, _>(index).map(|count| u64::try_from(count).unwrap_or(0));
            Ok(ServedDay {
                day: row.try_get(0)?,
                requests: count(1)?,
                cache_hits: count(2)?,
                tokens: counts(row, 3)?,
                folded: row.try_get(11)?,
            })
        });
        read.collect()
    }
}
