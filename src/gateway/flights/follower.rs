//! The other end: who waits for what comes, each at a pace of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Flight, Head, Joiner, Landed, LeaderEnd, Phase};
use crate::domain::money::Usd;
use crate::sse;
use crate::telemetry::metrics::Metrics;

/// One request's part in a flight. Dropped, it has left.
pub(in crate::gateway) struct Follower {
    flight: Arc<Flight>,
    came: watch::Receiver<()>,
    number: u64,
    /// The piece that it began at.
    joined_at: u64,
    /// Counted among the followers; none for a leader.
    metrics: Option<Arc<Metrics>>,
}

/// What a follower finds first.
pub(in crate::gateway) enum Begun {
    /// A stream has begun.
    Stream(Arc<Head>),
    /// All of it has come.
    Landed(Landed),
    /// Nothing came of it, or not for this follower.
    Failed,
}

/// What a follower of a stream gets next.
pub(in crate::gateway) enum Piece {
    /// All that has come since.
    Bytes(Bytes),
    /// The end.
    End,
    /// It broke off: what the client is told.
    Broke(Bytes),
}

impl Follower {
    pub(super) fn lead(flight: &Arc<Flight>) -> Self {
        let mut state = flight.state.lock();
        state.followers.insert(0, 0);
        state.next_follower = 1;
        drop(state);
        Self {
            flight: Arc::clone(flight),
            came: flight.came.subscribe(),
            number: 0,
            joined_at: 0,
            metrics: None,
        }
    }

    pub(super) fn join(flight: &Arc<Flight>, metrics: &Arc<Metrics>) -> Option<Self> {
        let mut state = flight.state.lock();
        if !state.open || state.followers.is_empty() {
            return None;
        }
        let number = state.next_follower;
        state.next_follower += 1;
        let first = state.first;
        state.followers.insert(number, first);
        drop(state);
        metrics.cache.followers.inc();
        let metrics = Some(Arc::clone(metrics));
        Some(Self {
            flight: Arc::clone(flight),
            came: flight.came.subscribe(),
            number,
            joined_at: first,
            metrics,
        })
    }

    /// Whether its answer comes as a stream.
    pub(in crate::gateway) fn is_stream(&self) -> bool {
        self.flight.stream
    }

    /// How many pay for it so far, the leader among them.
    pub(in crate::gateway) fn payers(&self) -> usize {
        let state = self.flight.state.lock();
        1 + state.joiners.values().filter(|joiner| joiner.reservation.is_some()).count()
    }

    /// Is booked with the flight when it lands. It comes back where that has happened, or will not.
    pub(in crate::gateway) fn is_booked(&self, joiner: Joiner) -> Option<Joiner> {
        let mut state = self.flight.state.lock();
        match state.is_over() || !state.open {
            true => Some(joiner),
            false => {
                state.joiners.insert(self.number, joiner);
                None
            }
        }
    }

    /// Waits for a beginning. May be dropped and called again.
    pub(in crate::gateway) async fn begun(&mut self) -> Begun {
        loop {
            {
                let state = self.flight.state.lock();
                match (&state.phase, &state.head) {
                    _ if state.sealed && self.number != 0 => return Begun::Failed,
                    (Phase::Begun | Phase::Broke(..), Some(head)) => return Begun::Stream(Arc::clone(head)),
                    (Phase::Landed(landed), _) => return Begun::Landed(landed.clone()),
                    (Phase::Failed | Phase::Broke(..), _) => return Begun::Failed,
                    (Phase::Asking | Phase::Begun, _) => {}
                }
            }
            let _ = self.came.changed().await;
        }
    }

    /// Waits until all has come; nothing where it never will. May be dropped and called again.
    pub(in crate::gateway) async fn landed(&mut self) -> Option<Landed> {
        loop {
            {
                let mut state = self.flight.state.lock();
                match &state.phase {
                    _ if (state.sealed && self.number != 0) || state.too_long => return None,
                    Phase::Landed(landed) => return Some(landed.clone()),
                    Phase::Failed | Phase::Broke(..) => return None,
                    // it does not hold back those who read
                    _ => {
                        let end = state.first + state.pieces.len() as u64;
                        state.followers.insert(self.number, end);
                    }
                }
            }
            self.flight.moved.send_replace(());
            let _ = self.came.changed().await;
        }
    }

    /// The next of a stream. May be dropped while it waits, and called again.
    pub(in crate::gateway) async fn next(&mut self) -> Piece {
        loop {
            if let Some(piece) = self.take() {
                return piece;
            }
            let _ = self.came.changed().await;
        }
    }

    fn take(&self) -> Option<Piece> {
        let mut state = self.flight.state.lock();
        if state.cut_off.contains(&self.number) {
            return Some(Piece::Broke(too_slow()));
        }
        let at = state.followers.get(&self.number).copied().unwrap_or(state.first);
        let skipped = usize::try_from(at - state.first).unwrap_or(usize::MAX);
        let new = state.pieces.len().saturating_sub(skipped);
        if new == 0 {
            return match &state.phase {
                Phase::Landed(_) => Some(Piece::End),
                Phase::Broke(event, _) => Some(Piece::Broke(event.clone())),
                Phase::Failed => Some(Piece::Broke(Bytes::new())),
                Phase::Asking | Phase::Begun => None,
            };
        }
        let bytes = match new {
            1 => state.pieces[skipped].clone(),
            _ => {
                let pieces = state.pieces.range(skipped..);
                let mut all = Vec::with_capacity(pieces.clone().map(Bytes::len).sum());
                pieces.for_each(|piece| all.extend_from_slice(piece));
                all.into()
            }
        };
        let end = state.first + state.pieces.len() as u64;
        state.followers.insert(self.number, end);
        state.trim();
        drop(state);
        self.flight.moved.send_replace(());
        Some(Piece::Bytes(bytes))
    }

    /// What has landed, if it has.
    pub(in crate::gateway) fn has_landed(&self) -> Option<Landed> {
        match &self.flight.state.lock().phase {
            Phase::Landed(landed) => Some(landed.clone()),
            _ => None,
        }
    }

    /// What each paid who share its cost, of a call that broke off.
    pub(in crate::gateway) fn share_of_broken(&self) -> Option<Usd> {
        match &self.flight.state.lock().phase {
            Phase::Broke(_, share) => Some(*share),
            _ => None,
        }
    }

    /// How it ended for the leader.
    pub(in crate::gateway) fn leaders_end(&self) -> Option<LeaderEnd> {
        self.flight.state.lock().leader.take()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.cache.followers.dec();
        }
        let mut state = self.flight.state.lock();
        let at = state.followers.remove(&self.number);
        if state.followers.is_empty() {
            state.open = false;
        }
        // who has got nothing of it owes nothing; the hold is given back where the lock is not
        let read_on = at.is_some_and(|at| at > self.joined_at);
        let owes = |joiner: &Joiner| read_on && joiner.as_it_comes;
        let gone = match state.joiners.get(&self.number).is_some_and(owes) {
            true => None,
            false => state.joiners.remove(&self.number),
        };
        state.trim();
        let untaken = if self.number == 0 { state.leader.take() } else { None };
        let status = state.head.as_ref().map_or(0, |head| head.status);
        drop(state);
        drop(gone);
        self.flight.moved.send_replace(());
        if let Some(end) = untaken {
            end.abandoned(status);
        }
    }
}

/// What a follower is told that was let go.
fn too_slow() -> Bytes {
    let error = serde_json::json!({"error": {
        "message": "the answer is shared with others, and was read too slowly: ask again",
        "type": "server_error", "param": null, "code": "upstream_broke",
    }});
    sse::event(&error.to_string())
}
