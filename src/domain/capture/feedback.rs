//! What people thought of an answer, and which answers are wanted by it.

use std::collections::BTreeMap;

use serde_json::Value;
use tunegate_dataset::json::Json;
use tunegate_dataset::repair::mask::mask;

/// The longest comment or correction, bytes.
pub const MOST_TEXT_BYTES: usize = 64 << 10;

/// Whether an answer was good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rating {
    /// It was.
    Up,
    /// It was not.
    Down,
}

impl Rating {
    /// Both of them, for metrics that are born at 0.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// The name in answers and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// As rows have it.
    pub const fn number(self) -> i64 {
        match self {
            Self::Up => 1,
            Self::Down => -1,
        }
    }

    /// Reads back what [`Rating::number`] wrote.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Up),
            -1 => Some(Self::Down),
            _ => None,
        }
    }

    /// Reads what a client says: `"up"`, `"down"`, 1 or -1.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(word) => Self::ALL.into_iter().find(|rating| rating.name() == word),
            Value::Number(number) => number.as_i64().and_then(Self::from_number),
            _ => None,
        }
    }
}

/// What somebody says about an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Feedback {
    /// Whether it was good.
    pub rating: Rating,
    /// Why; empty for none.
    pub comment: String,
    /// What it should have said; empty for nothing.
    pub correction: String,
}

impl Feedback {
    /// With words such as `[EMAIL]` in the place of personal data and keys.
    #[must_use]
    pub fn masked(self) -> Self {
        let mask = |text: String| {
            let mut value = Json::owned(text);
            mask(&mut value, &mut BTreeMap::new());
            value.text().unwrap_or_default().to_owned()
        };
        Self { comment: mask(self.comment), correction: mask(self.correction), ..self }
    }
}

/// Which rows an export has, by what was said about them. A row with a correction passes each of them: its answer is then
/// the correction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    #[default]
    Any,
    /// Those that somebody found good.
    Up,
    /// Those that nobody found bad.
    NotDown,
    /// Those that somebody corrected.
    Corrected,
}

impl Wanted {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Any, Self::Up, Self::NotDown, Self::Corrected];

    /// The word in the API and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Up => "up",
            Self::NotDown => "not-down",
            Self::Corrected => "corrected",
        }
    }

    /// Reads such a word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wanted| wanted.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_clients_call_a_rating() {
        for (said, want) in [
            (json!("up"), Some(Rating::Up)),
            (json!(1), Some(Rating::Up)),
            (json!("down"), Some(Rating::Down)),
            (json!(-1), Some(Rating::Down)),
            (json!(0), None),
            (json!(1.5), None),
            (json!("UP"), None),
            (json!(true), None),
            (json!(null), None),
        ] {
            assert_eq!(Rating::from_json(&said), want, "{said}");
        }
        for rating in Rating::ALL {
            assert_eq!(Rating::from_number(rating.number()), Some(rating));
        }
        for wanted in Wanted::ALL {
            assert_eq!(Wanted::from_name(wanted.name()), Some(wanted));
        }
    }
}
