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

/// Between two rounds; each round takes as many steps as there is work.
const EVERY: Duration = Duration::from_secs(5);

/// Does it.
pub(super) struct Bookkeeper {
    pub(super) reports: Arc<Reports>,
}

#[async_trait]
impl BackgroundService for Bookkeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = sleep(EVERY) => {}
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
