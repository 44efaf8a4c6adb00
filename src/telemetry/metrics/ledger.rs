//! The ledger at work.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::buckets;
use super::declare::metrics;
use super::exact::DollarGauge;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;

metrics! {
    /// What the ledger's writer does.
    pub struct Ledger {
        /// Entries written into the ledger, by what they say.
        entries: IntCounterVec = "tunegate_ledger_entries_total" ["kind"];
        /// Transactions that have written entries.
        writes: IntCounter = "tunegate_ledger_writes_total";
        /// Seconds of such a transaction.
        write_duration: Histogram = "tunegate_ledger_write_duration_seconds" in buckets::WRITE_SECONDS;
        /// Seconds that the oldest of what waits to be written has waited; 0 where nothing does.
        lag: Gauge = "tunegate_ledger_lag_seconds";
        /// How much waits to be written: holds, and what ends them.
        waiting: IntGaugeVec = "tunegate_ledger_waiting" ["what"];
        /// Holds that have not ended, of all processes on the database.
        open_holds: IntGauge = "tunegate_ledger_open_holds";
        /// What they hold, USD.
        held: DollarGauge = "tunegate_ledger_held_usd";
        /// Entries at an upper bound that nobody has resolved, up to 10,000; read with the spend.
        unconfirmed: IntGauge = "tunegate_ledger_unconfirmed_entries";
        /// Times that another process had written first, and all was decided again.
        pub conflicts: IntCounter = "tunegate_ledger_conflicts_total";
        /// Times that the ledger could not be written or read.
        pub failures: IntCounter = "tunegate_ledger_failures_total";
        /// Bookings without money that were given up while the database was away.
        pub dropped: IntCounter = "tunegate_ledger_dropped_total";
        /// Holds of processes that were gone, charged whole.
        pub orphans: IntCounter = "tunegate_ledger_orphans_total";
    }
}

/// How the ledger stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerStands {
    /// How long the oldest of what waits to be written has waited.
    pub lag: Duration,
    /// Holds that wait to be written.
    pub holds: usize,
    /// What ends holds and waits to be written.
    pub ends: usize,
    /// Holds that are open.
    pub open: usize,
    /// Their sum.
    pub held: Usd,
}

impl Ledger {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ledger = Self::declared(registry)?;
        for kind in EntryKind::ALL {
            ledger.entries.with_label_values(&[kind.name()]);
        }
        Ok(ledger)
    }

    /// Counts entries that are durable, written in one go that took so long, if that is known.
    pub(super) fn wrote(&self, entries: &[std::sync::Arc<Entry>], took: Option<Duration>) {
        self.writes.inc();
        if let Some(took) = took {
            self.write_duration.observe(took.as_secs_f64());
        }
        for entry in entries {
            self.entries.with_label_values(&[entry.kind.name()]).inc();
        }
    }

    /// Says how it stands.
    pub fn stands(&self, now: LedgerStands) {
        self.lag.set(now.lag.as_secs_f64());
        for (what, count) in [("holds", now.holds), ("ends", now.ends)] {
            self.waiting.with_label_values(&[what]).set(count_of(count));
        }
        self.open_holds.set(count_of(now.open));
        self.held.set(now.held.into());
    }

    /// Says how many entries at an upper bound nobody has resolved.
    pub fn unconfirmed(&self, entries: i64) {
        self.unconfirmed.set(entries);
    }
}

fn count_of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
