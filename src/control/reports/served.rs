//! What a model's requests have used at providers. It is read out of the sums, which are few however many requests there
//! were; only the tokens of answers from our cache, which the sums do not hold apart, are read out of the journal, a day at
//! a time and not for long.

use std::time::Duration;

use super::{Reports, STEPS_FIRST};
use crate::clock;
use crate::domain::spend::{SLOT_MS, slot_of};
use crate::domain::usage::TokenCounts;
use crate::store::StoreError;
use crate::store::ledger::Hits;
use crate::store::spend::ServedDay;

const DAY_MS: i64 = 86_400_000;
/// The journal is read for so long; then no further day is asked for.
const READING: Duration = Duration::from_secs(3);

/// What a model's requests have used in a time. Answers from our cache are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Calls of providers that were charged.
    pub requests: u64,
    /// Days (UTC) on which there was one.
    pub days: u64,
    /// Those among them whose answers from our cache could not be told apart: each is taken to be as long as the day's
    /// mean.
    pub estimated_days: u64,
    /// Their tokens.
    pub tokens: TokenCounts,
}

impl Served {
    /// Adds a day; its hits as the journal has them, if it has them all.
    fn add(&mut self, day: &ServedDay, hits: Option<&Hits>) {
        let paid = day.requests.saturating_sub(day.cache_hits);
        if paid == 0 {
            return;
        }
        let exact = hits.filter(|hits| hits.count == day.cache_hits);
        let used = match exact {
            Some(hits) => both(&day.tokens, &hits.tokens, u64::saturating_sub),
            None => share(&day.tokens, paid, day.requests),
        };
        self.tokens = both(&self.tokens, &used, u64::saturating_add);
        self.requests = self.requests.saturating_add(paid);
        self.days += 1;
        self.estimated_days += u64::from(exact.is_none());
    }
}

impl Reports {
    /// What a model's requests have used at providers, from one time's quarter of an hour to another's, both included, ms
    /// since 1970 UTC.
    ///
    /// # Errors
    ///
    /// When the database can't be asked for the sums.
    pub async fn served(&self, model: &str, from_ms: i64, to_ms: i64) -> Result<Served, StoreError> {
        self.served_within(model, from_ms, to_ms, READING).await
    }

    async fn served_within(
        &self,
        model: &str,
        from_ms: i64,
        to_ms: i64,
        reading: Duration,
    ) -> Result<Served, StoreError> {
        self.fold(STEPS_FIRST).await?;
        let (from_ms, until_ms) = (slot_of(from_ms), slot_of(to_ms).saturating_add(SLOT_MS));
        let begun = clock::monotonic();
        let (mut served, mut fails) = (Served::default(), false);
        for day in self.rows.served(model, from_ms, to_ms).await? {
            if day.cache_hits == 0 || day.cache_hits >= day.requests {
                served.add(&day, Some(&Hits { count: day.cache_hits, tokens: TokenCounts::default() }));
                continue;
            }
            let mut hits = None;
            if !fails && clock::monotonic().duration_since(begun) < reading {
                let first_ms = day.day.saturating_mul(DAY_MS);
                let (first_ms, end_ms) =
                    (first_ms.max(from_ms), first_ms.saturating_add(DAY_MS).min(until_ms));
                hits = match self.pages.hits(model, first_ms, end_ms, day.folded).await {
                    Ok(hits) => Some(hits),
                    Err(error) => {
                        tracing::warn!(%error, "a day's answers from the cache can't be read: their length is estimated");
                        fails = true;
                        None
                    }
                };
            }
            served.add(&day, hits.as_ref());
        }
        Ok(served)
    }
}

/// Of each count the part that so many of all requests have, if all are equally long.
fn share(tokens: &TokenCounts, part: u64, all: u64) -> TokenCounts {
    let of = |count: u64, _| {
        let share = (u128::from(count) * u128::from(part)).checked_div(u128::from(all)).unwrap_or_default();
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    both(tokens, tokens, of)
}

/// Two counts made one, each with its like.
fn both(one: &TokenCounts, other: &TokenCounts, join: impl Fn(u64, u64) -> u64) -> TokenCounts {
    TokenCounts {
        prompt: join(one.prompt, other.prompt),
        cached: join(one.cached, other.cached),
        cache_write: join(one.cache_write, other.cache_write),
        audio_prompt: join(one.audio_prompt, other.audio_prompt),
        completion: join(one.completion, other.completion),
        reasoning: join(one.reasoning, other.reasoning),
        audio_completion: join(one.audio_completion, other.audio_completion),
        compute_us: join(one.compute_us, other.compute_us),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::ledger::{Attribution, Entry, EntryKind, Purpose};
    use crate::domain::money::Usd;
    use crate::store::ledger::LedgerRows;
    use crate::store::testing::for_each_database;

    fn entry(seq: i64, kind: EntryKind, model: &str, day: i64, prompt: u64) -> Entry {
        let purpose = if kind == EntryKind::Training { Purpose::Training } else { Purpose::Inference };
        Entry {
            seq,
            kind,
            at_ms: day * DAY_MS + seq,
            written_at_ms: day * DAY_MS + seq,
            of: 0,
            request_id: format!("req_{seq}").into(),
            instance: "i".into(),
            attribution: Arc::new(Attribution { model: model.into(), purpose, ..Attribution::default() }),
            tokens: TokenCounts { prompt, completion: 1, ..TokenCounts::default() },
            source: None,
            held: Usd::ZERO,
            cost: Usd::ZERO,
            saved: Usd::ZERO,
            price: "p".into(),
            note: None,
            injected: None,
        }
    }

    #[tokio::test]
    async fn what_a_model_has_used_is_without_the_answers_of_the_cache() {
        for_each_database(async |database| {
            let store = database.open().await;
            let end = |seq, of, day, prompt| Entry { of, ..entry(seq, EntryKind::Usage, "bot", day, prompt) };
            let written = [
                entry(1, EntryKind::Hold, "bot", 1, 900),
                entry(2, EntryKind::Hold, "bot", 1, 900),
                end(3, 1, 1, 10),
                end(4, 2, 3, 20),
                entry(5, EntryKind::CacheHit, "bot", 3, 500),
                entry(6, EntryKind::CacheHit, "other", 3, 500),
                entry(7, EntryKind::Training, "bot", 3, 500),
                entry(8, EntryKind::CacheHit, "bot", 4, 40),
            ];
            LedgerRows::new(&store).append(&written).await.expect("written");
            let reports = Reports::new(&store, Some(Duration::ZERO));
            let within = async |from: i64, to: i64, reading: Duration| {
                reports.served_within("bot", from * DAY_MS, to * DAY_MS, reading).await.expect("read")
            };
            let used = |prompt, completion| TokenCounts { prompt, completion, ..TokenCounts::default() };
            let exact = Served { requests: 2, days: 2, estimated_days: 0, tokens: used(30, 2) };
            assert_eq!(within(1, 9, READING).await, exact);
            assert_eq!(within(3, 9, READING).await.tokens, used(20, 1));
            assert_eq!(within(4, 9, READING).await, Served::default(), "a day of hits alone");
            // of two answers with 520 tokens together one was paid for: nobody knows which
            let about = Served { estimated_days: 1, tokens: used(10 + 260, 2), ..exact };
            assert_eq!(within(1, 9, Duration::ZERO).await, about, "no time to read the journal");
            assert!(reports.work_up(9 * DAY_MS).await.expect("cleaned up") > 0);
            assert_eq!(within(1, 9, READING).await, about, "the journal has them no more");
        })
        .await;
    }
}
