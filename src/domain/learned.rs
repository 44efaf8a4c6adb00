//! What the answers of a model have been like: how long, and how much of the input came from the provider's own cache.
//! It is what `cheapest` expects of the next one.
//!
//! Newer answers count more: each one takes a two-thousandth of the weight of all before it. Memory is bounded, however
//! many there are.

use std::sync::LazyLock;

use super::usage::TokenCounts;

/// What of the older answers' weight stays at each new one.
const KEPT: f64 = 1.0 - 1.0 / 2_000.0;
/// Lengths are counted in so many classes.
const CLASSES: usize = 64;
/// Classes in a doubling of the length; so the last one begins at 1.6 million tokens.
const CLASSES_IN_A_DOUBLING: f64 = 3.0;
/// A route's answers speak for a deployment as if it had given so many of them: few, as it may be far more or far less
/// verbose than the others.
const PRIOR_SAMPLES: f64 = 5.0;
/// Fewer longer answers do not tell how long one would have been that was cut.
const LEAST_LONGER: f32 = 3.0;
/// Thousandths of a token in one.
const MILLI: f64 = 1_000.0;

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was all that there was to say.
    ByItself,
    /// The cap that its request came with: without it, it would have been longer.
    AtItsCap,
}

/// What answers have been like: those of a route, or those of one deployment on it.
#[derive(Debug, Clone)]
pub struct Learned {
    /// How many, the older ones counting less.
    weight: f64,
    output: f64,
    prompt: f64,
    cached: f64,
    /// Our own worker's time, microseconds.
    compute_us: f64,
    /// The weight of each class of lengths: 0, 1, then thirds of doublings.
    classes: [f32; CLASSES],
}

impl Default for Learned {
    fn default() -> Self {
        Self { weight: 0.0, output: 0.0, prompt: 0.0, cached: 0.0, compute_us: 0.0, classes: [0.0; CLASSES] }
    }
}

impl Learned {
    /// Takes an answer in: all its choices together. One that was cut is taken for as long as the longer ones are, where
    /// such have been seen (as Efron redistributes what is censored, "The two sample problem with censored data", 1967).
    pub fn note(&mut self, tokens: &TokenCounts, ended: Ended) {
        for class in &mut self.classes {
            *class *= KEPT as f32;
        }
        let longer = (ended == Ended::AtItsCap).then(|| self.share_longer(tokens.completion)).flatten();
        let output = longer.unwrap_or_else(|| {
            self.classes[class_of(tokens.completion)] += 1.0;
            tokens.completion as f64
        });
        let cached = tokens.cached.min(tokens.prompt) as f64;
        let new = [1.0, output, tokens.prompt as f64, cached, tokens.compute_us as f64];
        for (sum, new) in self.sums().into_iter().zip(new) {
            *sum = *sum * KEPT + new;
        }
    }

    /// Lets all answers so far count less: by a factor from 0 to 1.
    pub fn fade(&mut self, kept: f64) {
        for sum in self.sums() {
            *sum *= kept;
        }
        for class in &mut self.classes {
            *class *= kept as f32;
        }
    }

    fn sums(&mut self) -> [&mut f64; 5] {
        [&mut self.weight, &mut self.output, &mut self.prompt, &mut self.cached, &mut self.compute_us]
    }

    /// How long our own worker computes for a token of input or output, nanoseconds; nothing where it did not.
    pub fn compute_ns_per_token(&self) -> Option<u64> {
        let ns = ratio(self.compute_us * 1_000.0, self.prompt + self.output);
        (ns > 0.0).then(|| ns.ceil() as u64)
    }

    /// Counts an answer to the classes above a length, to each its share. Returns their mean length; nothing where too
    /// few have been that long.
    fn share_longer(&mut self, length: u64) -> Option<f64> {
        let first = class_of(length) + 1;
        let longer = self.classes.get_mut(first..)?;
        let weight: f32 = longer.iter().sum();
        if weight < LEAST_LONGER {
            return None;
        }
        let mut sum = 0.0;
        for (class, (least, most)) in longer.iter_mut().zip(&BOUNDS[first..]) {
            sum += f64::from(*class) * middle(*least, *most);
            *class += *class / weight;
        }
        Some(sum / f64::from(weight))
    }

    /// How many answers this rests on, the older ones counting less: never more than 2,000.
    pub fn samples(&self) -> u64 {
        self.weight.round() as u64
    }

    /// Output tokens of an answer, the mean; with a cap, what answers cut there would have.
    fn mean(&self, cap: Option<u64>) -> f64 {
        let mean = ratio(self.output, self.weight);
        let Some(cap) = cap.map(|cap| cap as f64) else { return mean };
        let (mut all, mut cut) = (0.0, 0.0);
        for (class, weight) in self.classes.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            let weight = f64::from(*weight);
            let (least, most) = BOUNDS[class];
            all += weight * middle(least, most);
            cut += weight * capped_middle(least, most, cap);
        }
        // the sum is exact where the classes are not: they only say how much of it a cap takes away
        (mean * ratio(cut, all)).min(cap)
    }

    /// The length that so many answers in a hundred do not exceed, tokens.
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let all: f64 = self.classes.iter().copied().map(f64::from).sum();
        if all < f64::from(f32::MIN_POSITIVE) {
            return None;
        }
        let mut below = all * f64::from(percent.min(100)) / 100.0;
        let mut last = 0.0;
        for (class, weight) in self.classes.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            let weight = f64::from(*weight);
            let (least, most) = BOUNDS[class];
            if below <= weight {
                return Some((least + (most - least) * below / weight).ceil() as u64);
            }
            below -= weight;
            last = most;
        }
        Some(last.ceil() as u64)
    }
}

/// What to expect of a deployment's next answer on a route.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The answers of all deployments of the route.
    pub route: &'a Learned,
    /// Those of this one.
    pub deployment: &'a Learned,
}

impl Expectation<'_> {
    /// Output tokens, thousandths of one; with a cap, of an answer that is cut there. Nothing where no answer was seen.
    ///
    /// A deployment of which little is known is taken for one like the route's others.
    pub fn mean_output_milli(self, cap: Option<u64>) -> Option<u64> {
        let mean = self.blend(|learned| learned.mean(cap))?;
        Some((mean * MILLI).round() as u64)
    }

    /// The part of the input that comes from the provider's own cache, thousandths. Nothing where no answer was seen.
    pub fn cached_permille(self) -> Option<u16> {
        let share = self.blend(|learned| ratio(learned.cached, learned.prompt))?;
        Some((share.clamp(0.0, 1.0) * 1_000.0).round() as u16)
    }

    /// The deployment's figure, drawn towards the route's.
    fn blend(self, figure: impl Fn(&Learned) -> f64) -> Option<f64> {
        let own = self.deployment.weight;
        // what the route knows of others is at most all it knows
        let prior = if self.route.weight > 0.0 { PRIOR_SAMPLES } else { 0.0 };
        let weight = own + prior;
        (weight > 0.0).then(|| (own * figure(self.deployment) + prior * figure(self.route)) / weight)
    }
}

/// The class of a length.
fn class_of(tokens: u64) -> usize {
    match tokens {
        0 => 0,
        _ => (1 + ((tokens as f64).log2() * CLASSES_IN_A_DOUBLING + 1e-9) as usize).min(CLASSES - 1),
    }
}

/// The least and the greatest length of each class.
static BOUNDS: LazyLock<[(f64, f64); CLASSES]> = LazyLock::new(|| std::array::from_fn(bounds));

fn bounds(class: usize) -> (f64, f64) {
    let begin = |class: usize| ((class as f64 - 1.0) / CLASSES_IN_A_DOUBLING).exp2().ceil();
    match class {
        0 => (0.0, 0.0),
        _ => (begin(class), (begin(class + 1) - 1.0).max(begin(class))),
    }
}

fn middle(least: f64, most: f64) -> f64 {
    f64::midpoint(least, most)
}

/// The mean of lengths spread evenly over a class, each cut at the cap.
fn capped_middle(least: f64, most: f64, cap: f64) -> f64 {
    if cap >= most {
        return middle(least, most);
    }
    if cap <= least {
        return cap;
    }
    let below = (cap - least) / (most - least);
    below * middle(least, cap) + (1.0 - below) * cap
}

/// 0 where there is nothing to divide by.
fn ratio(sum: f64, by: f64) -> f64 {
    if by > f64::MIN_POSITIVE { sum / by } else { 0.0 }
}

#[cfg(test)]
mod tests;
