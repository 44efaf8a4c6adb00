//! Looks after training files behind the requests' backs: checks what was uploaded, and takes away what nobody has.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::sleep;

use super::services::stopping;
use crate::clock;
use crate::tuning::files::{Checker, Files};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// After a failure, before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Does it.
pub(super) struct FileKeeper {
    pub(super) files: Arc<Files>,
}

impl FileKeeper {
    /// Checks files one after the other, for ever. What can't be read now is tried again.
    async fn check(&self) {
        let mut checker = Checker::new(Arc::clone(&self.files));
        loop {
            match checker.step(clock::monotonic()).await {
                Ok(true) => {}
                Ok(false) => checker.wait().await,
                // it is in the log
                Err(_) => sleep(AFTER_FAILURE).await,
            }
        }
    }

    /// Sweeps, for ever: at once, for what was left by the process before, and then again and again.
    async fn sweep(&self) {
        loop {
            match self.files.sweep(clock::unix_ms()).await {
                // what fails is in the log, and tried again
                Ok(0) | Err(_) => {}
                Ok(removed) => tracing::info!(removed, "contents that a crash had left were removed"),
            }
            sleep(SWEEP_EVERY).await;
        }
    }
}

#[async_trait]
impl BackgroundService for FileKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = stopping(&mut shutdown) => {}
            () = self.check() => {}
            () = self.sweep() => {}
        }
    }
}
