//! Personal data and secrets give way to words such as `[EMAIL]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::{RepairError, each_row, write_raw};
use crate::Options;
use crate::json::Json;
use crate::personal::{self, Kind};

/// Members that are no words of anybody: ids, names that calls and definitions share, images.
const LEFT_ALONE: [&str; 6] = ["role", "type", "id", "tool_call_id", "name", "image_url"];

/// What was masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masked {
    /// Rows in the file.
    pub rows: u64,
    /// Rows that were changed.
    pub changed: u64,
    /// How many of each kind.
    pub of: BTreeMap<Kind, u64>,
}

/// Writes a file with what is found masked.
///
/// # Errors
///
/// Those of the files, and a row that is none.
pub fn write(source: impl Read, options: &Options, out: &mut dyn Write) -> Result<Masked, RepairError> {
    let mut masked = Masked::default();
    each_row(source, options, |_, sound| {
        masked.rows += 1;
        let mut value = sound.value.clone();
        let before = total(&masked);
        mask(&mut value, &mut masked.of);
        if total(&masked) == before {
            return Ok(write_raw(out, sound.raw)?);
        }
        masked.changed += 1;
        Ok(write_raw(out, value.written().as_bytes())?)
    })?;
    Ok(masked)
}

fn total(masked: &Masked) -> u64 {
    masked.of.values().sum()
}

fn mask(value: &mut Json<'_>, of: &mut BTreeMap<Kind, u64>) {
    match value {
        Json::Text(text) => {
            if let Some(new) = masked_text(text, of) {
                *text = Cow::Owned(new);
            }
        }
        // a number in a call's arguments may be a card's
        Json::Number(number) => {
            if let Some(new) = masked_text(&number.to_string(), of) {
                *value = Json::owned(new);
            }
        }
        Json::List(list) => list.iter_mut().for_each(|element| mask(element, of)),
        Json::Object(members) => {
            for (name, value) in members {
                match (name.as_ref(), &mut *value) {
                    (name, _) if LEFT_ALONE.contains(&name) => {}
                    ("arguments", Json::Text(text)) => *text = Cow::Owned(masked_arguments(text, of)),
                    (_, value) => mask(value, of),
                }
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}

/// Arguments stay JSON, where they were.
fn masked_arguments(text: &str, of: &mut BTreeMap<Kind, u64>) -> String {
    let Ok(mut arguments) = serde_json::from_str::<Json<'_>>(text) else {
        return masked_text(text, of).unwrap_or_else(|| text.to_owned());
    };
    let before: u64 = of.values().sum();
    mask(&mut arguments, of);
    if of.values().sum::<u64>() == before { text.to_owned() } else { arguments.written() }
}

/// The text with what is found masked; none where nothing is.
fn masked_text(text: &str, of: &mut BTreeMap<Kind, u64>) -> Option<String> {
    let found = personal::find(text);
    if found.is_empty() {
        return None;
    }
    let (mut new, mut from) = (String::with_capacity(text.len()), 0);
    for found in found {
        new.push_str(&text[from..found.at.start]);
        new.push_str(found.kind.mask());
        from = found.at.end;
        *of.entry(found.kind).or_default() += 1;
    }
    new.push_str(&text[from..]);
    Some(new)
}
