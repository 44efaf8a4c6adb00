//! What a job is expected to cost, what it has cost, and from which figures.
//!
//! Training is billed by trained tokens, every epoch counted, or by the hours that it ran. The price is frozen when the job
//! is made: a change of the price book does not change what was agreed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::money::{PerToken, Usd};
use crate::domain::price::{FreeTraining, Hourly, Price};
use crate::domain::usage::UsageSource;

/// Training by the hour is expected to take so many tokens a second, where no pace is known. It only decides how much is
/// held at first: what runs longer is held for anew.
const EXPECTED_TOKENS_PER_SECOND: u64 = 250;
/// The least time that is held for, seconds.
const LEAST_SECONDS: u64 = 3_600;
const DAY_MS: i64 = 86_400_000;

/// What training costs, frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingPrice {
    /// The row it stands in.
    pub row: Arc<str>,
    /// The version of the price book.
    pub version: Arc<str>,
    /// What it goes by.
    pub rate: Rate,
    /// Trained tokens that the provider's account has free on each UTC day.
    pub free: Option<Free>,
}

/// What a price goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// A trained token, pico-dollars.
    PerToken {
        /// So much.
        picos: i64,
    },
    /// Time.
    PerHour {
        /// A whole hour, nano-dollars.
        nanos: i64,
        /// Billed in steps of so many seconds, rounded up.
        increment_seconds: u64,
    },
}

/// Trained tokens that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// How many a UTC day.
    pub tokens_per_day: u64,
    /// Up to but not on this day, ms since 1970 UTC.
    pub until_ms: i64,
}

impl TrainingPrice {
    /// The training part of a price; none where it has no such part. `kind` is where it is trained, in the provider's
    /// words, such as `globalstandard`.
    pub fn of(price: &Price, kind: Option<&str>, row: &Arc<str>, version: &Arc<str>) -> Option<Self> {
        let terms = &price.terms;
        let rate = match (terms.training_of(kind), terms.training_hour()) {
            (Some(price), _) => Rate::PerToken { picos: price.picos() },
            (None, Some(hour)) => {
                Rate::PerHour { nanos: hour.per_hour.nanos(), increment_seconds: hour.increment_seconds }
            }
            (None, None) => return None,
        };
        let free = terms
            .free_training
            .map(|free| Free { tokens_per_day: free.tokens_per_day, until_ms: free.until_ms });
        Some(Self { row: Arc::clone(row), version: Arc::clone(version), rate, free })
    }

    /// Nothing for anything: of a machine of one's own without a price.
    pub fn nothing(row: &str) -> Self {
        Self { row: row.into(), version: "free".into(), rate: Rate::PerToken { picos: 0 }, free: None }
    }

    /// Whether it is for nothing.
    pub const fn is_nothing(&self) -> bool {
        matches!(self.rate, Rate::PerToken { picos: 0 } | Rate::PerHour { nanos: 0, .. })
    }

    /// Whether time is billed.
    pub const fn is_hourly(&self) -> bool {
        matches!(self.rate, Rate::PerHour { .. })
    }

    /// What so many trained tokens cost on the UTC day of a moment; `used_today` is what the provider's account has
    /// trained before on that day.
    pub fn of_tokens(&self, tokens: u64, at_ms: i64, used_today: u64) -> Usd {
        self.price().training_cost(tokens, at_ms, used_today).unwrap_or_default()
    }

    /// The most that so many trained tokens cost: without anything free.
    pub fn of_tokens_at_most(&self, tokens: u64) -> Usd {
        self.of_tokens(tokens, 0, u64::MAX)
    }

    /// What so much time costs.
    pub fn of_seconds(&self, seconds: u64) -> Usd {
        self.price().training_time_cost(seconds).unwrap_or_default()
    }

    /// In the form that knows how to count.
    fn price(&self) -> Price {
        let mut price = Price::free(&self.row);
        match self.rate {
            Rate::PerToken { picos } => price.terms.training = PerToken::from_picos(picos),
            Rate::PerHour { nanos, increment_seconds } => {
                price.terms.training_hour =
                    Some(Hourly { per_hour: Usd::from_nanos(nanos), increment_seconds });
            }
        }
        price.terms.free_training = self
            .free
            .map(|free| FreeTraining { tokens_per_day: free.tokens_per_day, until_ms: free.until_ms });
        price
    }
}

/// What a job is expected to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Billed tokens of one pass over the data.
    pub tokens: u64,
    /// So many passes.
    pub epochs: u64,
    /// The provider chooses how many: `epochs` is what is thought.
    pub auto: bool,
    /// What it costs.
    pub price: TrainingPrice,
    /// Tokens a second that are trained there, as the operator says or as the last jobs did; none where nobody knows.
    #[serde(default)]
    pub pace: Option<u64>,
}

impl Quote {
    /// Billed tokens of all passes.
    pub const fn all_tokens(&self) -> u64 {
        self.tokens.saturating_mul(self.epochs)
    }

    /// What is held, seconds of it where time is billed.
    pub fn seconds(&self) -> u64 {
        let pace = self.pace.unwrap_or(EXPECTED_TOKENS_PER_SECOND).max(1);
        self.all_tokens().div_ceil(pace).max(LEAST_SECONDS)
    }

    /// What is held: nothing free is counted on, as another job of the account may use it first.
    pub fn amount(&self) -> Usd {
        match self.price.rate {
            Rate::PerToken { .. } => self.price.of_tokens_at_most(self.all_tokens()),
            Rate::PerHour { .. } => self.price.of_seconds(self.seconds()),
        }
    }
}

/// What a job has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Trained tokens, every epoch counted.
    pub tokens: u64,
    /// Time that it ran, seconds.
    pub seconds: u64,
    /// What of it a worker of ours says that it computed, seconds.
    pub computed_seconds: u64,
    /// How they are known.
    pub source: UsageSource,
}

impl Used {
    /// Of a job that never ran.
    pub const NOTHING: Self =
        Self { tokens: 0, seconds: 0, computed_seconds: 0, source: UsageSource::Reported };
}

/// What a job has cost: written down before it is booked, so that it is booked as it was once computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// Trained tokens, every epoch counted.
    pub tokens: u64,
    /// Time that it ran, seconds.
    pub seconds: u64,
    /// What of it a worker of ours says that it computed, seconds.
    #[serde(default)]
    pub computed_seconds: u64,
    /// How they are known.
    pub source: UsageSource,
    /// What they cost, nano-dollars.
    pub nanos: i64,
    /// The UTC day whose free tokens it used, counted from 1970-01-01.
    pub day: i64,
}

impl Bill {
    /// Computes it. `at_ms` is when the job ended; `used_today` is what other jobs of the provider's account have trained
    /// on that UTC day.
    pub fn of(used: Used, price: &TrainingPrice, at_ms: i64, used_today: u64) -> Self {
        let cost = match price.rate {
            Rate::PerToken { .. } => price.of_tokens(used.tokens, at_ms, used_today),
            Rate::PerHour { .. } => price.of_seconds(used.seconds),
        };
        Self {
            tokens: used.tokens,
            seconds: used.seconds,
            computed_seconds: used.computed_seconds,
            source: used.source,
            nanos: cost.nanos(),
            day: day_of(at_ms),
        }
    }

    /// What it comes to.
    pub const fn cost(&self) -> Usd {
        Usd::from_nanos(self.nanos)
    }

    /// Whether anything was used.
    pub const fn is_nothing(&self) -> bool {
        self.nanos == 0 && self.tokens == 0
    }
}

/// The UTC day of a moment, counted from 1970-01-01.
pub const fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_token(per_million: &str, free: Option<Free>) -> TrainingPrice {
        let picos = PerToken::parse_per_million(per_million).expect("a price").picos();
        TrainingPrice { row: "r".into(), version: "v".into(), rate: Rate::PerToken { picos }, free }
    }

    fn used(tokens: u64, seconds: u64) -> Used {
        Used { tokens, seconds, computed_seconds: 0, source: UsageSource::Reported }
    }

    #[test]
    fn tokens_time_and_what_is_free() {
        // OpenAI's example of August 2023: 100,000 tokens, three epochs, 8 USD a million
        let quote =
            Quote { tokens: 100_000, epochs: 3, auto: false, price: per_token("8", None), pace: None };
        assert_eq!(quote.amount().to_string(), "2.40");
        let bill = Bill::of(used(300_000, 0), &quote.price, 0, 0);
        assert_eq!((bill.cost().to_string().as_str(), bill.is_nothing()), ("2.40", false));
        // Azure, 2023: 1 h 20 min in quarters of an hour at 102 USD
        let rate = Rate::PerHour { nanos: Usd::dollars(102).nanos(), increment_seconds: 900 };
        let hourly = TrainingPrice { rate, ..quote.price };
        assert_eq!(Bill::of(used(1_000_000, 4_800), &hourly, 0, 0).cost().to_string(), "153.00");
        let quote = Quote { price: hourly, ..quote };
        assert_eq!(quote.amount().to_string(), "102.00", "an hour at least");
        // 300,000 tokens at 40 a second: 2 h 5 min, in quarters of an hour
        let slow = Quote { pace: Some(40), ..quote };
        assert_eq!((slow.seconds(), slow.amount().to_string().as_str()), (7_500, "229.50"));
        // 2M free a day, up to and including 23 September 2024 (1727049600 is its beginning)
        let until_ms = 1_727_136_000_000;
        let mini = per_token("3", Some(Free { tokens_per_day: 2_000_000, until_ms }));
        for (tokens, at_ms, before, cost) in [
            (3_000_000, until_ms - 1, 0, "3.00"),
            (3_000_000, until_ms - 1, 1_500_000, "7.50"),
            (2_000_000, until_ms - DAY_MS, 0, "0.00"),
            (3_000_000, until_ms, 0, "9.00"),
        ] {
            let bill = Bill::of(used(tokens, 0), &mini, at_ms, before);
            assert_eq!(bill.cost().to_string(), cost, "{tokens} at {at_ms} after {before}");
            assert_eq!(bill.day, at_ms / DAY_MS);
        }
        let quote = Quote { tokens: 1_000_000, epochs: 2, auto: true, price: mini, pace: None };
        assert_eq!(quote.amount().to_string(), "6.00", "nothing free is counted on");
        assert!(TrainingPrice::nothing("x").is_nothing());
        assert_eq!(TrainingPrice::nothing("x").of_tokens(5, 0, 0), Usd::ZERO);
    }
}
