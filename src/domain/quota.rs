//! A deployment's own quota at its provider: how much of it is left, as its answers say and the operator says.
//!
//! A quota is a bucket that fills evenly: a provider's "reset" is the time until it is full again, not how long to wait
//! (OpenAI, rate limits, 2026-11; Azure's are plain seconds). Between two answers what we sent is taken from it.
//! Providers count what a request may use at most, so nothing comes back when it used less.
//! Times are ms of a clock that does not step back.

use super::limit::RateLimits;
use super::patience::QuotaSeen;

/// A provider's quotas are by the minute, unless its resets say otherwise.
const MINUTE_MS: u64 = 60_000;
/// The longest reset that is believed: a day.
const LONGEST_MS: u64 = 86_400_000;
/// The largest quota that is believed.
const MOST: u64 = 1 << 50;

/// Where a request stands among all that were sent: its answer speaks of what was left at that moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    requests: u64,
    tokens: u64,
}

/// The quota of one deployment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quota {
    requests: Kind,
    tokens: Kind,
}

impl Quota {
    /// What the operator says; what the answers said stays.
    pub fn set(&mut self, limits: &RateLimits, now_ms: i64) {
        self.requests.set(limits.requests_per_minute, now_ms);
        self.tokens.set(limits.tokens_per_minute, now_ms);
    }

    /// Whether a request of so many tokens fits. One larger than the whole quota is let through where it is full: our
    /// count of it may be above the provider's.
    ///
    /// # Errors
    ///
    /// With the ms after which it does, if nothing else is sent.
    pub fn fits(&self, tokens: u64, now_ms: i64) -> Result<(), u64> {
        let wait_ms = self.requests.wait_ms(1, now_ms).max(self.tokens.wait_ms(tokens, now_ms));
        if wait_ms == 0 { Ok(()) } else { Err(wait_ms) }
    }

    /// Takes a request of so many tokens, whether or not it fits.
    pub fn take(&mut self, tokens: u64, now_ms: i64) -> Mark {
        Mark { requests: self.requests.take(1, now_ms), tokens: self.tokens.take(tokens, now_ms) }
    }

    /// Believes an answer's headers; what was sent after its request is still taken off.
    pub fn seen(&mut self, seen: &QuotaSeen, mark: Mark, now_ms: i64) {
        let QuotaSeen { limit_requests, remaining_requests, reset_requests_ms, .. } = *seen;
        self.requests.seen(limit_requests, remaining_requests, reset_requests_ms, mark.requests, now_ms);
        let QuotaSeen { limit_tokens, remaining_tokens, reset_tokens_ms, .. } = *seen;
        self.tokens.seen(limit_tokens, remaining_tokens, reset_tokens_ms, mark.tokens, now_ms);
    }

    /// The part that is left of the scarcer of the two, thousandths; nothing where no quota is known.
    pub fn left_share_permille(&self, now_ms: i64) -> Option<u16> {
        [&self.requests, &self.tokens].into_iter().filter_map(|kind| kind.share(now_ms)).min()
    }

    /// Tokens in a minute, where somebody has said: how large the deployment is beside others of a pool.
    pub fn tokens_per_minute(&self) -> Option<u64> {
        let buckets = self.tokens.buckets();
        buckets.map(|bucket| (bucket.limit / bucket.period_ms * MINUTE_MS as f64) as u64).min()
    }
}

/// Requests, or tokens.
#[derive(Debug, Clone, Default, PartialEq)]
struct Kind {
    /// As the operator says.
    told: Option<Bucket>,
    /// As the answers say.
    seen: Option<Bucket>,
    /// Taken since the beginning.
    taken: u64,
}

impl Kind {
    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.told.iter().chain(&self.seen)
    }

    fn set(&mut self, limit: Option<u64>, now_ms: i64) {
        let limit = limit.map(|limit| limit.clamp(1, MOST) as f64);
        if self.told.as_ref().map(|bucket| bucket.limit) != limit {
            self.told = limit.map(|limit| Bucket::full(limit, now_ms));
        }
    }

    fn wait_ms(&self, amount: u64, now_ms: i64) -> u64 {
        self.buckets().map(|bucket| bucket.wait_ms(amount as f64, now_ms)).max().unwrap_or(0)
    }

    fn take(&mut self, amount: u64, now_ms: i64) -> u64 {
        let amount = amount.min(MOST);
        for bucket in self.told.iter_mut().chain(&mut self.seen) {
            bucket.take(amount as f64, now_ms);
        }
        self.taken = self.taken.wrapping_add(amount);
        self.taken
    }

    fn seen(&mut self, limit: Option<u64>, left: Option<u64>, reset_ms: Option<u64>, mark: u64, now_ms: i64) {
        let known = self.seen.as_ref().map(|bucket| bucket.limit);
        let limit = limit.filter(|limit| (1..=MOST).contains(limit)).map(|limit| limit as f64).or(known);
        let (Some(limit), Some(left)) = (limit, left) else { return };
        let left = (left.min(MOST) as f64).min(limit);
        let since = self.taken.wrapping_sub(mark) as f64;
        let period_ms = period_ms(limit, left, reset_ms);
        let left = (left - since).max(-limit);
        self.seen = Some(Bucket { limit, left, at_ms: now_ms, period_ms });
    }

    fn share(&self, now_ms: i64) -> Option<u16> {
        let shares = self.buckets().map(|bucket| bucket.left(now_ms).max(0.0) / bucket.limit);
        shares.map(|share| (share * 1_000.0) as u16).min()
    }
}

/// How long an empty bucket takes to fill, ms, as its reset shows it.
///
/// Some count in windows, whose reset says nothing of a bucket that is nearly full: nothing beyond a minute is concluded
/// from a shorter reset.
fn period_ms(limit: f64, left: f64, reset_ms: Option<u64>) -> f64 {
    let Some(reset_ms) = reset_ms.filter(|reset_ms| *reset_ms > 0) else { return MINUTE_MS as f64 };
    let reset_ms = reset_ms.min(LONGEST_MS) as f64;
    let missing = (limit - left).max(1.0);
    (reset_ms * limit / missing).clamp(1_000.0, reset_ms.max(MINUTE_MS as f64))
}

#[derive(Debug, Clone, PartialEq)]
struct Bucket {
    /// At least 1.
    limit: f64,
    /// At `at_ms`; below 0 where more was sent than fitted.
    left: f64,
    at_ms: i64,
    /// How long it takes to fill.
    period_ms: f64,
}

impl Bucket {
    const fn full(limit: f64, now_ms: i64) -> Self {
        Self { limit, left: limit, at_ms: now_ms, period_ms: MINUTE_MS as f64 }
    }

    fn left(&self, now_ms: i64) -> f64 {
        let elapsed = now_ms.saturating_sub(self.at_ms).max(0) as f64;
        (self.left + elapsed * self.limit / self.period_ms).min(self.limit)
    }

    fn take(&mut self, amount: f64, now_ms: i64) {
        self.left = (self.left(now_ms) - amount).max(-self.limit);
        self.at_ms = self.at_ms.max(now_ms);
    }

    fn wait_ms(&self, amount: f64, now_ms: i64) -> u64 {
        let short = amount.min(self.limit) - self.left(now_ms);
        if short <= 0.0 { 0 } else { (short * self.period_ms / self.limit).ceil() as u64 }
    }
}

#[cfg(test)]
mod tests;
