//! A request's stay at a deployment: its place there, from before it is sent until its last byte has come, and its leave
//! of the breaker. What it learns there it says here; dropped without a word, it says nothing about the deployment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use crate::clock;
use crate::domain::breaker::Permit;
use crate::domain::patience::QuotaSeen;
use crate::domain::quota::Mark;
use crate::domain::speed::Observation;

/// The cause where an account has run out of money; [`Fault::Quota`](crate::domain::fault::Fault)'s name.
const QUOTA: &str = "quota";

/// A place among the requests that a deployment serves, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    entry: Arc<Entry>,
    since: Instant,
    /// Whether it is another's now.
    passed_on: bool,
}

impl Place {
    /// One that was taken.
    pub(super) const fn new(entry: Arc<Entry>, since: Instant) -> Self {
        Self { entry, since, passed_on: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.passed_on {
            return;
        }
        let now = clock::monotonic();
        self.entry.inner().places.note(now.saturating_duration_since(self.since));
        loop {
            let Some(next) = self.entry.inner().places.give_back() else { return };
            // sent without the lock: who has left meanwhile lets the place fall into our hands again
            match next.send(Self::new(Arc::clone(&self.entry), now)) {
                Ok(()) => return,
                Err(mut place) => place.passed_on = true,
            }
        }
    }
}

/// A request's stay at a deployment.
#[must_use]
#[derive(Debug)]
pub struct Stay {
    /// None once the breaker has its outcome.
    permit: Option<Permit>,
    mark: Mark,
    place: Place,
}

impl Stay {
    pub(super) const fn new(permit: Permit, mark: Mark, place: Place) -> Self {
        Self { permit: Some(permit), mark, place }
    }

    /// Whether this request finds out if the deployment is well again.
    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// The answer's head has come, and says so much of the quota.
    pub fn seen(&self, seen: &QuotaSeen, now: Instant) {
        let now_ms = self.place.entry.ms(now);
        self.place.entry.inner().quota.seen(seen, self.mark, now_ms);
    }

    /// The answer has begun, and well: a long stream that is a probe does not keep the next one waiting.
    pub fn answered(&mut self, now: Instant) {
        let Some(permit) = self.permit.take() else { return };
        let now_ms = self.place.entry.ms(now);
        let mut inner = self.place.entry.inner();
        let policy = inner.policy;
        let before = inner.breaker.state(now_ms);
        self.permit = Some(inner.breaker.answered(&policy, permit, now_ms));
        let (after, cause) = (inner.breaker.state(now_ms), inner.cause);
        drop(inner);
        self.place.entry.log(before, after, cause, now_ms);
    }

    /// It has ended well; what was measured, where all of it was read.
    pub fn succeeded(mut self, observation: Option<Observation>, now: Instant) {
        let now_ms = self.place.entry.ms(now);
        let mut inner = self.place.entry.inner();
        if let Some(observation) = observation {
            inner.speed.note(observation, now_ms);
        }
        let (policy, before) = (inner.policy, inner.breaker.state(now_ms));
        if let Some(permit) = self.permit.take() {
            inner.breaker.succeeded(&policy, permit, now_ms);
        }
        let (after, cause) = (inner.breaker.state(now_ms), inner.cause);
        drop(inner);
        self.place.entry.log(before, after, cause, now_ms);
    }

    /// It has failed by the deployment's fault, `cause` of a closed set.
    pub fn failed(mut self, cause: &'static str, now: Instant) {
        let Some(permit) = self.permit.take() else { return };
        self.place
            .entry
            .shut(now, Some(cause), |breaker, policy, now_ms| breaker.failed(policy, permit, now_ms));
    }

    /// The deployment wants to be left alone for so long.
    pub fn told_to_wait(self, wait: Duration, now: Instant) {
        self.place.entry.shut(now, None, |breaker, _, now_ms| {
            let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            breaker.cool_down(now_ms.saturating_add(wait_ms));
        });
    }

    /// The account behind the deployment has no money left, or may not use it.
    pub fn out_of_quota(self, now: Instant) {
        let entry = &self.place.entry;
        entry.shut(now, Some(QUOTA), |breaker, policy, now_ms| {
            breaker.open_for(policy.quota_cooldown, now_ms)
        });
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.place.entry.inner().breaker.abandoned(permit);
        }
    }
}
