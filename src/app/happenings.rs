//! What the ledger tells while it works: counted, and said where a person may have to act.

use std::sync::Arc;

use super::alerts::Alerts;
use crate::domain::alert::Alert;
use crate::gateway::ledger::{Happened, Observer};
use crate::telemetry::metrics::Metrics;

/// An observer that passes on what people have to be told.
pub(super) fn observer(metrics: Arc<Metrics>, alerts: Alerts) -> Observer {
    let observe = move |happened: Happened| match &happened {
        Happened::Wrote(entries, took) => metrics.wrote(entries, *took),
        Happened::Conflict => metrics.ledger.conflicts.inc(),
        Happened::Failed(words) => {
            metrics.ledger.failures.inc();
            tracing::error!(
                error = words,
                "the ledger can't be written: what would have to be paid for is refused"
            );
        }
        Happened::Recovered => tracing::info!("the ledger can be written again"),
        Happened::Booked(entry) => metrics.booked(entry),
        Happened::Orphans(holds) => {
            metrics.ledger.orphans.inc_by(*holds as u64);
            tracing::warn!(holds, "another process is gone: its open holds are charged whole, unconfirmed");
        }
        Happened::Dropped => metrics.ledger.dropped.inc(),
        Happened::Overshot(entry) => {
            metrics.money.overshot(entry);
            alerts.give(Alert::overshoot(entry));
            tracing::warn!(
                request_id = %entry.request_id,
                deployment = %entry.attribution.deployment,
                held_usd = %entry.held,
                cost_usd = %entry.cost,
                "a provider billed beyond the upper bound that was held"
            );
        }
        Happened::Crossed(crossing) => {
            metrics.money.budget_crossed(crossing.percent);
            tracing::warn!(
                budget = %crossing.standing.budget,
                subject = %crossing.standing.subject,
                percent = crossing.percent,
                spent_usd = %crossing.standing.spent,
                limit_usd = %crossing.standing.limit,
                "a budget has reached a threshold"
            );
            alerts.give(Alert::BudgetThreshold(crossing.clone()));
        }
    };
    Arc::new(observe)
}
