//! The process itself, its configuration and its worker.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::declare::metrics;

/// How a reload ends.
const RELOADED: [&str; 2] = ["ok", "refused"];

metrics! {
    /// The gateway as a process.
    pub struct Process {
        /// 1, with the version as a label.
        build: IntGaugeVec = "tunegate_build_info" ["version"];
        /// When the configuration in force was read, seconds since 1970 UTC.
        loaded: IntGauge = "tunegate_config_loaded_timestamp_seconds";
        /// Times that the configuration was read again, by what came of it.
        reloads: IntCounterVec = "tunegate_config_reloads_total" ["result"];
        /// Starts of the local worker since this process began.
        pub worker_starts: IntCounter = "tunegate_worker_starts_total";
        /// Spans that no collector got: too many waited, or it could not be reached.
        pub spans_dropped: IntCounter = "tunegate_spans_dropped_total";
        /// Values that found no label of their own, by label; each once, up to twice as many as have one.
        overflows: IntCounterVec = "tunegate_label_overflows_total" ["label"];
    }
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let process = Self::declared(registry)?;
        process.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for result in RELOADED {
            process.reloads.with_label_values(&[result]);
        }
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(process)
    }

    /// The counter of values of a label that found no room.
    pub(super) fn overflows(&self, label: &str) -> IntCounter {
        self.overflows.with_label_values(&[label])
    }

    /// Says that a configuration came into force, ms since 1970 UTC.
    pub fn configured(&self, now_ms: i64) {
        self.loaded.set(now_ms.div_euclid(1_000));
    }

    /// Counts a reload; `went_well` or was refused as a whole.
    pub fn reloaded(&self, went_well: bool) {
        let result = if went_well { RELOADED[0] } else { RELOADED[1] };
        self.reloads.with_label_values(&[result]).inc();
    }
}
