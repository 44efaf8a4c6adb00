//! Budgets as they are watched from outside: how each counter stands and where it leads; of keys and end users, who may
//! be very many, how many are near their limit. Read in slices, because requests wait for the books.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::books::Kept;
use super::counter::{Counter, percent};
use super::{Books, Budget, Each};
use crate::domain::money::Usd;
use crate::domain::window::{Stretch, Window};

/// The shares of a limit from which keys and end users are counted, percent.
pub const LEVELS: [u8; 2] = [80, 100];
/// The least part of a window that a projection is made from: a twenty-fourth. Of a day that is its first hour, of a
/// month its first 30.
const LEAST_PART: i64 = 24;

/// How a counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The limit now.
    pub limit: Usd,
    /// Spent of it.
    pub spent: Usd,
    /// Held of it.
    pub reserved: Usd,
    /// Left of it; negative when a provider billed beyond its hold.
    pub left: Usd,
    /// Spent when the window ends, if it goes on so.
    pub projected: Usd,
}

/// Counters that are not told one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    /// How many something was booked on.
    pub counters: usize,
    /// How many of them have spent and hold as much of their limit, for each of [`LEVELS`].
    pub above: [usize; 2],
    /// The limit of each.
    pub limit: Usd,
    /// Spent and held of it where that is most.
    pub most: Usd,
}

impl Crowd {
    fn add(&mut self, taken: Usd) {
        let share = percent(taken, self.limit);
        for (above, level) in self.above.iter_mut().zip(LEVELS) {
            *above += usize::from(share >= u64::from(level));
        }
        self.most = self.most.max(taken);
    }
}

/// The counters of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counters {
    /// By their subjects: of teams or models, or the one that there is.
    Listed(BTreeMap<Arc<str>, Figures>),
    /// Of keys or end users.
    Counted(Crowd),
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The budget.
    pub budget: Arc<Budget>,
    /// The length of its window, seconds; none for one that never ends.
    pub window_seconds: Option<i64>,
    /// When its money comes back, all at once, ms since 1970 UTC; none where it does not.
    pub resets_at_ms: Option<i64>,
    /// Its counters.
    pub counters: Counters,
}

impl Watched {
    fn begun(kept: &Kept, now_ms: i64) -> Self {
        let (budget, limit) = (Arc::clone(&kept.budget), kept.budget.limit_at(now_ms));
        let span = budget.window.span(now_ms);
        let window_seconds = match budget.window {
            Window::Rolling { seconds } => Some(seconds),
            Window::Total | Window::Calendar { .. } => span.map(|span| span.length_ms() / 1_000),
        };
        let counters = match budget.scope.each {
            Some(Each::Key | Each::EndUser) => {
                let counters = kept.counters.len();
                Counters::Counted(Crowd { counters, above: [0; 2], limit, most: Usd::ZERO })
            }
            Some(Each::Team | Each::Model) => Counters::Listed(BTreeMap::new()),
            // there before anything is booked
            None => {
                let nothing = figures(&Counter::default(), 0, limit, None, now_ms);
                Counters::Listed(BTreeMap::from([(Arc::default(), nothing)]))
            }
        };
        Self { budget, window_seconds, resets_at_ms: span.map(|span| span.to_ms), counters }
    }

    fn add(&mut self, slice: &[(&Arc<str>, &Counter)], now_ms: i64) {
        let window = &self.budget.window;
        let (first, span) = (window.first_bucket(now_ms), window.span(now_ms));
        let limit = self.budget.limit_at(now_ms);
        for (subject, counter) in slice {
            match &mut self.counters {
                Counters::Listed(all) => {
                    all.insert(Arc::clone(subject), figures(counter, first, limit, span, now_ms));
                }
                Counters::Counted(crowd) => {
                    let sums = counter.sums_from(first);
                    crowd.add(sums.spent + sums.reserved);
                }
            }
        }
    }
}

fn figures(counter: &Counter, first: i64, limit: Usd, span: Option<Stretch>, now_ms: i64) -> Figures {
    let sums = counter.sums_from(first);
    Figures {
        limit,
        spent: sums.spent,
        reserved: sums.reserved,
        left: limit - sums.spent - sums.reserved,
        projected: span.map_or(sums.spent, |span| projected(sums.spent, span, now_ms)),
    }
}

/// Spent at the end of a calendar's window if it goes on as since its start. Less than [`LEAST_PART`] of the window says
/// little: until then what was spent is taken for all of that part. Of windows that never end at once nothing is known
/// but what is spent now.
fn projected(spent: Usd, span: Stretch, now_ms: i64) -> Usd {
    let length = span.length_ms().max(1);
    let elapsed = (now_ms - span.from_ms).clamp(length / LEAST_PART, length).max(1);
    if !spent.is_some() {
        return spent;
    }
    let product = i128::from(spent.nanos()) * i128::from(length);
    let (whole, rest) = (product / i128::from(elapsed), product % i128::from(elapsed));
    Usd::from_nanos(i64::try_from(whole + i128::from(rest > 0)).unwrap_or(i64::MAX))
}

/// A look at all budgets, while it is taken.
#[derive(Debug, Clone)]
pub struct Look {
    now_ms: i64,
    edition: u64,
    /// The counters of the last of `seen` before this place are read next.
    unread: usize,
    seen: Vec<Watched>,
}

impl Look {
    /// Begins at a time, ms since 1970 UTC.
    pub const fn at(now_ms: i64) -> Self {
        Self { now_ms, edition: 0, unread: 0, seen: Vec::new() }
    }

    /// What was seen.
    pub fn ends(self) -> Vec<Watched> {
        self.seen
    }
}

impl Books {
    /// Goes on with a look, by so many counters at most. Whether there is more to see. What is booked meanwhile may be
    /// part of it or not, and one of the counted may be counted twice where another went; none is missed. Where the
    /// budgets are replaced meanwhile, it begins anew.
    pub fn go_on(&self, look: &mut Look, most: usize) -> bool {
        if look.edition != self.edition {
            *look = Look { edition: self.edition, ..Look::at(self.time(look.now_ms)) };
        }
        let mut left = most;
        loop {
            if look.unread == 0 {
                let Some(kept) = self.kept.get(look.seen.len()) else { return false };
                if left == 0 {
                    return true;
                }
                // a budget costs something, also without counters
                left -= 1;
                look.unread = kept.counters.len();
                look.seen.push(Watched::begun(kept, look.now_ms));
                continue;
            }
            if left == 0 {
                return true;
            }
            let of = look.seen.len().wrapping_sub(1);
            let (Some(watched), Some(kept)) = (look.seen.last_mut(), self.kept.get(of)) else { return false };
            // from the end: what takes the place of one that goes was read before
            let end = look.unread.min(kept.counters.len());
            let start = end.saturating_sub(left);
            let slice: Vec<_> = (start..end).filter_map(|place| kept.counters.get_index(place)).collect();
            watched.add(&slice, look.now_ms);
            left -= end - start;
            look.unread = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::budget::draft::Draft;
    use crate::domain::budget::{Spent, Standing};
    use crate::domain::ledger::{Attribution, Entry, EntryKind};
    use crate::domain::usage::TokenCounts;

    const NOON: i64 = 1_795_348_800_000; // 2026-11-22T12:00:00Z
    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn budget(name: &str, window: &str, each: Option<Each>, limit: &str) -> Arc<Budget> {
        let draft =
            Draft { limit_usd: Some(limit.to_owned()), window: Some(window.to_owned()), ..Draft::default() };
        let mut budget =
            draft.check(name, true, &mut |path, what| panic!("{path}: {what}")).expect("a budget");
        budget.scope.each = each;
        Arc::new(budget)
    }

    fn on(key: &str, team: &str) -> Arc<Attribution> {
        let team = (!team.is_empty()).then(|| team.into());
        Arc::new(Attribution { key_id: key.into(), key: key.into(), team, ..Attribution::default() })
    }

    fn seen(books: &Books, now_ms: i64, slice: usize) -> Vec<Watched> {
        let mut look = Look::at(now_ms);
        while books.go_on(&mut look, slice) {}
        look.ends()
    }

    #[test]
    fn a_projection_goes_on_as_since_the_start() {
        let day = Stretch { from_ms: 0, to_ms: DAY };
        for (spent, now_ms, want) in [
            (1_000, DAY / 2, 2_000),
            (1_000, DAY / 4, 4_000),
            (1_000, 3 * DAY / 4, 1_334),
            (1_000, DAY, 1_000),
            // the first hour is taken for one
            (1_000, HOUR, 24_000),
            (1_000, HOUR / 60, 24_000),
            (1_000, 0, 24_000),
            // a clock beside the window
            (1_000, -5 * HOUR, 24_000),
            (1_000, 2 * DAY, 1_000),
            (0, HOUR, 0),
            (-500, HOUR, -500),
            (i64::MAX / 2, HOUR, i64::MAX / 2),
        ] {
            assert_eq!(projected(Usd::from_nanos(spent), day, now_ms).nanos(), want, "{spent} at {now_ms}");
        }
    }

    #[test]
    fn windows_have_lengths_and_ends() {
        for (window, seconds, resets_at_ms, projected) in [
            ("total", None, None, 6),
            ("rolling 24h", Some(86_400), None, 6),
            ("hour", Some(3_600), Some(NOON + HOUR), 6 * 24),
            ("day", Some(86_400), Some(NOON + DAY / 2), 12),
            ("week", Some(7 * 86_400), Some(NOON + DAY / 2), 7),
            ("month", Some(30 * 86_400), Some(NOON + 8 * DAY + DAY / 2), 9),
        ] {
            let budget = budget(window, window, None, "1");
            let spent = Spent { attribution: on("k", ""), at_ms: NOON, cost: Usd::from_nanos(6) };
            let mut books = Books::default();
            books.define(vec![budget], &[spent], NOON);
            let [watched] = &seen(&books, NOON, 1)[..] else { panic!("one") };
            let Counters::Listed(listed) = &watched.counters else { panic!("one counter") };
            let found = (watched.window_seconds, watched.resets_at_ms, listed[""].projected.nanos());
            assert_eq!(found, (seconds, resets_at_ms, projected), "{window}");
        }
    }

    #[test]
    fn what_comes_and_goes_is_seen() {
        let mut books = Books::default();
        assert_eq!(seen(&books, NOON, 1), []);
        let names = |books: &Books| {
            seen(books, NOON, 1).iter().map(|seen| seen.budget.name.to_string()).collect::<Vec<_>>()
        };
        books.define(
            vec![budget("a", "day", None, "1"), budget("b", "day", Some(Each::Team), "1")],
            &[],
            NOON,
        );
        assert_eq!(names(&books), ["a", "b"]);
        // replaced in the middle of a look
        let mut look = Look::at(NOON);
        assert!(books.go_on(&mut look, 1));
        books.define(vec![budget("c", "day", None, "1")], &[], NOON);
        while books.go_on(&mut look, 1) {}
        assert_eq!(look.ends().iter().map(|seen| &*seen.budget.name).collect::<Vec<_>>(), ["c"]);
    }

    fn booked(seq: i64, kind: EntryKind, at_ms: i64, on: &Arc<Attribution>, nanos: i64) -> Arc<Entry> {
        let amount = Usd::from_nanos(nanos);
        let (held, cost) = if kind == EntryKind::Hold { (amount, Usd::ZERO) } else { (Usd::ZERO, amount) };
        Arc::new(Entry {
            seq,
            kind,
            at_ms,
            written_at_ms: at_ms,
            of: 0,
            request_id: "r".into(),
            instance: "i".into(),
            attribution: Arc::clone(on),
            tokens: TokenCounts::default(),
            source: None,
            held,
            cost,
            saved: Usd::ZERO,
            price: "p".into(),
            note: None,
            injected: None,
        })
    }

    /// What a crowd must be, by its counters one by one.
    fn crowd(standings: &[Standing], limit: Usd) -> Crowd {
        let mut crowd = Crowd { counters: standings.len(), above: [0; 2], limit, most: Usd::ZERO };
        for standing in standings {
            let taken = standing.spent + standing.reserved;
            for (above, level) in crowd.above.iter_mut().zip([80, 100]) {
                *above += usize::from(taken.nanos() * 100 >= limit.nanos() * level);
            }
            crowd.most = crowd.most.max(taken);
        }
        crowd
    }

    proptest! {
        /// Whatever was booked and however it is sliced: what is watched is how the books stand.
        #[test]
        fn what_is_watched_is_how_the_books_stand(
            bookings in prop::collection::vec((0..6_u8, 0..3_u8, 0..2 * DAY, 1..1_500_i64, any::<bool>()), 0..80),
            slice in 1..20_usize,
            later in 0..3 * DAY,
        ) {
            const EACH: [Option<Each>; 4] = [None, Some(Each::Team), Some(Each::Key), Some(Each::EndUser)];
            let mut budgets = Vec::new();
            for window in ["total", "day", "rolling 24h"] {
                for each in EACH {
                    budgets.push(budget(&format!("{window} {each:?}").replace(' ', "-"), window, each, "0.000001"));
                }
            }
            let mut books = Books::default();
            books.define(budgets, &[], NOON);
            for (seq, (key, team, ago, nanos, holds)) in (1..).zip(bookings) {
                let on = on(&format!("k{key}"), ["", "a", "b"][usize::from(team)]);
                let kind = if holds { EntryKind::Hold } else { EntryKind::Hosting };
                books.apply(&booked(seq, kind, NOON - ago, &on, nanos));
            }
            books.tidy(NOON + later);
            let now = NOON + later;
            let watched = seen(&books, now, slice);
            let standings = books.standings(now);
            prop_assert_eq!(watched.len(), standings.len());
            for (watched, (budget, standings)) in watched.into_iter().zip(standings) {
                prop_assert_eq!(&watched.budget, &budget);
                match watched.counters {
                    Counters::Counted(found) => prop_assert_eq!(found, crowd(&standings, budget.limit)),
                    Counters::Listed(found) => {
                        prop_assert_eq!(found.len(), standings.len());
                        for standing in standings {
                            let figures = found[&standing.subject];
                            let four = (figures.limit, figures.spent, figures.reserved, figures.left);
                            prop_assert_eq!(four, (standing.limit, standing.spent, standing.reserved, standing.left));
                            prop_assert!(figures.projected >= figures.spent);
                        }
                    }
                }
            }
            let held: i64 = books.open_holds().map(|hold| hold.held.nanos()).sum();
            prop_assert_eq!(books.held(), (books.open_holds().count(), Usd::from_nanos(held)));
        }
    }
}
