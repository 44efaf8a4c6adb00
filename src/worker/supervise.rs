//! When a worker ends.
//!
//! A worker that a gateway started must not outlive it: a forgotten one would hold memory and cores for ever. A pid
//! cannot say whether the gateway lives, an open connection can; so the gateway keeps one open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Supervision;

/// Tells the worker to stop, and lets everybody know that it does.
#[derive(Clone)]
pub(super) struct Stop(Arc<watch::Sender<Option<Duration>>>);

impl Stop {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Tells the worker to stop, running answers having `grace` to finish. The shortest grace asked for counts.
    pub(super) fn order(&self, grace: Duration) {
        self.0.send_modify(|ordered| *ordered = Some(ordered.map_or(grace, |before| before.min(grace))));
    }

    /// Whether the order was given.
    pub(super) fn is_ordered(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the order; returns the grace.
    pub(super) async fn ordered(&self) -> Duration {
        // The sender lives in `self`, so the wait cannot fail.
        let mut receiver = self.0.subscribe();
        receiver.wait_for(Option::is_some).await.ok().and_then(|grace| *grace).unwrap_or_default()
    }

    /// Waits for an order with another grace than `grace`.
    pub(super) async fn changed(&self, grace: Duration) -> Duration {
        let mut receiver = self.0.subscribe();
        let other = receiver.wait_for(|ordered| ordered.is_some_and(|ordered| ordered != grace)).await;
        other.ok().and_then(|grace| *grace).unwrap_or_default()
    }
}

/// Counts who supervises.
#[derive(Clone)]
pub(super) struct Supervisors(Arc<watch::Sender<usize>>);

/// One supervisor; lets go when dropped.
pub(super) struct Held(Supervisors);

impl Supervisors {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Counts one more until the result is dropped.
    pub(super) fn hold(&self) -> Held {
        self.0.send_modify(|count| *count += 1);
        Held(self.clone())
    }

    /// Returns when nobody has supervised for too long; never without supervision.
    pub(super) async fn lost(&self, supervision: Option<Supervision>) {
        let Some(supervision) = supervision else { return std::future::pending().await };
        let mut count = self.0.subscribe();
        let mut patience = supervision.start;
        while tokio::time::timeout(patience, count.wait_for(|count| *count > 0)).await.is_ok() {
            // The sender lives in `self`, so the wait cannot fail.
            let _ = count.wait_for(|count| *count == 0).await;
            patience = supervision.lost;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// The system's wish that the process end. Listened for from its making on: a signal that comes before anybody waits is
/// not lost, and does not kill.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt })
    }

    /// Returns when one has come.
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lost_only_when_nobody_holds() {
        let supervision = Supervision { start: Duration::from_secs(30), lost: Duration::from_secs(10) };
        let supervisors = Supervisors::new();
        let lost = supervisors.lost(Some(supervision));
        tokio::pin!(lost);
        let mut after =
            async |seconds: u64| tokio::time::timeout(Duration::from_secs(seconds), &mut lost).await.is_ok();
        assert!(!after(29).await);
        let (first, second) = (supervisors.hold(), supervisors.hold());
        assert!(!after(1000).await);
        drop(first);
        assert!(!after(1000).await);
        drop(second);
        assert!(!after(9).await);
        let third = supervisors.hold();
        assert!(!after(100).await);
        drop(third);
        assert!(!after(9).await);
        assert!(after(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn never_supervised_is_lost_at_the_start() {
        let supervisors = Supervisors::new();
        let wait = |supervision| tokio::time::timeout(Duration::from_secs(31), supervisors.lost(supervision));
        assert!(wait(Some(Supervision::default())).await.is_ok());
        assert!(wait(None).await.is_err());
    }

    #[tokio::test]
    async fn the_shortest_grace_counts() {
        let stop = Stop::new();
        assert!(!stop.is_ordered());
        stop.order(Duration::from_secs(5));
        stop.order(Duration::from_secs(9));
        assert_eq!(stop.ordered().await, Duration::from_secs(5));
        stop.order(Duration::from_secs(1));
        assert_eq!(stop.changed(Duration::from_secs(5)).await, Duration::from_secs(1));
    }
}
