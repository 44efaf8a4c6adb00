//! What a model costs: per token by class, service tier and length of the input; per trained token; by the hour, of a
//! deployment, of training or of our own machine's computing. Prices have periods; which one counts is a question of
//! time, and time is an argument.
//!
//! A price never guesses downwards: what is not listed apart costs what the class above it costs.

pub mod book;
pub mod litellm;
pub mod rates;
pub mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hosting::{Billing, Rate};
use super::money::{Cost, PerToken, Usd, hourly};
use super::usage::TokenCounts;
use crate::domain::service_tier::ServiceTier;
use rates::{Class, TokenPrices};

const DAY_MS: i64 = 86_400_000;
/// A price this many times another one of the same model is taken for a mistake in the unit.
const SUSPICIOUS_RATIO: i128 = 100;

/// One period of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// What tokens cost.
    pub tokens: TokenPrices,
    /// All the rest.
    pub terms: Terms,
}

/// A period, where its figures come from, and what does not cost by token of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// From this moment on, ms since 1970 UTC; `i64::MIN` for ever since.
    pub from_ms: i64,
    /// Up to but not at this moment, ms since 1970 UTC; `i64::MAX` for no end.
    pub until_ms: i64,
    /// When the provider turns the model off, ms since 1970 UTC.
    pub shutdown_ms: Option<i64>,
    /// A trained token; each epoch counts.
    pub training: Option<PerToken>,
    /// The same by where it is trained, in the provider's words, such as `globalstandard`.
    pub training_by_type: BTreeMap<Arc<str>, PerToken>,
    /// Trained tokens that cost nothing.
    pub free_training: Option<FreeTraining>,
    /// An hour of training.
    pub training_hour: Option<Hourly>,
    /// An hour of a deployment, used or not.
    pub hosting: Option<Hosting>,
    /// An hour that a worker of ours computes, answering or training.
    pub compute_hour: Option<Usd>,
    /// Where the figures come from.
    pub source: Arc<str>,
    /// Whether they were found there; else they are from memory.
    pub verified: bool,
    /// What else should be known.
    pub note: Option<Arc<str>>,
    /// The base model's row that the token prices were taken from.
    pub tokens_of: Option<Arc<str>>,
}

/// A price by the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hourly {
    /// For a whole hour.
    pub per_hour: Usd,
    /// Time is billed in steps of so many seconds, rounded up.
    pub increment_seconds: u64,
}

/// What a deployment costs by the hour, by the provider's name for the kind of deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosting {
    /// Where the kind is not listed.
    pub any: Option<Usd>,
    /// Such as `DeveloperTier`.
    pub by_sku: BTreeMap<Arc<str>, Usd>,
    /// How time is rounded; none where nobody has said, or compared it with a bill.
    pub billing: Option<Billing>,
}

impl Hosting {
    /// What an hour of a kind of deployment costs; none where none is said for it.
    pub fn per_hour(&self, sku: Option<&str>) -> Option<Usd> {
        let is_it = |listed: &&Arc<str>| sku.is_some_and(|sku| listed.eq_ignore_ascii_case(sku));
        let listed = self.by_sku.keys().find(is_it).and_then(|sku| self.by_sku.get(sku));
        listed.copied().or(self.any)
    }

    /// What the clock goes by for a kind of deployment.
    pub fn rate(&self, sku: Option<&str>) -> Option<Rate> {
        Some(Rate { per_hour: self.per_hour(sku)?, billing: self.billing.unwrap_or_default() })
    }
}

/// Trained tokens that a provider's account has free on each UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeTraining {
    /// How many a day.
    pub tokens_per_day: u64,
    /// Up to but not on this day, ms since 1970 UTC.
    pub until_ms: i64,
}

/// One line of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Which class of tokens.
    pub class: Class,
    /// How many.
    pub tokens: u64,
    /// What one costs.
    pub price: PerToken,
    /// What they cost; each line is rounded up for itself, the total once.
    pub cost: Usd,
}

impl Price {
    /// What tokens cost. The tier is the one that the request was served in.
    pub fn cost(&self, counts: &TokenCounts, tier: ServiceTier) -> Usd {
        self.split(counts, tier)
            .fold(self.computing(counts.compute_us), |cost, (_, tokens, price)| cost.and(tokens, price))
            .round_up()
    }

    /// What our own machine's time costs, to be added to.
    pub fn computing(&self, compute_us: u64) -> Cost {
        Cost::default().and_micros(compute_us, self.terms.compute_hour.unwrap_or_default())
    }

    /// The same computation, line by line, without classes that were not used.
    pub fn breakdown(&self, counts: &TokenCounts, tier: ServiceTier) -> Vec<Line> {
        self.split(counts, tier)
            .filter(|(_, tokens, _)| *tokens > 0)
            .map(|(class, tokens, price)| {
                let cost = Cost::default().and(tokens, price).round_up();
                Line { class, tokens, price, cost }
            })
            .collect()
    }

    fn split(
        &self,
        counts: &TokenCounts,
        tier: ServiceTier,
    ) -> impl Iterator<Item = (Class, u64, PerToken)> + use<> {
        let rates = *self.tokens.rates(counts.prompt, tier);
        rates.split(counts).into_iter().map(move |(class, tokens)| (class, tokens, rates.of(class)))
    }

    /// The most a token of input can cost in a request with at most so many of them, whichever class it falls into and
    /// whichever tier serves it. A server may serve a request that asked for a cheaper tier at the default one.
    pub fn dearest_input(&self, input_tokens: u64, tier: ServiceTier) -> PerToken {
        self.tokens.dearest(&Class::INPUT, input_tokens, tier)
    }

    /// The most a token of output can cost, in the same sense.
    pub fn dearest_output(&self, input_tokens: u64, tier: ServiceTier) -> PerToken {
        self.tokens.dearest(&Class::OUTPUT, input_tokens, tier)
    }

    /// What many requests cost: `sums` are those of all of them. How long they are, as far as that decides, is their mean.
    pub fn cost_of_many(&self, sums: &TokenCounts, requests: u64, tier: ServiceTier) -> Usd {
        let mean = sums.prompt.div_ceil(requests.max(1));
        let rates = self.tokens.rates(mean, tier);
        let add = |cost: Cost, (class, tokens)| cost.and(tokens, rates.of(class));
        rates.split(sums).into_iter().fold(self.computing(sums.compute_us), add).round_up()
    }

    /// What training costs by the token, epochs counted; none where it is not sold by the token. `used_today` is what
    /// the provider's account has trained before on this UTC day: free tokens are for the whole account.
    pub fn training_cost(&self, trained_tokens: u64, at_ms: i64, used_today: u64) -> Option<Usd> {
        let price = self.terms.training?;
        let free = self.free_training_tokens(at_ms).saturating_sub(used_today);
        Some(Cost::default().and(trained_tokens.saturating_sub(free), price).round_up())
    }

    /// Trained tokens that are free on the UTC day of a moment.
    pub fn free_training_tokens(&self, at_ms: i64) -> u64 {
        let day = at_ms.div_euclid(DAY_MS) * DAY_MS;
        match self.terms.free_training {
            Some(free) if day < free.until_ms => free.tokens_per_day,
            _ => 0,
        }
    }

    /// What training costs by the hour; none where it is not sold by the hour.
    pub fn training_time_cost(&self, seconds: u64) -> Option<Usd> {
        let price = self.terms.training_hour()?;
        Some(hourly(seconds, price.per_hour, price.increment_seconds))
    }

    /// What a deployment costs that stood so long, used or not; none where none is said for its kind.
    pub fn hosting_cost(&self, seconds: u64, sku: Option<&str>) -> Option<Usd> {
        let rate = self.terms.hosting.as_ref()?.rate(sku)?;
        let step_seconds = u64::try_from(rate.billing.step_ms() / 1_000).unwrap_or(1);
        Some(hourly(seconds, rate.per_hour, step_seconds))
    }

    /// Says what differs beyond belief from another price of the same model, when something does.
    pub fn far_from(&self, other: &Self) -> Option<String> {
        [Class::Input, Class::Output].into_iter().find_map(|class| {
            let (new, old) = (self.tokens.standard().of(class), other.tokens.standard().of(class));
            let (high, low) = (i128::from(new.max(old).picos()), i128::from(new.min(old).picos()));
            (low > 0 && high >= low * SUSPICIOUS_RATIO).then(|| {
                format!(
                    "{} USD per 1M tokens of {} is far from the {} USD known for this model: is it per 1K, or per \
                     token?",
                    new.per_million(),
                    class.name(),
                    old.per_million()
                )
            })
        })
    }

    /// Nothing for anything, said to be so: for deployments that cost nothing by use.
    pub fn free(source: &str) -> Self {
        Self {
            tokens: TokenPrices::default(),
            terms: Terms {
                from_ms: i64::MIN,
                until_ms: i64::MAX,
                shutdown_ms: None,
                training: None,
                training_by_type: BTreeMap::new(),
                free_training: None,
                training_hour: None,
                hosting: None,
                compute_hour: None,
                source: source.into(),
                verified: true,
                note: None,
                tokens_of: None,
            },
        }
    }
}

impl Terms {
    /// What a trained token costs where it is trained so; the usual price where nobody says how, or where no words are
    /// listed. Where some are and this one is not, nobody knows: Azure's regional training is dearer than the listed.
    pub fn training_of(&self, kind: Option<&str>) -> Option<PerToken> {
        let is_it = |listed: &&Arc<str>| kind.is_some_and(|kind| listed.eq_ignore_ascii_case(kind));
        let listed = self.training_by_type.keys().find(is_it);
        match listed.and_then(|listed| self.training_by_type.get(listed)) {
            None if kind.is_none() || self.training_by_type.is_empty() => self.training,
            found => found.copied(),
        }
    }

    /// An hour of training: on a machine of ours it costs what its computing costs, where nothing else is said.
    pub fn training_hour(&self) -> Option<Hourly> {
        let computing = |per_hour| Hourly { per_hour, increment_seconds: 1 };
        self.training_hour.or(self.compute_hour.map(computing))
    }

    /// Whether a moment is in the period.
    pub const fn covers(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.until_ms
    }
}
