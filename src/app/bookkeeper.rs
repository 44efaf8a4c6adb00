//! Works the ledger up behind the requests' backs: folds what is new into sums, cleans up what is old, and says in the
//! metrics what was spent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::sleep;

use super::services::stopping;
use crate::clock;
use crate::control::reports::Reports;
use crate::gateway::catalog::LiveCatalog;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// Between two looks at the database's log.
const EVERY: Duration = Duration::from_secs(1);
/// Rounds to one in which the ledger is worked up; it takes as many steps as there is work.
const WORK_EVERY: u32 = 5;
/// Between two looks at what was spent.
const SPENT_EVERY: Duration = Duration::from_secs(15);
/// A database that takes long for them is asked less often: it is busy with them for one part of so many.
const SPENT_PART: u32 = 20;

/// Does it.
pub(super) struct Bookkeeper {
    pub(super) reports: Arc<Reports>,
    pub(super) store: Store,
    pub(super) catalog: Arc<LiveCatalog>,
    pub(super) metrics: Arc<Metrics>,
}

impl Bookkeeper {
    /// Writes into the metrics what was spent. A database that fails leaves there what it said last. Returns when to
    /// look again.
    async fn tell_spend(&self, failing: &mut bool) -> Instant {
        let began = clock::monotonic();
        let now_ms = clock::unix_ms();
        match self.reports.recent(now_ms).await {
            Ok(lately) => {
                *failing = false;
                self.metrics.spent(&lately.spending, &self.catalog.load().catalog, now_ms);
                self.metrics.ledger.unconfirmed(lately.unconfirmed);
            }
            Err(error) if !*failing => {
                *failing = true;
                tracing::warn!(%error, "what was spent could not be read for the metrics; it is tried again");
            }
            Err(_) => {}
        }
        let now = clock::monotonic();
        now + SPENT_EVERY.max(now.saturating_duration_since(began) * SPENT_PART)
    }
}

#[async_trait]
impl BackgroundService for Bookkeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut failing = false;
        let mut untold = false;
        let mut round: u32 = 0;
        let mut tell_at = self.tell_spend(&mut untold).await;
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = sleep(EVERY) => {}
            }
            if let Err(error) = self.store.checkpoint().await {
                tracing::debug!(%error, "the database's log could not be folded in; it is tried again");
            }
            if clock::monotonic() >= tell_at {
                tell_at = self.tell_spend(&mut untold).await;
            }
            round = round.wrapping_add(1);
            if !round.is_multiple_of(WORK_EVERY) {
                continue;
            }
            match self.reports.work_up(clock::unix_ms()).await {
                Ok(0) => failing = false,
                Ok(cleaned) => {
                    failing = false;
                    tracing::info!(cleaned, "old ledger entries were closed");
                }
                // said once, until it works again
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "the ledger could not be worked up; it is tried again");
                }
                Err(_) => {}
            }
        }
    }
}
