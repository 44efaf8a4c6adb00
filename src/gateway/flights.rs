//! Calls under way that several requests share. A flight owns its call: who came first may leave, and the others still
//! get their answer; it ends early only when all have left.
//!
//! What came so far is kept for those who join late, up to a bound; beyond it nobody may join any more, and the call
//! goes no faster than the slowest of its followers.

mod follower;
mod pilot;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answers::Kept;
use super::ledger::Reservation;
use super::meter::{Answer, AnswerBody};
use super::record::{Record, Refused};
use super::refusal::Refusal;
use crate::domain::cache::key::CacheKey;
use crate::domain::catalog::Deployment;
use crate::domain::ledger::Attribution;
use crate::domain::money::Usd;
use crate::domain::outcome::Ending;
use crate::domain::priced::Priced;
use crate::domain::usage::Usage;
use crate::telemetry::metrics::Metrics;
pub(super) use follower::{Begun, Follower, Piece};
pub(super) use pilot::Pilot;

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

#[cfg(test)]
mod tests;
