//! How far a long run has come, on a terminal: one line that is written again and again.

use std::io::{self, Write as _};

/// The line, on standard error; it is wiped when it is dropped.
pub(super) struct Line {
    shown: bool,
}

impl Line {
    /// A line that is written only if it is `shown`: where nobody sees it redrawn, it would be noise.
    pub(super) const fn new(shown: bool) -> Self {
        Self { shown }
    }

    /// Whether anybody sees it.
    pub(super) const fn is_shown(&self) -> bool {
        self.shown
    }

    /// Writes it anew.
    pub(super) fn draw(&self, text: &str) {
        if self.shown {
            // a terminal that is gone is no reason to stop
            let _ = write!(io::stderr(), "\r\x1b[2K{text}");
        }
    }

    /// Wipes it, so that other words can stand in its place.
    pub(super) fn wipe(&self) {
        self.draw("");
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// `[#####·····]`: so much of `total`, `width` characters inside.
pub(super) fn bar(done: u64, total: u64, width: u64) -> String {
    let total = total.max(1);
    let filled = done.min(total) * width / total;
    let (full, empty) = ("#".repeat(filled as usize), "·".repeat((width - filled) as usize));
    format!("[{full}{empty}]")
}

/// A time for a person: `45s`, `1m 02s`, `2h 05m`.
pub(super) fn time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_its_run() {
        for (done, total, want) in [
            (0, 90, "[··········]"),
            (45, 90, "[#####·····]"),
            (89, 90, "[#########·]"),
            (90, 90, "[##########]"),
            (91, 90, "[##########]"),
            (0, 0, "[··········]"),
        ] {
            assert_eq!(bar(done, total, 10), want, "{done}/{total}");
        }
    }

    #[test]
    fn times_are_short() {
        for (seconds, want) in [(0, "0s"), (59, "59s"), (62, "1m 02s"), (3_599, "59m 59s"), (7_530, "2h 05m")]
        {
            assert_eq!(time(seconds), want);
        }
    }
}
