//! Reads the members of a JSON object one by one, so that every refusal can name the member at fault.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;

/// Returns which model a request asks for; none where its body is wrong, which whoever reads all of it says.
pub(in crate::worker) fn model_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Asked {
        model: String,
    }
    serde_json::from_slice::<Asked>(body).ok().map(|asked| asked.model)
}

/// The members of an object that were not read yet. `null` counts as absent.
pub(super) struct Fields {
    prefix: String,
    members: Map<String, Value>,
}

impl Fields {
    /// Opens a request's body.
    pub(super) fn body(bytes: &[u8]) -> Result<Self, Refusal> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(&error.to_string()))?;
        match value {
            Value::Object(members) => Ok(Self::new(String::new(), members)),
            other => Err(Refusal::malformed(&format!("expected an object, but got {}", kind(&other)))),
        }
    }

    /// Opens an object that stands at `path`.
    pub(super) fn nested(value: Value, path: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(members) => Ok(Self::new(format!("{path}."), members)),
            other => Err(Refusal::wrong_type(path, "an object", kind(&other))),
        }
    }

    fn new(prefix: String, mut members: Map<String, Value>) -> Self {
        members.retain(|_, value| !value.is_null());
        Self { prefix, members }
    }

    /// Returns the full name of a member, as errors give it.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Takes a member of any type.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// Takes a text that must be there.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Refusal> {
        let path = self.path(name);
        self.text(name)?.ok_or_else(|| Refusal::missing(&path))
    }

    /// Takes true or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, "a boolean", &other)),
        }
    }

    /// Takes a whole number.
    pub(super) fn whole(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) if number.is_i64() => Ok(number.as_i64()),
            Some(Value::Number(number)) if number.is_u64() => {
                Err(Refusal::invalid(&self.path(name), "the number is too large"))
            }
            Some(other) => Err(self.wrong(name, "an integer", &other)),
        }
    }

    /// Takes a whole number from 1 up.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, Refusal> {
        match self.whole(name)? {
            None => Ok(None),
            Some(count) if count >= 1 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            Some(_) => Err(Refusal::invalid(&self.path(name), "expected an integer of at least 1")),
        }
    }

    /// Takes a number from `least` to `most`.
    pub(super) fn real(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match number.as_f64() {
                Some(real) if (least..=most).contains(&real) => Ok(Some(real)),
                _ => {
                    let reason = format!("expected a number from {least} to {most}");
                    Err(Refusal::invalid(&self.path(name), &reason))
                }
            },
            Some(other) => Err(self.wrong(name, "a number", &other)),
        }
    }

    /// Takes a member that changes nothing and may say what it likes.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.members.remove(*name);
        }
    }

    /// Refuses a member unless it is absent or `accepted` says that it asks for nothing.
    pub(super) fn refuse(&mut self, name: &str, accepted: impl Fn(&Value) -> bool) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !accepted(&value) => Err(Refusal::unsupported(&self.path(name))),
            _ => Ok(()),
        }
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.members.keys().next() {
            Some(name) => Err(Refusal::unknown(&self.path(name))),
            None => Ok(()),
        }
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) -> Refusal {
        Refusal::wrong_type(&self.path(name), wanted, kind(found))
    }
}

/// Returns a JSON value's type, as OpenAI's errors put it.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a value is an empty array.
pub(super) fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Whether a value is the number 0.
pub(super) fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}
