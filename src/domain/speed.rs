//! How fast a deployment is, measured as it answers: the time to its first token, and the time for each one after it.
//!
//! Measurements fade with time: what was slow an hour ago says little, and in the end nothing. A failure is no
//! measurement, or what fails fast would look fast. Times are ms of a clock that does not step back.

/// After so long a measurement counts half.
const HALF_LIFE_MS: f64 = 300_000.0;
/// With less left of all measurements, nothing is known.
const LEAST_WEIGHT: f64 = 0.1;
/// Measurements never weigh more than so many: where thousands of answers come, tens of them show a change, and what was
/// slow is forgotten after three quarters of an hour.
const MOST_WEIGHT: f64 = 50.0;
/// A stream says no more about the time for a token than one of so many: one very long answer does not speak for all.
const COUNTED_TOKENS: f64 = 256.0;
/// No answer takes longer: a day, in µs.
const LONGEST_US: u64 = 86_400_000_000;
/// No answer has more tokens.
const MOST_TOKENS: u64 = 1 << 30;

/// What was measured of one answer that came whole and well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A stream.
    Stream {
        /// From the request to the first token, µs.
        ttft_us: u64,
        /// From the request to the end, µs.
        total_us: u64,
        /// Tokens that came, the first included.
        tokens: u64,
    },
    /// An answer in one piece.
    Whole {
        /// From the request to the end, µs.
        total_us: u64,
        /// Tokens in it.
        tokens: u64,
    },
}

/// How fast a deployment is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// From the request to the first token, µs.
    pub ttft_us: u64,
    /// For each token after it, µs.
    pub per_token_us: u64,
    /// How many measurements that rests on, the older ones counting less.
    pub weight: f64,
}

impl Speed {
    /// How long an answer of so many tokens takes, µs.
    pub const fn expected_us(&self, tokens: u64) -> u64 {
        self.ttft_us.saturating_add(self.per_token_us.saturating_mul(tokens.saturating_sub(1)))
    }
}

/// The measurements of one deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meter {
    at_ms: i64,
    streams: Streams,
    wholes: Wholes,
}

impl Meter {
    /// Takes a measurement in.
    pub fn note(&mut self, observation: Observation, now_ms: i64) {
        let faded = self.kept(now_ms);
        let weight = (self.streams.weight + self.wholes.weight) * faded;
        let kept = faded * if weight > MOST_WEIGHT - 1.0 { (MOST_WEIGHT - 1.0) / weight } else { 1.0 };
        self.at_ms = self.at_ms.max(now_ms);
        self.streams.fade(kept);
        self.wholes.fade(kept);
        match observation {
            Observation::Stream { ttft_us, total_us, tokens } => {
                let total_us = total_us.min(LONGEST_US);
                self.streams.note(ttft_us.min(total_us), total_us, tokens.min(MOST_TOKENS));
            }
            Observation::Whole { total_us, tokens } => {
                self.wholes.note(total_us.min(LONGEST_US), tokens.min(MOST_TOKENS));
            }
        }
    }

    /// What it says now; nothing where too little was measured, or too long ago.
    ///
    /// Streams show both times; answers in one piece only their sum, of which a line is drawn through their lengths.
    /// Those of which there are more speak.
    pub fn estimate(&self, now_ms: i64) -> Option<Speed> {
        let weight = (self.streams.weight + self.wholes.weight) * self.kept(now_ms);
        if weight < LEAST_WEIGHT {
            return None;
        }
        let (ttft_us, per_token_us) = match self.streams.weight >= self.wholes.weight {
            true => self.streams.times_us(),
            false => self.wholes.times_us(),
        };
        Some(Speed { ttft_us: ttft_us.round() as u64, per_token_us: per_token_us.round() as u64, weight })
    }

    /// The share of the measurements that has not faded.
    fn kept(&self, now_ms: i64) -> f64 {
        let elapsed = now_ms.saturating_sub(self.at_ms).max(0) as f64;
        (-elapsed / HALF_LIFE_MS).exp2()
    }
}

/// Sums over streams.
#[derive(Debug, Clone, Default, PartialEq)]
struct Streams {
    weight: f64,
    ttft_us: f64,
    /// Of the tokens after the first.
    rest_us: f64,
    rest_tokens: f64,
}

impl Streams {
    fn fade(&mut self, kept: f64) {
        for sum in [&mut self.weight, &mut self.ttft_us, &mut self.rest_us, &mut self.rest_tokens] {
            *sum *= kept;
        }
    }

    fn note(&mut self, ttft_us: u64, total_us: u64, tokens: u64) {
        self.weight += 1.0;
        self.ttft_us += ttft_us as f64;
        if tokens > 1 {
            let rest = (tokens - 1) as f64;
            let counted = rest.min(COUNTED_TOKENS);
            self.rest_us += (total_us - ttft_us) as f64 * counted / rest;
            self.rest_tokens += counted;
        }
    }

    /// To the first token, and for each further one.
    fn times_us(&self) -> (f64, f64) {
        (ratio(self.ttft_us, self.weight), ratio(self.rest_us, self.rest_tokens))
    }
}

/// Sums over answers in one piece: x is the number of tokens after the first, y the time in µs.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wholes {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Wholes {
    fn fade(&mut self, kept: f64) {
        for sum in [&mut self.weight, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy] {
            *sum *= kept;
        }
    }

    fn note(&mut self, total_us: u64, tokens: u64) {
        let (x, y) = (tokens.saturating_sub(1) as f64, total_us as f64);
        self.weight += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// The line of least squares, with neither time below 0. Where the answers are about as long as each other there
    /// is none to see: then all the time goes to the tokens.
    fn times_us(&self) -> (f64, f64) {
        let (mean_x, mean_y) = (ratio(self.x, self.weight), ratio(self.y, self.weight));
        let variance = ratio(self.xx, self.weight) - mean_x * mean_x;
        let covariance = ratio(self.xy, self.weight) - mean_x * mean_y;
        let steepest = ratio(mean_y, mean_x);
        let slope = match variance > 0.01 * mean_x * mean_x {
            true => ratio(covariance, variance).clamp(0.0, steepest),
            false => steepest,
        };
        let ttft_us = (mean_y - slope * mean_x).max(0.0);
        (ttft_us, slope)
    }
}

/// 0 where there is nothing to divide by.
fn ratio(sum: f64, by: f64) -> f64 {
    if by > f64::MIN_POSITIVE { sum / by } else { 0.0 }
}

#[cfg(test)]
mod tests;
