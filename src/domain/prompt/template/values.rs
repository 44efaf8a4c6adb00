//! Values of variables: checked by the type that was declared, bounded, and never read as a template.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Problem, RenderError, check};
use crate::domain::prompt::{MAX_VARIABLES, Variable, VariableKind};

/// Longest text, bytes.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Longest list, texts.
pub const MAX_LIST: usize = 256;
/// Longest values of one rendering, bytes in all.
pub const MAX_VALUES_BYTES: usize = 256 << 10;
/// Longest name, bytes.
const MAX_NAME_BYTES: usize = 64;

/// Values are an object, or a text that holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("values of a prompt's variables must be a JSON object, or a text that holds one")]
pub struct InvalidValues;

/// What was given for variables, from several places: what was given first counts. Names that a prompt does not know are
/// left alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(BTreeMap<Arc<str>, Value>);

impl Values {
    /// Adds what is not there yet.
    #[must_use]
    pub fn or<N: Into<Arc<str>>>(mut self, given: impl IntoIterator<Item = (N, Value)>) -> Self {
        for (name, value) in given {
            self.0.entry(name.into()).or_insert(value);
        }
        self
    }

    /// Reads values as a body's member brings them.
    pub fn read(given: Value) -> Result<Map<String, Value>, InvalidValues> {
        match given {
            Value::Object(values) => Ok(values),
            Value::String(text) => Self::read_text(&text),
            _ => Err(InvalidValues),
        }
    }

    /// Reads values as a header brings them.
    pub fn read_text(text: &str) -> Result<Map<String, Value>, InvalidValues> {
        serde_json::from_str(text).map_err(|_| InvalidValues)
    }

    /// What the variables hold: what was given, else their default.
    pub(super) fn held_by<'v>(
        &self,
        variables: &'v [Variable],
    ) -> Result<BTreeMap<&'v str, minijinja::Value>, RenderError> {
        let mut left = MAX_VALUES_BYTES;
        let mut held = BTreeMap::new();
        for variable in variables {
            let given = self.0.get(&variable.name).filter(|value| !value.is_null());
            let Some(value) = given.or(variable.default.as_ref()) else {
                return Err(RenderError::Missing(Arc::clone(&variable.name)));
            };
            let fits = fitting(variable.kind, value);
            let expected = expected(variable.kind);
            let value =
                fits.ok_or_else(|| RenderError::Invalid { name: Arc::clone(&variable.name), expected })?;
            left = left.checked_sub(size_of(&value)).ok_or(RenderError::TooMuch)?;
            held.insert(&*variable.name, value);
        }
        Ok(held)
    }
}

/// A value as the template gets it; nothing where it is of another type or too long.
fn fitting(kind: VariableKind, value: &Value) -> Option<minijinja::Value> {
    match (kind, value) {
        (VariableKind::Text, Value::String(text)) if text.len() <= MAX_VALUE_BYTES => {
            Some(minijinja::Value::from(text.as_str()))
        }
        (VariableKind::Number, Value::Number(number)) => number_of(number),
        (VariableKind::Boolean, Value::Bool(boolean)) => Some(minijinja::Value::from(*boolean)),
        (VariableKind::List, Value::Array(texts)) if texts.len() <= MAX_LIST => {
            let held: Option<Vec<_>> = texts.iter().map(|text| fitting(VariableKind::Text, text)).collect();
            held.map(minijinja::Value::from)
        }
        _ => None,
    }
}

fn number_of(number: &serde_json::Number) -> Option<minijinja::Value> {
    let whole =
        number.as_i64().map(minijinja::Value::from).or_else(|| number.as_u64().map(minijinja::Value::from));
    whole.or_else(|| number.as_f64().map(minijinja::Value::from))
}

const fn expected(kind: VariableKind) -> &'static str {
    match kind {
        VariableKind::Text => "a text of at most 65536 bytes",
        VariableKind::Number => "a number",
        VariableKind::Boolean => "true or false",
        VariableKind::List => "a list of at most 256 texts",
    }
}

fn size_of(value: &minijinja::Value) -> usize {
    match value.as_str() {
        Some(text) => text.len(),
        None => value.try_iter().map_or(0, |texts| texts.map(|text| size_of(&text) + 1).sum()),
    }
}

/// What is wrong with the declarations.
pub(super) fn problems_of(variables: &[Variable]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut said = |words: String| problems.push(Problem { line: None, words });
    if variables.len() > MAX_VARIABLES {
        said(format!("there are more than {MAX_VARIABLES} variables"));
    }
    let mut known = HashSet::new();
    for Variable { name, kind, default } in variables {
        if !name_is_good(name) {
            said(format!(
                "'{name}' can't name a variable: a letter or _, then letters, digits and _, 64 at most"
            ));
        } else if check::is_reserved(name) {
            said(format!("'{name}' can't name a variable: it is a word of the template language"));
        }
        if !known.insert(name) {
            said(format!("the variable '{name}' is declared twice"));
        }
        if default.as_ref().is_some_and(|default| fitting(*kind, default).is_none()) {
            said(format!("the default of the variable '{name}' must be {}", expected(*kind)));
        }
    }
    problems
}

fn name_is_good(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let goes_on = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts && goes_on && name.len() <= MAX_NAME_BYTES
}
