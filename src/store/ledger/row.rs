//! How an entry stands in its row: the columns, in one order, for writing and reading.

use std::sync::Arc;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, Row as _};

use crate::domain::ledger::{Attribution, Entry, EntryKind, Purpose};
use crate::domain::money::Usd;
use crate::domain::prompt::Injected;
use crate::domain::usage::{TokenCounts, UsageSource};
use crate::store::engine::StoreError;

/// The columns, in the order in which they are bound and read.
macro_rules! columns {
    () => {
        "seq, kind, at_ms, written_at_ms, ends_seq, corrects_seq, request_id, instance, key_id, key_alias, team,
         end_user, tags, model, deployment, provider, purpose, prompt, cached, cache_write, audio_prompt, completion,
         reasoning, audio_completion, compute_us, source, held_nanos, cost_nanos, saved_nanos, price, note, injected_prompt,
         injected_tokens, injected_nanos"
    };
}
pub(super) use columns;

/// How many there are.
pub(super) const COLUMNS: usize = 34;

/// A query of ours.
pub(in crate::store) type Prepared<'q> = Query<'q, Any, AnyArguments>;

/// Binds one row.
pub(super) fn bind<'q>(query: Prepared<'q>, entry: &Entry) -> Prepared<'q> {
    let ends = entry.kind.ends_a_hold() && entry.of > 0;
    let corrects = !entry.kind.ends_a_hold() && entry.of > 0;
    let query = query
        .bind(entry.seq)
        .bind(entry.kind.name())
        .bind(entry.at_ms)
        .bind(entry.written_at_ms)
        .bind(ends.then_some(entry.of))
        .bind(corrects.then_some(entry.of))
        .bind(text(&entry.request_id))
        .bind(text(&entry.instance));
    let query = bind_counts(bind_attribution(query, &entry.attribution), &entry.tokens);
    let injected = entry.injected.as_deref();
    query
        .bind(entry.source.map_or("", UsageSource::name))
        .bind(entry.held.nanos())
        .bind(entry.cost.nanos())
        .bind(entry.saved.nanos())
        .bind(text(&entry.price))
        .bind(optional(entry.note.as_ref()))
        .bind(injected.map(|injected| text(&injected.prompt)).unwrap_or_default())
        .bind(injected.map_or(0, |injected| i64::try_from(injected.tokens).unwrap_or(i64::MAX)))
        .bind(injected.map_or(0, |injected| injected.cost.nanos()))
}

/// Binds the nine columns of an attribution.
pub(in crate::store) fn bind_attribution<'q>(query: Prepared<'q>, on: &Attribution) -> Prepared<'q> {
    query
        .bind(text(&on.key_id))
        .bind(text(&on.key))
        .bind(optional(on.team.as_ref()))
        .bind(optional(on.end_user.as_ref()))
        .bind(joined(&on.tags))
        .bind(text(&on.model))
        .bind(text(&on.deployment))
        .bind(text(&on.provider))
        .bind(on.purpose.name())
}

/// Binds the eight columns of what was used.
pub(in crate::store) fn bind_counts<'q>(query: Prepared<'q>, tokens: &TokenCounts) -> Prepared<'q> {
    let TokenCounts {
        prompt,
        cached,
        cache_write,
        audio_prompt,
        completion,
        reasoning,
        audio_completion,
        compute_us,
    } = *tokens;
    [prompt, cached, cache_write, audio_prompt, completion, reasoning, audio_completion, compute_us]
        .into_iter()
        .fold(query, |query, count| query.bind(i64::try_from(count).unwrap_or(i64::MAX)))
}

/// A text as PostgreSQL can keep it: it takes no zero characters.
fn text(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}

fn optional(value: Option<&Arc<str>>) -> String {
    value.map(|value| text(value)).unwrap_or_default()
}

/// Tags in one text, a line each: no tag has a line break.
fn joined(tags: &[Arc<str>]) -> String {
    tags.iter().map(|tag| tag.as_ref()).collect::<Vec<_>>().join("\n")
}

/// Reads one row with all columns.
pub(in crate::store) fn entry(row: &AnyRow) -> Result<Entry, StoreError> {
    let seq: i64 = row.try_get(0)?;
    let damaged = || StoreError::Damaged(format!("ledger entry {seq}"));
    let kind: &str = row.try_get(1)?;
    let ends: Option<i64> = row.try_get(4)?;
    let corrects: Option<i64> = row.try_get(5)?;
    let source: &str = row.try_get(25)?;
    let usd = |index: usize| row.try_get(index).map(Usd::from_nanos);
    Ok(Entry {
        seq,
        kind: EntryKind::from_name(kind).ok_or_else(damaged)?,
        at_ms: row.try_get(2)?,
        written_at_ms: row.try_get(3)?,
        of: ends.or(corrects).unwrap_or(0),
        request_id: shared(row, 6)?,
        instance: shared(row, 7)?,
        attribution: Arc::new(attribution(row, 8)?.ok_or_else(damaged)?),
        tokens: counts(row, 17)?,
        source: match source {
            "" => None,
            name => Some(UsageSource::from_name(name).ok_or_else(damaged)?),
        },
        held: usd(26)?,
        cost: usd(27)?,
        saved: usd(28)?,
        price: shared(row, 29)?,
        note: not_empty(row, 30)?,
        injected: injected(row, 31)?,
    })
}

/// Reads the three columns of what a stored prompt was of an entry.
fn injected(row: &AnyRow, from: usize) -> Result<Option<Arc<Injected>>, sqlx::Error> {
    let Some(prompt) = not_empty(row, from)? else { return Ok(None) };
    let tokens: i64 = row.try_get(from + 1)?;
    let cost = Usd::from_nanos(row.try_get(from + 2)?);
    Ok(Some(Arc::new(Injected { prompt, tokens: u64::try_from(tokens).unwrap_or(0), cost })))
}

/// Reads the nine columns of an attribution; nothing when its purpose is none of ours.
pub(in crate::store) fn attribution(row: &AnyRow, from: usize) -> Result<Option<Attribution>, sqlx::Error> {
    let tags: &str = row.try_get(from + 4)?;
    let purpose: &str = row.try_get(from + 8)?;
    let Some(purpose) = Purpose::from_name(purpose) else { return Ok(None) };
    Ok(Some(Attribution {
        key_id: shared(row, from)?,
        key: shared(row, from + 1)?,
        team: not_empty(row, from + 2)?,
        end_user: not_empty(row, from + 3)?,
        tags: tags.split('\n').filter(|tag| !tag.is_empty()).map(Arc::from).collect(),
        model: shared(row, from + 5)?,
        deployment: shared(row, from + 6)?,
        provider: shared(row, from + 7)?,
        purpose,
    }))
}

/// Reads the eight columns of what was used.
pub(in crate::store) fn counts(row: &AnyRow, from: usize) -> Result<TokenCounts, sqlx::Error> {
    let count =
        |index: usize| row.try_get::<i64, _>(from + index).map(|count| u64::try_from(count).unwrap_or(0));
    Ok(TokenCounts {
        prompt: count(0)?,
        cached: count(1)?,
        cache_write: count(2)?,
        audio_prompt: count(3)?,
        completion: count(4)?,
        reasoning: count(5)?,
        audio_completion: count(6)?,
        compute_us: count(7)?,
    })
}

fn shared(row: &AnyRow, index: usize) -> Result<Arc<str>, sqlx::Error> {
    row.try_get::<&str, _>(index).map(Arc::from)
}

fn not_empty(row: &AnyRow, index: usize) -> Result<Option<Arc<str>>, sqlx::Error> {
    let text: &str = row.try_get(index)?;
    Ok((!text.is_empty()).then(|| text.into()))
}
