//! Calls under way that several requests share. A flight owns its call: who came first may leave, and the others still
//! get their answer; it ends early only when all have left.
//!
//! What came so far is kept for those who join late, up to a bound; beyond it nobody may join any more, and the call
//! goes no faster than the slowest of its followers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora::time::sleep;
use tokio::sync::watch;

use super::answers::Kept;
use super::ledger::Reservation;
use super::meter::{Answer, AnswerBody};
use super::presence::Client;
use super::record::{Record, Refused};
use super::refusal::Refusal;
use crate::domain::cache::key::CacheKey;
use crate::domain::catalog::Deployment;
use crate::domain::ledger::Attribution;
use crate::domain::money::Usd;
use crate::domain::outcome::Ending;
use crate::domain::priced::Priced;
use crate::domain::usage::Usage;
use crate::sse;
use crate::telemetry::metrics::Metrics;

/// So long a call that is longer than what is held waits for its slowest followers, before they are let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// All flights that may be joined.
pub struct Flights {
    under_way: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    metrics: Arc<Metrics>,
    /// What a flight keeps of its answer, bytes.
    most_bytes: usize,
    /// How long the slowest is waited for.
    patience: Duration,
}

/// One call.
struct Flight {
    /// Whether its answer comes as a stream.
    stream: bool,
    state: Mutex<State>,
    /// Told to the followers: something has come.
    came: watch::Sender<()>,
    /// Told to the pilot: a follower has taken something, or left.
    moved: watch::Sender<()>,
}

struct State {
    phase: Phase,
    /// How a stream began.
    head: Option<Arc<Head>>,
    /// Whether anybody may still join.
    open: bool,
    /// Whether only the leader may have the answer.
    sealed: bool,
    pieces: VecDeque<Bytes>,
    /// The number of the first piece that is still here.
    first: u64,
    /// Bytes of the pieces here.
    bytes: usize,
    /// By their numbers: the next piece of each. The leader is 0.
    followers: BTreeMap<u64, u64>,
    next_follower: u64,
    /// Who is booked with it when it lands, by the follower's number.
    joiners: BTreeMap<u64, Joiner>,
    /// Who was too slow, and is followed by nobody any more.
    cut_off: BTreeSet<u64>,
    /// It is longer than what is held: it can't be had whole.
    too_long: bool,
    /// How it ended for the leader; taken by it, if it is still there.
    leader: Option<LeaderEnd>,
}

enum Phase {
    /// Nothing has come.
    Asking,
    /// It is a stream, and it has begun.
    Begun,
    /// All of it is here.
    Landed(Landed),
    /// It broke off in the middle: what the clients are told, and what each paid who share its cost.
    Broke(Bytes, Usd),
    /// Nothing came of it.
    Failed,
}

/// How an answer begins.
#[derive(Debug)]
pub(super) struct Head {
    /// As its leader gets it.
    pub(super) leads: Vec<(HeaderName, HeaderValue)>,
    /// As all others do.
    pub(super) joins: Vec<(HeaderName, HeaderValue)>,
    /// Its status.
    pub(super) status: u16,
    /// What its tokens cost, for what the leader is told of it.
    pub(super) priced: Option<Priced>,
}

/// What has landed.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    /// What an upstream was asked for.
    Asked(Asked),
    /// What was kept, the answer to a question that means the same; and how near that is.
    Found(Arc<Kept>, f32),
}

/// An answer that several share.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Its head.
    pub(super) head: Arc<Head>,
    /// All of it; none where it was too long to be held.
    pub(super) answer: Option<Arc<Kept>>,
    /// What it used and cost.
    pub(super) worth: Worth,
    /// What each of those paid who share its cost.
    pub(super) share: Usd,
    /// Whether it came whole, and not as a stream.
    pub(super) whole: bool,
}

/// What an answer used and cost.
#[derive(Debug, Clone)]
pub(super) struct Worth {
    /// Its tokens.
    pub(super) usage: Usage,
    /// What they cost.
    pub(super) cost: Usd,
    /// The version of the price.
    pub(super) price: Arc<str>,
    /// Who billed it.
    pub(super) deployment: Arc<Deployment>,
    /// The stored prompt that was put in.
    pub(super) prompt: Option<Arc<str>>,
}

/// Who shares a flight beside its leader, and how it is booked.
pub(super) struct Joiner {
    /// The request's id.
    pub(super) request_id: Arc<str>,
    /// Whom it is booked on.
    pub(super) attribution: Arc<Attribution>,
    /// When it came, ms since 1970 UTC.
    pub(super) at_ms: i64,
    /// What it pays its share with; none where it pays nothing.
    pub(super) reservation: Option<Reservation>,
    /// Whether it wants the answer as it comes: whole or as a stream.
    pub(super) as_it_comes: bool,
}

/// How a flight ended for its leader.
pub(super) enum LeaderEnd {
    /// With an answer; the outcome is still to be ended.
    Answered(Box<Record>, Ending),
    /// With an answer that others had already.
    Found(Box<Record>),
    /// With an error of an upstream's for its request alone.
    Told(Box<Answer>),
    /// Without an answer.
    Refused(Box<Refused>),
}

impl LeaderEnd {
    /// Nobody waits for it any more, who got this status, or 0 where none.
    fn abandoned(self, status: u16) {
        let record = match self {
            Self::Answered(record, _) | Self::Found(record) => record,
            Self::Refused(refused) => return refused.record.refused(&Refusal::ClientGone, status),
            // dropped, it writes itself
            Self::Told(answer) => match answer.body {
                AnswerBody::Whole { record, .. } => record,
                AnswerBody::Stream(_) => return,
            },
        };
        record.ended(Ending::ClientGone, status);
    }
}

/// A request at the gate.
pub(super) enum Boarding {
    /// It leads: the pilot flies, the follower sits with the others.
    Leads(Pilot, Follower),
    /// It follows.
    Joins(Follower),
}

impl Flights {
    /// None under way; each holds its answer up to so many bytes.
    pub fn new(metrics: Arc<Metrics>, most_bytes: usize) -> Self {
        Self { under_way: Mutex::default(), metrics, most_bytes, patience: PATIENCE }
    }

    /// Joins the flight of a key, or leads one. `kept` is asked first, while nobody else can land or take off: whoever
    /// leads knows that there is no answer yet.
    pub(super) fn board(
        self: &Arc<Self>,
        key: CacheKey,
        stream: bool,
        kept: impl FnOnce() -> Option<Arc<Kept>>,
    ) -> Result<Boarding, Arc<Kept>> {
        let mut under_way = self.under_way.lock();
        if let Some(follower) = under_way.get(&key).and_then(|flight| Follower::join(flight, &self.metrics)) {
            return Ok(Boarding::Joins(follower));
        }
        if let Some(kept) = kept() {
            return Err(kept);
        }
        let flight = Arc::new(Flight::new(stream));
        under_way.insert(key, Arc::clone(&flight));
        let (pilot, follower) = self.leads(flight, Some(key));
        Ok(Boarding::Leads(pilot, follower))
    }

    /// A flight that nobody can join.
    pub(super) fn alone(self: &Arc<Self>, stream: bool) -> (Pilot, Follower) {
        // what nobody finds nobody joins; open, it holds its answer
        self.leads(Arc::new(Flight::new(stream)), None)
    }

    fn leads(self: &Arc<Self>, flight: Arc<Flight>, key: Option<CacheKey>) -> (Pilot, Follower) {
        let follower = Follower::lead(&flight);
        self.metrics.cache.flights.inc();
        (Pilot { flight, flights: Arc::clone(self), key }, follower)
    }
}

impl Flight {
    fn new(stream: bool) -> Self {
        Self {
            stream,
            state: Mutex::new(State {
                phase: Phase::Asking,
                head: None,
                open: true,
                sealed: false,
                pieces: VecDeque::new(),
                first: 0,
                bytes: 0,
                followers: BTreeMap::new(),
                next_follower: 0,
                joiners: BTreeMap::new(),
                cut_off: BTreeSet::new(),
                too_long: false,
                leader: None,
            }),
            came: watch::Sender::new(()),
            moved: watch::Sender::new(()),
        }
    }
}

impl State {
    /// Forgets what all have, once nobody may join.
    fn trim(&mut self) {
        if self.open {
            return;
        }
        let slowest = self.followers.values().copied().min().unwrap_or(u64::MAX);
        while self.first < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.first += 1;
            self.bytes -= piece.len();
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Landed(_) | Phase::Broke(..) | Phase::Failed)
    }
}

/// Who flies: owned by the call's own task. Dropped before the end, it fails.
pub(super) struct Pilot {
    flight: Arc<Flight>,
    flights: Arc<Flights>,
    /// Where it may be joined.
    key: Option<CacheKey>,
}

impl Pilot {
    /// Its clients as one, who has left when all have.
    pub(super) fn crowd(&self) -> Crowd {
        Crowd { flight: Arc::clone(&self.flight) }
    }

    /// A stream begins.
    pub(super) fn begins(&self, head: Arc<Head>) {
        {
            let mut state = self.flight.state.lock();
            (state.phase, state.head) = (Phase::Begun, Some(head));
        }
        self.flight.came.send_replace(());
    }

    /// From now on it is the leader's alone: who has joined tries anew.
    pub(super) fn seal(&self) {
        drop(self.closes());
        self.flight.state.lock().sealed = true;
        self.flight.came.send_replace(());
    }

    /// The next of a stream. Waits while the slowest follower is too far behind.
    pub(super) async fn brings(&self, bytes: Bytes) {
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
    pub(super) fn all(&self) -> Option<Bytes> {
        let state = self.flight.state.lock();
        (state.first == 0).then(|| {
            let mut all = Vec::with_capacity(state.bytes);
            state.pieces.iter().for_each(|piece| all.extend_from_slice(piece));
            all.into()
        })
    }

    /// Nobody joins from now on; returns who has.
    pub(super) fn closes(&self) -> Vec<Joiner> {
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
    pub(super) fn lands(self, landed: Landed, leader: LeaderEnd) {
        self.ends(Phase::Landed(landed), leader);
    }

    /// It broke off after its beginning.
    pub(super) fn breaks(self, event: Bytes, share: Usd, leader: LeaderEnd) {
        self.ends(Phase::Broke(event, share), leader);
    }

    /// Nothing came of it: who has joined tries anew.
    pub(super) fn fails(self, leader: LeaderEnd) {
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
pub(super) struct Crowd {
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

/// One request's part in a flight. Dropped, it has left.
pub(super) struct Follower {
    flight: Arc<Flight>,
    came: watch::Receiver<()>,
    number: u64,
    /// The piece that it began at.
    joined_at: u64,
    /// Counted among the followers; none for a leader.
    metrics: Option<Arc<Metrics>>,
}

/// What a follower finds first.
pub(super) enum Begun {
    /// A stream has begun.
    Stream(Arc<Head>),
    /// All of it has come.
    Landed(Landed),
    /// Nothing came of it, or not for this follower.
    Failed,
}

/// What a follower of a stream gets next.
pub(super) enum Piece {
    /// All that has come since.
    Bytes(Bytes),
    /// The end.
    End,
    /// It broke off: what the client is told.
    Broke(Bytes),
}

impl Follower {
    fn lead(flight: &Arc<Flight>) -> Self {
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

    fn join(flight: &Arc<Flight>, metrics: &Arc<Metrics>) -> Option<Self> {
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
    pub(super) fn is_stream(&self) -> bool {
        self.flight.stream
    }

    /// How many pay for it so far, the leader among them.
    pub(super) fn payers(&self) -> usize {
        let state = self.flight.state.lock();
        1 + state.joiners.values().filter(|joiner| joiner.reservation.is_some()).count()
    }

    /// Is booked with the flight when it lands. It comes back where that has happened, or will not.
    pub(super) fn is_booked(&self, joiner: Joiner) -> Option<Joiner> {
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
    pub(super) async fn begun(&mut self) -> Begun {
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
    pub(super) async fn landed(&mut self) -> Option<Landed> {
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
    pub(super) async fn next(&mut self) -> Piece {
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
    pub(super) fn has_landed(&self) -> Option<Landed> {
        match &self.flight.state.lock().phase {
            Phase::Landed(landed) => Some(landed.clone()),
            _ => None,
        }
    }

    /// What each paid who share its cost, of a call that broke off.
    pub(super) fn share_of_broken(&self) -> Option<Usd> {
        match &self.flight.state.lock().phase {
            Phase::Broke(_, share) => Some(*share),
            _ => None,
        }
    }

    /// How it ended for the leader.
    pub(super) fn leaders_end(&self) -> Option<LeaderEnd> {
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::cache::key::some_key;
    use crate::telemetry::metrics::Config;

    fn flights(most_bytes: usize) -> Arc<Flights> {
        let metrics = Metrics::new(Config::default()).expect("metrics");
        let flights = Flights::new(Arc::new(metrics), most_bytes);
        Arc::new(Flights { patience: Duration::from_millis(50), ..flights })
    }

    fn head() -> Arc<Head> {
        Arc::new(Head { leads: Vec::new(), joins: Vec::new(), status: 200, priced: None })
    }

    fn led(flights: &Arc<Flights>, stream: bool) -> (Pilot, Follower) {
        match flights.board(some_key(1), stream, || None) {
            Ok(Boarding::Leads(pilot, follower)) => (pilot, follower),
            _ => panic!("nobody leads yet"),
        }
    }

    fn joined(flights: &Arc<Flights>) -> Option<Follower> {
        match flights.board(some_key(1), true, || None) {
            Ok(Boarding::Joins(follower)) => Some(follower),
            _ => None,
        }
    }

    /// What is there for a follower now.
    fn read(follower: &mut Follower, into: &mut Vec<u8>) -> bool {
        while let Some(piece) = follower.next().now_or_never() {
            match piece {
                Piece::Bytes(bytes) => into.extend_from_slice(&bytes),
                Piece::End => return true,
                Piece::Broke(_) => panic!("nothing broke"),
            }
        }
        false
    }

    #[tokio::test]
    async fn whoever_joins_when_and_reads_how_fast_gets_all_of_it() {
        for seed in 0..300_u64 {
            let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut roll = |below: u64| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % below
            };
            let flights = flights(1 << 20);
            let (pilot, leader) = led(&flights, true);
            pilot.begins(head());
            let (mut sent, mut following) = (Vec::new(), vec![(leader, Vec::new())]);
            for number in 0..40_u8 {
                match roll(5) {
                    0 => following.extend(joined(&flights).map(|follower| (follower, Vec::new()))),
                    1 if following.len() > 1 => {
                        let gone = usize::try_from(roll(following.len() as u64)).expect("few");
                        drop(following.remove(gone));
                    }
                    2 => {
                        let at = usize::try_from(roll(following.len() as u64)).expect("few");
                        let (follower, got) = &mut following[at];
                        assert!(!read(follower, got));
                    }
                    _ => {
                        let piece = vec![number; usize::try_from(roll(50)).expect("few") + 1];
                        sent.extend_from_slice(&piece);
                        pilot.brings(piece.into()).await;
                    }
                }
            }
            assert_eq!(pilot.all().as_deref(), Some(&*sent), "{seed}");
            drop(pilot.closes());
            pilot.flight.state.lock().phase = Phase::Failed;
            pilot.flight.came.send_replace(());
            for (follower, got) in &mut following {
                while let Some(Piece::Bytes(bytes)) = follower.next().now_or_never() {
                    got.extend_from_slice(&bytes);
                }
                assert_eq!(*got, sent, "{seed}");
            }
        }
    }

    #[tokio::test]
    async fn who_comes_when_all_have_left_leads_anew() {
        let flights = flights(1 << 20);
        let (pilot, leader) = led(&flights, true);
        drop(leader);
        assert!(pilot.crowd().left().now_or_never().is_some());
        assert!(matches!(flights.board(some_key(1), true, || None), Ok(Boarding::Leads(..))));
    }

    #[tokio::test]
    async fn a_sealed_call_is_nobodys_but_its_leaders() {
        let flights = flights(1 << 20);
        let (pilot, mut leader) = led(&flights, false);
        let (mut one, mut other) = (joined(&flights).expect("open"), joined(&flights).expect("open"));
        pilot.seal();
        pilot.begins(head());
        assert!(matches!(one.begun().await, Begun::Failed));
        assert!(other.landed().await.is_none());
        assert!(matches!(leader.begun().await, Begun::Stream(_)));
    }

    #[tokio::test]
    async fn beyond_its_bound_a_call_waits_for_the_slowest_and_then_lets_it_go() {
        let flights = flights(10);
        let (pilot, mut leader) = led(&flights, true);
        let mut slow = joined(&flights).expect("open");
        pilot.begins(head());
        let mut got = Vec::new();
        for _ in 0..3 {
            let mut bringing = pin!(pilot.brings(Bytes::from_static(b"12345678")));
            while bringing.as_mut().now_or_never().is_none() {
                read(&mut leader, &mut got);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        read(&mut leader, &mut got);
        assert_eq!(got.len(), 24);
        assert!(matches!(slow.next().await, Piece::Broke(_)), "it was let go");
        assert!(slow.landed().now_or_never().is_some_and(|landed| landed.is_none()));
        assert!(joined(&flights).is_none(), "too long to be joined");
    }

    #[tokio::test]
    async fn a_pilot_that_is_cut_off_leaves_nobody_waiting() {
        let flights = flights(1 << 20);
        let (pilot, mut leader) = led(&flights, true);
        let mut other = joined(&flights).expect("open");
        drop(pilot);
        assert!(matches!(leader.begun().await, Begun::Failed));
        assert!(matches!(other.begun().await, Begun::Failed));
    }
}
