//! HTTP/1.1 connections that wait for their next request.
//!
//! pingora has such a pool too, but it starts a task to watch each idle connection and stops it at the next request;
//! docs/BENCHMARKS.md has what that costs. Here nobody watches: a connection is looked at when it is taken, and now and
//! then all of them are.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt as _;

/// How long an idle connection is kept.
const KEPT: Duration = Duration::from_secs(60);
/// Idle connections of one provider; more are closed.
const MOST: usize = 256;

struct Waiting {
    stream: Stream,
    /// The peer's `reuse_hash`.
    peer: u64,
    since: Instant,
    /// Whether it has served a request before.
    used: bool,
}

/// The idle connections of one provider, the one that waits longest first.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<Waiting>>);

impl Idle {
    /// Takes the connection to a peer that was kept last, and says whether it has served a request before.
    pub(super) fn take(&self, peer: u64, now: Instant) -> Option<(Stream, bool)> {
        loop {
            let mut youngest = {
                let mut all = self.0.lock();
                let at = all.iter().rposition(|waiting| waiting.peer == peer)?;
                all.remove(at)
            };
            if is_usable(&mut youngest, now) {
                return Some((youngest.stream, youngest.used));
            }
        }
    }

    /// Whether a connection to a peer waits.
    pub(super) fn has(&self, peer: u64) -> bool {
        self.0.lock().iter().any(|waiting| waiting.peer == peer)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, stream: Stream, peer: u64, now: Instant) {
        self.keep(Waiting { stream, peer, since: now, used: true });
    }

    /// Keeps a connection that was opened ahead of its first request.
    pub(super) fn put_new(&self, stream: Stream, peer: u64, now: Instant) {
        self.keep(Waiting { stream, peer, since: now, used: false });
    }

    fn keep(&self, waiting: Waiting) {
        let mut all = self.0.lock();
        if all.len() < MOST {
            all.push(waiting);
        }
    }

    /// Closes what is too old, or was closed by the other side.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.lock().retain_mut(|waiting| is_usable(waiting, now));
    }
}

/// Whether a connection is young, open and silent: bytes that nobody asked for belong to no request of ours.
fn is_usable(waiting: &mut Waiting, now: Instant) -> bool {
    let young = now.saturating_duration_since(waiting.since) < KEPT;
    // unconstrained: a used-up budget must not look like silence
    young && tokio::task::unconstrained(waiting.stream.read(&mut [0])).now_or_never().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use tokio::io::AsyncWriteExt as _;

    fn pair() -> (Stream, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        (Box::new(ours), theirs)
    }

    #[tokio::test]
    async fn only_a_young_silent_open_connection_to_the_same_peer_is_taken() {
        let idle = Idle::default();
        let now = clock::monotonic();
        let (kept, _theirs) = pair();
        idle.put(kept, 1, now);
        assert!(idle.take(2, now).is_none(), "another peer's");
        assert!(idle.take(1, now).is_some());
        assert!(idle.take(1, now).is_none(), "taken once");

        let (old, _theirs) = pair();
        idle.put(old, 1, now);
        assert!(idle.take(1, now + KEPT).is_none(), "too old");

        let (closed, theirs) = pair();
        idle.put(closed, 1, now);
        drop(theirs);
        assert!(idle.take(1, now).is_none(), "closed");

        let (chatty, mut theirs) = pair();
        idle.put(chatty, 1, now);
        theirs.write_all(b"x").await.expect("room");
        assert!(idle.take(1, now).is_none(), "it spoke unasked");
    }

    #[tokio::test]
    async fn a_sweep_closes_the_dead_and_there_are_never_too_many() {
        let idle = Idle::default();
        let now = clock::monotonic();
        let mut others = Vec::new();
        for _ in 0..MOST + 10 {
            let (ours, theirs) = pair();
            idle.put(ours, 1, now);
            others.push(theirs);
        }
        assert_eq!(idle.0.lock().len(), MOST);
        others.drain(..10);
        idle.sweep(now);
        assert_eq!(idle.0.lock().len(), MOST - 10);
        idle.sweep(now + KEPT);
        assert!(idle.0.lock().is_empty());
    }
}
