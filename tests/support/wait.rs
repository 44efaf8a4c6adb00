//! Waiting for a condition, with a limit and a reason.

use std::time::{Duration, Instant};

/// How long anything in these tests may take before it counts as never. Generous: two cores run many tests at once,
/// and the disk of a borrowed machine stands still at times.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(2);

/// Returns what `look` finds as soon as it finds something; fails after [`LIMIT`] and says what was waited for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within_limit(look).unwrap_or_else(|| panic!("waited {LIMIT:?} in vain: {what}"))
}

/// Returns what `look` finds as soon as it finds something; nothing after [`LIMIT`].
pub(crate) fn within_limit<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if started.elapsed() >= LIMIT {
            return None;
        }
        std::thread::sleep(STEP);
    }
}
