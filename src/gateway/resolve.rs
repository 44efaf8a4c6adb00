//! Corrections of what was charged at an upper bound, once somebody knows what was used: from a provider's own console,
//! say. The first entry stays as it is; a second one books the difference.

use std::sync::Arc;

use super::inference::Gateway;
use super::ledger::BookError;
use crate::clock;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::priced::Priced;
use crate::domain::service_tier::ServiceTier;
use crate::domain::usage::{TokenCounts, UsageSource};

/// What an unconfirmed entry really was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// So many tokens, at the price of that time.
    Tokens {
        /// Of the input.
        input: u64,
        /// Of the output.
        output: u64,
    },
    /// So much, as the provider's bill says.
    Cost(Usd),
    /// Nothing.
    Release,
}

/// Why nothing is corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Somebody knows already.
    #[error("entry {0} is not charged at an upper bound: only an unconfirmed usage can be resolved")]
    NotUnconfirmed(i64),
    /// Tokens without a price.
    #[error(
        "the price of deployment `{0}` at that time is not known now: say what it cost (cost_usd) instead of its tokens"
    )]
    Unpriced(Arc<str>),
    /// Tokens, where the machine's time costs something and nobody knows how long it was.
    #[error(
        "how long our machine computed for entry {0} is not known, and its time costs something: say what it cost \
         (cost_usd) instead of its tokens"
    )]
    Untimed(i64),
    /// It can't be written, or somebody else was first.
    #[error(transparent)]
    Ledger(#[from] BookError),
}

impl Gateway {
    /// Books what an unconfirmed entry really cost. Returns the correction.
    ///
    /// # Errors
    ///
    /// When it was not unconfirmed, its tokens have no price, or nothing can be written.
    pub async fn resolve(
        &self,
        entry: &Entry,
        resolution: Resolution,
        note: Option<&str>,
    ) -> Result<Entry, ResolveError> {
        if entry.kind != EntryKind::Usage || entry.source != Some(UsageSource::Unconfirmed) {
            return Err(ResolveError::NotUnconfirmed(entry.seq));
        }
        let cost = match resolution {
            Resolution::Release => Usd::ZERO,
            Resolution::Cost(cost) => cost,
            Resolution::Tokens { input, output } => self.priced(entry, input, output)?,
        };
        let on = Arc::clone(&entry.attribution);
        let drafted = Entry::drafted(EntryKind::Adjustment, entry.at_ms, Arc::clone(&entry.request_id), on);
        let mut correction = Entry {
            // as a late settlement does, which knows nothing of who charged it
            of: if entry.of > 0 { entry.of } else { entry.seq },
            cost: cost - entry.cost,
            price: Arc::clone(&entry.price),
            note: Some(words(resolution, note).into()),
            ..drafted
        };
        correction.seq = self.money.ledger.book(correction.clone()).await?;
        correction.written_at_ms = clock::unix_ms();
        Ok(correction)
    }

    fn priced(&self, entry: &Entry, input: u64, output: u64) -> Result<Usd, ResolveError> {
        let unpriced = || ResolveError::Unpriced(Arc::clone(&entry.attribution.deployment));
        let live = self.catalog.load();
        let deployment = live.catalog.deployments.get(&entry.attribution.deployment).ok_or_else(unpriced)?;
        let prices = self.money.prices.load();
        let found = prices
            .price_of(deployment, &deployment.upstream_model, entry.at_ms)
            .ok()
            .filter(|found| found.warning.is_none())
            .ok_or_else(unpriced)?;
        let priced = Priced::of(found, deployment, ServiceTier::Default);
        // bounded when it was booked, by what was configured then
        let priced = Priced { most_us: priced.most_us.max(entry.tokens.compute_us), ..priced };
        // charged whole, it says the most that it can have been; otherwise as long as it was waited for
        if priced.bills_time() && entry.cost >= entry.held {
            return Err(ResolveError::Untimed(entry.seq));
        }
        let compute_us = entry.tokens.compute_us;
        let tokens = TokenCounts { prompt: input, completion: output, compute_us, ..TokenCounts::default() };
        Ok(priced.cost(&tokens, None))
    }
}

fn words(resolution: Resolution, note: Option<&str>) -> String {
    let resolved = match resolution {
        Resolution::Tokens { input, output } => {
            format!("resolved: {input} tokens of input, {output} of output")
        }
        Resolution::Cost(cost) => format!("resolved: {cost} USD"),
        Resolution::Release => "resolved: nothing was used".to_owned(),
    };
    match note {
        Some(note) => format!("{resolved}; {note}"),
        None => resolved,
    }
}
