//! How a metric is declared: a field of a struct, whose doc comment is its help text.

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

use super::exact::{DollarCounterVec, DollarGauge, DollarGaugeVec};

/// What every declaration says.
pub(super) struct Declaration {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) buckets: &'static [f64],
}

impl Declaration {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help.trim())
    }

    fn histogram(&self) -> HistogramOpts {
        HistogramOpts::from(self.opts()).buckets(self.buckets.to_vec())
    }
}

/// A kind of metric that can be declared.
pub(super) trait Declared: Collector + Clone + Sized + 'static {
    /// Makes one.
    fn made(declaration: &Declaration) -> Result<Self, Error>;

    /// Makes one and registers it.
    fn declared(registry: &Registry, declaration: &Declaration) -> Result<Self, Error> {
        let metric = Self::made(declaration)?;
        registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Says how each kind is made: a single one of its options, a family of them with its labels, too.
macro_rules! declared {
    ($($one:ty),+; $($family:ty),+) => {
        $(impl Declared for $one {
            fn made(declaration: &Declaration) -> Result<Self, Error> {
                Self::with_opts(declaration.opts())
            }
        })+
        $(impl Declared for $family {
            fn made(declaration: &Declaration) -> Result<Self, Error> {
                Self::new(declaration.opts(), declaration.labels)
            }
        })+
    };
}

declared!(IntCounter, IntGauge, Gauge, DollarGauge; CounterVec, IntCounterVec, IntGaugeVec, GaugeVec, DollarCounterVec, DollarGaugeVec);

impl Declared for Histogram {
    fn made(declaration: &Declaration) -> Result<Self, Error> {
        Self::with_opts(declaration.histogram())
    }
}

impl Declared for HistogramVec {
    fn made(declaration: &Declaration) -> Result<Self, Error> {
        Self::new(declaration.histogram(), declaration.labels)
    }
}

/// Declares a group of metrics. A line is `field: Kind = "name" ["label", …] in BUCKETS;`, the last two where it has any.
macro_rules! metrics {
    (
        $(#[$outer:meta])*
        $vis:vis struct $group:ident {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident: $kind:ty = $name:literal $([$($label:literal),+])? $(in $buckets:expr)?;
            )+
        }
    ) => {
        $(#[$outer])*
        $vis struct $group {
            $( $(#[doc = $help])+ $field_vis $field: $kind, )+
        }

        impl $group {
            /// All of them, registered.
            fn declared(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
                use $crate::telemetry::metrics::declare::{Declaration, Declared as _};
                Ok(Self {
                    $( $field: <$kind>::declared(registry, &Declaration {
                        name: $name,
                        help: concat!($($help),+),
                        labels: &[$($($label),+)?],
                        buckets: metrics!(@buckets $($buckets)?),
                    })?, )+
                })
            }
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}
pub(super) use metrics;
