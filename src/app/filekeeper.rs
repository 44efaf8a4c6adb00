//! Looks after training files behind the requests' backs: checks what was uploaded, takes away what nobody has, and says
//! in the metrics what there is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::{sleep, timeout};

use super::services::stopping;
use crate::clock;
use crate::domain::tuning::FileStatus;
use crate::telemetry::metrics::Metrics;
use crate::tuning::files::{Checker, Files};

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at how many files there are.
const TOLD_EVERY: Duration = Duration::from_secs(15);
/// After a failure, before the next try.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// For giving a check back, as the process ends.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(1);

/// Does it.
pub(super) struct FileKeeper {
    pub(super) files: Arc<Files>,
    pub(super) metrics: Arc<Metrics>,
}

impl FileKeeper {
    /// Checks files one after the other, for ever. What can't be read now is tried again.
    async fn check(&self, checker: &mut Checker) {
        loop {
            match checker.step(clock::monotonic()).await {
                Ok(true) => {}
                Ok(false) => checker.wait().await,
                // it is in the log
                Err(_) => sleep(AFTER_FAILURE).await,
            }
        }
    }

    /// Says in the metrics what there is, for ever. A database that fails leaves there what it said last.
    async fn tell(&self) {
        loop {
            match self.files.count().await {
                Ok(count) => {
                    let counts =
                        FileStatus::ALL.iter().map(|status| status.name()).zip(count.by_status).collect();
                    self.metrics.tuning.files(&counts, count.bytes, self.files.config().max_folder_bytes);
                }
                Err(error) => {
                    tracing::debug!(%error, "the training files could not be counted; it is tried again");
                }
            }
            sleep(TOLD_EVERY).await;
        }
    }

    /// Sweeps, for ever: at once, for what was left by the process before, and then again and again.
    async fn sweep(&self) {
        loop {
            match self.files.sweep(clock::unix_ms(), clock::machine_ms()).await {
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
        let metrics = Arc::clone(&self.metrics);
        let told = move |status: FileStatus, took| metrics.tuning.checked(status.name(), took);
        let mut checker = Checker::new(Arc::clone(&self.files), Box::new(told));
        tokio::select! {
            () = stopping(&mut shutdown) => {}
            () = self.check(&mut checker) => {}
            () = self.sweep() => {}
            () = self.tell() => {}
        }
        // a database that does not answer keeps nobody from ending
        let _ = timeout(GIVE_BACK_LIMIT, checker.give_back()).await;
    }
}
