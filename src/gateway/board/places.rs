//! The places before a deployment: so many requests at once, and a bounded queue, first come, first served.
//!
//! Whoever gives a place back hands it to the next in the queue, so nobody overtakes. A place that was handed to
//! somebody who has just left comes back when it is dropped.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot::{self, Receiver, Sender};

use super::stay::Place;
use crate::domain::catalog::Queue;

/// Of the mean time in a place, each new one takes this share.
const SHARE_OF_THE_LAST: f64 = 1.0 / 32.0;
/// Bounds of what a client is told to wait, ms: below it would come back too soon, above it would give up.
const RETRY_AFTER_MS: std::ops::RangeInclusive<f64> = 1_000.0..=60_000.0;

/// Nobody else fits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// When to come again, ms: when those in the queue will have been served, by the time that it takes of late.
    pub retry_after_ms: u64,
    /// Requests in the queue.
    pub waiting: u32,
    /// Most of them.
    pub queue: u32,
    /// Most requests being served at once.
    pub at_once: u32,
}

struct Waiting {
    id: u64,
    tell: Sender<Place>,
}

/// The places of one deployment.
#[derive(Default)]
pub(super) struct Places {
    at_once: Option<u32>,
    queue: Queue,
    inside: u32,
    /// In the order they came, so by rising ids.
    waiting: VecDeque<Waiting>,
    last_id: u64,
    /// How long a place is held, ms.
    mean_ms: Option<f64>,
}

impl Places {
    /// Sets how many there are. Returned is who gets a place by that; those places are taken.
    #[must_use]
    pub(super) fn set(&mut self, at_once: Option<u32>, queue: Queue) -> Vec<Sender<Place>> {
        (self.at_once, self.queue) = (at_once, queue);
        let mut called = Vec::new();
        while self.is_free()
            && let Some(next) = self.waiting.pop_front()
        {
            self.inside += 1;
            called.push(next.tell);
        }
        called
    }

    /// Takes a place, unless none is free or others wait for it.
    pub(super) fn take(&mut self) -> bool {
        let free = self.is_free() && self.waiting.is_empty();
        self.inside += u32::from(free);
        free
    }

    /// Joins the queue, unless it is full.
    pub(super) fn join(&mut self) -> Option<(u64, Receiver<Place>)> {
        if self.waiting() >= self.queue.places {
            return None;
        }
        let (tell, told) = oneshot::channel();
        self.last_id += 1;
        self.waiting.push_back(Waiting { id: self.last_id, tell });
        Some((self.last_id, told))
    }

    /// Leaves the queue; nothing where it has been left before, or served.
    pub(super) fn leave(&mut self, id: u64) {
        if let Ok(place) = self.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            self.waiting.remove(place);
        }
    }

    /// Sends all away that wait: each finds its channel closed when what is returned is dropped.
    #[must_use]
    pub(super) fn dismiss(&mut self) -> impl Drop + use<> {
        std::mem::take(&mut self.waiting)
    }

    /// Gives a place back. Returned is to whom it goes on; it stays taken then.
    #[must_use]
    pub(super) fn give_back(&mut self) -> Option<Sender<Place>> {
        let next = match self.at_once {
            // there are fewer places than there were
            Some(at_once) if self.inside > at_once => None,
            _ => self.waiting.pop_front(),
        };
        self.inside -= u32::from(next.is_none());
        next.map(|next| next.tell)
    }

    /// Notes how long a place was held.
    pub(super) fn note(&mut self, held: Duration) {
        let held_ms = held.as_secs_f64() * 1_000.0;
        self.mean_ms = Some(self.mean_ms.map_or(held_ms, |mean| mean + (held_ms - mean) * SHARE_OF_THE_LAST));
    }

    /// What is told to whom nothing can be given.
    pub(super) fn full(&self) -> Full {
        let at_once = self.at_once.unwrap_or(u32::MAX);
        let mean_ms = self.mean_ms.unwrap_or(0.0);
        let wait_ms = f64::from(self.waiting() + 1) * mean_ms / f64::from(at_once.max(1));
        Full {
            retry_after_ms: wait_ms.clamp(*RETRY_AFTER_MS.start(), *RETRY_AFTER_MS.end()).ceil() as u64,
            waiting: self.waiting(),
            queue: self.queue.places,
            at_once,
        }
    }

    fn is_free(&self) -> bool {
        self.at_once.is_none_or(|at_once| self.inside < at_once)
    }

    pub(super) const fn inside(&self) -> u32 {
        self.inside
    }

    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    pub(super) const fn at_once(&self) -> Option<u32> {
        self.at_once
    }

    pub(super) const fn queue(&self) -> Queue {
        self.queue
    }
}
