//! Sums of the ledger: what was spent, by quarter of an hour and by all that an entry is booked on. A fold over entries,
//! like everything about money; sums stop at their largest value, they do not wrap.

pub mod recent;

use serde::Serialize;

use super::ledger::{Entry, EntryKind};
use super::money::Usd;
use super::usage::{TokenCounts, UsageSource};

/// The length of a slot, ms: a quarter of an hour, which every time zone's hours and days are made of.
pub const SLOT_MS: i64 = 15 * 60_000;

/// The beginning of the slot that a time is in, ms since 1970 UTC.
pub const fn slot_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(SLOT_MS) * SLOT_MS
}

/// What entries add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Entries of every kind.
    pub entries: i64,
    /// Requests that were answered: paid for or from the cache.
    pub requests: i64,
    /// Answers from the cache among them.
    pub cache_hits: i64,
    /// Requests whose tokens the provider reported.
    pub reported: i64,
    /// Requests whose tokens we counted.
    pub estimated: i64,
    /// Requests that were charged an upper bound.
    pub unconfirmed: i64,
    /// Tokens that were used.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// What holds have taken, less what their ends have given back: nothing, once all have ended.
    #[serde(rename = "reserved_usd")]
    pub reserved: Usd,
    /// What was spent.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
    /// What the cache saved.
    #[serde(rename = "saved_usd")]
    pub saved: Usd,
}

impl Sums {
    /// The sums of one entry.
    pub fn of(entry: &Entry) -> Self {
        let one_if = i64::from;
        let is_usage = entry.kind == EntryKind::Usage;
        let is_hit = entry.kind == EntryKind::CacheHit;
        let has = |source: UsageSource| one_if(is_usage && entry.source == Some(source));
        // a hold's tokens are a bound, an adjustment's are told once more
        let used = is_usage || is_hit || entry.kind == EntryKind::Training;
        Self {
            entries: 1,
            requests: one_if(is_usage || is_hit),
            cache_hits: one_if(is_hit),
            reported: has(UsageSource::Reported),
            estimated: has(UsageSource::Estimated),
            unconfirmed: has(UsageSource::Unconfirmed),
            tokens: if used { entry.tokens } else { TokenCounts::default() },
            reserved: entry.reserves(),
            cost: entry.spends(),
            saved: entry.saved,
        }
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in [
            (&mut self.entries, other.entries),
            (&mut self.requests, other.requests),
            (&mut self.cache_hits, other.cache_hits),
            (&mut self.reported, other.reported),
            (&mut self.estimated, other.estimated),
            (&mut self.unconfirmed, other.unconfirmed),
        ] {
            *count = count.saturating_add(more);
        }
        for (count, more) in [
            (&mut self.tokens.prompt, other.tokens.prompt),
            (&mut self.tokens.cached, other.tokens.cached),
            (&mut self.tokens.cache_write, other.tokens.cache_write),
            (&mut self.tokens.audio_prompt, other.tokens.audio_prompt),
            (&mut self.tokens.completion, other.tokens.completion),
            (&mut self.tokens.reasoning, other.tokens.reasoning),
            (&mut self.tokens.audio_completion, other.tokens.audio_completion),
            (&mut self.tokens.compute_us, other.tokens.compute_us),
        ] {
            *count = count.saturating_add(more);
        }
        self.reserved += other.reserved;
        self.cost += other.cost;
        self.saved += other.saved;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn entry(kind: EntryKind, source: Option<UsageSource>) -> Entry {
        Entry {
            seq: 1,
            kind,
            at_ms: 0,
            written_at_ms: 0,
            of: 0,
            request_id: "req_1".into(),
            instance: "i".into(),
            attribution: Arc::default(),
            tokens: TokenCounts { prompt: 5, ..TokenCounts::default() },
            source,
            held: Usd::from_nanos(10),
            cost: Usd::from_nanos(7),
            saved: Usd::from_nanos(3),
            price: "p".into(),
            note: None,
            injected: None,
        }
    }

    #[test]
    fn each_kind_adds_what_it_stands_for() {
        // kind, source → requests, cache hits, unconfirmed, prompt tokens, reserved, cost
        for (kind, source, want) in [
            (EntryKind::Hold, None, (0, 0, 0, 0, 10, 0)),
            (EntryKind::Usage, Some(UsageSource::Reported), (1, 0, 0, 5, -10, 7)),
            (EntryKind::Usage, Some(UsageSource::Unconfirmed), (1, 0, 1, 5, -10, 7)),
            (EntryKind::Release, None, (0, 0, 0, 0, -10, 7)),
            (EntryKind::CacheHit, None, (1, 1, 0, 5, 0, 7)),
            (EntryKind::Adjustment, None, (0, 0, 0, 0, 0, 7)),
            (EntryKind::Training, None, (0, 0, 0, 5, 0, 7)),
            (EntryKind::Hosting, None, (0, 0, 0, 0, 0, 7)),
        ] {
            let sums = Sums::of(&entry(kind, source));
            let found = (
                sums.requests,
                sums.cache_hits,
                sums.unconfirmed,
                sums.tokens.prompt,
                sums.reserved.nanos(),
                sums.cost.nanos(),
            );
            assert_eq!((sums.entries, found), (1, want), "{kind:?}");
        }
    }

    #[test]
    fn a_slot_begins_on_the_quarter_also_before_1970() {
        for (at_ms, slot) in [(0, 0), (SLOT_MS - 1, 0), (SLOT_MS, SLOT_MS), (-1, -SLOT_MS)] {
            assert_eq!(slot_of(at_ms), slot);
        }
    }

    #[test]
    fn sums_stop_they_do_not_wrap() {
        let mut sums = Sums { entries: i64::MAX, cost: Usd::MAX, ..Sums::default() };
        sums.add(&sums.clone());
        assert_eq!((sums.entries, sums.cost), (i64::MAX, Usd::MAX));
    }
}
