//! Requests that are read and not handed in yet: they wait for a thread or for a disk, each with a body that may be large.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::doors::beside;
use crate::telemetry::metrics::{WorkerDenial, WorkerMetrics};
use crate::worker::wire::Refusal;

/// How many wait at once.
pub(super) struct Places {
    free: Arc<Semaphore>,
    metrics: Arc<WorkerMetrics>,
}

impl Places {
    pub(super) fn new(count: usize, metrics: Arc<WorkerMetrics>) -> Self {
        Self { free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))), metrics }
    }

    /// Takes a place, to be held for as long as the body is.
    ///
    /// # Errors
    /// If none is free: it is turned away, as where the engine's own queue is full.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| {
            self.metrics.denied(WorkerDenial::Full);
            Refusal::busy()
        })
    }

    /// Does something with a body that takes a while. Its place is held as long as the body is, also where nobody waits for
    /// it any more.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        body: Bytes,
        work: impl FnOnce(&Bytes) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = self.take()?;
        beside(move || {
            let done = work(&body);
            drop((body, place));
            done
        })
        .await
    }
}

/// Waits no longer than a request may take.
///
/// # Errors
/// As `work`, or that it took too long.
pub(super) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(Refusal::too_slow()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::metrics::Occupancy;

    #[tokio::test]
    async fn a_place_is_held_as_long_as_its_body() {
        let most = Occupancy { queue: 1, active: 1, kv_tokens: 1 };
        let metrics = Arc::new(WorkerMetrics::new("small", None, most).expect("metrics"));
        let places = Places::new(1, Arc::clone(&metrics));
        let (end, ended) = mpsc::channel::<()>();
        let work = move |body: &Bytes| {
            ended.recv().expect("told to end");
            body.len()
        };
        let first = places.beside(Bytes::from_static(b"{}"), work);
        assert!(tokio::time::timeout(Duration::from_millis(20), first).await.is_err(), "it has left");
        let second = places.beside(Bytes::from_static(b"{}"), Bytes::len).await;
        assert_eq!(second, Err(Refusal::busy()));
        let told = String::from_utf8(metrics.text(most)).expect("text");
        assert!(told.contains("tunegate_worker_denied_total{reason=\"full\"} 1"), "{told}");
        end.send(()).expect("still computed");
        let free = async {
            while places.take().is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), free).await.expect("a free place");
        assert_eq!(places.beside(Bytes::from_static(b"{}"), Bytes::len).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_not_waited_for() {
        let limit = Duration::from_secs(600);
        let never = in_time(limit, std::future::pending::<Result<(), Refusal>>());
        assert_eq!(never.await, Err(Refusal::too_slow()));
        assert_eq!(in_time(limit, async { Ok(1) }).await, Ok(1));
    }
}
