//! The ledger at work.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::declare::metrics;
use crate::domain::ledger::{Entry, EntryKind};

metrics! {
    /// What the ledger's writer does.
    pub struct Ledger {
        /// Entries written into the ledger, by what they say.
        entries: IntCounterVec = "tunegate_ledger_entries_total" ["kind"];
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

impl Ledger {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let ledger = Self::declared(registry)?;
        for kind in EntryKind::ALL {
            ledger.entries.with_label_values(&[kind.name()]);
        }
        Ok(ledger)
    }

    /// Counts entries that are durable.
    pub fn wrote(&self, entries: &[std::sync::Arc<Entry>]) {
        for entry in entries {
            self.entries.with_label_values(&[entry.kind.name()]).inc();
        }
    }
}
