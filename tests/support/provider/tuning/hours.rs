//! What the provider charges for deployments that stand: by its own clock, and rounded as a test says.

use super::Deployment;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// How the provider rounds the time that a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Each hour that has begun.
    StartedHours,
    /// Each hour of the clock in which it stood.
    ClockHours,
    /// Each quarter of an hour that has begun.
    QuarterHours,
    /// Each minute that has begun.
    Minutes,
}

impl Rounding {
    /// What a stand costs, rounded up to the nano-dollar.
    fn nanos(self, from_ms: i64, until_ms: i64, hour_nanos: u64) -> u64 {
        let ms = |at: i64| u64::try_from(at).expect("a moment after 1970");
        let (from, until) = (ms(from_ms), ms(until_ms.max(from_ms)));
        let stood = until - from;
        match self {
            Self::StartedHours => stood.div_ceil(HOUR_MS) * hour_nanos,
            Self::ClockHours if stood == 0 => 0,
            Self::ClockHours => (until.div_ceil(HOUR_MS) - from / HOUR_MS) * hour_nanos,
            Self::QuarterHours => (stood.div_ceil(15 * MINUTE_MS) * hour_nanos).div_ceil(4),
            Self::Minutes => (stood.div_ceil(MINUTE_MS) * hour_nanos).div_ceil(60),
        }
    }
}

/// What one deployment costs up to now, or has cost until it was gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stood {
    /// Its name.
    pub(crate) name: String,
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
    pub(crate) nanos: u64,
}

/// What an hour of a deployment costs, by its name, and how time is rounded. Others cost nothing.
#[derive(Debug, Default)]
pub(super) struct HourlyPrices(Vec<(String, u64, Rounding)>);

impl HourlyPrices {
    pub(super) fn set(&mut self, name: &str, hour_nanos: u64, rounding: Rounding) {
        self.0.retain(|(known, _, _)| known != name);
        self.0.push((name.to_owned(), hour_nanos, rounding));
    }

    /// The bill of a deployment; none for one that never stood, or costs nothing.
    pub(super) fn of(&self, deployment: &Deployment, now_ms: i64) -> Option<Stood> {
        let (_, hour_nanos, rounding) = self.0.iter().find(|(name, _, _)| *name == deployment.name)?;
        let (from_ms, until_ms) = (deployment.created_ms, deployment.gone_ms.unwrap_or(now_ms));
        let nanos = rounding.nanos(from_ms, until_ms, *hour_nanos);
        let name = deployment.name.clone();
        deployment.stood.then_some(Stood { name, from_ms, until_ms, nanos })
    }
}

#[test]
fn each_rule_by_its_own_arithmetic() {
    // 10:50 to 13:10 of some day, at 7 dollars
    let at = |hour: i64, minute: i64| (1_000_000 * 24 + hour) * 3_600_000 + minute * 60_000;
    for (rounding, nanos) in [
        (Rounding::StartedHours, 21_000_000_000),
        (Rounding::ClockHours, 28_000_000_000),
        (Rounding::QuarterHours, 17_500_000_000),
        (Rounding::Minutes, 16_333_333_334),
    ] {
        assert_eq!(rounding.nanos(at(10, 50), at(13, 10), 7_000_000_000), nanos, "{rounding:?}");
        assert_eq!(rounding.nanos(at(10, 50), at(10, 50), 7_000_000_000), 0, "{rounding:?}");
    }
}
