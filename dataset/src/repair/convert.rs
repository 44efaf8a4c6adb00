//! Rows of older forms become what is asked for today: `functions` become `tools`, completions become chats,
//! `preferred_completion` becomes `preferred_output`; and the words of the system are set.

use std::borrow::Cow;
use std::io::{Read, Write};

use super::{RepairError, each_row, write_raw};
use crate::json::Json;
use crate::row::Format;
use crate::{Options, Sound};

/// What was converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converted {
    /// Rows in the file.
    pub rows: u64,
    /// Rows whose functions became tools.
    pub functions: u64,
    /// Completions that became chats.
    pub completions: u64,
    /// Preferences whose members were renamed.
    pub preferences: u64,
    /// Rows that have other words of the system now.
    pub prompts: u64,
}

/// Writes a file with all rows in today's form; with `system` as the words of the system, where some are given.
///
/// # Errors
///
/// Those of the files, and a row that is none.
pub fn write(
    source: impl Read,
    options: &Options,
    system: Option<&str>,
    out: &mut dyn Write,
) -> Result<Converted, RepairError> {
    let mut converted = Converted::default();
    each_row(source, options, |line, sound| {
        converted.rows += 1;
        match converted_row(line, sound, system, &mut converted) {
            Some(value) => write_raw(out, value.written().as_bytes())?,
            None => write_raw(out, sound.raw)?,
        }
        Ok(())
    })?;
    Ok(converted)
}

/// The row in its new form; none where it stays as it is.
fn converted_row<'l>(
    line: u64,
    sound: Sound<'l>,
    system: Option<&'l str>,
    converted: &mut Converted,
) -> Option<Json<'l>> {
    let mut value = sound.value.clone();
    let mut changed = false;
    if sound.row.format == Format::Completion {
        value = as_chat(sound);
        converted.completions += 1;
        changed = true;
    }
    if rename_preferences(&mut value) {
        converted.preferences += 1;
        changed = true;
    }
    if functions_to_tools(&mut value, line) {
        converted.functions += 1;
        changed = true;
    }
    if let Some(system) = system.filter(|system| sound.row.system() != *system) {
        set_system(&mut value, system);
        converted.prompts += 1;
        changed = true;
    }
    changed.then_some(value)
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Json<'a> {
    Json::Text(text.into())
}

fn message<'a>(role: &'static str, content: Json<'a>) -> Json<'a> {
    Json::Object(vec![("role".into(), text(role)), ("content".into(), content)])
}

/// Completions were written with white space at their borders that chats don't have.
fn as_chat(sound: Sound<'_>) -> Json<'_> {
    let said = |at: usize| sound.row.messages.get(at).map_or("", |message| message.text.trim());
    let messages = vec![message("user", text(said(0))), message("assistant", text(said(1)))];
    Json::Object(vec![("messages".into(), Json::List(messages))])
}

fn rename_preferences(value: &mut Json<'_>) -> bool {
    let Json::Object(members) = value else { return false };
    let mut renamed = false;
    for (name, _) in members {
        let new = match name.as_ref() {
            "preferred_completion" => "preferred_output",
            "non_preferred_completion" => "non_preferred_output",
            _ => continue,
        };
        *name = Cow::Borrowed(new);
        renamed = true;
    }
    renamed
}

/// The list of messages of a chat or of a preference's input.
fn messages_of<'v, 'a>(value: &'v mut Json<'a>) -> Option<&'v mut Vec<Json<'a>>> {
    let holder = if value.get("messages").is_some() { value } else { value.get_mut("input")? };
    match holder.get_mut("messages") {
        Some(Json::List(messages)) => Some(messages),
        _ => None,
    }
}

/// `functions` become `tools`, behind those that are there already.
fn definitions_to_tools(value: &mut Json<'_>) -> bool {
    let Json::Object(members) = value else { return false };
    let Some(at) = members.iter().rposition(|(name, _)| name == "functions") else { return false };
    let Json::List(functions) = std::mem::replace(&mut members[at].1, Json::Null) else { return false };
    let wrapped: Vec<Json<'_>> = functions
        .into_iter()
        .map(|function| Json::Object(vec![("type".into(), text("function")), ("function".into(), function)]))
        .collect();
    match members.iter().rposition(|(name, value)| name == "tools" && value.list().is_some()) {
        Some(tools) => {
            if let Json::List(tools) = &mut members[tools].1 {
                tools.extend(wrapped);
            }
            members.remove(at);
        }
        None => members[at] = (Cow::Borrowed("tools"), Json::List(wrapped)),
    }
    true
}

fn functions_to_tools(value: &mut Json<'_>, line: u64) -> bool {
    let mut changed = definitions_to_tools(value);
    let Some(messages) = messages_of(value) else { return changed };
    let mut calls = 0;
    // the call that a function's message answers: the last one before it
    let mut last_id: Option<String> = None;
    for message in messages {
        let is_result = message.get("role").and_then(Json::text) == Some("function");
        let Json::Object(members) = message else { continue };
        for (name, call) in
            members.iter_mut().filter(|(name, call)| name == "function_call" && !call.is_null())
        {
            calls += 1;
            let id = format!("call_{line}_{calls}");
            *name = Cow::Borrowed("tool_calls");
            let function = std::mem::replace(call, Json::Null);
            *call = Json::List(vec![Json::Object(vec![
                ("id".into(), text(id.clone())),
                ("type".into(), text("function")),
                ("function".into(), function),
            ])]);
            last_id = Some(id);
            changed = true;
        }
        if let Some(id) = last_id.clone().filter(|_| is_result) {
            members.retain(|(name, _)| name != "name" && name != "role");
            members.insert(0, ("role".into(), text("tool")));
            members.insert(1, ("tool_call_id".into(), text(id)));
            changed = true;
        }
    }
    changed
}

fn set_system<'a>(value: &mut Json<'a>, system: &'a str) {
    let Some(messages) = messages_of(value) else { return };
    let is_systems =
        |message: &Json<'_>| matches!(message.get("role").and_then(Json::text), Some("system" | "developer"));
    let leading = messages.iter().take_while(|message| is_systems(message)).count();
    messages.drain(..leading);
    if !system.is_empty() {
        messages.insert(0, message("system", text(system)));
    }
}
