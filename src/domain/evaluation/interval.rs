//! How sure a figure is that comes of few rows: its 95 % interval.

use serde::{Deserialize, Serialize};

use super::sample::Dice;

/// Of a standard normal distribution, for 95 %.
const Z: f64 = 1.959_963_984_540_054;
/// So many data sets are drawn from the one that there is.
const DRAWS: usize = 1_000;

/// A figure, and between what it is with a confidence of 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean over all rows.
    pub value: f64,
    /// Hardly less.
    pub low: f64,
    /// Hardly more.
    pub high: f64,
    /// Rows that it comes of.
    pub rows: usize,
}

impl Estimate {
    /// A share of rows that are 1 and not 0: Wilson's interval (1927), which holds for few rows and near the ends, too.
    /// None of no rows.
    pub fn of_share(values: &[f64]) -> Option<Self> {
        let value = mean(values)?;
        let n = values.len() as f64;
        let denominator = 1.0 + Z * Z / n;
        let middle = (value + Z * Z / (2.0 * n)) / denominator;
        let half = Z / denominator * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
        let (low, high) = ((middle - half).max(0.0), (middle + half).min(1.0));
        Some(Self { value, low, high, rows: values.len() }.rounded())
    }

    /// A mean of any numbers, such as differences row by row: the percentiles of the means of data sets that are drawn
    /// from these rows, with repetitions (Efron's bootstrap). None of no rows.
    pub fn of_mean(values: &[f64], seed: u64) -> Option<Self> {
        let value = mean(values)?;
        let rows = values.len();
        let mut dice = Dice::new(seed, rows as u64);
        let drawn = |_| (0..rows).map(|_| values[dice.below(rows)]).sum::<f64>() / rows as f64;
        let mut means: Vec<f64> = (0..DRAWS).map(drawn).collect();
        means.sort_by(f64::total_cmp);
        let (low, high) = (means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40]);
        Some(Self { value, low, high, rows }.rounded())
    }

    /// The same figure in other terms, by a function that never falls.
    #[must_use]
    pub fn through(self, rising: fn(f64) -> f64) -> Self {
        Self { value: rising(self.value), low: rising(self.low), high: rising(self.high), ..self }.rounded()
    }

    /// Six digits: more are noise, and would not survive being written and read.
    fn rounded(self) -> Self {
        let six = |figure: f64| (figure * 1e6).round() / 1e6;
        Self { value: six(self.value), low: six(self.low), high: six(self.high), rows: self.rows }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The value that a part of all are not above: the nearest rank. `permille` of 500 is the median.
pub fn percentile(sorted: &[u64], permille: usize) -> Option<u64> {
    let rank = (sorted.len() * permille).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(ones: usize, of: usize) -> Vec<f64> {
        (0..of).map(|at| if at < ones { 1.0 } else { 0.0 }).collect()
    }

    #[test]
    fn wilson_s_intervals() {
        // worked out by hand from the formula
        for (count, of, low, high) in [
            (0, 10, 0.0, 0.277_533),
            (10, 10, 0.722_467, 1.0),
            (8, 10, 0.490_162, 0.943_318),
            (50, 100, 0.403_832, 0.596_168),
        ] {
            let found = Estimate::of_share(&ones(count, of)).expect("rows");
            assert_eq!((found.value, found.rows), (count as f64 / of as f64, of));
            assert!(
                (found.low - low).abs() < 2e-6 && (found.high - high).abs() < 2e-6,
                "{count}/{of}: {found:?}"
            );
        }
        assert_eq!(Estimate::of_share(&[]), None);
    }

    #[test]
    fn a_bootstrap_is_near_the_normal_interval_and_repeats_itself() {
        let values = ones(100, 400);
        let found = Estimate::of_mean(&values, 1).expect("rows");
        // 0.25 ± 1.96 · sqrt(0.25 · 0.75 / 400)
        assert!((found.low - 0.2076).abs() < 0.01 && (found.high - 0.2924).abs() < 0.01, "{found:?}");
        assert_eq!(Estimate::of_mean(&values, 1), Some(found));
        let same = Estimate::of_mean(&[0.5, 0.5], 1).expect("rows");
        assert_eq!((same.low, same.value, same.high), (0.5, 0.5, 0.5));
        assert_eq!(Estimate::of_mean(&[], 1), None);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<u64> = (1..=20).collect();
        for (permille, want) in [(500, 10), (950, 19), (1_000, 20), (0, 1)] {
            assert_eq!(percentile(&values, permille), Some(want), "{permille}");
        }
        assert_eq!((percentile(&[], 500), percentile(&[7], 950)), (None, Some(7)));
    }
}
