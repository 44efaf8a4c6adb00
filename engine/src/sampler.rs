//! From logits to one token.

use crate::random::Random;

/// How a token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; 1 samples as the model was trained; more flattens.
    pub temperature: f32,
    /// Samples among the fewest tokens that together have at least this probability; 1 among all.
    pub top_p: f32,
    /// The same seed gives the same choices for the same logits.
    pub seed: u64,
}

/// Chooses the tokens of one sequence. Deterministic: its only source of chance is its seed.
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    /// Kept between calls, to allocate once.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// Starts a sequence of choices.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, random: Random::new(sampling.seed), candidates: Vec::new() }
    }

    /// Returns the next token. Of equally likely ones the lowest id comes first.
    ///
    /// `logits` must not be empty; numbers that are not finite never win.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let best = likeliest(logits);
        if self.sampling.temperature <= 0.0 || self.sampling.top_p <= 0.0 {
            return best;
        }
        let peak = logits[best as usize];
        let scale = 1.0 / self.sampling.temperature;
        let draw = self.random.unit();
        self.candidates.clear();
        let mut total = 0.0;
        for (id, logit) in logits.iter().enumerate() {
            let weight = ((logit - peak) * scale).exp();
            if weight > 0.0 && weight.is_finite() {
                total += f64::from(weight);
                self.candidates.push((weight, id as u32));
            }
        }
        if self.sampling.top_p < 1.0 {
            total = self.keep_nucleus(total, logits.len());
        }
        let mut left = draw * total;
        for (weight, id) in &self.candidates {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *id;
            }
        }
        self.candidates.last().map_or(best, |candidate| candidate.1)
    }

    /// Keeps the fewest candidates that have `top_p` of `total`; returns what they have.
    fn keep_nucleus(&mut self, total: f64, vocabulary: usize) -> f64 {
        let wanted = f64::from(self.sampling.top_p) * total;
        // All tokens below this line together have less than 1 - top_p, so none is of the nucleus: what is
        // left to sort is short.
        let line = (total - wanted) / vocabulary as f64;
        self.candidates.retain(|(weight, _)| f64::from(*weight) >= line);
        self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut kept = 0.0;
        let mut count = 0;
        for (weight, _) in &self.candidates {
            kept += f64::from(*weight);
            count += 1;
            if kept >= wanted {
                break;
            }
        }
        self.candidates.truncate(count);
        kept
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] || !logits[best].is_finite() && logit.is_finite() {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling { temperature, top_p, seed })
    }

    fn draws(mut sampler: Sampler, logits: &[f32], count: usize) -> Vec<u32> {
        (0..count).map(|_| sampler.next(logits)).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        assert_eq!(draws(sampler(0.0, 1.0, 7), &[0.0, 3.0, 3.0, 1.0], 5), [1; 5]);
        assert_eq!(sampler(0.0, 1.0, 7).next(&[f32::NAN, f32::NEG_INFINITY, 2.0]), 2);
    }

    #[test]
    fn a_seed_fixes_the_choices() {
        let logits: Vec<f32> = (0..500).map(|i| (i as f32 * 0.7).sin()).collect();
        for (temperature, top_p) in [(0.7, 1.0), (1.0, 0.9), (2.0, 0.5)] {
            let first = draws(sampler(temperature, top_p, 42), &logits, 50);
            assert_eq!(first, draws(sampler(temperature, top_p, 42), &logits, 50));
            assert_ne!(first, draws(sampler(temperature, top_p, 43), &logits, 50));
        }
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [1f32.ln(), 2f32.ln(), 5f32.ln(), 2f32.ln()];
        let count = |picks: &[u32], id: u32| picks.iter().filter(|p| **p == id).count() as f64 / 1e5;
        let picks = draws(sampler(1.0, 1.0, 1), &logits, 100_000);
        for (id, share) in [(0, 0.1), (1, 0.2), (2, 0.5), (3, 0.2)] {
            assert!((count(&picks, id) - share).abs() < 0.01, "{id}: {}", count(&picks, id));
        }
        // 0.5 + 0.2 reach 0.7; the tie between 1 and 3 goes to the lower id.
        let picks = draws(sampler(1.0, 0.69, 1), &logits, 100_000);
        assert_eq!((count(&picks, 0), count(&picks, 3)), (0.0, 0.0));
        assert!((count(&picks, 2) - 5.0 / 7.0).abs() < 0.01);
    }

    #[test]
    fn the_nucleus_is_never_empty() {
        assert_eq!(draws(sampler(1.0, 1e-9, 5), &[0.1, 0.2, 0.0], 20), [1; 20]);
        assert_eq!(draws(sampler(1e-9, 0.5, 5), &[0.1, 0.2, 0.0], 20), [1; 20]);
        assert_eq!(draws(sampler(1.0, 0.0, 5), &[0.1, 0.2, 0.0], 20), [1; 20]);
    }

    #[test]
    fn the_shortcut_equals_the_full_sort() {
        let logits: Vec<f32> = (0..2000).map(|i| ((i * 7919 % 2003) as f32 * 0.01).sin() * 6.0).collect();
        for top_p in [0.05, 0.3, 0.9, 0.999] {
            let mut all: Vec<(f64, u32)> =
                logits.iter().zip(0..).map(|(l, i)| (f64::from(*l).exp(), i)).collect();
            let total: f64 = all.iter().map(|a| a.0).sum();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut sum = 0.0;
            let size = all.iter().take_while(|a| (sum < f64::from(top_p) * total, sum += a.0).0).count();
            let mut sampler = sampler(1.0, top_p, 3);
            sampler.next(&logits);
            assert!(
                sampler.candidates.len().abs_diff(size) <= 1,
                "{top_p}: {} {size}",
                sampler.candidates.len()
            );
        }
    }
}
