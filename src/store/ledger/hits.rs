//! What answers from our cache have been like: the sums hold their tokens, but not apart from those of other answers.

use sqlx::Row as _;

use super::LedgerPages;
use super::row::counts;
use crate::domain::ledger::Seq;
use crate::domain::usage::TokenCounts;
use crate::store::engine::StoreError;

/// A model's answers from our cache in a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// How many.
    pub count: u64,
    /// Their tokens.
    pub tokens: TokenCounts,
}

impl LedgerPages {
    /// A model's answers from our cache from one time to before another, ms since 1970 UTC, up to an entry, as far as they
    /// are in the journal still. All entries of the time are looked at: ask for a day at most.
    pub async fn hits(
        &self,
        model: &str,
        from_ms: i64,
        until_ms: i64,
        up_to: Seq,
    ) -> Result<Hits, StoreError> {
        // `kind <> 'hold'` is the words of the index by time: SQLite compares them
        let row = sqlx::query(
            "SELECT COUNT(*), CAST(COALESCE(SUM(prompt), 0) AS BIGINT), CAST(COALESCE(SUM(cached), 0) AS BIGINT),
                 CAST(COALESCE(SUM(cache_write), 0) AS BIGINT), CAST(COALESCE(SUM(audio_prompt), 0) AS BIGINT),
                 CAST(COALESCE(SUM(completion), 0) AS BIGINT), CAST(COALESCE(SUM(reasoning), 0) AS BIGINT),
                 CAST(COALESCE(SUM(audio_completion), 0) AS BIGINT), CAST(COALESCE(SUM(compute_us), 0) AS BIGINT)
             FROM ledger WHERE kind <> 'hold' AND kind = 'cache_hit' AND purpose = 'inference' AND model = $1
             AND at_ms >= $2 AND at_ms < $3 AND seq <= $4",
        )
        .bind(model.to_owned())
        .bind(from_ms)
        .bind(until_ms)
        .bind(up_to)
        .fetch_one(&self.pool)
        .await?;
        let count: i64 = row.try_get(0)?;
        Ok(Hits { count: u64::try_from(count).unwrap_or(0), tokens: counts(&row, 1)? })
    }
}
