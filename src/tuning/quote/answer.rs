//! The answer: a quote as it is told.

use serde::Serialize;

use super::{Standing, Studied, Terms, Traffic};
use crate::domain::economics::{Month, Tuition};
use crate::domain::money::Usd;

/// A figure, or what is missing and how it is set. It is never taken for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Figure<T> {
    /// It is known.
    Known(T),
    /// It is not.
    Unknown {
        /// What is missing and how it is set.
        unknown: String,
    },
}

impl<T> Figure<T> {
    /// What is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown { .. } => None,
        }
    }

    pub(super) fn missing(words: impl Into<String>) -> Self {
        Self::Unknown { unknown: words.into() }
    }
}

/// What training costs at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Training {
    /// In all, and how long.
    #[serde(flatten)]
    pub tuition: Tuition,
    /// What it goes by, in words.
    pub by: String,
    /// The row of the price book.
    pub row: String,
    /// Whether the figures were found where the row says; else they are from memory.
    pub verified: bool,
}

/// One way to answer the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The base model with examples in its prompt.
    Prompt,
    /// The base model with passages that were looked up.
    Retrieval,
    /// The fine-tuned model.
    FineTune,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Prompt, Self::Retrieval, Self::FineTune];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Prompt => "a longer prompt",
            Self::Retrieval => "retrieval",
            Self::FineTune => "fine-tuning",
        }
    }
}

/// A month of one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Which way.
    pub way: Way,
    /// What the traffic's month costs.
    pub month: Figure<Bill>,
    /// Of a longer prompt that is always the same: what it costs at the least, where the provider's cache has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_usd: Option<Usd>,
}

/// A month's figures and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bill {
    #[serde(flatten)]
    /// The parts.
    pub month: Month,
    /// All of it.
    pub total_usd: Usd,
}

/// From which traffic on one of two is cheaper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// One of them.
    pub first: String,
    /// The other.
    pub second: String,
    /// Tokens a month at which both cost the same; none where one is always cheaper.
    pub tokens_a_month: Option<u64>,
    /// As many requests, of the traffic's usual length.
    pub requests_a_month: Option<u64>,
    /// In words.
    pub words: String,
}

/// What one target asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetQuote {
    /// The name that a job is created with.
    pub target: String,
    /// Whose it is.
    pub provider: String,
    /// The base model.
    pub base: String,
    /// Whether one can train there.
    pub standing: Standing,
    /// What should be known.
    pub notes: Vec<String>,
    /// The data set, as this model counts it.
    pub dataset: Figure<Studied>,
    /// What training costs, once.
    pub training: Figure<Training>,
    /// What a month of the deployment costs, used or not.
    pub hosting_month_usd: Figure<Usd>,
    /// Each way to answer the traffic.
    pub ways: Vec<Served>,
    /// The fine-tuned model beside the two other ways.
    pub break_even: Vec<Meeting>,
    /// The cheapest way at this traffic; none where nobody knows.
    pub cheapest: Option<Way>,
}

impl TargetQuote {
    /// What a month of one way costs.
    pub fn bill(&self, way: Way) -> Option<&Bill> {
        self.ways.iter().find(|served| served.way == way)?.month.known()
    }
}

/// The whole quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// What this is.
    pub object: &'static str,
    /// For which moment.
    pub at: String,
    /// The version of the price book.
    pub price_version: String,
    /// Days of a month.
    pub month_days: u64,
    /// The traffic.
    pub traffic: Traffic,
    /// What is taken for granted.
    pub terms: Terms,
    /// Each target, the cheapest to fine-tune first.
    pub targets: Vec<TargetQuote>,
    /// The cheapest fine-tuned target beside each of the others.
    pub break_even: Vec<Meeting>,
    /// Prompt, retrieval or fine-tune: in words.
    pub answer: String,
}
