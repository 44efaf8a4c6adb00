//! How sums stand in their rows: the same seventeen columns in the slots and in the closings.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::domain::ledger::Attribution;
use crate::domain::money::Usd;
use crate::domain::spend::Sums;
use crate::store::engine::StoreError;
use crate::store::ledger::{Prepared, bind_attribution, bind_counts, counts};

/// The columns of an attribution.
macro_rules! on_columns {
    () => {
        "key_id, key_alias, team, end_user, tags, model, deployment, provider, purpose"
    };
}
/// The columns of sums.
macro_rules! sum_columns {
    () => {
        "entries, requests, cache_hits, reported, estimated, unconfirmed, prompt, cached, cache_write, audio_prompt,
         completion, reasoning, audio_completion, compute_us, reserved_nanos, cost_nanos, saved_nanos"
    };
}
/// The sums of those columns. PostgreSQL's own sums are NUMERIC, which sqlx's `Any` can't read.
macro_rules! summed_columns {
    () => {
        "CAST(SUM(entries) AS BIGINT), CAST(SUM(requests) AS BIGINT), CAST(SUM(cache_hits) AS BIGINT),
         CAST(SUM(reported) AS BIGINT), CAST(SUM(estimated) AS BIGINT), CAST(SUM(unconfirmed) AS BIGINT),
         CAST(SUM(prompt) AS BIGINT), CAST(SUM(cached) AS BIGINT), CAST(SUM(cache_write) AS BIGINT),
         CAST(SUM(audio_prompt) AS BIGINT), CAST(SUM(completion) AS BIGINT), CAST(SUM(reasoning) AS BIGINT),
         CAST(SUM(audio_completion) AS BIGINT), CAST(SUM(compute_us) AS BIGINT), CAST(SUM(reserved_nanos) AS BIGINT),
         CAST(SUM(cost_nanos) AS BIGINT), CAST(SUM(saved_nanos) AS BIGINT)"
    };
}
/// The end of an upsert that adds to the sums that are there.
macro_rules! add_to {
    ($table:literal) => {
        concat!(
            "DO UPDATE SET entries = ",
            $table,
            ".entries + excluded.entries,
             requests = ",
            $table,
            ".requests + excluded.requests,
             cache_hits = ",
            $table,
            ".cache_hits + excluded.cache_hits,
             reported = ",
            $table,
            ".reported + excluded.reported,
             estimated = ",
            $table,
            ".estimated + excluded.estimated,
             unconfirmed = ",
            $table,
            ".unconfirmed + excluded.unconfirmed,
             prompt = ",
            $table,
            ".prompt + excluded.prompt,
             cached = ",
            $table,
            ".cached + excluded.cached,
             cache_write = ",
            $table,
            ".cache_write + excluded.cache_write,
             audio_prompt = ",
            $table,
            ".audio_prompt + excluded.audio_prompt,
             completion = ",
            $table,
            ".completion + excluded.completion,
             reasoning = ",
            $table,
            ".reasoning + excluded.reasoning,
             audio_completion = ",
            $table,
            ".audio_completion + excluded.audio_completion,
             compute_us = ",
            $table,
            ".compute_us + excluded.compute_us,
             reserved_nanos = ",
            $table,
            ".reserved_nanos + excluded.reserved_nanos,
             cost_nanos = ",
            $table,
            ".cost_nanos + excluded.cost_nanos,
             saved_nanos = ",
            $table,
            ".saved_nanos + excluded.saved_nanos"
        )
    };
}
pub(in crate::store) use {add_to, on_columns, sum_columns, summed_columns};

/// Where the sums begin behind an attribution.
pub(in crate::store) const AFTER_ATTRIBUTION: usize = 9;

/// Names an attribution in 32 hex digits: its own columns are too long for an index of PostgreSQL's.
pub(in crate::store) fn booked_on(on: &Attribution) -> String {
    let mut hash = Sha256::new();
    let optional = [&on.team, &on.end_user].map(|value| value.as_deref().unwrap_or_default());
    let names = [&on.key_id, &on.key, &on.model, &on.deployment, &on.provider].map(|name| name.as_ref());
    let tags = on.tags.iter().map(|tag| tag.as_ref());
    for part in names.into_iter().chain(optional).chain([on.purpose.name()]).chain(tags) {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Binds an attribution and its sums.
pub(in crate::store) fn bind<'q>(query: Prepared<'q>, on: &Attribution, sums: &Sums) -> Prepared<'q> {
    let Sums { entries, requests, cache_hits, reported, estimated, unconfirmed, .. } = *sums;
    let query = [entries, requests, cache_hits, reported, estimated, unconfirmed]
        .into_iter()
        .fold(bind_attribution(query, on), Prepared::bind);
    bind_counts(query, &sums.tokens)
        .bind(sums.reserved.nanos())
        .bind(sums.cost.nanos())
        .bind(sums.saved.nanos())
}

/// Reads sums.
pub(in crate::store) fn sums(row: &AnyRow, from: usize) -> Result<Sums, StoreError> {
    let number = |index: usize| row.try_get::<i64, _>(from + index);
    let usd = |index: usize| number(index).map(Usd::from_nanos);
    Ok(Sums {
        entries: number(0)?,
        requests: number(1)?,
        cache_hits: number(2)?,
        reported: number(3)?,
        estimated: number(4)?,
        unconfirmed: number(5)?,
        tokens: counts(row, from + 6)?,
        reserved: usd(14)?,
        cost: usd(15)?,
        saved: usd(16)?,
    })
}
