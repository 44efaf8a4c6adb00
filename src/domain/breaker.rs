//! The circuit breaker of a deployment: whether it is worth asking just now.
//!
//! Many failures open it, and nobody is sent there for a while. Then it is half open: one request at a time, a probe,
//! finds out whether it is well again. A cool-down stands beside it: a deployment that says "later" is not ill.
//! Times are ms of a clock that does not step back.

use std::time::Duration;

/// A window's outcomes are counted in so many slots.
const SLOTS: usize = 10;

/// When a breaker opens, and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many failures in a row open it; at least 1.
    pub consecutive: u32,
    /// So many failures in a hundred outcomes of the window open it.
    pub ratio_percent: u8,
    /// Fewer outcomes in the window say nothing about that share.
    pub least: u32,
    /// How long an outcome counts for that share.
    pub window: Duration,
    /// How long it stays open at first; each failed probe doubles it.
    pub cooldown: Duration,
    /// The longest that becomes.
    pub longest_cooldown: Duration,
    /// So many probes in a row that go well close it; at least 1.
    pub probes: u32,
    /// How long it stays open when the account behind the deployment has run out of money.
    pub quota_cooldown: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            consecutive: 5,
            ratio_percent: 50,
            least: 10,
            window: Duration::from_secs(30),
            cooldown: Duration::from_secs(5),
            longest_cooldown: Duration::from_secs(120),
            probes: 2,
            quota_cooldown: Duration::from_secs(300),
        }
    }
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Anybody may ask.
    Closed,
    /// Nobody may.
    Open {
        /// Until then.
        until_ms: i64,
    },
    /// One may at a time.
    HalfOpen {
        /// Whether one is asking now.
        probing: bool,
    },
    /// Well, but it asked for time.
    CoolingDown {
        /// Until then.
        until_ms: i64,
    },
}

impl State {
    /// Whether a request would be let through.
    pub const fn admits(self) -> bool {
        matches!(self, Self::Closed | Self::HalfOpen { probing: false })
    }

    /// How long until it may be asked, ms; 0 where only a probe's end is waited for.
    pub fn wait_ms(self, now_ms: i64) -> u64 {
        match self {
            Self::Closed | Self::HalfOpen { .. } => 0,
            Self::Open { until_ms } | Self::CoolingDown { until_ms } => {
                u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(0)
            }
        }
    }
}

/// Leave to ask, once. It goes back with the outcome, or without one: [`Breaker::abandoned`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    /// How often the breaker had opened by then.
    opened: u64,
    probe: bool,
}

impl Permit {
    /// Whether this request finds out if the deployment is well again.
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until then, half open from then on.
    Open(i64),
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    phase: Phase,
    /// How often it has opened: what a permit from before an opening says is old news.
    opened: u64,
    in_a_row: u32,
    outcomes: Window,
    /// Probes that failed since it was last closed.
    failed_probes: u32,
    probing: bool,
    good_probes: u32,
    cool_until_ms: i64,
    /// What the last check said.
    found_ill: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            phase: Phase::Closed,
            opened: 0,
            in_a_row: 0,
            outcomes: Window::default(),
            failed_probes: 0,
            probing: false,
            good_probes: 0,
            cool_until_ms: i64::MIN,
            found_ill: false,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a permit is used once")]
impl Breaker {
    /// How it stands. Looking takes no probe's place.
    pub fn state(&self, now_ms: i64) -> State {
        match self.phase {
            Phase::Open(until_ms) if now_ms < until_ms => {
                State::Open { until_ms: until_ms.max(self.cool_until_ms) }
            }
            _ if now_ms < self.cool_until_ms => State::CoolingDown { until_ms: self.cool_until_ms },
            Phase::Open(_) => State::HalfOpen { probing: self.probing },
            Phase::Closed => State::Closed,
        }
    }

    /// Leave to ask.
    ///
    /// # Errors
    ///
    /// With the state that stands against it.
    pub fn permit(&mut self, now_ms: i64) -> Result<Permit, State> {
        let state = self.state(now_ms);
        if !state.admits() {
            return Err(state);
        }
        let probe = matches!(state, State::HalfOpen { .. });
        self.probing |= probe;
        Ok(Permit { opened: self.opened, probe })
    }

    /// Takes a permit back from a request that went well.
    pub fn succeeded(&mut self, policy: &Policy, permit: Permit, now_ms: i64) {
        if permit.opened != self.opened {
            return;
        }
        match self.phase {
            Phase::Closed => {
                self.in_a_row = 0;
                self.outcomes.note(policy.window, now_ms, false);
            }
            Phase::Open(_) if permit.probe => {
                self.probing = false;
                self.good_probes += 1;
                if self.good_probes >= policy.probes {
                    self.close();
                }
            }
            Phase::Open(_) => {}
        }
    }

    /// Takes a permit back from a probe that is answered but not over yet: another one may be sent. What is returned
    /// is for its end, which counts as that of any request. Permits of other requests come back as they are.
    pub fn answered(&mut self, policy: &Policy, permit: Permit, now_ms: i64) -> Permit {
        if !permit.probe {
            return permit;
        }
        let rest = Permit { opened: permit.opened, probe: false };
        self.succeeded(policy, permit, now_ms);
        rest
    }

    /// Takes a permit back from a request that failed by the deployment's fault.
    pub fn failed(&mut self, policy: &Policy, permit: Permit, now_ms: i64) {
        if permit.opened != self.opened {
            return;
        }
        match self.phase {
            Phase::Closed => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.outcomes.note(policy.window, now_ms, true);
                if self.in_a_row >= policy.consecutive || self.outcomes.is_bad(policy, now_ms) {
                    self.open_until(now_ms.saturating_add(in_ms(policy.cooldown)));
                }
            }
            Phase::Open(_) => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                let doubled = in_ms(policy.cooldown).saturating_mul(1 << self.failed_probes.min(30));
                let cooldown = doubled.min(in_ms(policy.longest_cooldown));
                self.open_until(now_ms.saturating_add(cooldown));
            }
        }
    }

    /// Takes a permit back from a request that says nothing about the deployment.
    pub fn abandoned(&mut self, permit: Permit) {
        if permit.probe && permit.opened == self.opened {
            self.probing = false;
        }
    }

    /// Opens it for so long at least, whatever its outcomes say.
    pub fn open_for(&mut self, duration: Duration, now_ms: i64) {
        let until_ms = now_ms.saturating_add(in_ms(duration));
        match self.phase {
            Phase::Open(longer) if longer >= until_ms => {}
            _ => self.open_until(until_ms),
        }
    }

    /// Nobody is sent there until then, as the deployment itself asked. It is no failure.
    pub fn cool_down(&mut self, until_ms: i64) {
        self.cool_until_ms = self.cool_until_ms.max(until_ms);
    }

    /// A check has found nobody there, or nobody well. It counts like a request that failed, where one would have been let
    /// through.
    pub fn found_ill(&mut self, policy: &Policy, now_ms: i64) {
        self.found_ill = true;
        if let Ok(permit) = self.permit(now_ms) {
            self.failed(policy, permit, now_ms);
        }
    }

    /// A check has found it well. That ends the wait of an open breaker early if the check before had found it ill:
    /// else what opened it is nothing that a check sees.
    pub fn found_well(&mut self, now_ms: i64) {
        let was_ill = std::mem::take(&mut self.found_ill);
        if let Phase::Open(until_ms) = self.phase
            && was_ill
        {
            self.phase = Phase::Open(until_ms.min(now_ms));
        }
    }

    fn open_until(&mut self, until_ms: i64) {
        self.phase = Phase::Open(until_ms);
        self.opened += 1;
        self.probing = false;
        self.good_probes = 0;
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.in_a_row = 0;
        self.outcomes = Window::default();
        self.failed_probes = 0;
        self.good_probes = 0;
    }
}

fn in_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Outcomes of a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slot {
    /// Which stretch.
    number: i64,
    all: u32,
    failed: u32,
}

/// The outcomes of the last while, a ring of slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Window {
    slots: [Slot; SLOTS],
}

impl Window {
    fn note(&mut self, window: Duration, now_ms: i64, failed: bool) {
        let number = Self::number(window, now_ms);
        let place = usize::try_from(number.rem_euclid(SLOTS as i64)).unwrap_or(0);
        let slot = &mut self.slots[place];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.all = slot.all.saturating_add(1);
        slot.failed = slot.failed.saturating_add(u32::from(failed));
    }

    fn is_bad(&self, policy: &Policy, now_ms: i64) -> bool {
        let oldest = Self::number(policy.window, now_ms) - SLOTS as i64;
        let recent = || self.slots.iter().filter(|slot| slot.number > oldest);
        let all: u64 = recent().map(|slot| u64::from(slot.all)).sum();
        let failed: u64 = recent().map(|slot| u64::from(slot.failed)).sum();
        all >= u64::from(policy.least) && failed * 100 >= all * u64::from(policy.ratio_percent)
    }

    fn number(window: Duration, now_ms: i64) -> i64 {
        now_ms.div_euclid((in_ms(window) / SLOTS as i64).max(1))
    }
}

#[cfg(test)]
mod tests;
