//! A request's price: which one, and in which tier.

use std::sync::Arc;

use super::catalog::Deployment;
use super::money::{Cost, Usd};
use super::price::Price;
use super::price::book::Found;
use super::price::rates::Class;
use super::provider::ProviderKind;
use super::usage::{MOST_TOKENS, TokenCounts};
use crate::domain::service_tier::ServiceTier;

/// The price of one request on one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// What it costs.
    pub price: Arc<Price>,
    /// Which version of the prices that is.
    pub version: Arc<str>,
    /// Who serves it: only of our own worker is it believed how long it computed.
    pub by: ProviderKind,
    /// The tier that the request asked for; the usual one where it left that to the account.
    pub asked: ServiceTier,
    /// How long our machine can compute for one request, microseconds: as long as it may take at all, since whoever is
    /// computed beside others has only a share of each step. Nothing where its time costs nothing.
    pub most_us: u64,
}

impl Priced {
    /// The price that was found for a deployment, of a request that asked for a tier.
    pub fn of(found: Found, deployment: &Deployment, asked: ServiceTier) -> Self {
        let by = deployment.provider.dialect.kind();
        let priced = Self { price: found.price, version: found.version, by, asked, most_us: 0 };
        let total = u64::try_from(deployment.timeouts.total.as_micros()).unwrap_or(u64::MAX);
        let most_us = if priced.bills_time() { total.min(MOST_TOKENS) } else { 0 };
        Self { most_us, ..priced }
    }

    /// What tokens and time cost. `served` is the `service_tier` of the answer: what it says is what is billed. A worker
    /// that says it computed longer than a request may take is not believed beyond that.
    pub fn cost(&self, tokens: &TokenCounts, served: Option<ServiceTier>) -> Usd {
        let tokens = TokenCounts { compute_us: tokens.compute_us.min(self.most_us), ..*tokens };
        self.price.cost(&tokens, served.unwrap_or(self.asked))
    }

    /// Whether our machine's time costs anything.
    pub fn bills_time(&self) -> bool {
        self.by == ProviderKind::Candle && self.price.terms.compute_hour.is_some_and(Usd::is_some)
    }

    /// What our machine's time alone costs.
    pub fn time(&self, compute_us: u64) -> Usd {
        self.price.computing(compute_us).round_up()
    }

    /// What a part of the input is, in tokens and in cost: as many tokens of text, so many of the input before them. What
    /// a provider had in its cache is the input's beginning. The part is never more than the whole.
    pub fn part(
        &self,
        tokens: &TokenCounts,
        served: Option<ServiceTier>,
        of: u64,
        before: u64,
    ) -> (u64, Usd) {
        let tier = served.unwrap_or(self.asked);
        let rates = self.price.tokens.rates(tokens.prompt, tier);
        let part = of.min(tokens.prompt);
        let cached = tokens.cached.saturating_sub(before).min(part);
        let cost = Cost::default()
            .and(part - cached, rates.of(Class::Input))
            .and(cached, rates.of(Class::CachedInput))
            .round_up();
        (part, cost.min(self.price.cost(tokens, tier)))
    }

    /// Whether neither a token of any class nor our machine's time costs anything.
    pub fn is_free(&self) -> bool {
        let dearest = |tier| {
            let input = self.price.dearest_input(u64::MAX, tier);
            input.picos() == 0 && self.price.dearest_output(u64::MAX, tier).picos() == 0
        };
        let times = self.price.terms.compute_hour.unwrap_or_default();
        times == Usd::ZERO && dearest(ServiceTier::Priority)
    }
}
