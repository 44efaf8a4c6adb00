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
    /// Tokens trained, over all epochs.
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

/// The list, and what a test has set beyond it.
#[derive(Debug, Default)]
pub(super) struct Prices(Vec<(String, u64)>);

impl Prices {
    pub(super) fn set(&mut self, base: &str, token_nanos: u64) {
        self.0.retain(|(name, _)| name != base);
        self.0.push((base.to_owned(), token_nanos));
    }

    /// The price of a base model: a test's own first, then the longest name that it begins with.
    fn price(&self, base: &str) -> Option<u64> {
        let own = self.0.iter().map(|(name, nanos)| (name.as_str(), *nanos));
        let longest = |prices: &mut dyn Iterator<Item = (&str, u64)>| {
            let named = prices.filter(|(name, _)| base.starts_with(*name));
            named.max_by_key(|(name, _)| name.len()).map(|(_, nanos)| nanos)
        };
        longest(&mut own.into_iter()).or_else(|| longest(&mut LIST.into_iter()))
    }

    /// Whether the provider trains a model of this name.
    pub(super) fn trains(&self, base: &str) -> bool {
        self.price(base).is_some()
    }

    /// What a job costs; nothing while it runs, and for one that cost nothing.
    pub(super) fn of(&self, job: &Job) -> Option<Charge> {
        let tokens = billed_tokens(job);
        if tokens == 0 {
            return None;
        }
        Some(Charge {
            job: job.id.clone(),
            account: job.account,
            base: job.base.clone(),
            tokens,
            nanos: tokens * self.price(&job.base)?,
            is_told: job.trained_tokens().is_some(),
            tagged: job.metadata["tunegate_job"].as_str().map(str::to_owned),
        })
    }
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
