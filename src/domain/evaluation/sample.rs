//! Which rows are asked, and in which order: random, and the same for the same seed.

use std::collections::BinaryHeap;

/// A generator of our own (SplitMix64): an evaluation that is taken up again draws as it did before.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Begins at a seed, in one of many sequences of it.
    pub fn new(seed: u64, sequence: u64) -> Self {
        let mut mixed = Self(sequence);
        Self(seed ^ mixed.roll())
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below a bound; 0 where there is none below it.
    pub fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.roll()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or_default()
    }

    /// Puts things into a random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            let other = self.below(at + 1);
            things.swap(at, other);
        }
    }
}

/// Keeps so many of all that pass, each as likely as the others.
#[derive(Debug)]
pub struct Sample<T> {
    seed: u64,
    most: usize,
    seen: u64,
    kept: BinaryHeap<Ranked<T>>,
}

#[derive(Debug)]
struct Ranked<T> {
    rank: (u64, u64),
    thing: T,
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl<T> Sample<T> {
    /// Keeps at most so many.
    pub const fn new(seed: u64, most: usize) -> Self {
        Self { seed, most, seen: 0, kept: BinaryHeap::new() }
    }

    /// Lets one pass.
    pub fn pass(&mut self, thing: T) {
        let rank = (Dice::new(self.seed, self.seen).roll(), self.seen);
        self.seen += 1;
        if self.kept.len() < self.most || self.kept.peek().is_some_and(|last| rank < last.rank) {
            self.kept.push(Ranked { rank, thing });
        }
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    /// How many have passed.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// What was kept, in the order in which it passed.
    pub fn kept(self) -> Vec<T> {
        let mut kept = self.kept.into_vec();
        kept.sort_by_key(|one| one.rank.1);
        kept.into_iter().map(|one| one.thing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u64, most: usize, of: u32) -> Vec<u32> {
        let mut sample = Sample::new(seed, most);
        (0..of).for_each(|thing| sample.pass(thing));
        assert_eq!(sample.seen(), u64::from(of));
        sample.kept()
    }

    #[test]
    fn a_sample_is_the_same_for_a_seed_and_fair() {
        assert_eq!(sample(7, 10, 100), sample(7, 10, 100));
        assert_ne!(sample(7, 10, 100), sample(8, 10, 100));
        assert_eq!(sample(7, 100, 5), [0, 1, 2, 3, 4]);
        assert!(sample(7, 10, 100).is_sorted());
        let mut drawn = [0_u32; 20];
        for seed in 0..2_000 {
            for thing in sample(seed, 5, 20) {
                drawn[thing as usize] += 1;
            }
        }
        // 500 each; beyond six standard deviations (about 19) nobody is lucky
        assert!(drawn.iter().all(|count| (385..=615).contains(count)), "{drawn:?}");
    }

    #[test]
    fn an_order_is_the_same_for_a_seed_and_every_order_comes() {
        let order = |seed| {
            let mut things = ['a', 'b', 'c'];
            Dice::new(seed, 0).shuffle(&mut things);
            things
        };
        assert_eq!(order(3), order(3));
        let all: std::collections::BTreeSet<_> = (0..200).map(order).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(Dice::new(1, 1).below(0), 0);
    }
}
