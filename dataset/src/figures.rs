//! The figures that users know from OpenAI's cookbook: distributions, what is cut, epochs, billed tokens.
//!
//! Source: "Data preparation and analysis for chat model fine-tuning", read on 2026-11-21. Its line "p5 / p95" prints the
//! quantiles 0.1 and 0.9, by linear interpolation; here they are called what they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Epochs that are tried first.
const TARGET_EPOCHS: u64 = 3;
const MIN_TARGET_EXAMPLES: u64 = 100;
const MAX_TARGET_EXAMPLES: u64 = 25_000;
const MAX_DEFAULT_EPOCHS: u64 = 25;

/// How a number is distributed over the rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Over all rows.
    pub total: u64,
    /// The smallest; 0 where there are no rows, as all that follow.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// The average.
    pub mean: f64,
    /// The middle one, or the average of the two in the middle.
    pub median: f64,
    /// The quantile 0.1, by linear interpolation.
    pub p10: f64,
    /// The quantile 0.9, by linear interpolation.
    pub p90: f64,
}

/// How often each number was met. Its size is bounded by the file's: numbers of tokens or messages that are all different
/// add up to more than a file has.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: BTreeMap<u64, u64>,
    rows: u64,
}

impl Histogram {
    /// Counts a row's number.
    pub fn add(&mut self, number: u64) {
        *self.counts.entry(number).or_default() += 1;
        self.rows += 1;
    }

    /// How many rows were counted.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows with a number above a limit.
    pub fn above(&self, limit: f64) -> u64 {
        self.counts.iter().filter(|(number, _)| **number as f64 > limit).map(|(_, rows)| rows).sum()
    }

    /// The whole distribution.
    pub fn distribution(&self) -> Distribution {
        let (Some((min, _)), Some((max, _))) = (self.counts.first_key_value(), self.counts.last_key_value())
        else {
            return Distribution::default();
        };
        let total: u64 = self.counts.iter().map(|(number, rows)| number * rows).sum();
        let middle = (self.at((self.rows - 1) / 2) + self.at(self.rows / 2)) as f64 / 2.0;
        Distribution {
            total,
            min: *min,
            max: *max,
            mean: total as f64 / self.rows as f64,
            median: middle,
            p10: self.quantile(0.1),
            p90: self.quantile(0.9),
        }
    }

    /// A quantile by linear interpolation, in the same steps as numpy, so that its last digit is the same; 0 where there
    /// are no rows.
    pub fn quantile(&self, share: f64) -> f64 {
        if self.rows == 0 {
            return 0.0;
        }
        let place = (self.rows - 1) as f64 * share;
        let below = place.floor();
        let (low, high) =
            (self.at(below as u64) as f64, self.at((below as u64 + 1).min(self.rows - 1)) as f64);
        let (part, step) = (place - below, high - low);
        if part >= 0.5 { high - step * (1.0 - part) } else { low + step * part }
    }

    /// The number of a row, when all are sorted.
    fn at(&self, index: u64) -> u64 {
        let mut behind = 0;
        for (number, rows) in &self.counts {
            behind += rows;
            if index < behind {
                return *number;
            }
        }
        0
    }
}

/// How many epochs the cookbook expects a provider to choose for so many examples. A guess: the service may choose
/// otherwise.
pub fn default_epochs(examples: u64) -> u32 {
    let epochs = match examples {
        0 => 0,
        few if few.saturating_mul(TARGET_EPOCHS) < MIN_TARGET_EXAMPLES => {
            (MIN_TARGET_EXAMPLES / few).min(MAX_DEFAULT_EPOCHS)
        }
        many if many.saturating_mul(TARGET_EPOCHS) > MAX_TARGET_EXAMPLES => {
            (MAX_TARGET_EXAMPLES / many).max(1)
        }
        _ => TARGET_EPOCHS,
    };
    epochs as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epochs_of_the_cookbook() {
        for (examples, epochs) in [
            (0, 0),
            (1, 25),
            (4, 25),
            (5, 20),
            (10, 10),
            (15, 6),
            (33, 3),
            (34, 3),
            (8_333, 3),
            (8_334, 2),
            (12_500, 2),
            (12_501, 1),
            (30_000, 1),
            (u64::MAX, 1),
        ] {
            assert_eq!(default_epochs(examples), epochs, "{examples}");
        }
    }

    #[test]
    fn distributions() {
        let of = |numbers: &[u64]| {
            let mut histogram = Histogram::default();
            numbers.iter().for_each(|number| histogram.add(*number));
            histogram.distribution()
        };
        assert_eq!(of(&[]), Distribution::default());
        let one = Distribution { total: 7, min: 7, max: 7, mean: 7.0, median: 7.0, p10: 7.0, p90: 7.0 };
        assert_eq!(of(&[7]), one);
        // numpy.quantile([3, 1, 2, 10], [0.1, 0.9]) is [1.3, 7.9]
        let four = Distribution { total: 16, min: 1, max: 10, mean: 4.0, median: 2.5, p10: 1.3, p90: 7.9 };
        let found = of(&[3, 1, 2, 10]);
        assert_eq!(found, Distribution { p90: found.p90, ..four });
        assert!((found.p90 - 7.9).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn a_histogram_is_as_good_as_the_sorted_numbers(mut numbers in prop::collection::vec(0_u64..50, 1..60)) {
            let mut histogram = Histogram::default();
            numbers.iter().for_each(|number| histogram.add(*number));
            numbers.sort_unstable();
            let found = histogram.distribution();
            prop_assert_eq!(found.total, numbers.iter().sum::<u64>());
            prop_assert_eq!((found.min, found.max), (numbers[0], numbers[numbers.len() - 1]));
            for (share, quantile) in [(0.1, found.p10), (0.5, found.median), (0.9, found.p90)] {
                let place = (numbers.len() - 1) as f64 * share;
                let low = numbers[place.floor() as usize] as f64;
                let high = numbers[place.ceil() as usize] as f64;
                let want = low + (high - low) * (place - place.floor());
                prop_assert!((quantile - want).abs() < 1e-9, "{share}: {quantile} {want}");
            }
            prop_assert_eq!(histogram.above(25.0), numbers.iter().filter(|number| **number > 25).count() as u64);
        }
    }
}
