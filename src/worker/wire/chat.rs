//! `POST /v1/chat/completions`: the request.

use serde_json::Value;

use super::fields::{Fields, is_empty_list, kind};
use super::{Generation, Refusal};
use crate::worker::text::Message;

/// A checked request.
#[derive(Debug, PartialEq)]
pub(in crate::worker) struct ChatRequest {
    /// The model asked for; not looked up yet.
    pub(in crate::worker) model: String,
    /// At least one.
    pub(in crate::worker) messages: Vec<Message>,
    /// How to answer.
    pub(in crate::worker) generation: Generation,
}

/// Members of OpenAI's that ask for something not built here.
const NOT_BUILT: [&str; 8] = [
    "audio",
    "function_call",
    "functions",
    "moderation",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "web_search_options",
];

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// With a 400 that names the member at fault.
    pub(in crate::worker) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::body(body)?;
        let model = fields.required_text("model")?;
        let messages = messages(&mut fields)?;
        let generation = Generation::take(&mut fields)?;
        refuse_extras(&mut fields)?;
        fields.finish()?;
        Ok(Self { model, messages, generation })
    }
}

fn refuse_extras(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.flag("store")? == Some(true) {
        return Err(Refusal::unsupported_value("store", "must be false: answers are not stored"));
    }
    if fields.flag("logprobs")? == Some(true) {
        return Err(Refusal::unsupported_value("logprobs", "must be false with this model"));
    }
    fields.refuse("tools", is_empty_list)?;
    fields.refuse("functions", is_empty_list)?;
    if fields.take("tool_choice").is_some_and(|choice| choice != "none") {
        return Err(Refusal::unsupported_value("tool_choice", "must be 'none': this model has no tools"));
    }
    if fields.take("modalities").is_some_and(|modalities| modalities != serde_json::json!(["text"])) {
        return Err(Refusal::unsupported_value("modalities", "must be ['text'] with this model"));
    }
    if let Some(format) = fields.take("response_format") {
        let mut format = Fields::nested(format, "response_format")?;
        if format.required_text("type")? != "text" {
            return Err(Refusal::unsupported_value("response_format.type", "must be 'text' with this model"));
        }
        format.finish()?;
    }
    for name in NOT_BUILT {
        fields.refuse(name, |_| false)?;
    }
    Ok(())
}

/// Takes the messages, of which there must be one.
pub(super) fn messages(fields: &mut Fields) -> Result<Vec<Message>, Refusal> {
    match fields.take("messages") {
        None => Err(Refusal::missing("messages")),
        Some(Value::Array(list)) if list.is_empty() => {
            Err(Refusal::invalid("messages", "expected an array with at least one message"))
        }
        Some(Value::Array(list)) => {
            let messages = list.into_iter().enumerate();
            messages.map(|(index, value)| message(value, &format!("messages[{index}]"))).collect()
        }
        Some(other) => Err(Refusal::wrong_type("messages", "an array of objects", kind(&other))),
    }
}

fn message(value: Value, path: &str) -> Result<Message, Refusal> {
    let mut fields = Fields::nested(value, path)?;
    let role = match fields.required_text("role")?.as_str() {
        // OpenAI renamed the one to the other; templates of open models know the old name.
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => {
            return Err(Refusal::unsupported_value(
                &fields.path("role"),
                "must not be a tool's: this model has none",
            ));
        }
        other => {
            let reason = format!("'{other}' is not one of 'system', 'developer', 'user' and 'assistant'");
            return Err(Refusal::invalid(&fields.path("role"), &reason));
        }
    };
    let content_path = fields.path("content");
    let content = match fields.take("content") {
        None => return Err(Refusal::missing(&content_path)),
        Some(content) => content_text(content, &content_path)?,
    };
    // Answers of ours and of OpenAI's come back with these, empty.
    for name in ["tool_calls", "annotations"] {
        fields.refuse(name, is_empty_list)?;
    }
    for name in ["audio", "function_call", "name", "refusal", "tool_call_id"] {
        fields.refuse(name, |_| false)?;
    }
    fields.finish()?;
    Ok(Message { role, content })
}

fn content_text(content: Value, path: &str) -> Result<String, Refusal> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(Refusal::wrong_type(path, "a string or an array of text parts", kind(&other))),
    };
    let mut content = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::nested(part, &format!("{path}[{index}]"))?;
        let kind = part.required_text("type")?;
        if kind != "text" {
            let reason = format!("is '{kind}', but this model reads parts of type 'text' only");
            return Err(Refusal::unsupported_value(&part.path("type"), &reason));
        }
        content += &part.required_text("text")?;
        part.finish()?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
