//! The provider's clock, and how fast its work goes. Both are the test's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the provider takes for the time of day.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// The machine's time, moved on by so many ms.
    Machine(i64),
    /// Stands still at so many ms since 1970 UTC.
    Stands(i64),
}

impl Clock {
    /// Milliseconds since 1970 UTC.
    pub(super) fn now_ms(self) -> i64 {
        match self {
            Self::Stands(at_ms) => at_ms,
            Self::Machine(ahead_ms) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a machine after 1970");
                i64::try_from(now.as_millis()).expect("a machine before the year 292 million") + ahead_ms
            }
        }
    }

    /// Moves on.
    pub(super) fn advance(&mut self, time: Duration) {
        let (Self::Machine(ms) | Self::Stands(ms)) = self;
        *ms += ms_of(time);
    }
}

/// A duration in ms.
pub(super) fn ms_of(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("a time that a test can mean")
}

/// When a file, a job or a deployment moves on to its next state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When the test says so.
    Manual,
    /// Each time it has been asked for so often.
    EveryPoll(u32),
    /// After so long, by the provider's clock.
    Every(Duration),
}

/// How far one thing is on its way to its next state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beat {
    polls: u32,
    moved_ms: i64,
}

impl Beat {
    pub(super) const fn since(now_ms: i64) -> Self {
        Self { polls: 0, moved_ms: now_ms }
    }

    /// How many states it moves on now. `polled`: it was just asked for.
    pub(super) fn steps(&mut self, pace: Pace, now_ms: i64, polled: bool) -> i64 {
        match pace {
            Pace::EveryPoll(polls) if polled => {
                self.polls += 1;
                if self.polls < polls {
                    return 0;
                }
                self.polls = 0;
                1
            }
            Pace::Manual | Pace::EveryPoll(_) => 0,
            Pace::Every(time) => {
                let time_ms = ms_of(time).max(1);
                let steps = (now_ms - self.moved_ms).max(0) / time_ms;
                self.moved_ms += steps * time_ms;
                steps
            }
        }
    }
}

/// `2026-01-01T00:00:00Z`, as Azure's control plane writes a time.
pub(super) fn rfc3339(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).expect("a time that a test can mean").to_string()
}
