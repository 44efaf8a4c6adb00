//! The chat completion that asks what a Responses request asks.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::input::{Message, messages};
use super::object::{Object, Path, as_array, as_word};
use super::tools::{Choice, Tool, choice, tools};
use super::{Untranslatable, Why};

/// What a response can show besides, and a chat completion has too.
const LOGPROBS: &str = "message.output_text.logprobs";
/// What `include` calls the thoughts that the next turn shall bring back.
const ENCRYPTED_THOUGHTS: &str = "reasoning.encrypted_content";

/// A chat completion, in the order in which it is written.
#[derive(Debug, Default, Serialize)]
struct Chat<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a RawValue>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_options: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_retention: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonObject,
    JsonSchema { json_schema: Schema<'a> },
}

#[derive(Debug, Serialize)]
struct Schema<'a> {
    name: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a RawValue>,
    schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct StreamOptions<'a> {
    /// A stream of Responses always ends with its usage.
    include_usage: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_obfuscation: Option<&'a RawValue>,
}

/// The chat completion that asks the same as a Responses body.
///
/// A stream is asked for its usage, which the last event of a response holds.
///
/// # Errors
///
/// The first member that can't be asked of a chat completion, by its path.
pub fn chat_of(body: &[u8]) -> Result<Bytes, Untranslatable> {
    let top = Path::Body;
    let mut asked = Object::of_body(body)?;
    is_stateless(&mut asked)?;
    let mut chat = Chat { model: asked.take("model"), messages: messages(&mut asked)?, ..Chat::default() };
    chat.tools = tools(&mut asked)?;
    chat.tool_choice = choice(&mut asked, !chat.tools.is_empty())?;
    // without tools nothing is called, and chat refuses to hear of it
    chat.parallel_tool_calls = asked.take("parallel_tool_calls").filter(|_| !chat.tools.is_empty());
    (chat.response_format, chat.verbosity) = text(&mut asked)?;
    chat.reasoning_effort = reasoning(&mut asked)?;
    chat.max_completion_tokens = asked.take("max_output_tokens");
    chat.temperature = asked.take("temperature");
    chat.top_p = asked.take("top_p");
    chat.logprobs = includes_logprobs(&mut asked)?.then_some(true);
    // how many of them a response shows, where it shows any
    chat.top_logprobs = asked.take("top_logprobs").filter(|_| chat.logprobs.is_some());
    chat.service_tier = asked.take("service_tier");
    chat.user = asked.take("user");
    chat.safety_identifier = asked.take("safety_identifier");
    chat.prompt_cache_key = asked.take("prompt_cache_key");
    chat.prompt_cache_options = asked.take("prompt_cache_options");
    chat.prompt_cache_retention = asked.take("prompt_cache_retention");
    // labels of the stored answer: the response repeats them, and chat takes them only where it stores
    asked.take("metadata");
    let options = stream_options(&mut asked)?;
    if asked.take("stream").is_some_and(|stream| stream.get() == "true") {
        chat.stream = Some(true);
        chat.stream_options = Some(options);
    }
    asked.ends(&top)?;
    let written = serde_json::to_vec(&chat);
    written.map(Bytes::from).map_err(|_| top.refused(Why::Expected("one JSON object")))
}

/// Refuses what needs earlier answers or keeps this one.
fn is_stateless(asked: &mut Object<'_>) -> Result<(), Untranslatable> {
    let top = Path::Body;
    for stored in ["previous_response_id", "conversation", "prompt"] {
        asked.only(stored, &[], Why::Stored, &top)?;
    }
    asked.only("store", &["false"], Why::CanNotStore, &top)?;
    asked.only("background", &["false"], Why::CanNotStore, &top)?;
    asked.only("truncation", &["\"disabled\""], Why::NoEqual, &top)
}

/// The format of the answer and how many words it makes.
fn text<'a>(asked: &mut Object<'a>) -> Result<(Option<Format<'a>>, Option<&'a RawValue>), Untranslatable> {
    let path = Path::Body.member("text");
    let Some(text) = asked.take("text") else { return Ok((None, None)) };
    let mut text = Object::read(text, &path)?;
    let format = text.take("format").map(|value| format(value, &path.member("format"))).transpose()?;
    let verbosity = text.take("verbosity");
    text.ends(&path)?;
    Ok((format.flatten(), verbosity))
}

fn format<'a>(value: &'a RawValue, path: &Path<'_>) -> Result<Option<Format<'a>>, Untranslatable> {
    let mut format = Object::read(value, path)?;
    let kind = format.word("type", path)?;
    let made = match kind.as_deref() {
        // what chat does unless told
        Some("text") => None,
        Some("json_object") => Some(Format::JsonObject),
        Some("json_schema") => {
            let name = format.need_text("name", path)?;
            let description = format.text("description", path)?;
            let (schema, strict) = (format.need("schema", path)?, format.take("strict"));
            Some(Format::JsonSchema { json_schema: Schema { name, description, schema, strict } })
        }
        Some(_) => return Err(path.member("type").refused(Why::NoEqual)),
        None => return Err(path.member("type").refused(Why::Missing)),
    };
    format.ends(path)?;
    Ok(made)
}

/// How hard it thinks. Chat shows no summary of it, and no thought is ever handed from turn to turn.
fn reasoning<'a>(asked: &mut Object<'a>) -> Result<Option<&'a RawValue>, Untranslatable> {
    let path = Path::Body.member("reasoning");
    let Some(reasoning) = asked.take("reasoning") else { return Ok(None) };
    let mut reasoning = Object::read(reasoning, &path)?;
    reasoning.only("mode", &["\"standard\""], Why::NoEqual, &path)?;
    reasoning.only("context", &["\"auto\"", "\"current_turn\""], Why::NoEqual, &path)?;
    let effort = reasoning.take("effort");
    reasoning.ends(&path)?;
    Ok(effort)
}

fn includes_logprobs(asked: &mut Object<'_>) -> Result<bool, Untranslatable> {
    let Some(include) = asked.take("include") else { return Ok(false) };
    let path = Path::Body.member("include");
    let mut logprobs = false;
    for (at, value) in as_array(include, &path)?.into_iter().enumerate() {
        let path = path.item(at);
        match &*as_word(value, &path)? {
            LOGPROBS => logprobs = true,
            // no chat completion shows its thoughts, so there is none to hand over; stateless agents always ask
            ENCRYPTED_THOUGHTS => {}
            _ => return Err(path.refused(Why::NoEqual)),
        }
    }
    Ok(logprobs)
}

fn stream_options<'a>(asked: &mut Object<'a>) -> Result<StreamOptions<'a>, Untranslatable> {
    let mut asked_for = StreamOptions { include_usage: true, include_obfuscation: None };
    let Some(options) = asked.take("stream_options") else { return Ok(asked_for) };
    let path = Path::Body.member("stream_options");
    let mut options = Object::read(options, &path)?;
    asked_for.include_obfuscation = options.take("include_obfuscation");
    options.ends(&path)?;
    Ok(asked_for)
}
