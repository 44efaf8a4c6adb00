//! What an answer repeats of its request.

use serde_json::value::RawValue;

use super::object::{Object, Path};

/// What of a Responses request its answer repeats: as the client wrote it, or what holds unless told.
///
/// Holds the instructions and the tools; of the input nothing.
#[derive(Debug, Clone)]
pub struct Echo {
    /// The model asked for: told until the upstream has said which one answers.
    pub(super) model: Box<RawValue>,
    pub(super) instructions: Box<RawValue>,
    pub(super) max_output_tokens: Box<RawValue>,
    pub(super) metadata: Box<RawValue>,
    pub(super) parallel_tool_calls: Box<RawValue>,
    pub(super) prompt_cache_key: Box<RawValue>,
    pub(super) prompt_cache_retention: Box<RawValue>,
    pub(super) effort: Box<RawValue>,
    pub(super) safety_identifier: Box<RawValue>,
    pub(super) temperature: Box<RawValue>,
    pub(super) format: Box<RawValue>,
    pub(super) verbosity: Option<Box<RawValue>>,
    pub(super) tool_choice: Box<RawValue>,
    pub(super) tools: Box<RawValue>,
    pub(super) top_logprobs: Box<RawValue>,
    pub(super) top_p: Box<RawValue>,
    pub(super) user: Box<RawValue>,
}

impl Echo {
    /// Reads a Responses body. Of one that [`super::chat_of`] refuses, what can be read is there.
    pub fn of(body: &[u8]) -> Self {
        let mut asked = Object::of_body(body).unwrap_or_default();
        let mut reasoning = inside(&mut asked, "reasoning");
        let mut text = inside(&mut asked, "text");
        let mut or = |name: &str, unless: &str| asked.take(name).map_or_else(|| raw(unless), one_line);
        Self {
            model: or("model", r#""""#),
            instructions: or("instructions", "null"),
            max_output_tokens: or("max_output_tokens", "null"),
            metadata: or("metadata", "{}"),
            parallel_tool_calls: or("parallel_tool_calls", "true"),
            prompt_cache_key: or("prompt_cache_key", "null"),
            prompt_cache_retention: or("prompt_cache_retention", "null"),
            effort: reasoning.take("effort").map_or_else(|| raw("null"), one_line),
            safety_identifier: or("safety_identifier", "null"),
            temperature: or("temperature", "null"),
            format: text.take("format").map_or_else(|| raw(r#"{"type":"text"}"#), one_line),
            verbosity: text.take("verbosity").map(one_line),
            tool_choice: or("tool_choice", r#""auto""#),
            tools: or("tools", "[]"),
            top_logprobs: or("top_logprobs", "null"),
            top_p: or("top_p", "null"),
            user: or("user", "null"),
        }
    }
}

/// The members of a member; none where it is no object.
fn inside<'a>(asked: &mut Object<'a>, name: &str) -> Object<'a> {
    let value = asked.take(name);
    value.and_then(|value| Object::read(value, &Path::Body.member(name)).ok()).unwrap_or_default()
}

/// The same JSON on one line: an event's data must not break. A line end is never inside a text, there it is escaped.
fn one_line(value: &RawValue) -> Box<RawValue> {
    match value.get().contains(['\n', '\r']) {
        true => raw(&value.get().replace(['\n', '\r'], " ")),
        false => value.to_owned(),
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap_or_default()
}
