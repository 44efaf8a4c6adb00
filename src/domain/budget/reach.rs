//! How far back the windows of budgets reach: which sums of the past rebuild their counters, each of them once.

use super::Budget;
use crate::domain::spend::{SLOT_MS, slot_of};
use crate::domain::window::{ROLLING_BUCKETS, Stretch, Window};

/// What has to be read. Slots and entries never overlap, so that one list of sums serves all of the budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Stretches of which one sum is enough, from the slots; what is spent in one counts at its beginning.
    pub slots: Vec<Stretch>,
    /// Where the entries themselves are needed, and how finely.
    pub entries: Option<Entries>,
}

/// Entries by their time: rolling windows forget in smaller steps than a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entries {
    /// From then on, ms since 1970 UTC; the beginning of a slot.
    pub from_ms: i64,
    /// Entries of so many ms may be one sum; the buckets of every window are multiples of it.
    pub bucket_ms: i64,
}

impl Reach {
    /// What the counters of these budgets are rebuilt from.
    pub fn of<'a>(budgets: impl IntoIterator<Item = &'a Budget>, now_ms: i64) -> Self {
        let mut starts = Vec::new();
        let mut entries: Option<Entries> = None;
        for window in budgets.into_iter().map(|budget| &budget.window) {
            let first = window.first_bucket(now_ms);
            match window {
                // nothing was spent before 1970
                Window::Total => starts.push(0),
                // its next unit, too: it may begin before the sums are used
                Window::Calendar { .. } => {
                    starts.extend([Some(first), window.resets_at(now_ms)].into_iter().flatten());
                }
                Window::Rolling { seconds } => {
                    let width = seconds * 1_000 / ROLLING_BUCKETS;
                    let from_ms = slot_of(first);
                    let before = entries.unwrap_or(Entries { from_ms, bucket_ms: SLOT_MS });
                    entries = Some(Entries {
                        from_ms: before.from_ms.min(from_ms),
                        bucket_ms: common_divisor(before.bucket_ms, width),
                    });
                }
            }
        }
        let end = entries.map_or(i64::MAX, |entries| entries.from_ms);
        starts.retain(|start| *start < end);
        starts.push(end);
        starts.sort_unstable();
        starts.dedup();
        let slots = starts.windows(2).map(|pair| Stretch { from_ms: pair[0], to_ms: pair[1] }).collect();
        Self { slots, entries }
    }
}

const fn common_divisor(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::budget::draft::Draft;
    use crate::domain::budget::{Books, Spent};
    use crate::domain::ledger::Attribution;
    use crate::domain::money::Usd;

    const WINDOWS: [(&str, Option<&str>); 8] = [
        ("total", None),
        ("month", Some("America/New_York")),
        ("week", None),
        ("day", Some("Asia/Kathmandu")),
        ("hour", Some("Asia/Kolkata")),
        ("rolling 60s", None),
        ("rolling 24h", None),
        ("rolling 31d", None),
    ];

    fn budget(index: usize) -> Budget {
        let (window, zone) = WINDOWS[index];
        let draft = Draft {
            limit_usd: Some("1000".to_owned()),
            window: Some(window.to_owned()),
            time_zone: zone.map(str::to_owned),
            ..Draft::default()
        };
        draft.check(window, true, &mut |path, what| panic!("{path}: {what}")).expect("a budget")
    }

    #[test]
    fn slots_end_where_entries_begin() {
        let now = 1_795_000_000_000;
        let (total, day, rolling) = (budget(0), budget(3), budget(6));
        assert_eq!(Reach::of([], now), Reach { slots: Vec::new(), entries: None });
        let all = Stretch { from_ms: 0, to_ms: i64::MAX };
        assert_eq!(Reach::of([&total], now).slots, [all]);
        let reach = Reach::of([&total, &day, &rolling], now);
        let entries = reach.entries.expect("a rolling window");
        assert_eq!(entries.from_ms % SLOT_MS, 0);
        assert_eq!((entries.bucket_ms, reach.slots.last().expect("one").to_ms), (180_000, entries.from_ms));
        assert!(reach.slots.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms));
    }

    proptest! {
        /// Counters that are rebuilt from the sums say what those say that have seen every booking.
        #[test]
        fn sums_of_the_past_rebuild_what_was_counted(
            chosen in prop::collection::btree_set(0..WINDOWS.len(), 1..5),
            bookings in prop::collection::vec((0..40 * 86_400_000_i64, 1..1_000_i64), 0..60),
            later in 0..100_000_000_i64,
        ) {
            let now = 1_795_000_000_000;
            let budgets: Vec<Arc<Budget>> = chosen.into_iter().map(|index| Arc::new(budget(index))).collect();
            let on = Arc::new(Attribution::default());
            let spent = |at_ms: i64, nanos: i64| Spent {
                attribution: Arc::clone(&on), at_ms, cost: Usd::from_nanos(nanos),
            };
            let each: Vec<Spent> = bookings.iter().map(|(ago, nanos)| spent(now - ago, *nanos)).collect();
            let reach = Reach::of(budgets.iter().map(|budget| &**budget), now);
            let mut sums: Vec<Spent> = Vec::new();
            for stretch in &reach.slots {
                let within = each.iter().filter(|spent| {
                    let slot = slot_of(spent.at_ms);
                    slot >= stretch.from_ms && slot < stretch.to_ms
                });
                sums.push(spent(stretch.from_ms, within.map(|spent| spent.cost.nanos()).sum()));
            }
            if let Some(entries) = reach.entries {
                let behind = each.iter().filter(|spent| spent.at_ms >= entries.from_ms);
                sums.extend(behind.map(|one| {
                    spent(one.at_ms.div_euclid(entries.bucket_ms) * entries.bucket_ms, one.cost.nanos())
                }));
            }
            let standings = |history: &[Spent]| {
                let mut books = Books::default();
                books.define(budgets.clone(), history, now);
                let standings = |at| books.standings(at).into_iter().map(|(_, standings)| standings).collect::<Vec<_>>();
                (standings(now), standings(now + later))
            };
            prop_assert_eq!(standings(&sums), standings(&each));
        }
    }
}
