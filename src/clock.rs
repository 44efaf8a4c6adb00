//! The clock. Read at the door and where an answer is timed; rules take times as arguments.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How far the date stands from the machine's, ms.
static SHIFT_MS: AtomicI64 = AtomicI64::new(0);

/// A point in time for measuring durations.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// From now on the date goes on from this moment, ms since 1970 UTC: a rehearsal of what prices and retirements will be
/// then. Durations are measured as ever. For the start of a process, before anything has asked for the date.
pub fn pretend(at_ms: i64) {
    SHIFT_MS.store(at_ms.saturating_sub(machine_ms()), Ordering::Relaxed);
}

/// Milliseconds since 1970 UTC, as the machine says or [`pretend`] has it.
pub fn unix_ms() -> i64 {
    machine_ms().saturating_add(SHIFT_MS.load(Ordering::Relaxed))
}

/// What the machine says, for times that it has written itself, such as those of files; 0 on one whose clock stands before 1970.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn machine_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
