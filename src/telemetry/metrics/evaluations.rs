//! Evaluations of models, and the gates that they open.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::declare::metrics;

/// How an evaluation ends.
const ENDS: [&str; 3] = ["succeeded", "failed", "cancelled"];
/// How one stands that has not ended.
const STANDS: [&str; 2] = ["queued", "running"];
/// What comes of a question.
const ANSWERS: [&str; 2] = ["answered", "failed"];
/// What comes of a gate.
const VERDICTS: [&str; 2] = ["passed", "failed"];
/// What comes of a promotion onto a route that has a gate.
const PROMOTIONS: [&str; 3] = ["passed", "refused", "forced"];

metrics! {
    /// Evaluations.
    pub struct Evaluations {
        /// Evaluations that have ended, by how.
        ended: IntCounterVec = "tunegate_evaluations_total" ["result"];
        /// Evaluations that have not ended, by how they stand.
        standing: IntGaugeVec = "tunegate_evaluations" ["status"];
        /// Questions that evaluations have asked of models, by what came of them.
        answers: IntCounterVec = "tunegate_evaluation_answers_total" ["result"];
        /// Models that evaluations held against a gate, by what came of it.
        verdicts: IntCounterVec = "tunegate_evaluation_gates_total" ["verdict"];
        /// Promotions onto routes that have a gate, by what came of it.
        promotions: IntCounterVec = "tunegate_gated_promotions_total" ["result"];
    }
}

impl Evaluations {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let evaluations = Self::declared(registry)?;
        for (family, values) in [
            (&evaluations.ended, &ENDS[..]),
            (&evaluations.answers, &ANSWERS),
            (&evaluations.verdicts, &VERDICTS),
            (&evaluations.promotions, &PROMOTIONS),
        ] {
            for value in values {
                family.with_label_values(&[value]);
            }
        }
        evaluations.stood_down();
        Ok(evaluations)
    }

    /// Counts one that has ended.
    pub fn ended(&self, result: &str) {
        self.ended.with_label_values(&[result]).inc();
    }

    /// Says how those stand that have not ended.
    pub fn stand<'s>(&self, counts: impl Iterator<Item = (&'s str, i64)>) {
        self.stood_down();
        for (status, count) in counts {
            self.standing.with_label_values(&[status]).set(count);
        }
    }

    /// Another process says how they stand.
    pub fn stood_down(&self) {
        for status in STANDS {
            self.standing.with_label_values(&[status]).set(0);
        }
    }

    /// Counts a question.
    pub fn answered(&self, came: bool) {
        self.answers.with_label_values(&[ANSWERS[usize::from(!came)]]).inc();
    }

    /// Counts a verdict.
    pub fn judged(&self, passed: bool) {
        self.verdicts.with_label_values(&[VERDICTS[usize::from(!passed)]]).inc();
    }

    /// Counts a promotion onto a route that has a gate: `passed`, `refused` or `forced`.
    pub fn promoted(&self, result: &str) {
        self.promotions.with_label_values(&[result]).inc();
    }
}
