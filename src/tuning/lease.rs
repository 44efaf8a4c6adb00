//! Doing alone what only one process may do: stepping jobs, reading the deployments of an account.
//!
//! Who has a lease beats; another one takes it when the beat has not changed for the lease's length on the taker's own
//! steady clock. Whoever does something that must not be done twice asks [`Lease::is_ours`] just before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::StoreError;
use crate::store::leases::{LeaseRow, LeaseRows};

/// A lease, as this process sees it.
#[derive(Debug)]
pub struct Lease {
    rows: LeaseRows,
    name: &'static str,
    holder: Arc<str>,
    length: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Another one's beat, and since when it has not changed.
    seen: Option<(LeaseRow, Instant)>,
    /// When our last beat that was written was begun.
    ours: Option<Instant>,
}

impl Lease {
    /// A lease that nobody of this process has yet. `holder` is the process's id.
    pub fn new(rows: LeaseRows, name: &'static str, holder: Arc<str>, length: Duration) -> Self {
        Self { rows, name, holder, length, state: Mutex::default() }
    }

    /// How often [`Lease::keep`] is to be called.
    pub fn beat_every(&self) -> Duration {
        self.length / 5
    }

    /// Whether it is safe to take it for ours: nobody else can have taken it yet.
    pub fn is_ours(&self, now: Instant) -> bool {
        let half = self.length / 2;
        self.state.lock().ours.is_some_and(|beaten| now.saturating_duration_since(beaten) < half)
    }

    /// Beats where it is ours, takes it where it may be taken. Whether it is ours.
    ///
    /// # Errors
    ///
    /// When the database fails; [`Lease::is_ours`] still says how long it is safe to go on.
    pub async fn keep(&self, now: Instant) -> Result<bool, StoreError> {
        if self.state.lock().ours.is_some() {
            if self.rows.beat(self.name, &self.holder).await? {
                self.state.lock().ours = Some(now);
                return Ok(true);
            }
            // somebody has taken us for dead
            *self.state.lock() = State::default();
        }
        let found = self.rows.find(self.name).await?;
        if !self.may_take(found.as_ref(), now)
            || !self.rows.take(self.name, &self.holder, found.as_ref()).await?
        {
            return Ok(false);
        }
        *self.state.lock() = State { seen: None, ours: Some(now) };
        Ok(true)
    }

    /// Whether a lease that was found is anybody's to take: nobody's, or one whose beat stands still.
    fn may_take(&self, found: Option<&LeaseRow>, now: Instant) -> bool {
        let Some(found) = found else { return true };
        let mut state = self.state.lock();
        match &state.seen {
            Some((seen, since)) if seen == found => now.saturating_duration_since(*since) >= self.length,
            _ => {
                state.seen = Some((found.clone(), now));
                false
            }
        }
    }

    /// Gives it back, so that another process need not wait.
    pub async fn free(&self) {
        let ours = std::mem::take(&mut *self.state.lock()).ours.is_some();
        if ours && let Err(error) = self.rows.free(self.name, &self.holder).await {
            tracing::debug!(%error, lease = self.name, "a lease was not given back: it runs out by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::store::testing::TestDatabase;

    #[tokio::test]
    async fn the_one_that_stands_still_loses_it() {
        let database = TestDatabase::sqlite();
        let store = database.open().await;
        let lease =
            |holder: &str| Lease::new(LeaseRows::new(&store), "jobs", holder.into(), Duration::from_secs(20));
        let (a, b) = (lease("a"), lease("b"));
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(a.keep(at(0)).await.expect("asked") && a.is_ours(at(9)) && !a.is_ours(at(10)));
        assert!(!b.keep(at(1)).await.expect("asked"));
        assert!(a.keep(at(4)).await.expect("asked"), "it beats");
        assert!(!b.keep(at(21)).await.expect("asked"), "the beat has changed since");
        assert!(!b.keep(at(40)).await.expect("asked"));
        assert!(b.keep(at(41)).await.expect("asked"), "it stands still");
        assert!(!a.keep(at(42)).await.expect("asked") && !a.is_ours(at(42)), "it has been taken for dead");
        b.free().await;
        assert!(a.keep(at(43)).await.expect("asked"), "nobody waits for what was given back");
    }
}
