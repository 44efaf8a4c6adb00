//! JSON texts and arrays that grow by pieces as they are written on the wire: nothing is unescaped or escaped again.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// A JSON text as it is written, quotes included.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(&'a RawValue);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&RawValue>::deserialize(deserializer)?;
        match value.get().starts_with('"') {
            true => Ok(Self(value)),
            false => Err(de::Error::custom("expected a string")),
        }
    }
}

impl Text<'_> {
    /// Its characters, escaped, without the quotes.
    fn inside(&self) -> &str {
        let inside = self.0.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inside.unwrap_or_default()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.inside().is_empty()
    }

    /// The same, kept.
    pub(super) fn kept(&self) -> Box<RawValue> {
        self.0.to_owned()
    }
}

/// A text, its characters escaped as in JSON, without the quotes.
///
/// Pieces are joined as they came: even a pair of surrogates that a provider cut in two is whole again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Escaped(String);

impl Escaped {
    /// A text to begin with.
    pub(super) fn of(text: Option<Text<'_>>) -> Self {
        Self(text.as_ref().map(Text::inside).unwrap_or_default().to_owned())
    }

    /// A text that needs no escapes.
    pub(super) fn plain(text: &str) -> Self {
        debug_assert!(!text.contains(['"', '\\']));
        Self(text.to_owned())
    }

    /// Adds a text; returns by how many bytes it has grown.
    pub(super) fn push(&mut self, text: Text<'_>) -> usize {
        self.0.push_str(text.inside());
        text.inside().len()
    }

    /// Whether it is this text.
    pub(super) fn is(&self, text: Text<'_>) -> bool {
        self.0 == text.inside()
    }

    /// Whether there is nothing in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Escaped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        written(format!("\"{}\"", self.0), serializer)
    }
}

/// An array whose values are kept as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Joined(String);

impl Joined {
    /// Adds the values of another one; returns by how many bytes it has grown.
    pub(super) fn append(&mut self, other: &Self) -> usize {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&other.0);
        other.0.len()
    }

    /// The array of what `values` write.
    pub(super) fn of(values: &impl Serialize) -> Self {
        let array = serde_json::to_string(values).unwrap_or_default();
        let inside = array.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Self(inside.unwrap_or_default().to_owned())
    }
}

impl Serialize for Joined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        written(format!("[{}]", self.0), serializer)
    }
}

fn written<S: Serializer>(json: String, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(json).map_err(ser::Error::custom)?.serialize(serializer)
}
