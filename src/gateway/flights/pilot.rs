//! The one end of a flight: who asks, brings what comes, and says how it ended.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use pingora::time::sleep;

use super::{Flight, Flights, Head, Joiner, Landed, LeaderEnd, Phase};
use crate::domain::cache::key::CacheKey;
use crate::domain::money::Usd;
use crate::gateway::presence::Client;

/// Who flies: owned by the call's own task. Dropped before the end, it fails.
pub(in crate::gateway) struct Pilot {
    pub(super) flight: Arc<Flight>,
    pub(super) flights: Arc<Flights>,
    /// Where it may be joined.
    pub(super) key: Option<CacheKey>,
}

impl Pilot {
    /// Its clients as one, who has left when all have.
    pub(in crate::gateway) fn crowd(&self) -> Crowd {
        Crowd { flight: Arc::clone(&self.flight) }
    }

    /// A stream begins.
    pub(in crate::gateway) fn begins(&self, head: Arc<Head>) {
        {
            let mut state = self.flight.state.lock();
            (state.phase, state.head) = (Phase::Begun, Some(head));
        }
        self.flight.came.send_replace(());
    }

    /// From now on it is the leader's alone: who has joined tries anew.
    pub(in crate::gateway) fn seal(&self) {
        drop(self.closes());
        self.flight.state.lock().sealed = true;
        self.flight.came.send_replace(());
    }

    /// The next of a stream. Waits while the slowest follower is too far behind.
    pub(in crate::gateway) async fn brings(&self, bytes: Bytes) {
        let most = self.flights.most_bytes;
        let too_long = {
            let mut state = self.flight.state.lock();
            state.bytes += bytes.len();
            state.pieces.push_back(bytes);
            state.trim();
            state.open && state.bytes > most
        };
        if too_long {
            self.shut();
            self.flight.state.lock().too_long = true;
        }
        self.flight.came.send_replace(());
        let mut moved = self.flight.moved.subscribe();
        let mut patience = pin!(sleep(self.flights.patience));
        loop {
            {
                let mut state = self.flight.state.lock();
                state.trim();
                if state.open || state.bytes <= most || state.followers.is_empty() {
                    return;
                }
            }
            tokio::select! {
                biased;
                // the sender lives in the flight
                _ = moved.changed() => {}
                () = &mut patience => {
                    if !self.cuts_off() {
                        // it is the only one: its own pace is the call's
                        let _ = moved.changed().await;
                    }
                    patience.set(sleep(self.flights.patience));
                }
            }
        }
    }

    /// Lets go of the slowest followers, where others wait for them. Whether there were any.
    fn cuts_off(&self) -> bool {
        let mut state = self.flight.state.lock();
        let (slowest, fastest) =
            (state.followers.values().min().copied(), state.followers.values().max().copied());
        if slowest == fastest {
            return false;
        }
        let slow = state.followers.iter().filter(|(_, at)| Some(**at) == slowest).map(|(number, _)| *number);
        for number in slow.collect::<Vec<_>>() {
            state.followers.remove(&number);
            state.cut_off.insert(number);
        }
        state.trim();
        drop(state);
        self.flight.came.send_replace(());
        true
    }

    /// All that came of a stream, as long as it is held.
    pub(in crate::gateway) fn all(&self) -> Option<Bytes> {
        let state = self.flight.state.lock();
        (state.first == 0).then(|| {
            let mut all = Vec::with_capacity(state.bytes);
            state.pieces.iter().for_each(|piece| all.extend_from_slice(piece));
            all.into()
        })
    }

    /// Nobody joins from now on; returns who has.
    pub(in crate::gateway) fn closes(&self) -> Vec<Joiner> {
        self.shut();
        std::mem::take(&mut self.flight.state.lock().joiners).into_values().collect()
    }

    /// Nobody joins from now on.
    fn shut(&self) {
        if let Some(key) = &self.key {
            let mut under_way = self.flights.under_way.lock();
            if under_way.get(key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                under_way.remove(key);
            }
        }
        self.flight.state.lock().open = false;
    }

    /// All has come.
    pub(in crate::gateway) fn lands(self, landed: Landed, leader: LeaderEnd) {
        self.ends(Phase::Landed(landed), leader);
    }

    /// It broke off after its beginning.
    pub(in crate::gateway) fn breaks(self, event: Bytes, share: Usd, leader: LeaderEnd) {
        self.ends(Phase::Broke(event, share), leader);
    }

    /// Nothing came of it: who has joined tries anew.
    pub(in crate::gateway) fn fails(self, leader: LeaderEnd) {
        if self.flight.state.lock().followers.keys().any(|number| *number != 0) {
            self.flights.metrics.cache.flight_failed();
        }
        self.ends(Phase::Failed, leader);
    }

    fn ends(self, phase: Phase, leader: LeaderEnd) {
        self.shut();
        let left = {
            let mut state = self.flight.state.lock();
            state.phase = phase;
            // of what came to nothing: nobody pays a share
            state.joiners.clear();
            let status = state.head.as_ref().map_or(0, |head| head.status);
            match state.followers.contains_key(&0) {
                true => {
                    state.leader = Some(leader);
                    None
                }
                false => Some((leader, status)),
            }
        };
        self.flight.came.send_replace(());
        if let Some((leader, status)) = left {
            leader.abandoned(status);
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.flights.metrics.cache.flights.dec();
        self.shut();
        let mut state = self.flight.state.lock();
        if state.is_over() {
            return;
        }
        // its task was cut off: we are being stopped
        state.phase = match state.phase {
            Phase::Begun => Phase::Broke(Bytes::new(), Usd::ZERO),
            _ => Phase::Failed,
        };
        state.joiners.clear();
        drop(state);
        self.flight.came.send_replace(());
    }
}

/// All clients of a flight as one.
pub(in crate::gateway) struct Crowd {
    flight: Arc<Flight>,
}

impl Client for Crowd {
    async fn left(&mut self) {
        let mut moved = self.flight.moved.subscribe();
        loop {
            {
                let mut state = self.flight.state.lock();
                if state.followers.is_empty() {
                    // nobody joins what is about to be stopped
                    state.open = false;
                    return;
                }
            }
            let _ = moved.changed().await;
        }
    }
}
