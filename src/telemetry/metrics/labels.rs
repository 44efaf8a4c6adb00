//! Values of labels that the catalog does not bound: the first few get a series of their own, all others share one.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};

use parking_lot::{Mutex, RwLock};
use prometheus::IntCounter;

pub use crate::domain::label::{NONE, OTHER};

/// Values that found no room, each counted once, up to twice as many as have found some.
struct Overflows {
    most: usize,
    hasher: RandomState,
    /// Hashes of those that are counted.
    counted: Mutex<HashSet<u64>>,
    counter: IntCounter,
}

impl Overflows {
    fn new(room: usize, counter: IntCounter) -> Self {
        Self { most: room.saturating_mul(2), hasher: RandomState::new(), counted: Mutex::default(), counter }
    }

    fn saw(&self, value: &(impl Hash + ?Sized)) {
        let hash = self.hasher.hash_one(value);
        let mut counted = self.counted.lock();
        if counted.len() < self.most && counted.insert(hash) {
            self.counter.inc();
        }
    }
}

/// The values of one label.
pub(super) struct Bounded {
    most: usize,
    known: RwLock<HashSet<Box<str>>>,
    overflows: Overflows,
}

impl Bounded {
    /// Room for so many.
    pub(super) fn new(most: usize, overflows: IntCounter) -> Self {
        Self { most, known: RwLock::default(), overflows: Overflows::new(most, overflows) }
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
        self.overflows.saw(value);
        OTHER
    }

    /// Gives those of the values that are new their labels, in alphabetical order: processes that are told of the same
    /// ones, in whatever order, have the same labels.
    pub(super) fn seat<'v>(&self, values: impl IntoIterator<Item = &'v str>) {
        for value in values.into_iter().collect::<BTreeSet<_>>() {
            self.label(value);
        }
    }
}

/// Labels of what comes and goes: so many have one of their own, as long as they are there.
pub(super) struct Seats<K> {
    most: usize,
    taken: Mutex<HashSet<K>>,
    overflows: Overflows,
}

impl<K: Clone + Ord + Hash> Seats<K> {
    /// Room for so many.
    pub(super) fn new(most: usize, overflows: IntCounter) -> Self {
        Self { most, taken: Mutex::default(), overflows: Overflows::new(most, overflows) }
    }

    /// Those of all that are there now that have a label of their own: who had one before, then in their order.
    /// So processes that are told of the same ones have the same labels.
    pub(super) fn seated(&self, all: &[K]) -> HashSet<K> {
        let there: BTreeSet<&K> = all.iter().collect();
        let mut taken = self.taken.lock();
        taken.retain(|value| there.contains(value));
        for value in there {
            if taken.contains(value) {
                continue;
            }
            if taken.len() < self.most {
                taken.insert(value.clone());
            } else {
                self.overflows.saw(value);
            }
        }
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
            (vec!["c", "b", "a"], ["a", "b"].as_slice(), 1),
            (vec!["a", "b", "c"], &["a", "b"], 1),
            (vec!["d", "c", "b", "a"], &["a", "b"], 2),
            (vec!["d", "c", "b"], &["b", "c"], 2),
            (vec!["d"], &["d"], 2),
            (vec![], &[], 2),
        ] {
            assert_eq!(seats.seated(&there), seated.iter().copied().collect(), "{there:?}");
            assert_eq!(overflows.get(), without, "{there:?}");
        }
    }

    #[test]
    fn the_first_few_have_their_own() {
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let teams = Bounded::new(2, overflows.clone());
        let seen: Vec<&str> = ["a", "", "b", "a", "c", "b", "d", "c"].map(|team| teams.label(team)).into();
        assert_eq!(seen, ["a", NONE, "b", "a", OTHER, "b", OTHER, OTHER]);
        assert_eq!(overflows.get(), 2, "each once");
        for team in ["c", "e", "f", "g", "h"] {
            assert_eq!(teams.label(team), OTHER);
        }
        assert_eq!(overflows.get(), 4, "twice the room");
    }

    #[test]
    fn the_order_of_those_who_come_together_does_not_matter() {
        for order in [["c", "b", "a"], ["b", "a", "c"]] {
            let teams = Bounded::new(2, IntCounter::new("overflows", "Overflows.").expect("a counter"));
            teams.seat(order);
            assert_eq!(["a", "b", "c"].map(|team| teams.label(team)), ["a", "b", OTHER], "{order:?}");
        }
    }
}
