//! Limits: requests and tokens in a minute, and requests at once.
//!
//! A minute's quota is a meter that leaks (GCRA, as ATM's "continuous-state leaky bucket", ITU-T I.371): each cell
//! taken raises it, a full quota leaks out in a minute, and nothing is taken that would raise it above the quota. So at
//! most `quota × (1 + minutes)` cells pass in any stretch of time, and what is missing is known to the millisecond.
//! All of it is integers: a level is counted in 60,000ths of a cell, and a quota of `q` leaks `q` of them a millisecond.

/// Levels in one cell: the milliseconds of a minute.
const LEVELS: i64 = 60_000;
/// The largest quota: its level and as much debt again fit an `i64`.
pub const MAX_QUOTA: u64 = 10_000_000_000_000;
/// Most cells that are counted at once; a wrong figure of an upstream must not overflow.
const MAX_CELLS: u64 = 2 * MAX_QUOTA;

/// What a key, a team or a model may be asked. What is not set has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RateLimits {
    /// Requests in a minute; at least 1.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, input and output; at least 1.
    pub tokens_per_minute: Option<u64>,
    /// Requests being served at once; at least 1.
    pub concurrent: Option<u64>,
}

impl RateLimits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The quota, cells in a minute.
    pub limit: u64,
    /// Whole cells that could be taken now.
    pub remaining: u64,
    /// When all of it can be taken again, ms from now.
    pub reset_ms: u64,
}

/// Why cells can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// Not yet: in so many ms they can, if nobody else takes any.
    Wait(u64),
    /// Never: more than a whole quota.
    TooMany,
}

/// Cells that were taken and whose true number is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    id: u64,
    /// The lowest level since they were taken.
    lowest: i64,
}

/// A meter of one quota. Times are ms of a clock that does not step back; should it, nothing leaks until it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meter {
    level: i64,
    at_ms: i64,
    /// In the order they were taken; later ones have no lower `lowest`.
    open: Vec<Open>,
    last_id: u64,
}

impl Meter {
    /// Lets leak what has leaked until now.
    fn leak(&mut self, quota: u64, now_ms: i64) {
        let elapsed = now_ms.saturating_sub(self.at_ms).clamp(0, i64::MAX / 2);
        self.at_ms = now_ms;
        self.level = self.level.saturating_sub(elapsed.saturating_mul(capped(quota, MAX_QUOTA))).max(0);
    }

    /// Whether so many cells can be taken now; takes none.
    pub fn check(&mut self, quota: u64, cells: u64, now_ms: i64) -> Result<(), Short> {
        self.leak(quota, now_ms);
        if cells > quota {
            return Err(Short::TooMany);
        }
        let above = self.level + in_levels(cells) - in_levels(quota);
        if above <= 0 { Ok(()) } else { Err(Short::Wait(in_ms(above, quota))) }
    }

    /// Takes cells, whether or not they fit: [`Meter::check`] comes first. The number returned settles them.
    pub fn take(&mut self, quota: u64, cells: u64, now_ms: i64) -> u64 {
        self.leak(quota, now_ms);
        self.note_low();
        self.raise(in_levels(cells));
        self.last_id += 1;
        self.open.push(Open { id: self.last_id, lowest: self.level });
        self.last_id
    }

    /// Takes cells whose number is final.
    pub fn take_for_good(&mut self, quota: u64, cells: u64, now_ms: i64) {
        self.leak(quota, now_ms);
        self.note_low();
        self.raise(in_levels(cells));
    }

    /// Corrects what was taken by its true number: the rest comes back, or more is taken, as a debt if need be.
    ///
    /// Cells that came too many have pushed the level up, but where the meter has run low since, their part has leaked
    /// away as if they had never been: so no more comes back than the lowest level since. With that the quota holds for
    /// the true numbers, whatever was reserved.
    pub fn settle(&mut self, quota: u64, id: u64, reserved: u64, used: u64, now_ms: i64) {
        self.leak(quota, now_ms);
        self.note_low();
        let Ok(place) = self.open.binary_search_by_key(&id, |open| open.id) else { return };
        let lowest = self.open.remove(place).lowest;
        let (reserved, used) = (in_levels(reserved), in_levels(used));
        if used >= reserved {
            self.raise(used - reserved);
            return;
        }
        let back = (reserved - used).min(lowest);
        self.level -= back;
        for open in &mut self.open {
            open.lowest = (open.lowest - back).max(0);
        }
    }

    /// What is left.
    pub fn standing(&mut self, quota: u64, now_ms: i64) -> Standing {
        self.leak(quota, now_ms);
        let left = (in_levels(quota) - self.level).max(0);
        Standing {
            limit: quota,
            remaining: u64::try_from(left / LEVELS).unwrap_or(0),
            reset_ms: in_ms(self.level, quota),
        }
    }

    /// Whether it says as much as a new one.
    pub fn is_idle(&mut self, quota: u64, now_ms: i64) -> bool {
        self.leak(quota, now_ms);
        self.level == 0 && self.open.is_empty()
    }

    fn raise(&mut self, levels: i64) {
        self.level = self.level.saturating_add(levels).min(i64::MAX / 2);
    }

    /// Notes this level where it is the lowest since.
    fn note_low(&mut self) {
        for open in self.open.iter_mut().rev().take_while(|open| open.lowest > self.level) {
            open.lowest = self.level;
        }
    }
}

fn capped(number: u64, most: u64) -> i64 {
    i64::try_from(number.min(most)).unwrap_or(i64::MAX)
}

fn in_levels(cells: u64) -> i64 {
    capped(cells, MAX_CELLS).saturating_mul(LEVELS)
}

/// How long a quota takes to leak so much, ms, rounded up.
fn in_ms(levels: i64, quota: u64) -> u64 {
    u64::try_from(levels).unwrap_or(0).div_ceil(quota.max(1))
}

#[cfg(test)]
mod tests;
