//! How much may be asked: by a key, by a team, of a model, in a minute and at once; and of this process at once.
//!
//! Of all limits that apply to a request, each is taken from or none is. A request says what it will use at most; when
//! its true number is known, the rest comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::admit::Admitted;
use super::limited::{Limit, Limited, Scope, Standings};
use super::refusal::Refusal;
use crate::clock;
use crate::domain::catalog::Model;
use crate::domain::limit::{Meter, RateLimits, Short};

/// From so many meters on, those that say nothing are thrown away.
const FIRST_SWEEP: usize = 1_024;
/// When to come again where only the end of another request makes room: nobody knows when that is.
const SOON_MS: u64 = 1_000;

/// How much may be under way in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Requests being served.
    pub max_in_flight: u64,
    /// Bytes of their bodies.
    pub max_body_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_in_flight: 10_000, max_body_bytes: 1 << 30 }
    }
}

/// The meters of one key, team or model.
#[derive(Debug, Default)]
struct Meters {
    requests: Meter,
    tokens: Meter,
    at_once: u64,
    /// The limits that were last applied.
    limits: RateLimits,
}

impl Meters {
    fn is_idle(&mut self, now_ms: i64) -> bool {
        self.at_once == 0
            && self.requests.is_idle(self.limits.requests_per_minute.unwrap_or(1), now_ms)
            && self.tokens.is_idle(self.limits.tokens_per_minute.unwrap_or(1), now_ms)
    }
}

/// A key's or team's id, or a model's name.
type Id = (Scope, Arc<str>);

/// All meters. There are no more than there are keys, teams and models with limits.
#[derive(Debug)]
struct AllMeters {
    of: HashMap<Id, Meters>,
    sweep_at: usize,
}

/// The limits of this process.
#[derive(Debug)]
pub struct Limits {
    config: Config,
    /// Times are counted from here.
    started: Instant,
    meters: Mutex<AllMeters>,
    in_flight: AtomicU64,
    body_bytes: AtomicU64,
}

/// Limits that apply to a request.
struct Applying {
    id: Id,
    name: Arc<str>,
    limits: RateLimits,
}

impl Limits {
    /// Limits from which nothing is taken yet.
    pub fn new(config: Config, now: Instant) -> Self {
        let meters = Mutex::new(AllMeters { of: HashMap::new(), sweep_at: FIRST_SWEEP });
        Self { config, started: now, meters, in_flight: AtomicU64::new(0), body_bytes: AtomicU64::new(0) }
    }

    /// Takes a place among the requests being served.
    pub fn place(self: &Arc<Self>) -> Result<Place, Refusal> {
        match take(&self.in_flight, 1, self.config.max_in_flight) {
            true => Ok(Place { limits: Arc::clone(self), body_bytes: 0 }),
            false => Err(Refusal::Overloaded("requests")),
        }
    }

    /// Takes one request and so many tokens from all limits that apply, or nothing from any.
    ///
    /// # Errors
    ///
    /// With the limit that will stand against the request for longest.
    pub fn enter(
        self: &Arc<Self>,
        admitted: &Admitted,
        model: &Model,
        tokens: u64,
        now: Instant,
    ) -> Result<Entered, Box<Limited>> {
        let applying = applying(admitted, model);
        if applying.is_empty() {
            let taken = Vec::new();
            return Ok(Entered { limits: Arc::clone(self), taken, tokens, standings: Standings::default() });
        }
        let now_ms = self.ms(now);
        let mut all = self.meters.lock();
        all.sweep(now_ms);
        let mut against: Option<Limited> = None;
        for applying in &applying {
            let meters = all.of.entry(applying.id.clone()).or_default();
            meters.limits = applying.limits;
            for found in applying.check(meters, tokens, now_ms) {
                let wait = |limited: &Limited| limited.retry_after_ms.unwrap_or(u64::MAX);
                if against.as_ref().is_none_or(|noted| wait(&found) > wait(noted)) {
                    against = Some(found);
                }
            }
        }
        let taken = match &against {
            None => applying.iter().map(|applying| applying.take(&mut all, tokens, now_ms)).collect(),
            Some(_) => Vec::new(),
        };
        let mut standings = Standings::default();
        for Applying { id, limits, .. } in &applying {
            let Some(meters) = all.of.get_mut(id) else { continue };
            if let Some(quota) = limits.requests_per_minute {
                standings.note(Limit::Requests, meters.requests.standing(quota, now_ms));
            }
            if let Some(quota) = limits.tokens_per_minute {
                standings.note(Limit::Tokens, meters.tokens.standing(quota, now_ms));
            }
        }
        match against {
            Some(limited) => Err(Box::new(Limited { standings, ..limited })),
            None => Ok(Entered { limits: Arc::clone(self), taken, tokens, standings }),
        }
    }

    fn ms(&self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        i64::try_from(elapsed).unwrap_or(i64::MAX)
    }
}

/// Adds to a counter unless it would pass its limit.
fn take(counter: &AtomicU64, more: u64, most: u64) -> bool {
    let add = |taken: u64| taken.checked_add(more).filter(|sum| *sum <= most);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

fn applying(admitted: &Admitted, model: &Model) -> Vec<Applying> {
    let Admitted { key, team } = admitted;
    let model_name: Arc<str> = model.name.as_str().into();
    let team = team.as_ref().map(|team| (Scope::Team, &team.id, &team.alias, team.limits));
    let all = [
        Some((Scope::Key, &key.id, &key.alias, key.terms.limits)),
        team,
        Some((Scope::Model, &model_name, &model_name, model.limits)),
    ];
    let limited = all.into_iter().flatten().filter(|(.., limits)| !limits.is_empty());
    limited
        .map(|(scope, id, name, limits)| Applying {
            id: (scope, Arc::clone(id)),
            name: Arc::clone(name),
            limits,
        })
        .collect()
}

impl Applying {
    /// What stands against a request.
    fn check(&self, meters: &mut Meters, tokens: u64, now_ms: i64) -> Vec<Limited> {
        let mut against = Vec::new();
        let mut note = |limit, most, used, requested, retry_after_ms| {
            let (scope, name, standings) = (self.id.0, Arc::clone(&self.name), Standings::default());
            against.push(Limited { scope, name, limit, most, used, requested, retry_after_ms, standings });
        };
        for (limit, meter, quota, cells) in [
            (Limit::Requests, &mut meters.requests, self.limits.requests_per_minute, 1),
            (Limit::Tokens, &mut meters.tokens, self.limits.tokens_per_minute, tokens),
        ] {
            let Some(quota) = quota else { continue };
            let Err(short) = meter.check(quota, cells, now_ms) else { continue };
            let used = quota - meter.standing(quota, now_ms).remaining;
            let wait_ms = match short {
                Short::Wait(ms) => Some(ms),
                Short::TooMany => None,
            };
            note(limit, quota, used, cells, wait_ms);
        }
        if let Some(most) = self.limits.concurrent.filter(|most| meters.at_once >= *most) {
            note(Limit::Concurrent, most, meters.at_once, 1, Some(SOON_MS));
        }
        against
    }

    fn take(&self, all: &mut AllMeters, tokens: u64, now_ms: i64) -> Taken {
        let meters = all.of.entry(self.id.clone()).or_default();
        if let Some(quota) = self.limits.requests_per_minute {
            meters.requests.take_for_good(quota, 1, now_ms);
        }
        meters.at_once += 1;
        let quota = self.limits.tokens_per_minute;
        Taken {
            id: self.id.clone(),
            tokens: quota.map(|quota| (quota, meters.tokens.take(quota, tokens, now_ms))),
        }
    }
}

impl AllMeters {
    /// Throws away what says nothing, each time that the number of meters has doubled.
    fn sweep(&mut self, now_ms: i64) {
        if self.of.len() >= self.sweep_at {
            self.of.retain(|_, meters| !meters.is_idle(now_ms));
            self.sweep_at = FIRST_SWEEP.max(2 * self.of.len());
        }
    }
}

/// What was taken from one key's, team's or model's limits.
#[derive(Debug)]
struct Taken {
    id: Id,
    /// The quota, and the number that settles them.
    tokens: Option<(u64, u64)>,
}

/// A request within its limits. Dropped, it counts as one at once no longer, and what it took stays taken.
#[must_use]
#[derive(Debug)]
pub struct Entered {
    limits: Arc<Limits>,
    taken: Vec<Taken>,
    tokens: u64,
    standings: Standings,
}

impl Entered {
    /// What is left of the tightest limits, after this request.
    pub const fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Ends it with its true number of tokens.
    pub fn settle(mut self, used_tokens: u64, now: Instant) {
        self.end(used_tokens, now);
    }

    fn end(&mut self, used_tokens: u64, now: Instant) {
        if self.taken.is_empty() {
            return;
        }
        let now_ms = self.limits.ms(now);
        let mut all = self.limits.meters.lock();
        for Taken { id, tokens } in self.taken.drain(..) {
            // what is in use is not idle, so it is there
            let Some(meters) = all.of.get_mut(&id) else { continue };
            meters.at_once = meters.at_once.saturating_sub(1);
            if let Some((quota, number)) = tokens {
                meters.tokens.settle(quota, number, self.tokens, used_tokens, now_ms);
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.end(self.tokens, clock::monotonic());
    }
}

/// A place among the requests being served, given back when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Place {
    limits: Arc<Limits>,
    body_bytes: u64,
}

impl Place {
    /// Takes room for more of the request's body.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        if !take(&self.limits.body_bytes, bytes, self.limits.config.max_body_bytes) {
            return Err(Refusal::Overloaded("bytes of requests"));
        }
        self.body_bytes += bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.limits.body_bytes.fetch_sub(self.body_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
