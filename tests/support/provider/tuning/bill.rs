//! What the provider charges for training: by its own count and its own prices.

use super::Account;
use super::jobs::{Job, Status};

/// What one job costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charge {
    /// The provider's id of the job.
    pub(crate) job: String,
    pub(crate) account: Account,
    pub(crate) base: String,
    /// Tokens trained, over all epochs; 0 where only its time is billed.
    pub(crate) tokens: u64,
    pub(crate) nanos: u64,
    /// Whether the job says so in `trained_tokens`.
    pub(crate) is_told: bool,
    /// `metadata.tunegate_job`, or the job that the training file was uploaded for, by its name.
    pub(crate) tagged: Option<String>,
}

/// Nano-dollars for each trained token, from the providers' own pages: USD per 1M tokens × 1,000.
const LIST: [(&str, u64); 8] = [
    ("gpt-3.5-turbo", 8_000),
    ("gpt-35-turbo", 8_000),
    ("gpt-4o-mini", 3_000),
    ("gpt-4o", 25_000),
    ("gpt-4.1-mini", 5_000),
    ("gpt-4.1-nano", 1_500),
    ("gpt-4.1", 25_000),
    ("babbage-002", 400),
];

/// What a model's training is billed by, nano-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// Each trained token.
    Token(u64),
    /// Each hour that it ran, in steps of so many seconds, rounded up.
    Hour { nanos: u64, step_seconds: u64 },
}

impl Rate {
    fn nanos(self, tokens: u64, seconds: u64) -> u64 {
        match self {
            Self::Token(nanos) => tokens * nanos,
            Self::Hour { nanos, step_seconds } => {
                seconds.next_multiple_of(step_seconds) * nanos / SECONDS_AN_HOUR
            }
        }
    }
}

const SECONDS_AN_HOUR: u64 = 3_600;

/// The list, and what a test has set beyond it.
#[derive(Debug, Default)]
pub(super) struct Prices(Vec<(String, Rate)>);

impl Prices {
    pub(super) fn set(&mut self, base: &str, rate: Rate) {
        self.0.retain(|(name, _)| name != base);
        self.0.push((base.to_owned(), rate));
    }

    /// The price of a base model: a test's own first, then the longest name that it begins with.
    fn price(&self, base: &str) -> Option<Rate> {
        let own = self.0.iter().map(|(name, rate)| (name.as_str(), *rate));
        let listed = LIST.into_iter().map(|(name, nanos)| (name, Rate::Token(nanos)));
        longest(own, base).or_else(|| longest(listed, base))
    }

    /// Whether the provider trains a model of this name.
    pub(super) fn trains(&self, base: &str) -> bool {
        self.price(base).is_some()
    }

    /// What a job costs; nothing while it runs, and for one that cost nothing.
    pub(super) fn of(&self, job: &Job) -> Option<Charge> {
        let (tokens, rate) = (billed_tokens(job), self.price(&job.base)?);
        let nanos = rate.nanos(tokens, billed_seconds(job));
        if tokens == 0 && nanos == 0 {
            return None;
        }
        Some(Charge {
            job: job.id.clone(),
            account: job.account,
            base: job.base.clone(),
            tokens,
            nanos,
            is_told: job.trained_tokens().is_some(),
            tagged: job.metadata["tunegate_job"].as_str().or(job.named_after()).map(str::to_owned),
        })
    }
}

/// The price with the longest name that a model's begins with.
fn longest<'a>(prices: impl Iterator<Item = (&'a str, Rate)>, base: &str) -> Option<Rate> {
    let named = prices.filter(|(name, _)| base.starts_with(*name));
    named.max_by_key(|(name, _)| name.len()).map(|(_, rate)| rate)
}

/// How long a job ran, whatever came of it, seconds; of a worker of ours, how long that computed.
fn billed_seconds(job: &Job) -> u64 {
    if let Some(computed) = job.compute_seconds {
        return computed;
    }
    let ran = job.finished_s.zip(job.started_s).map_or(0, |(finished_s, started_s)| finished_s - started_s);
    u64::try_from(ran).unwrap_or(0)
}

/// All epochs of a job that succeeded, and those that were done of one that was cancelled while it ran. A failure costs
/// nothing at OpenAI, and at Azure what was done up to the last checkpoint.
fn billed_tokens(job: &Job) -> u64 {
    let done = job.tokens_per_epoch * job.epochs_done;
    match job.status {
        Status::Succeeded | Status::Cancelled => done,
        Status::Failed if job.account == Account::Azure => done,
        _ => 0,
    }
}
