//! New rows from old ones: the user's last message in other words, with the same answer. The words come from a model that
//! the operator chooses; here is what it is asked, and what becomes of its answer.

use std::borrow::Cow;
use std::io::{Read, Write};

use serde::Serialize;

use super::{RepairError, each_row, write_raw};
use crate::json::Json;
use crate::row::Role;
use crate::{Options, hash};

/// What the model is told.
const INSTRUCTION: &str = "You rewrite messages for a training set. Write the user's message in other words: the same \
                           meaning, the same language, the same facts, names and numbers, as another person might \
                           write it. Answer with the new message alone, without quotes or explanations.";

/// Where a new row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Its line in the new file.
    pub line: u64,
    /// The line that it was made from, in the old one.
    pub augmented_from: u64,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Augmented {
    /// Rows of the old file, all of which are in the new one.
    pub rows: u64,
    /// The new rows.
    pub new: Vec<Origin>,
    /// Rows without a text of the user: nothing was asked for them.
    pub skipped: u64,
    /// Answers that were empty or said the same: not taken.
    pub refused: u64,
}

/// The body of a chat completion that asks for other words.
pub fn request(model: &str, words: &str) -> serde_json::Value {
    serde_json::json!({
        "model": model,
        "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": words}],
        "temperature": 1,
    })
}

/// Writes the old rows, and behind each up to `per_row` new ones. `rephrase` is given the user's words and says them
/// otherwise.
///
/// # Errors
///
/// Those of the files and of `rephrase`, and a row that is none.
pub fn write(
    source: impl Read,
    options: &Options,
    per_row: u32,
    rephrase: &mut dyn FnMut(&str) -> Result<String, RepairError>,
    out: &mut dyn Write,
) -> Result<Augmented, RepairError> {
    let mut augmented = Augmented::default();
    let mut written = 0;
    each_row(source, options, |line, sound| {
        augmented.rows += 1;
        written += 1;
        write_raw(out, sound.raw)?;
        let asked = sound.row.prompt().iter().rposition(|message| {
            message.role == Role::User
                && message.members.iter().any(|(name, value)| name == "content" && value.text().is_some())
        });
        let Some(at) = asked else {
            augmented.skipped += 1;
            return Ok(());
        };
        let words = &sound.row.messages[at].text;
        let mut said = vec![hash::of(0, words.trim().as_bytes())];
        for _ in 0..per_row {
            let new = rephrase(words)?;
            let new = new.trim();
            let key = hash::of(0, new.as_bytes());
            if new.is_empty() || said.contains(&key) {
                augmented.refused += 1;
                continue;
            }
            said.push(key);
            let mut value = sound.value.clone();
            put(&mut value, at, new);
            written += 1;
            write_raw(out, value.written().as_bytes())?;
            augmented.new.push(Origin { line: written, augmented_from: line });
        }
        Ok(())
    })?;
    Ok(augmented)
}

fn put(value: &mut Json<'_>, at: usize, words: &str) {
    let holder = if value.get("messages").is_some() { Some(value) } else { value.get_mut("input") };
    let message = match holder.and_then(|holder| holder.get_mut("messages")) {
        Some(Json::List(messages)) => messages.get_mut(at),
        _ => None,
    };
    if let Some(content) = message.and_then(|message| message.get_mut("content")) {
        *content = Json::Text(Cow::Owned(words.to_owned()));
    }
}
