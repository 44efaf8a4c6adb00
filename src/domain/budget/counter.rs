//! What one counter of a budget has spent and holds, by the buckets of its window.

use std::collections::BTreeMap;

use crate::domain::money::Usd;
use crate::domain::window::Window;

/// Money of one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bucket {
    spent: Usd,
    reserved: Usd,
}

/// The buckets of one counter. A bucket is kept while it counts or something of it is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counter {
    buckets: BTreeMap<i64, Bucket>,
    /// The highest alert, percent, that was given.
    alerted: u8,
}

/// The sums of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) spent: Usd,
    pub(super) reserved: Usd,
}

/// An alert has sunk back when the share is this much below it, percent: spending that leaves a rolling window and
/// comes back is not told each time.
const ALERT_SLACK_PERCENT: u8 = 10;

impl Counter {
    /// Adds to the bucket that starts then.
    pub(super) fn add(&mut self, bucket: i64, spent: Usd, reserved: Usd) {
        let entry = self.buckets.entry(bucket).or_default();
        entry.spent += spent;
        entry.reserved += reserved;
        if *entry == Bucket::default() {
            self.buckets.remove(&bucket);
        }
    }

    /// What counts at a moment.
    pub(super) fn sums(&self, window: &Window, now_ms: i64) -> Sums {
        self.sums_from(window.first_bucket(now_ms))
    }

    /// What counts where this is the first bucket that does: for many counters of one window.
    pub(super) fn sums_from(&self, first: i64) -> Sums {
        let counted = self.buckets.range(first..);
        counted.fold(Sums::default(), |sums, (_, bucket)| Sums {
            spent: sums.spent + bucket.spent,
            reserved: sums.reserved + bucket.reserved,
        })
    }

    /// Everything held, whenever.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> Usd {
        self.buckets.values().map(|bucket| bucket.reserved).sum()
    }

    /// When so much more will have come back; none where it never does.
    pub(super) fn frees_at(&self, window: &Window, needed: Usd, now_ms: i64) -> Option<i64> {
        let Window::Rolling { seconds } = window else { return window.resets_at(now_ms) };
        let mut freed = Usd::ZERO;
        for (start, bucket) in self.buckets.range(window.first_bucket(now_ms)..) {
            freed += bucket.spent;
            if freed >= needed {
                return Some(start + seconds * 1_000);
            }
        }
        window.resets_at(now_ms)
    }

    /// Drops the buckets before the first that counts, unless they hold something. Whether nothing is left.
    pub(super) fn tidy(&mut self, first: i64) -> bool {
        self.buckets.retain(|start, bucket| *start >= first || bucket.reserved != Usd::ZERO);
        self.buckets.is_empty()
    }

    /// The alert to give now, if a higher one than before is reached.
    pub(super) fn alert(&mut self, alert_at: &[u8], spent: Usd, limit: Usd) -> Option<u8> {
        let share = percent(spent, limit);
        let reached = alert_at.iter().copied().filter(|level| u64::from(*level) <= share).max().unwrap_or(0);
        if reached > self.alerted {
            self.alerted = reached;
            return Some(reached);
        }
        if share.saturating_add(u64::from(ALERT_SLACK_PERCENT)) < u64::from(self.alerted) {
            self.alerted = reached;
        }
        None
    }
}

/// A share in whole percent, rounded down; a limit of nothing is always reached.
pub(super) fn percent(spent: Usd, limit: Usd) -> u64 {
    if !limit.is_some() {
        return 100;
    }
    u64::try_from(i128::from(spent.nanos().max(0)) * 100 / i128::from(limit.nanos())).unwrap_or(u64::MAX)
}
