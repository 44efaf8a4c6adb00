//! One deployment on the board. Everything about it lies under one lock that is held for moments, never over a wait.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use pingora::time::timeout;
use prometheus::IntCounter;
use tokio::sync::oneshot::Receiver;

use super::places::{Full, Places};
use super::stay::{Place, Stay};
use super::{Standing, Unready};
use crate::clock;
use crate::domain::breaker::{Breaker, Policy, State};
use crate::domain::catalog::{Deployment, Provider};
use crate::domain::quota::Quota;
use crate::domain::speed;

/// What is known of a deployment, and who is there.
pub(super) struct Inner {
    pub(super) policy: Policy,
    pub(super) breaker: Breaker,
    pub(super) speed: speed::Meter,
    pub(super) quota: Quota,
    pub(super) places: Places,
    /// What went wrong last: a closed set.
    pub(super) cause: &'static str,
}

/// One deployment.
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    /// With the model it says what is really asked: another one has another history.
    provider: Arc<Provider>,
    upstream_model: Arc<str>,
    /// Times are counted from here.
    started: Instant,
    sheds: IntCounter,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Entry {
    /// One of which nothing is known.
    pub(super) fn new(deployment: &Deployment, started: Instant, sheds: IntCounter) -> Self {
        let inner = Inner {
            policy: deployment.breaker,
            breaker: Breaker::default(),
            speed: speed::Meter::default(),
            quota: Quota::default(),
            places: Places::default(),
            cause: "",
        };
        let entry = Self {
            name: Arc::clone(&deployment.name),
            provider: Arc::clone(&deployment.provider),
            upstream_model: Arc::clone(&deployment.upstream_model),
            started,
            sheds,
            inner: Mutex::new(inner),
        };
        let mut inner = entry.inner.lock();
        inner.quota.set(&deployment.limits, 0);
        // nobody waits yet
        drop(inner.places.set(at_once(deployment), deployment.queue));
        drop(inner);
        entry
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(super) fn ms(&self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        i64::try_from(elapsed).unwrap_or(i64::MAX)
    }

    /// Whether it is still the same model of the same provider.
    pub(super) fn is_of(&self, deployment: &Deployment) -> bool {
        self.upstream_model == deployment.upstream_model && self.provider == deployment.provider
    }

    /// Takes over what the operator has changed.
    pub(super) fn set(self: &Arc<Self>, deployment: &Deployment, now: Instant) {
        let now_ms = self.ms(now);
        let mut inner = self.inner();
        inner.policy = deployment.breaker;
        inner.quota.set(&deployment.limits, now_ms);
        let called = inner.places.set(at_once(deployment), deployment.queue);
        drop(inner);
        for next in called {
            // who has left meanwhile drops the place, and it is given back
            drop(next.send(Place::new(Arc::clone(self), now)));
        }
    }

    /// How it stands.
    pub(super) fn standing(&self, tokens: u64, now: Instant) -> Standing {
        let now_ms = self.ms(now);
        let inner = self.inner();
        let breaker = inner.breaker.state(now_ms);
        Standing {
            breaker,
            wait_ms: breaker.wait_ms(now_ms),
            cause: inner.cause,
            speed: inner.speed.estimate(now_ms),
            quota_left_permille: inner.quota.left_share_permille(now_ms),
            quota_wait_ms: inner.quota.fits(tokens, now_ms).err().unwrap_or(0),
            tokens_per_minute: inner.quota.tokens_per_minute(),
            in_flight: inner.places.inside(),
            at_once: inner.places.at_once(),
            waiting: inner.places.waiting(),
            queue: inner.places.queue().places,
        }
    }

    /// Goes in at once, or not at all.
    pub(super) fn try_enter(self: &Arc<Self>, tokens: u64, now: Instant) -> Result<Stay, Unready> {
        let mut inner = self.inner();
        inner.is_ready(tokens, self.ms(now))?;
        if !inner.places.take() {
            // it may still wait for one: nobody is sent away yet
            return Err(Unready::Full(inner.places.full()));
        }
        drop(inner);
        self.begin(Place::new(Arc::clone(self), now), tokens, now)
    }

    /// Goes in, or waits in the queue for so long at most.
    pub(super) async fn enter(
        self: &Arc<Self>,
        tokens: u64,
        longest: Duration,
        now: Instant,
    ) -> Result<Stay, Unready> {
        let (waits, told, wait) = match self.approach(tokens, longest, now)? {
            Approach::In => return self.begin(Place::new(Arc::clone(self), now), tokens, now),
            Approach::Queued { waits, told, wait } => (waits, told, wait),
        };
        let told = timeout(wait, told).await;
        drop(waits);
        let now = clock::monotonic();
        match told {
            Ok(Ok(place)) => self.begin(place, tokens, now),
            Err(_elapsed) => Err(self.still_full()),
            // sent away: it was shut
            Ok(Err(_closed)) => {
                let state = self.inner().is_ready(tokens, self.ms(now));
                state.and_then(|()| Err(self.still_full()))
            }
        }
    }

    /// Takes a place, or one in the queue.
    fn approach(&self, tokens: u64, longest: Duration, now: Instant) -> Result<Approach<'_>, Unready> {
        let mut inner = self.inner();
        inner.is_ready(tokens, self.ms(now))?;
        if inner.places.take() {
            return Ok(Approach::In);
        }
        let wait = inner.places.queue().wait.min(longest);
        let joined = if wait.is_zero() { None } else { inner.places.join() };
        match joined {
            Some((id, told)) => Ok(Approach::Queued { waits: Waits { entry: self, id }, told, wait }),
            None => Err(self.shed(inner.places.full())),
        }
    }

    /// Begins a stay in a place that was taken. Meanwhile much may have happened.
    fn begin(&self, place: Place, tokens: u64, now: Instant) -> Result<Stay, Unready> {
        let now_ms = self.ms(now);
        let mut inner = self.inner();
        let entered = inner.is_ready(tokens, now_ms).and_then(|()| {
            let permit = inner.breaker.permit(now_ms);
            permit.map_err(|state| Unready::Shut {
                state,
                wait_ms: state.wait_ms(now_ms),
                cause: inner.cause,
            })
        });
        let entered = entered.map(|permit| (permit, inner.quota.take(tokens, now_ms)));
        // before the place, which takes the lock when it is dropped
        drop(inner);
        let (permit, mark) = entered?;
        Ok(Stay::new(permit, mark, place))
    }

    /// Tells the breaker something that may shut the way, and what went wrong; then those that wait are sent elsewhere.
    pub(super) fn shut(
        &self,
        now: Instant,
        cause: Option<&'static str>,
        tell: impl FnOnce(&mut Breaker, &Policy, i64),
    ) {
        let now_ms = self.ms(now);
        let mut inner = self.inner();
        inner.cause = cause.unwrap_or(inner.cause);
        let Inner { breaker, policy, .. } = &mut *inner;
        let before = breaker.state(now_ms);
        tell(breaker, policy, now_ms);
        let (after, cause) = (breaker.state(now_ms), inner.cause);
        let dismissed = (!after.admits()).then(|| inner.places.dismiss());
        drop(inner);
        drop(dismissed);
        self.log(before, after, cause, now_ms);
    }

    /// Says what has become of the breaker, if it is another than before.
    pub(super) fn log(&self, before: State, after: State, cause: &'static str, now_ms: i64) {
        let (deployment, for_ms) = (&self.name, after.wait_ms(now_ms));
        match (before, after) {
            (State::Open { until_ms: before }, State::Open { until_ms: after }) if before == after => {}
            (_, State::Open { .. }) => {
                tracing::warn!(%deployment, cause, for_ms, "a breaker has opened: nobody is sent there for a while");
            }
            (State::CoolingDown { .. }, State::CoolingDown { .. }) => {}
            (_, State::CoolingDown { .. }) => {
                tracing::info!(%deployment, for_ms, "a deployment asked us to come again later");
            }
            (State::HalfOpen { .. } | State::Open { .. }, State::Closed) => {
                tracing::info!(%deployment, "a breaker has closed: the deployment is well again");
            }
            _ => {}
        }
    }

    fn still_full(&self) -> Unready {
        let full = self.inner().places.full();
        self.shed(full)
    }

    fn shed(&self, full: Full) -> Unready {
        self.sheds.inc();
        Unready::Full(full)
    }
}

impl Inner {
    fn is_ready(&self, tokens: u64, now_ms: i64) -> Result<(), Unready> {
        let state = self.breaker.state(now_ms);
        if !state.admits() {
            return Err(Unready::Shut { state, wait_ms: state.wait_ms(now_ms), cause: self.cause });
        }
        self.quota.fits(tokens, now_ms).map_err(|wait_ms| Unready::Quota { wait_ms })
    }
}

fn at_once(deployment: &Deployment) -> Option<u32> {
    deployment.limits.concurrent.map(|most| u32::try_from(most).unwrap_or(u32::MAX))
}

/// How far somebody came at once.
enum Approach<'a> {
    /// A place was taken.
    In,
    /// One in the queue.
    Queued {
        /// Leaves it when dropped.
        waits: Waits<'a>,
        /// Brings the place.
        told: Receiver<Place>,
        /// How long to wait for it.
        wait: Duration,
    },
}

/// Somebody in the queue; who leaves it makes room there.
struct Waits<'a> {
    entry: &'a Entry,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.entry.inner().places.leave(self.id);
    }
}
