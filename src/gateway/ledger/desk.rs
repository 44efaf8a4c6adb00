//! Where requests, reservations and operators lay what they want written, and where the writer lies while nobody has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::journal::BATCH;
use super::{Ask, BookError, HoldError, Reservation, Settlement};
use crate::domain::budget::{Budget, Drift, Spent};
use crate::domain::ledger::{Entry, Seq};

/// A hold that somebody waits for.
pub(super) struct Wanted {
    pub(super) ask: Ask,
    /// A standing hold that it takes the place of.
    pub(super) instead_of: Option<Seq>,
    /// Since when it waits to be written: since it came, or since it has not waited for money any more.
    pub(super) since: Instant,
    /// How long it may wait for others' holds to end.
    pub(super) wait: Duration,
    /// Until when, once it waits.
    pub(super) until: Option<Instant>,
    pub(super) reply: oneshot::Sender<Result<Reservation, HoldError>>,
}

/// What is to be written without anybody waiting, and since when.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) since: Instant,
}

/// How a hold ends, or what never had one.
#[derive(Clone)]
pub(super) enum End {
    /// A request's hold, at what it used; nothing for a release.
    Settle { hold: Arc<Entry>, settlement: Option<Settlement> },
    /// A hold whose process is gone.
    Orphan(Arc<Entry>),
    /// What never had a hold.
    Loose(Box<Entry>),
}

impl End {
    pub(super) fn hold(&self) -> Option<Seq> {
        match self {
            Self::Settle { hold, .. } | Self::Orphan(hold) => Some(hold.seq),
            Self::Loose(_) => None,
        }
    }
}

/// How much waits to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Holds that requests wait for; those that wait for money are not among them.
    pub(super) holds: usize,
    /// What ends holds, and bookings without one.
    pub(super) ends: usize,
    /// Since when the oldest of them waits.
    pub(super) oldest: Option<Instant>,
}

impl Backlog {
    /// What two queues have; what has ended stands in the order in which it came.
    pub(super) fn of(holds: &VecDeque<Box<Wanted>>, ends: &VecDeque<Ended>) -> Self {
        let since = holds.iter().map(|wanted| wanted.since).chain(ends.front().map(|ended| ended.since));
        Self { holds: holds.len(), ends: ends.len(), oldest: since.min() }
    }

    fn and(self, other: Self) -> Self {
        let oldest = self.oldest.into_iter().chain(other.oldest).min();
        Self { holds: self.holds + other.holds, ends: self.ends + other.ends, oldest }
    }
}

/// Told the number of an entry that was asked for.
pub(super) type Booked = oneshot::Sender<Result<Seq, BookError>>;

/// What has come in and nobody has taken yet, and the writer while nobody has it.
pub(super) struct Desk<W> {
    pub(super) holds: VecDeque<Box<Wanted>>,
    pub(super) ends: VecDeque<Ended>,
    /// What the writer has taken and not written yet.
    pub(super) taken: Backlog,
    pub(super) bookings: VecDeque<(Box<Entry>, Booked)>,
    pub(super) defines: VecDeque<Define>,
    pub(super) proofs: VecDeque<Proof>,
    pub(super) closing: Option<oneshot::Sender<()>>,
    /// It is time to beat, or to look what others have written.
    pub(super) beat_due: bool,
    pub(super) look_due: bool,
    /// What has ended has waited long enough.
    pub(super) ends_due: bool,
    /// Somebody has told the ticker that something has ended.
    pub(super) lingers: bool,
    /// When the writer wants to be woken.
    pub(super) wake_at: Option<Instant>,
    pub(super) writer: Option<W>,
    /// Nothing more is taken in.
    pub(super) closed: bool,
}

impl<W> Default for Desk<W> {
    fn default() -> Self {
        Self {
            holds: VecDeque::new(),
            ends: VecDeque::new(),
            taken: Backlog::default(),
            bookings: VecDeque::new(),
            defines: VecDeque::new(),
            proofs: VecDeque::new(),
            closing: None,
            beat_due: false,
            look_due: false,
            ends_due: false,
            lingers: false,
            wake_at: None,
            writer: None,
            closed: false,
        }
    }
}

impl<W> Desk<W> {
    /// All that waits to be written.
    pub(super) fn backlog(&self) -> Backlog {
        Backlog::of(&self.holds, &self.ends).and(self.taken)
    }

    /// Whether somebody waits for the writer.
    pub(super) fn is_urgent(&self) -> bool {
        !self.holds.is_empty()
            || !self.bookings.is_empty()
            || !self.defines.is_empty()
            || !self.proofs.is_empty()
            || self.ends.len() >= BATCH
            || self.closing.is_some()
            || self.beat_due
            || self.look_due
            || self.ends_due
    }
}

/// New budgets, and what was spent of them.
pub(super) struct Define {
    pub(super) budgets: Vec<Arc<Budget>>,
    pub(super) history: Vec<Spent>,
    pub(super) until: Seq,
    pub(super) reply: oneshot::Sender<Result<(), HoldError>>,
}

/// What was spent, to be compared with the budgets.
pub(super) struct Proof {
    pub(super) history: Vec<Spent>,
    pub(super) until: Seq,
    pub(super) reply: oneshot::Sender<Result<Vec<Drift>, HoldError>>,
}
