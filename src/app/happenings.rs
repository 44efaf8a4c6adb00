//! What the ledger tells while it works: counted, and said where a person may have to act.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::gateway::ledger::{Happened, Observer};
use crate::telemetry::metrics::Metrics;

/// Alerts that may wait to be told; more are dropped and counted.
const QUEUE: usize = 256;

/// What somebody may have to be told.
#[derive(Debug, Clone)]
pub(super) struct Alerts(Sender<Happened>);

/// An observer, and the alerts that it passes on.
pub(super) fn observer(metrics: Arc<Metrics>) -> (Observer, Receiver<Happened>) {
    let (queue, alerts) = mpsc::channel(QUEUE);
    let alert = Alerts(queue);
    let observe = move |happened: Happened| {
        match &happened {
            Happened::Wrote(entries) => metrics.ledger_wrote(*entries),
            Happened::Conflict => metrics.ledger_conflicts.inc(),
            Happened::Failed(words) => {
                metrics.ledger_failures.inc();
                tracing::error!(
                    error = words,
                    "the ledger can't be written: what would have to be paid for is refused"
                );
            }
            Happened::Recovered => tracing::info!("the ledger can be written again"),
            Happened::Booked(entry) => metrics.booked(entry),
            Happened::Orphans(holds) => {
                tracing::warn!(
                    holds,
                    "another process is gone: its open holds are charged whole, unconfirmed"
                );
            }
            Happened::Dropped => metrics.ledger_dropped.inc(),
            Happened::Overshot(entry) => {
                metrics.overshot(entry);
                tracing::warn!(
                    request_id = %entry.request_id,
                    deployment = %entry.attribution.deployment,
                    held_usd = %entry.held,
                    cost_usd = %entry.cost,
                    "a provider billed beyond the upper bound that was held"
                );
            }
            Happened::Crossed(crossing) => tracing::warn!(
                budget = %crossing.standing.budget,
                subject = %crossing.standing.subject,
                percent = crossing.percent,
                spent_usd = %crossing.standing.spent,
                limit_usd = %crossing.standing.limit,
                "a budget has reached a threshold"
            ),
        }
        if matches!(happened, Happened::Overshot(_) | Happened::Crossed(_)) {
            alert.pass_on(happened, &metrics);
        }
    };
    (Box::new(observe), alerts)
}

impl Alerts {
    fn pass_on(&self, happened: Happened, metrics: &Metrics) {
        if self.0.try_send(happened).is_err() {
            metrics.alerts_dropped.inc();
        }
    }
}
