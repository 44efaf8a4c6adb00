//! Writes kept traffic behind the requests' backs, lets go what is over, and says in the metrics what there is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::sleep;
use tokio::sync::mpsc::Receiver;

use crate::clock;
use crate::gateway::capture::Queued;
use crate::tuning::captures::Captures;

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Does it, until the process ends: what runs at the end may still be kept.
pub(super) struct CaptureKeeper {
    pub(super) captures: Arc<Captures>,
    pub(super) queue: Mutex<Option<Receiver<Queued>>>,
}

impl CaptureKeeper {
    async fn sweep(&self) {
        loop {
            match self.captures.sweep(clock::unix_ms()).await {
                Ok(0) => {}
                Ok(gone) => tracing::debug!(gone, "kept traffic whose time is over is gone"),
                Err(error) => tracing::warn!(%error, "kept traffic could not be swept; it is tried again"),
            }
            sleep(SWEEP_EVERY).await;
        }
    }
}

#[async_trait]
impl BackgroundService for CaptureKeeper {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(queue) = self.queue.lock().take() else { return };
        tokio::select! {
            () = self.captures.write(queue) => {}
            () = self.sweep() => {}
            () = self.captures.tell() => {}
        }
        self.captures.stand_down().await;
    }
}
