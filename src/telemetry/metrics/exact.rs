//! Money in metrics: whole nano-dollars, divided only when they are written. A float that is added to would drift away
//! from the ledger.

use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::core::{Atomic, GenericCounter, GenericCounterVec, GenericGauge, GenericGaugeVec, Number};

use crate::domain::money::Usd;

/// Nano-dollars in one dollar.
const NANOS: f64 = 1e9;

/// An amount. Up to 4 million dollars the text that is written has every nano-dollar; beyond, the nearest ones that a
/// float has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(i64);

impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl SubAssign for Nanos {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_sub(other.0);
    }
}

impl Number for Nanos {
    fn from_i64(dollars: i64) -> Self {
        Self(dollars.saturating_mul(1_000_000_000))
    }

    fn into_f64(self) -> f64 {
        self.0 as f64 / NANOS
    }
}

impl From<Usd> for Nanos {
    fn from(amount: Usd) -> Self {
        Self(amount.nanos())
    }
}

/// An amount that many threads add to.
#[derive(Debug)]
pub(super) struct AtomicNanos(AtomicI64);

impl AtomicNanos {
    fn change(&self, with: impl Fn(i64) -> i64) {
        let changed = |nanos| Some(with(nanos));
        // it always says some
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }
}

impl Atomic for AtomicNanos {
    type T = Nanos;

    fn new(amount: Nanos) -> Self {
        Self(AtomicI64::new(amount.0))
    }

    fn set(&self, amount: Nanos) {
        self.0.store(amount.0, Ordering::Relaxed);
    }

    fn get(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }

    fn inc_by(&self, more: Nanos) {
        self.change(|nanos| nanos.saturating_add(more.0));
    }

    fn dec_by(&self, less: Nanos) {
        self.change(|nanos| nanos.saturating_sub(less.0));
    }
}

/// A counter of dollars.
pub(super) type DollarCounter = GenericCounter<AtomicNanos>;
/// Counters of dollars by labels.
pub(super) type DollarCounterVec = GenericCounterVec<AtomicNanos>;
/// A gauge of dollars.
pub(super) type DollarGauge = GenericGauge<AtomicNanos>;
/// Gauges of dollars by labels.
pub(super) type DollarGaugeVec = GenericGaugeVec<AtomicNanos>;

/// An amount as it is written.
pub(super) fn dollars(amount: Usd) -> f64 {
    Nanos::from(amount).into_f64()
}

/// Adds to a counter; it never goes down.
pub(super) fn add(counter: &DollarCounter, amount: Usd) {
    if amount > Usd::ZERO {
        counter.inc_by(amount.into());
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, Opts, Registry, TextEncoder};

    use super::*;

    fn written(amount: Usd) -> String {
        let registry = Registry::new();
        let gauge = DollarGauge::with_opts(Opts::new("money", "Money.")).expect("a gauge");
        registry.register(Box::new(gauge.clone())).expect("registered");
        gauge.set(amount.into());
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).expect("text");
        let text = String::from_utf8(text).expect("text");
        text.lines().last().and_then(|line| line.split(' ').nth(1)).expect("a value").to_owned()
    }

    #[test]
    fn what_is_written_is_the_very_amount() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (-1, "-0.000000001"),
            (1_000_000_000, "1"),
            (123_456_789_012, "123.456789012"),
            (4_194_303_999_999_999, "4194303.999999999"),
        ] {
            assert_eq!(written(Usd::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn many_small_amounts_add_up() {
        let counter = DollarCounter::new("cost", "Cost.").expect("a counter");
        for _ in 0..1_000_000 {
            add(&counter, Usd::from_nanos(3));
        }
        add(&counter, Usd::from_nanos(-5));
        assert_eq!(counter.get(), Nanos(3_000_000));
    }

    #[test]
    fn the_largest_amount_stays() {
        let counter = DollarCounter::new("cost", "Cost.").expect("a counter");
        for _ in 0..3 {
            add(&counter, Usd::from_nanos(i64::MAX)); // taken for half of it: see `Usd`
        }
        assert_eq!(counter.get(), Nanos(i64::MAX));
    }
}
