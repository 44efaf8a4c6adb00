//! Works the ledger up behind the requests' backs: folds what is new into sums, cleans up what is old.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::sleep;

use super::services::stopping;
use crate::clock;
use crate::control::reports::Reports;
use crate::store::Store;

/// Between two looks at the database's log.
const EVERY: Duration = Duration::from_secs(1);
/// Rounds to one in which the ledger is worked up; it takes as many steps as there is work.
const WORK_EVERY: u32 = 5;

/// Does it.
pub(super) struct Bookkeeper {
    pub(super) reports: Arc<Reports>,
    pub(super) store: Store,
}

#[async_trait]
impl BackgroundService for Bookkeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut failing = false;
        let mut round: u32 = 0;
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = sleep(EVERY) => {}
            }
            if let Err(error) = self.store.checkpoint().await {
                tracing::debug!(%error, "the database's log could not be folded in; it is tried again");
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
