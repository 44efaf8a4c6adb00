//! A request's price: which one, and in which tier.

use std::sync::Arc;

use super::money::Usd;
use super::price::Price;
use super::usage::TokenCounts;
use crate::domain::service_tier::ServiceTier;

/// The price of one request on one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// What it costs.
    pub price: Arc<Price>,
    /// Which version of the prices that is.
    pub version: Arc<str>,
    /// The tier that the request asked for; the usual one where it left that to the account.
    pub asked: ServiceTier,
}

impl Priced {
    /// What tokens cost. `served` is the `service_tier` of the answer: what it says is what is billed.
    pub fn cost(&self, tokens: &TokenCounts, served: Option<ServiceTier>) -> Usd {
        self.price.cost(tokens, served.unwrap_or(self.asked))
    }

    /// Whether no token of any class costs anything.
    pub fn is_free(&self) -> bool {
        let dearest = |tier| {
            let input = self.price.dearest_input(u64::MAX, tier);
            input.picos() == 0 && self.price.dearest_output(u64::MAX, tier).picos() == 0
        };
        dearest(ServiceTier::Priority)
    }
}
