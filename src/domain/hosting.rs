//! The hosting clock: what a deployment that is billed by the hour owes, from when it stands to when it is gone.
//!
//! Time is cut into periods, and each is charged once. What a whole stand costs is rounded up once: the charges of its
//! periods are differences of rounded totals, so that they add up to the nano-dollar.

use serde::{Deserialize, Serialize};

use super::money::Usd;

const MINUTE_MS: i64 = 60_000;
const QUARTER_MS: i64 = 15 * MINUTE_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// The longest time that is charged by one entry.
pub const LONGEST_PERIOD_MS: i64 = HOUR_MS;
/// A day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// How a provider rounds the time that a deployment stands.
///
/// Microsoft says "billed per hour" and not how it rounds (cost page of 2026-02): hours that have begun is the dearest
/// of the usual ways, and holds until the operator has compared it with a bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billing {
    /// Each hour that has begun, counted from when it stands.
    #[default]
    StartedHours,
    /// Each hour of the clock (UTC) in which it stood.
    ClockHours,
    /// Each quarter of an hour that has begun, counted from when it stands.
    QuarterHours,
    /// Each minute that has begun, counted from when it stands.
    Minutes,
}

impl Billing {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::StartedHours, Self::ClockHours, Self::QuarterHours, Self::Minutes];

    /// The name in price files, rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StartedHours => "started_hours",
            Self::ClockHours => "clock_hours",
            Self::QuarterHours => "quarter_hours",
            Self::Minutes => "minutes",
        }
    }

    /// Reads back what [`Billing::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|billing| billing.name() == name)
    }

    /// What time is rounded up to, ms.
    pub const fn step_ms(self) -> i64 {
        match self {
            Self::StartedHours | Self::ClockHours => HOUR_MS,
            Self::QuarterHours => QUARTER_MS,
            Self::Minutes => MINUTE_MS,
        }
    }

    /// Where its steps begin for a deployment that stands since a moment.
    const fn anchor(self, since_ms: i64) -> i64 {
        match self {
            Self::ClockHours => since_ms - since_ms.rem_euclid(HOUR_MS),
            Self::StartedHours | Self::QuarterHours | Self::Minutes => since_ms,
        }
    }

    /// The end of the step that has begun before a moment: up to there is owed what stood until then.
    fn owed_until(self, since_ms: i64, at_ms: i64) -> i64 {
        let (anchor, step) = (self.anchor(since_ms), self.step_ms());
        let begun = (at_ms - anchor).max(0);
        anchor + begun.div_euclid(step) * step + if begun.rem_euclid(step) > 0 { step } else { 0 }
    }

    /// Where the period ends that begins at a moment. Minutes are charged a quarter of an hour at a time: an entry each
    /// would be half a million a year.
    fn period_end(self, since_ms: i64, from_ms: i64) -> i64 {
        let (anchor, length) = (self.anchor(since_ms), self.step_ms().max(QUARTER_MS));
        anchor + ((from_ms - anchor).div_euclid(length) + 1) * length
    }
}

/// What an hour costs, and how time is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A whole hour.
    pub per_hour: Usd,
    /// How time is rounded.
    pub billing: Billing,
}

/// How long a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Since when, ms since 1970 UTC.
    pub since_ms: i64,
    /// Until when, where it is gone.
    pub until_ms: Option<i64>,
}

/// One period, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Since when the deployment stands.
    pub since_ms: i64,
    /// From when it is charged.
    pub from_ms: i64,
    /// Until when: what comes next begins here.
    pub until_ms: i64,
    /// At what.
    pub rate: Rate,
    /// What that costs.
    pub cost: Usd,
}

/// The charges that are due at a moment and not charged yet, in order; at most so many, the rest is due at the next look.
/// `charged_until` is the end of the last one. `rate` says what is charged from a moment on; nothing is charged, and
/// nothing passed over, where it does not know.
pub fn due(
    stand: Stand,
    charged_until: Option<i64>,
    now_ms: i64,
    most: usize,
    rate: impl Fn(i64) -> Option<Rate>,
) -> Vec<Charge> {
    let end_ms = stand.until_ms.unwrap_or(now_ms).min(now_ms);
    let is_over = stand.until_ms.is_some_and(|until| until <= now_ms);
    let mut from_ms = charged_until.unwrap_or(stand.since_ms);
    let mut charges = Vec::new();
    // a period is owed when it has begun, not when it might
    while from_ms < end_ms && charges.len() < most {
        let Some(rate) = rate(from_ms) else { break };
        let owed_until = rate.billing.owed_until(stand.since_ms, end_ms);
        let period_end = rate.billing.period_end(stand.since_ms, from_ms);
        let until_ms = match owed_until < period_end {
            // the rest of a period whose end nobody has to wait for
            true if is_over => owed_until,
            true => break,
            false => period_end,
        };
        charges.push(charge(stand.since_ms, from_ms, until_ms, rate));
        from_ms = until_ms;
    }
    charges
}

/// What is owed of a charge where the deployment was gone at a moment.
pub fn owed(charge: &Charge, gone_ms: i64) -> Usd {
    if gone_ms <= charge.from_ms {
        return Usd::ZERO;
    }
    let until_ms = charge.rate.billing.owed_until(charge.since_ms, gone_ms).min(charge.until_ms);
    self::charge(charge.since_ms, charge.from_ms, until_ms, charge.rate).cost
}

fn charge(since_ms: i64, from_ms: i64, until_ms: i64, rate: Rate) -> Charge {
    let anchor = rate.billing.anchor(since_ms);
    // the first hour of the clock is whole, however late in it the deployment came
    let billed_from = if from_ms == since_ms { anchor } else { from_ms };
    let cost = total(rate.per_hour, until_ms - anchor) - total(rate.per_hour, billed_from - anchor);
    Charge { since_ms, from_ms, until_ms, rate, cost }
}

/// What a time costs, rounded up.
fn total(per_hour: Usd, ms: i64) -> Usd {
    let product = i128::from(per_hour.nanos()) * i128::from(ms);
    let hour = i128::from(HOUR_MS);
    let nanos = product.div_euclid(hour) + i128::from(product.rem_euclid(hour) > 0);
    Usd::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// A deployment of this kind is gone a day after it was made, whatever it does.
///
/// Source: Microsoft's page on developer deployments, read in November 2026.
pub const DEVELOPER_TIER: &str = "DeveloperTier";

/// When a deployment ends by itself; none where it does not.
pub fn ends_ms(sku: Option<&str>, since_ms: i64) -> Option<i64> {
    let is_it = sku.is_some_and(|sku| sku.eq_ignore_ascii_case(DEVELOPER_TIER));
    is_it.then(|| since_ms.saturating_add(DAY_MS))
}

/// Azure takes a deployment of a fine-tuned model away that nobody has asked anything for so long, ms.
///
/// Source: the note on inactive deployments in Microsoft's fine-tuning pages: fifteen days.
pub const DELETED_AFTER_MS: i64 = 15 * DAY_MS;
/// So long before that it is said.
pub const WARNED_BEFORE_MS: i64 = 3 * DAY_MS;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Usd {
        Usd::parse(text).expect("an amount")
    }

    /// A moment of one day.
    fn at(clock: &str) -> i64 {
        format!("2023-11-01T{clock}:00Z").parse::<jiff::Timestamp>().expect("a moment").as_millisecond()
    }

    fn rate(per_hour: &str, billing: Billing) -> Rate {
        Rate { per_hour: usd(per_hour), billing }
    }

    /// All charges of a stand, as they come due at each look.
    fn charged(stand: Stand, rate: Rate, looks: impl IntoIterator<Item = i64>) -> Vec<Charge> {
        let mut all: Vec<Charge> = Vec::new();
        for now in looks {
            let until = all.last().map(|last| last.until_ms);
            all.extend(due(stand, until, now, usize::MAX, |_| Some(rate)));
        }
        all
    }

    fn sum(charges: &[Charge]) -> Usd {
        charges.iter().map(|charge| charge.cost).sum()
    }

    #[test]
    fn ten_to_eleven_till_ten_past_one() {
        let gone = Stand { since_ms: at("10:50"), until_ms: Some(at("13:10")) };
        for (billing, want, entries) in [
            (Billing::StartedHours, "21", 3),
            (Billing::ClockHours, "28", 4),
            (Billing::QuarterHours, "17.50", 10),
            (Billing::Minutes, "16.333333334", 10),
        ] {
            let rate = rate("7", billing);
            let at_once = charged(gone, rate, [at("23:00")]);
            assert_eq!((sum(&at_once), at_once.len()), (usd(want), entries), "{}", billing.name());
            // the clock looks every minute, and learns in the end that it is gone
            let stands = Stand { until_ms: None, ..gone };
            let minutes = (0..140).map(|minute| at("10:50") + minute * MINUTE_MS);
            let mut as_it_went = charged(stands, rate, minutes);
            let until = as_it_went.last().map(|last| last.until_ms);
            as_it_went.extend(due(gone, until, at("13:11"), 99, |_| Some(rate)));
            assert_eq!(as_it_went, at_once, "{}", billing.name());
            for pair in at_once.windows(2) {
                assert_eq!(pair[0].until_ms, pair[1].from_ms, "no gap, and nothing twice");
            }
        }
    }

    #[test]
    fn a_step_is_owed_when_it_has_begun() {
        let stand = Stand { since_ms: at("10:00"), until_ms: None };
        for (billing, now, want) in [
            (Billing::StartedHours, "10:00", "0"),
            (Billing::StartedHours, "10:01", "7"),
            (Billing::StartedHours, "11:00", "7"),
            (Billing::StartedHours, "11:01", "14"),
            (Billing::ClockHours, "11:00", "7"),
            (Billing::QuarterHours, "10:16", "3.50"),
            (Billing::Minutes, "10:14", "0"),
            (Billing::Minutes, "10:15", "1.75"),
        ] {
            let charges = charged(stand, rate("7", billing), [at(now)]);
            assert_eq!(sum(&charges), usd(want), "{} at {now}", billing.name());
        }
        let exactly = Stand { until_ms: Some(at("12:00")), ..stand };
        for billing in Billing::ALL {
            assert_eq!(
                sum(&charged(exactly, rate("7", billing), [at("15:00")])),
                usd("14"),
                "{}",
                billing.name()
            );
        }
    }

    #[test]
    fn catching_up_is_bounded_and_goes_on_where_it_stopped() {
        let stand = Stand { since_ms: at("00:00"), until_ms: None };
        let rate = rate("1.70", Billing::StartedHours);
        let first = due(stand, None, at("23:30"), 10, |_| Some(rate));
        assert_eq!((first.len(), first[9].until_ms), (10, at("10:00")));
        let rest = due(stand, Some(at("10:00")), at("23:30"), 99, |_| Some(rate));
        assert_eq!((rest.len(), sum(&first) + sum(&rest)), (14, usd("40.80")));
    }

    #[test]
    fn a_new_price_counts_from_the_next_period_and_none_is_passed_over() {
        let stand = Stand { since_ms: at("10:30"), until_ms: None };
        let rates = |from_ms: i64| {
            (from_ms < at("14:00")).then(|| match from_ms < at("12:00") {
                true => rate("3", Billing::StartedHours),
                false => rate("1.70", Billing::QuarterHours),
            })
        };
        let charges = due(stand, None, at("20:00"), 99, rates);
        let told: Vec<_> = charges.iter().map(|charge| charge.cost).collect();
        // 10:30 and 11:30 at 3; quarters from 12:30 to 14:00 at 1.70 / 4
        let want: Vec<Usd> = ["3", "3"].into_iter().chain(["0.425"; 6]).map(usd).collect();
        assert_eq!(told, want);
        assert_eq!(
            charges.last().expect("some").until_ms,
            at("14:00"),
            "what comes later waits for its price"
        );
    }

    #[test]
    fn what_was_charged_too_much_is_known() {
        let stand = Stand { since_ms: at("10:50"), until_ms: None };
        for (billing, gone, want) in [
            (Billing::StartedHours, "13:10", "21"),
            (Billing::StartedHours, "10:50", "0"),
            (Billing::StartedHours, "11:50", "7"),
            (Billing::ClockHours, "13:10", "28"),
            (Billing::ClockHours, "13:00", "21"),
            (Billing::QuarterHours, "13:10", "17.50"),
            (Billing::Minutes, "13:10", "16.333333334"),
            (Billing::Minutes, "13:11", "16.45"),
        ] {
            let charges = charged(stand, rate("7", billing), [at("18:00")]);
            let owed: Usd = charges.iter().map(|charge| owed(charge, at(gone))).sum();
            assert_eq!(owed, usd(want), "{} until {gone}", billing.name());
        }
    }

    #[test]
    fn only_developer_deployments_end_by_themselves() {
        for (sku, want) in [
            (Some("DeveloperTier"), Some(at("10:00") + DAY_MS)),
            (Some("developertier"), Some(at("10:00") + DAY_MS)),
            (Some("Standard"), None),
            (None, None),
        ] {
            assert_eq!(ends_ms(sku, at("10:00")), want, "{sku:?}");
        }
    }

    proptest! {
        /// However often somebody looked, and wherever it ended: the same periods, and the whole is rounded once.
        #[test]
        fn the_looks_change_nothing(
            since in 0_i64..DAY_MS, lasted in 1_i64..2 * DAY_MS, every in 1_i64..3 * HOUR_MS, nanos in 1_i64..9_000_000_000,
            billing in proptest::sample::select(Billing::ALL.to_vec()),
        ) {
            let rate = Rate { per_hour: Usd::from_nanos(nanos), billing };
            let until = since + lasted;
            let stands = Stand { since_ms: since, until_ms: None };
            let gone = Stand { since_ms: since, until_ms: Some(until) };
            let looks = (0..).map(|look| since + look * every).take_while(|now| *now < until);
            let mut charges = charged(stands, rate, looks);
            let charged_until = charges.last().map(|last| last.until_ms);
            charges.extend(due(gone, charged_until, until + 1, usize::MAX, |_| Some(rate)));
            prop_assert_eq!(&charges, &charged(gone, rate, [until + DAY_MS]));
            let billed = billing.owed_until(since, until) - billing.anchor(since);
            prop_assert_eq!(sum(&charges), total(rate.per_hour, billed));
            for charge in &charges {
                prop_assert_eq!(owed(charge, until), charge.cost);
            }
        }
    }
}
