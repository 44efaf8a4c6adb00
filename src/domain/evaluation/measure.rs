//! How good an answer is: one number for each measure that the row is for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::said::Said;
use super::schema::Schema;
use super::words::{contains, normalised, squad_tokens};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The reference, byte for byte.
    Exact,
    /// The reference, both [normalised].
    Normalised,
    /// The reference stands in the answer, from word to word, both normalised.
    Contains,
    /// How many words answer and reference share: the harmonic mean of precision and recall, as SQuAD has it.
    TokenF1,
    /// The answer is JSON as the schema wants it.
    JsonValid,
    /// The same tools are called with the same arguments, or none where none should be.
    ToolCalls,
    /// The mark of a judge, 1 to 5.
    Judge,
    /// A question of the general set was answered right.
    General,
    /// How surprising the reference is to the model: the mean of −ln p over its tokens, nats. Lower is better.
    Loss,
}

/// The measures of one answer.
pub type Scores = BTreeMap<Measure, f64>;

impl Measure {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Exact,
        Self::Normalised,
        Self::Contains,
        Self::TokenF1,
        Self::JsonValid,
        Self::ToolCalls,
        Self::Judge,
        Self::General,
        Self::Loss,
    ];

    /// The name in reports, rules and rows.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Normalised => "normalised",
            Self::Contains => "contains",
            Self::TokenF1 => "token_f1",
            Self::JsonValid => "json_valid",
            Self::ToolCalls => "tool_calls",
            Self::Judge => "judge",
            Self::General => "general",
            Self::Loss => "loss",
        }
    }

    /// Reads back what [`Measure::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Whether it is 0 or 1 and nothing between.
    pub const fn is_yes_or_no(self) -> bool {
        !matches!(self, Self::TokenF1 | Self::Judge | Self::Loss)
    }

    /// Whether less of it is better.
    pub const fn is_better_lower(self) -> bool {
        matches!(self, Self::Loss)
    }

    /// The worst and the best that it can be.
    pub const fn range(self) -> (f64, f64) {
        match self {
            Self::Judge => (1.0, 5.0),
            Self::Loss => (f64::INFINITY, 0.0),
            _ => (0.0, 1.0),
        }
    }
}

/// Measures an answer; one that never came is the worst of all for each measure that the row is for.
pub fn scores(case: &Case, said: Option<&Said>, schema: Option<&Schema>) -> Scores {
    let mut scores = Scores::new();
    let mut put = |measure: Measure, of: &dyn Fn(&Said) -> f64| {
        scores.insert(measure, said.map_or(measure.range().0, of));
    };
    let share = |is: bool| if is { 1.0 } else { 0.0 };
    let reference = &case.reference;
    if !reference.text.is_empty() {
        let (exact, usual) = (&reference.text, normalised(&reference.text));
        put(Measure::Exact, &|said| share(said.text == *exact));
        put(Measure::Normalised, &|said| share(normalised(&said.text) == usual));
        put(Measure::Contains, &|said| share(contains(&said.text, exact)));
        put(Measure::TokenF1, &|said| token_f1(&said.text, exact));
        if let Some(schema) = schema {
            put(Measure::JsonValid, &|said| share(schema.accepts(&said.text)));
        }
    }
    if case.has_tools() {
        put(Measure::ToolCalls, &|said| share(said.calls_the_same_as(reference)));
    }
    scores
}

/// The F1 of the words that two texts share, each as often as it is there; two texts without any word are the same.
pub fn token_f1(said: &str, reference: &str) -> f64 {
    let (said, reference) = (squad_tokens(said), squad_tokens(reference));
    if said.is_empty() || reference.is_empty() {
        return if said.len() == reference.len() { 1.0 } else { 0.0 };
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &reference {
        *left.entry(word).or_default() += 1;
    }
    let mut shared = 0_usize;
    for word in &said {
        if let Some(count) = left.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    2.0 * shared as f64 / (said.len() + reference.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn case(reference: &str) -> Case {
        Case::read(&json!({"prompt": "q", "completion": reference})).expect("a case")
    }

    fn said(text: &str) -> Said {
        Said { text: text.to_owned(), calls: Vec::new() }
    }

    #[test]
    fn words_against_words() {
        for (answer, reference, exact, normalised, contains, f1) in [
            ("Paris", "Paris", 1.0, 1.0, 1.0, 1.0),
            ("paris.", "Paris", 0.0, 1.0, 1.0, 1.0),
            ("It is Paris!", "Paris", 0.0, 0.0, 1.0, 0.5),
            ("The Paris", "Paris", 0.0, 0.0, 1.0, 1.0),
            ("Rome", "Paris", 0.0, 0.0, 0.0, 0.0),
            ("", "Paris", 0.0, 0.0, 0.0, 0.0),
            ("東京です", "東京", 0.0, 0.0, 1.0, 2.0 / 3.0),
            ("a b c", "c b", 0.0, 0.0, 0.0, 1.0),
            ("x x y", "x y y", 0.0, 0.0, 0.0, 2.0 / 3.0),
        ] {
            let scores = scores(&case(reference), Some(&said(answer)), None);
            let found = [Measure::Exact, Measure::Normalised, Measure::Contains, Measure::TokenF1]
                .map(|of| scores[&of]);
            assert_eq!(found, [exact, normalised, contains, f1], "{answer} / {reference}");
            assert_eq!(scores.len(), 4);
        }
    }

    #[test]
    fn each_row_has_the_measures_that_it_is_for() {
        let schema = Schema::read(&json!({"type": "object"})).expect("a schema");
        let names = |scores: &Scores| scores.keys().map(|of| of.name()).collect::<Vec<_>>();
        let words = scores(&case("{}"), Some(&said("{}")), Some(&schema));
        assert_eq!(names(&words), ["exact", "normalised", "contains", "token_f1", "json_valid"]);
        assert_eq!(words[&Measure::JsonValid], 1.0);
        let call = json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"a\": 1}"}}]});
        let row = json!({"messages": [{"role": "user", "content": "q"}, call], "tools": []});
        let case_of_tools = Case::read(&row).expect("a case");
        let good = scores(&case_of_tools, Some(&Said::of(&call)), Some(&schema));
        assert_eq!((names(&good), good[&Measure::ToolCalls]), (vec!["tool_calls"], 1.0));
        assert_eq!(scores(&case_of_tools, Some(&said("no")), None)[&Measure::ToolCalls], 0.0);
        let quiet = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "tools": [{"type": "function"}]});
        let quiet = scores(&Case::read(&quiet).expect("a case"), Some(&said("a")), None);
        assert_eq!(
            (quiet[&Measure::ToolCalls], quiet[&Measure::Exact]),
            (1.0, 1.0),
            "no call where none should be"
        );
        let lost = scores(&case("a"), None, Some(&schema));
        assert!(lost.values().all(|value| *value == 0.0) && lost.len() == 5, "{lost:?}");
    }

    #[test]
    fn names_are_read_back() {
        for measure in Measure::ALL {
            assert_eq!(Measure::from_name(measure.name()), Some(measure));
            assert_eq!(json!(measure), measure.name());
        }
    }
}
