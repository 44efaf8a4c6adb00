//! What was spent lately: the stretches of days, UTC, that totals are watched over.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::domain::ledger::Purpose;
use crate::domain::money::Usd;

/// The length of a day, ms.
pub const DAY_MS: i64 = 86_400_000;

/// A stretch of days up to today, which is part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recent {
    /// Since midnight.
    Today,
    /// Seven days.
    SevenDays,
    /// Thirty days.
    ThirtyDays,
    /// Since the first of the month.
    Month,
}

impl Recent {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Today, Self::SevenDays, Self::ThirtyDays, Self::Month];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::SevenDays => "7d",
            Self::ThirtyDays => "30d",
            Self::Month => "month",
        }
    }

    /// Its first day, counted from 1970-01-01; `now_ms` is ms since 1970 UTC.
    pub fn first_day(self, now_ms: i64) -> i64 {
        let today = day_of(now_ms);
        match self {
            Self::Today => today,
            Self::SevenDays => today - 6,
            Self::ThirtyDays => today - 29,
            Self::Month => today - days_into_the_month(now_ms),
        }
    }
}

/// The day of a time, UTC, counted from 1970-01-01.
pub const fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

fn days_into_the_month(now_ms: i64) -> i64 {
    let date = Timestamp::from_millisecond(now_ms).map(|now| now.to_zoned(TimeZone::UTC).date());
    date.map_or(0, |date| i64::from(date.day()) - 1)
}

/// What was spent lately on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// The team; empty for none.
    pub team: String,
    /// The catalog's model.
    pub model: String,
    /// The deployment.
    pub deployment: String,
    /// The provider.
    pub provider: String,
    /// What for.
    pub purpose: Purpose,
    /// How much, in each of [`Recent::ALL`].
    pub cost: [Usd; 4],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_begin_at_midnight_utc() {
        // 2026-11-22 is day 20,779
        for (now_ms, today, month) in [
            (1_795_348_800_000, 20_779, 20_758),
            (1_795_305_600_000, 20_779, 20_758),
            (1_795_305_599_999, 20_778, 20_758),
            // 2026-12-01, its first moment, and the one before
            (1_796_083_200_000, 20_788, 20_788),
            (1_796_083_199_999, 20_787, 20_758),
            // 2024-02-29
            (1_709_164_800_000, 19_782, 19_754),
            (0, 0, 0),
        ] {
            let days = Recent::ALL.map(|recent| recent.first_day(now_ms));
            assert_eq!(days, [today, today - 6, today - 29, month], "{now_ms}");
        }
    }
}
