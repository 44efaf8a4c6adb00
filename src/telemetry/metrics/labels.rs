//! Values of labels that the catalog does not bound: the first few get a series of their own, all others share one.

use std::collections::HashSet;
use std::hash::Hash;

use parking_lot::{Mutex, RwLock};
use prometheus::IntCounter;

/// The label of what has none of its own.
pub const OTHER: &str = "other";
/// The label of what is not there: a key without a team, a request without a model.
pub const NONE: &str = "none";

/// The values of one label.
pub(super) struct Bounded {
    most: usize,
    known: RwLock<HashSet<Box<str>>>,
    /// Values that found no room.
    overflows: IntCounter,
}

impl Bounded {
    /// Room for so many.
    pub(super) fn new(most: usize, overflows: IntCounter) -> Self {
        Self { most, known: RwLock::default(), overflows }
    }

    /// The value's own label while there is room, else [`OTHER`].
    pub(super) fn label<'v>(&self, value: &'v str) -> &'v str {
        if value.is_empty() {
            return NONE;
        }
        if self.known.read().contains(value) {
            return value;
        }
        let mut known = self.known.write();
        if known.len() < self.most || known.contains(value) {
            known.insert(value.into());
            return value;
        }
        drop(known);
        self.overflows.inc();
        OTHER
    }
}

/// Labels of what comes and goes: so many have one of their own, as long as they are there.
pub(super) struct Seats<K> {
    most: usize,
    taken: Mutex<HashSet<K>>,
    /// Values that found no room.
    overflows: IntCounter,
}

impl<K: Clone + Eq + Hash> Seats<K> {
    /// Room for so many.
    pub(super) fn new(most: usize, overflows: IntCounter) -> Self {
        Self { most, taken: Mutex::default(), overflows }
    }

    /// Those of all that are there now that have a label of their own: who had one before, then who comes first.
    pub(super) fn seated(&self, all: &[K]) -> HashSet<K> {
        let there: HashSet<&K> = all.iter().collect();
        let mut taken = self.taken.lock();
        taken.retain(|value| there.contains(value));
        for value in all {
            if taken.len() >= self.most {
                break;
            }
            taken.insert(value.clone());
        }
        self.overflows.inc_by(there.len().saturating_sub(taken.len()) as u64);
        taken.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_seat_keeps_it_while_it_is_there() {
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let seats = Seats::new(2, overflows.clone());
        for (there, seated, without) in [
            (vec!["a", "b", "c"], ["a", "b"].as_slice(), 1),
            (vec!["d", "c", "b", "a"], &["a", "b"], 3),
            (vec!["d", "c", "b"], &["b", "d"], 4),
            (vec!["d"], &["d"], 4),
            (vec![], &[], 4),
        ] {
            assert_eq!(seats.seated(&there), seated.iter().copied().collect(), "{there:?}");
            assert_eq!(overflows.get(), without, "{there:?}");
        }
    }

    #[test]
    fn the_first_few_have_their_own() {
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let teams = Bounded::new(2, overflows.clone());
        let seen: Vec<&str> = ["a", "", "b", "a", "c", "b", "d"].map(|team| teams.label(team)).into();
        assert_eq!(seen, ["a", NONE, "b", "a", OTHER, "b", OTHER]);
        assert_eq!(overflows.get(), 2);
    }
}
