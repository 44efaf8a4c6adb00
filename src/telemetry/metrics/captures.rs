//! Traffic that is kept to train on, and what people thought of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, Registry};

use super::declare::metrics;
use super::table::Table;
use crate::domain::capture::{CaptureResult, Rating};
use crate::domain::catalog::Catalog;

metrics! {
    /// What is said of kept traffic.
    struct Families {
        /// Answers that were drawn to be kept, by what became of them.
        captures: IntCounterVec = "tunegate_captures_total" ["model", "result"];
        /// Exchanges that are kept.
        rows: Table = "tunegate_captured_rows" ["model"];
        /// Bytes of what is kept.
        bytes: Table = "tunegate_captured_bytes" ["model"];
        /// What people said about answers, each time that they said something.
        feedback: IntCounterVec = "tunegate_feedback_total" ["model", "rating"];
    }
}

/// Kept traffic.
pub struct Captures {
    families: Families,
    /// Models whose traffic is kept.
    models: Mutex<BTreeSet<Arc<str>>>,
}

impl Captures {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self { families: Families::declared(registry)?, models: Mutex::default() })
    }

    /// Lets the series of the models begin at 0 whose traffic is kept; those of feedback, of all models.
    pub(super) fn born(&self, catalog: &Catalog) {
        let mut kept = BTreeSet::new();
        for model in catalog.models() {
            let name = model.name.as_str();
            for rating in Rating::ALL {
                self.families.feedback.with_label_values(&[name, rating.name()]);
            }
            if model.capture.is_none() {
                continue;
            }
            kept.insert(name.into());
            for result in CaptureResult::ALL {
                self.families.captures.with_label_values(&[name, result.name()]);
            }
        }
        let before = std::mem::replace(&mut *self.models.lock(), kept.clone());
        if before != kept {
            self.stand(&[]);
        }
    }

    /// Counts an answer of a model of the catalog's by what became of it.
    pub fn ended(&self, model: &str, result: CaptureResult) {
        self.families.captures.with_label_values(&[model, result.name()]).inc();
    }

    /// Counts what somebody said about an answer of a model of the catalog's.
    pub fn told(&self, model: &str, rating: Rating) {
        self.families.feedback.with_label_values(&[model, rating.name()]).inc();
    }

    /// Says how much is kept of each model, rows and bytes; of models whose traffic is kept no longer, nothing.
    pub fn stand(&self, all: &[(Arc<str>, i64, i64)]) {
        let models = self.models.lock().clone();
        let of = |model: &Arc<str>| {
            let found = all.iter().find(|(name, ..)| name == model);
            found.map_or((0, 0), |(_, rows, bytes)| (*rows, *bytes))
        };
        self.families.rows.replace(models.iter().map(|model| ([&**model], of(model).0 as f64)));
        self.families.bytes.replace(models.iter().map(|model| ([&**model], of(model).1 as f64)));
    }
}
