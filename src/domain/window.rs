//! The stretches of time that a budget's limit is for. Each moment belongs to one bucket; a window is the buckets that
//! count at a moment.

use std::fmt;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Buckets of a rolling window: spending leaves it in sixtieths.
pub const ROLLING_BUCKETS: i64 = 60;
/// The shortest rolling window, seconds: a bucket is a second.
pub const SHORTEST_ROLLING_SECONDS: i64 = 60;
/// The longest one, 31 days.
pub const LONGEST_ROLLING_SECONDS: i64 = 31 * 86_400;

/// A calendar's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From Monday's midnight.
    Week,
    /// From the first's midnight.
    Month,
}

/// How a budget's money comes back.
#[derive(Clone, PartialEq, Eq)]
pub enum Window {
    /// Never.
    Total,
    /// By the time that passes, in [`ROLLING_BUCKETS`] steps.
    Rolling {
        /// Its length; a multiple of 60.
        seconds: i64,
    },
    /// All at once, when the calendar's unit ends.
    Calendar {
        /// Which unit.
        unit: Unit,
        /// Where its midnight is.
        zone: TimeZone,
    },
}

/// A stretch of time, ms since 1970 UTC; its end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its first moment.
    pub from_ms: i64,
    /// The first moment behind it.
    pub to_ms: i64,
}

impl Stretch {
    /// How long it is, ms.
    pub const fn length_ms(&self) -> i64 {
        self.to_ms - self.from_ms
    }
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// No such word.
    #[error(
        "a window is \"total\", \"hour\", \"day\", \"week\", \"month\", or rolling, such as \"rolling 24h\" (60s to 31d)"
    )]
    Unknown,
    /// No such zone.
    #[error(
        "there is no time zone {0:?}: use a name of the IANA database, such as \"Europe/Zurich\", or \"UTC\""
    )]
    Zone(String),
    /// A zone that changes nothing.
    #[error("a time zone is for calendar windows only (hour, day, week, month)")]
    NeedlessZone,
}

impl Window {
    /// Reads a window: `total`, `hour`, `day`, `week`, `month`, or `rolling LENGTH` with a length such as `90s`, `30m`,
    /// `24h`, `7d`. The zone is for the calendar's ones; UTC where none is given.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, WindowError> {
        let unit = match text.trim() {
            "hour" => Unit::Hour,
            "day" => Unit::Day,
            "week" => Unit::Week,
            "month" => Unit::Month,
            other => {
                let window = if other == "total" { Self::Total } else { rolling(other)? };
                return if zone.is_some() { Err(WindowError::NeedlessZone) } else { Ok(window) };
            }
        };
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| WindowError::Zone(name.to_owned()))?,
        };
        Ok(Self::Calendar { unit, zone })
    }

    /// The name of a calendar window's zone.
    pub fn zone_name(&self) -> Option<&str> {
        match self {
            Self::Calendar { zone, .. } => zone.iana_name(),
            Self::Total | Self::Rolling { .. } => None,
        }
    }

    /// The start of the bucket that a moment belongs to; both ms since 1970 UTC.
    pub fn bucket(&self, at_ms: i64) -> i64 {
        match self {
            Self::Total => i64::MIN,
            Self::Rolling { seconds } => {
                let width = seconds * 1_000 / ROLLING_BUCKETS;
                at_ms.div_euclid(width) * width
            }
            Self::Calendar { unit, zone } => start_of(*unit, zone, at_ms).unwrap_or(at_ms),
        }
    }

    /// The first bucket that counts at a moment: buckets from this one on.
    pub fn first_bucket(&self, now_ms: i64) -> i64 {
        match self {
            // a bucket counts until its last moment has left the window
            Self::Rolling { seconds } => {
                let width = seconds * 1_000 / ROLLING_BUCKETS;
                self.bucket(now_ms - seconds * 1_000) + width
            }
            Self::Total | Self::Calendar { .. } => self.bucket(now_ms),
        }
    }

    /// The calendar's unit that a moment is in; none for windows that have no units.
    pub fn span(&self, now_ms: i64) -> Option<Stretch> {
        match self {
            Self::Total | Self::Rolling { .. } => None,
            Self::Calendar { unit, zone } => {
                Some(Stretch { from_ms: start_of(*unit, zone, now_ms)?, to_ms: end_of(*unit, zone, now_ms)? })
            }
        }
    }

    /// When everything spent now has come back; none where it never does.
    pub fn resets_at(&self, now_ms: i64) -> Option<i64> {
        match self {
            Self::Total => None,
            Self::Rolling { seconds } => Some(self.bucket(now_ms) + seconds * 1_000),
            Self::Calendar { unit, zone } => end_of(*unit, zone, now_ms),
        }
    }
}

fn rolling(text: &str) -> Result<Window, WindowError> {
    let length = text.strip_prefix("rolling").ok_or(WindowError::Unknown)?.trim();
    let (number, unit) = length.split_at(length.len() - length.chars().last().map_or(0, char::len_utf8));
    let number: i64 = number.parse().map_err(|_| WindowError::Unknown)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(WindowError::Unknown),
    };
    match number.checked_mul(scale) {
        Some(seconds)
            if (SHORTEST_ROLLING_SECONDS..=LONGEST_ROLLING_SECONDS).contains(&seconds)
                && seconds % 60 == 0 =>
        {
            Ok(Window::Rolling { seconds })
        }
        _ => Err(WindowError::Unknown),
    }
}

fn zoned(zone: &TimeZone, at_ms: i64) -> Option<Zoned> {
    Some(Timestamp::from_millisecond(at_ms).ok()?.to_zoned(zone.clone()))
}

fn start_of(unit: Unit, zone: &TimeZone, at_ms: i64) -> Option<i64> {
    let now = zoned(zone, at_ms)?;
    let midnight = |date: jiff::civil::Date| date.at(0, 0, 0, 0).to_zoned(zone.clone()).ok();
    let start = match unit {
        // an hour is 3,600 seconds also where the clock is set back: counted from the offset of now
        Unit::Hour => {
            let into = now.time().duration_since(Time::new(now.hour(), 0, 0, 0).ok()?);
            return Some(at_ms - i64::try_from(into.as_millis()).ok()?);
        }
        Unit::Day => midnight(now.date())?,
        Unit::Week => {
            let back = i64::from(now.weekday().to_monday_zero_offset());
            midnight(now.date().checked_sub(jiff::Span::new().days(back)).ok()?)?
        }
        Unit::Month => midnight(now.date().first_of_month())?,
    };
    Some(start.timestamp().as_millisecond())
}

fn end_of(unit: Unit, zone: &TimeZone, at_ms: i64) -> Option<i64> {
    let start = start_of(unit, zone, at_ms)?;
    let days = match unit {
        Unit::Hour => return Some(start + 3_600_000),
        Unit::Day => jiff::Span::new().days(1),
        Unit::Week => jiff::Span::new().weeks(1),
        Unit::Month => jiff::Span::new().months(1),
    };
    let date = zoned(zone, start)?.date().checked_add(days).ok()?;
    Some(date.at(0, 0, 0, 0).to_zoned(zone.clone()).ok()?.timestamp().as_millisecond())
}

/// As [`Window::parse`] reads it, without the zone.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("total"),
            Self::Rolling { seconds } => match seconds {
                days if days % 86_400 == 0 => write!(f, "rolling {}d", days / 86_400),
                hours if hours % 3_600 == 0 => write!(f, "rolling {}h", hours / 3_600),
                minutes => write!(f, "rolling {}m", minutes / 60),
            },
            Self::Calendar { unit, .. } => f.write_str(match unit {
                Unit::Hour => "hour",
                Unit::Day => "day",
                Unit::Week => "week",
                Unit::Month => "month",
            }),
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar { zone, .. } => write!(f, "{self} in {}", zone.iana_name().unwrap_or("?")),
            _ => write!(f, "{self}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect(text).as_millisecond()
    }

    fn window(text: &str, zone: &str) -> Window {
        Window::parse(text, Some(zone)).expect(text)
    }

    #[test]
    fn a_calendar_window_starts_and_ends_where_its_zone_says() {
        for (unit, zone, at, start, end) in [
            ("day", "UTC", "2026-11-22T23:59:59.999Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("day", "Europe/Zurich", "2026-11-22T23:30:00Z", "2026-11-22T23:00:00Z", "2026-11-23T23:00:00Z"),
            // 23 and 25 hours
            ("day", "Europe/Zurich", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("day", "Europe/Zurich", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            // midnight does not exist on this day
            (
                "day",
                "America/Santiago",
                "2026-09-06T12:00:00Z",
                "2026-09-06T04:00:00Z",
                "2026-09-07T03:00:00Z",
            ),
            ("week", "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            ("week", "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("month", "UTC", "2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            (
                "month",
                "America/New_York",
                "2026-11-01T02:00:00Z",
                "2026-10-01T04:00:00Z",
                "2026-11-01T04:00:00Z",
            ),
            ("hour", "Asia/Kolkata", "2026-11-22T12:15:00Z", "2026-11-22T11:30:00Z", "2026-11-22T12:30:00Z"),
            // the hour from 2 to 3 comes twice
            ("hour", "Europe/Zurich", "2026-10-25T00:59:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
            ("hour", "Europe/Zurich", "2026-10-25T01:01:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        ] {
            let window = window(unit, zone);
            assert_eq!(window.bucket(ms(at)), ms(start), "{unit} {zone} {at}");
            assert_eq!(window.resets_at(ms(at)), Some(ms(end)), "{unit} {zone} {at}");
            assert_eq!(window.first_bucket(ms(at)), ms(start));
        }
    }

    #[test]
    fn a_rolling_window_forgets_in_sixtieths() {
        let window = Window::parse("rolling 1h", None).expect("a window");
        assert_eq!(window, Window::Rolling { seconds: 3_600 });
        let spent_at = window.bucket(ms("2026-11-22T12:00:30Z"));
        assert_eq!(spent_at, ms("2026-11-22T12:00:00Z"));
        let counts = |at: &str| spent_at >= window.first_bucket(ms(at));
        assert!(counts("2026-11-22T12:59:59.999Z"));
        assert!(!counts("2026-11-22T13:00:00Z"));
        assert_eq!(window.resets_at(ms("2026-11-22T12:00:30Z")), Some(ms("2026-11-22T13:00:00Z")));
    }

    #[test]
    fn words_for_windows() {
        for (text, written) in [
            ("total", "total"),
            ("month", "month"),
            ("rolling 24h", "rolling 1d"),
            ("rolling 90m", "rolling 90m"),
            ("rolling 60s", "rolling 1m"),
            ("rolling 31d", "rolling 31d"),
        ] {
            assert_eq!(Window::parse(text, None).expect(text).to_string(), written);
        }
        for text in [
            "",
            "year",
            "rolling",
            "rolling 1",
            "rolling 59s",
            "rolling 61s",
            "rolling 32d",
            "rolling é",
            "rolling -1h",
            "rolling 9999999999999999d",
        ] {
            assert_eq!(Window::parse(text, None), Err(WindowError::Unknown), "{text}");
        }
        assert_eq!(Window::parse("day", Some("Mars/Base")), Err(WindowError::Zone("Mars/Base".to_owned())));
        assert_eq!(Window::parse("total", Some("UTC")), Err(WindowError::NeedlessZone));
    }
}
