//! Personal data and secrets give way to words such as `[EMAIL]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::{RepairError, each_row, write_raw};
use crate::Options;
use crate::json::Json;
use crate::personal::{self, Kind};

/// Members of messages, calls and definitions that are no words of anybody: ids, names that calls and definitions share,
/// images.
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

/// Masks what is found in a value, and counts it by its kind. Ids, names and images of messages stay; nothing of what a tool
/// is called with, or defined by.
pub fn mask(value: &mut Json<'_>, of: &mut BTreeMap<Kind, u64>) {
    match value {
        Json::Text(_) | Json::Number(_) => mask_one(value, of),
        Json::List(list) => list.iter_mut().for_each(|element| mask(element, of)),
        Json::Object(members) => {
            for (name, value) in members {
                match (name.as_ref(), &mut *value) {
                    (name, _) if LEFT_ALONE.contains(&name) => {}
                    ("arguments", Json::Text(text)) => *text = Cow::Owned(masked_arguments(text, of)),
                    // what stands in there has names of the application's own, `id` and `name` among them
                    ("arguments" | "parameters", value) => mask_all(value, of),
                    (_, value) => mask(value, of),
                }
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}

/// Masks a text, or a number, which may be a card's.
fn mask_one(value: &mut Json<'_>, of: &mut BTreeMap<Kind, u64>) {
    let new = match value {
        Json::Text(text) => masked_text(text, of),
        Json::Number(number) => masked_text(&number.to_string(), of),
        Json::List(_) | Json::Object(_) | Json::Null | Json::Bool(_) => None,
    };
    if let Some(new) = new {
        *value = Json::owned(new);
    }
}

/// Masks all that is found, whatever its member is called, and in the members' names themselves.
fn mask_all(value: &mut Json<'_>, of: &mut BTreeMap<Kind, u64>) {
    match value {
        Json::List(list) => list.iter_mut().for_each(|element| mask_all(element, of)),
        Json::Object(members) => {
            for at in 0..members.len() {
                let name = masked_text(&members[at].0, of).map(|name| untaken(members, name));
                let (old, value) = &mut members[at];
                if let Some(name) = name {
                    *old = Cow::Owned(name);
                }
                mask_all(value, of);
            }
        }
        _ => mask_one(value, of),
    }
}

/// A name that no member has: two that are masked to the same would be one.
fn untaken(members: &[(Cow<'_, str>, Json<'_>)], name: String) -> String {
    let is_taken = |name: &str| members.iter().any(|(taken, _)| taken == name);
    if !is_taken(&name) {
        return name;
    }
    let mut numbered = (2..=members.len() + 1).map(|number| format!("{name} {number}"));
    numbered.find(|name| !is_taken(name)).unwrap_or(name)
}

/// Arguments stay JSON, where they were.
fn masked_arguments(text: &str, of: &mut BTreeMap<Kind, u64>) -> String {
    let Ok(mut arguments) = serde_json::from_str::<Json<'_>>(text) else {
        return masked_text(text, of).unwrap_or_else(|| text.to_owned());
    };
    let before: u64 = of.values().sum();
    mask_all(&mut arguments, of);
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
