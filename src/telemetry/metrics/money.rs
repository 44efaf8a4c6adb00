//! What was spent: the ledger's entries of this process, as they become durable.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::declare::metrics;
use super::exact::{self, DollarCounterVec};
use super::labels::{Bounded, NONE};
use super::upstreams::deployments_of;
use crate::domain::catalog::Catalog;
use crate::domain::ledger::{Attribution, Entry, Purpose};
use crate::domain::money::Usd;
use crate::domain::usage::UsageSource;

metrics! {
    /// Money, since this process began.
    pub struct Money {
        /// What was spent, USD, as the ledger has it; corrections downwards are credits.
        cost: DollarCounterVec = "tunegate_cost_usd_total" ["team", "model", "deployment", "provider", "kind"];
        /// Corrections downwards, USD: cost less credit is what the ledger has.
        credit: DollarCounterVec = "tunegate_credit_usd_total" ["team", "model", "deployment", "provider", "kind"];
        /// What answers from the cache would have cost, USD.
        saved: DollarCounterVec = "tunegate_saved_usd_total" ["team", "model", "deployment", "provider"];
        /// The part of cost that is an upper bound and not a bill, USD.
        unconfirmed: DollarCounterVec = "tunegate_unconfirmed_cost_usd_total" ["deployment"];
        /// Requests for deployments whose price is not known, whatever became of them.
        unpriced: IntCounterVec = "tunegate_unpriced_requests_total" ["deployment"];
        /// Bills of a provider beyond the upper bound that was held.
        overshoots: IntCounterVec = "tunegate_overshoots_total" ["deployment"];
        /// How far those bills were beyond it, USD.
        overshoot: DollarCounterVec = "tunegate_overshoot_usd_total" ["deployment"];
        /// Thresholds that spending has reached, by percent of a budget's limit.
        alerts: IntCounterVec = "tunegate_budget_alerts_total" ["percent"];
        /// Alerts that nobody was told of, because too many came.
        pub alerts_dropped: IntCounter = "tunegate_alerts_dropped_total";
        /// Alerts that the webhook could not be told of, however often it was tried.
        pub webhook_failures: IntCounter = "tunegate_webhook_failures_total";
    }
}

/// Thresholds of budgets unless they say others.
const USUAL_PERCENTS: [&str; 3] = ["50", "80", "100"];

impl Money {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let money = Self::declared(registry)?;
        for percent in USUAL_PERCENTS {
            money.alerts.with_label_values(&[percent]);
        }
        Ok(money)
    }

    /// Lets the series of the catalog begin at 0: of all pairs of a model and its deployments, for each team while
    /// there are at most `most` of them together.
    pub(super) fn born(&self, catalog: &Catalog, teams: &[&str], most: usize) {
        for deployment in catalog.deployments.keys() {
            self.unconfirmed.with_label_values(&[&**deployment]);
            self.unpriced.with_label_values(&[&**deployment]);
            self.overshoots.with_label_values(&[&**deployment]);
            self.overshoot.with_label_values(&[&**deployment]);
        }
        let models = catalog.models().map(|model| (model.name.as_str(), deployments_of(model)));
        let pairs: Vec<_> = models.flat_map(|(name, all)| all.map(move |one| (name, one))).collect();
        let teams = if pairs.len() * (teams.len() + 1) <= most { teams } else { &[] };
        for (model, deployment) in pairs {
            let of = |team| [team, model, &*deployment.name, &*deployment.provider.name];
            for kind in Purpose::ALL.map(kind) {
                let [a, b, c, d] = of(NONE);
                self.cost.with_label_values(&[a, b, c, d, kind]);
                self.credit.with_label_values(&[a, b, c, d, kind]);
            }
            self.saved.with_label_values(&of(NONE));
            for team in teams {
                let [a, b, c, d] = of(team);
                self.cost.with_label_values(&[a, b, c, d, kind(Purpose::Inference)]);
            }
        }
    }

    /// Counts a request for a deployment whose price is not known.
    pub fn unpriced(&self, deployment: &str) {
        self.unpriced.with_label_values(&[deployment]).inc();
    }

    /// Counts an entry that spends or saves.
    pub(super) fn booked(&self, entry: &Entry, teams: &Bounded) {
        let on = &*entry.attribution;
        let labels = labels_of(on, teams);
        let spent = entry.spends();
        if spent > Usd::ZERO {
            exact::add(&self.cost.with_label_values(&labels), spent);
        }
        if spent < Usd::ZERO {
            exact::add(&self.credit.with_label_values(&labels), -spent);
        }
        if entry.saved > Usd::ZERO {
            exact::add(&self.saved.with_label_values(&labels[..4]), entry.saved);
        }
        if entry.source == Some(UsageSource::Unconfirmed) {
            exact::add(&self.unconfirmed.with_label_values(&[&*on.deployment]), spent);
        }
    }

    /// Counts a threshold of a budget that was reached.
    pub fn budget_crossed(&self, percent: u8) {
        self.alerts.with_label_values(&[percent.to_string()]).inc();
    }

    /// Counts a bill beyond what was held.
    pub fn overshot(&self, entry: &Entry) {
        let deployment = &*entry.attribution.deployment;
        self.overshoots.with_label_values(&[deployment]).inc();
        exact::add(&self.overshoot.with_label_values(&[deployment]), entry.cost - entry.held);
    }
}

/// The labels of money, in the order of their declarations.
fn labels_of<'a>(on: &'a Attribution, teams: &Bounded) -> [&'a str; 5] {
    let named = |name: &'a str| if name.is_empty() { NONE } else { name };
    let team = teams.label(on.team.as_deref().unwrap_or_default());
    [team, named(&on.model), named(&on.deployment), named(&on.provider), kind(on.purpose)]
}

/// The label of what money was for.
pub(super) const fn kind(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Inference => "usage",
        Purpose::Training => "training",
        Purpose::Hosting => "hosting",
    }
}
