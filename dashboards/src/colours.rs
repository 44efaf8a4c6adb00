//! What a value is called, and which colour it has.

use serde_json::{Map, Value, json};

/// Colours from a value on; below the first the panel is `base`.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    base: &'static str,
    steps: &'static [(f64, &'static str)],
}

impl Steps {
    /// No judgement: one colour.
    pub(crate) const NONE: Steps = Steps { base: "blue", steps: &[] };

    /// Whether there is no step to see.
    pub(crate) const fn is_none(self) -> bool {
        self.steps.is_empty()
    }

    /// Returns good below the first step.
    pub(crate) const fn rising(steps: &'static [(f64, &'static str)]) -> Self {
        Self { base: "green", steps }
    }

    /// Returns bad below the first step.
    pub(crate) const fn falling(steps: &'static [(f64, &'static str)]) -> Self {
        Self { base: "red", steps }
    }

    /// Returns them as Grafana writes them.
    pub(crate) fn json(self) -> Value {
        let mut list = vec![json!({ "color": self.base, "value": null })];
        list.extend(self.steps.iter().map(|(from, color)| json!({ "color": color, "value": from })));
        json!({ "mode": "absolute", "steps": list })
    }
}

/// What a value is called, and its colour.
pub(crate) type Mapping = &'static [(&'static str, &'static str, &'static str)];

/// Returns a mapping as Grafana writes it.
pub(crate) fn mappings(mapping: Mapping) -> Value {
    let options: Map<String, Value> = mapping
        .iter()
        .enumerate()
        .map(|(i, (value, text, color))| {
            ((*value).to_owned(), json!({ "index": i, "text": text, "color": color }))
        })
        .collect();
    json!([{ "type": "value", "options": options }])
}
