//! Values of labels that the catalog does not bound: the first few get a series of their own, all others share one.

use std::collections::HashSet;

use parking_lot::RwLock;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_have_their_own() {
        let overflows = IntCounter::new("overflows", "Overflows.").expect("a counter");
        let teams = Bounded::new(2, overflows.clone());
        let seen: Vec<&str> = ["a", "", "b", "a", "c", "b", "d"].map(|team| teams.label(team)).into();
        assert_eq!(seen, ["a", NONE, "b", "a", OTHER, "b", OTHER]);
        assert_eq!(overflows.get(), 2);
    }
}
