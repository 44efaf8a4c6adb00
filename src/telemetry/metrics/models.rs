//! Registered models: what fine-tuning jobs have made, and how far each has come.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::declare::metrics;

/// How far a registered model has come.
const STAGES: [&str; 4] = ["candidate", "canary", "production", "retired"];

metrics! {
    /// The registry of models.
    pub struct Models {
        /// Registered models by stage.
        registered: IntGaugeVec = "tunegate_registered_models" ["stage"];
        /// Moves of registered models, by the stage that they came to.
        moves: IntCounterVec = "tunegate_model_moves_total" ["to"];
    }
}

impl Models {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let models = Self::declared(registry)?;
        for stage in STAGES {
            models.registered.with_label_values(&[stage]);
            models.moves.with_label_values(&[stage]);
        }
        Ok(models)
    }

    /// Says how many models are at each stage; those that are not named have none.
    pub fn registered(&self, counts: &[(&'static str, u64)]) {
        for stage in STAGES {
            let of = |(name, count): &(&'static str, u64)| (*name == stage).then_some(*count);
            let count: u64 = counts.iter().filter_map(of).sum();
            self.registered.with_label_values(&[stage]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a model that was moved to a stage.
    pub fn moved(&self, stage: &'static str) {
        self.moves.with_label_values(&[stage]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_there_from_the_start_and_empty_out() {
        let registry = Registry::new();
        let models = Models::new(&registry).expect("declared");
        models.registered(&[("production", 2), ("retired", 5)]);
        models.registered(&[("production", 1)]);
        models.moved("canary");
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("tunegate_")).collect();
        let want = [
            r#"model_moves_total{to="canary"} 1"#,
            r#"model_moves_total{to="candidate"} 0"#,
            r#"model_moves_total{to="production"} 0"#,
            r#"model_moves_total{to="retired"} 0"#,
            r#"registered_models{stage="canary"} 0"#,
            r#"registered_models{stage="candidate"} 0"#,
            r#"registered_models{stage="production"} 1"#,
            r#"registered_models{stage="retired"} 0"#,
        ];
        assert_eq!(lines, want);
    }
}
