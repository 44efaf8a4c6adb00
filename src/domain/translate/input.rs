//! What was said so far: the items of `input` as the messages of a chat.
//!
//! Calls that follow one another, or the words before them, are one message of the assistant, as chat has it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::object::{Object, Path, as_array};
use super::{Untranslatable, Why};

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A message of a chat.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    role: Role,
    /// `null` where the assistant only calls.
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    const fn said(role: Role, content: Option<Content<'a>>) -> Self {
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None }
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a RawValue),
    Parts(Vec<Part<'a>>),
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text {
        text: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<&'a RawValue>,
    },
    Refusal {
        refusal: &'a RawValue,
    },
    ImageUrl {
        image_url: Image<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<&'a RawValue>,
    },
    InputAudio {
        input_audio: &'a RawValue,
    },
    File {
        file: File<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_cache_breakpoint: Option<&'a RawValue>,
    },
}

#[derive(Debug, Serialize)]
struct Image<'a> {
    url: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file_id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "function")]
struct Call<'a> {
    id: &'a RawValue,
    function: Called<'a>,
}

#[derive(Debug, Serialize)]
struct Called<'a> {
    name: &'a RawValue,
    arguments: &'a RawValue,
}

/// The messages that `instructions` and `input` are.
pub(super) fn messages<'a>(body: &mut Object<'a>) -> Result<Vec<Message<'a>>, Untranslatable> {
    let top = Path::Body;
    let mut messages = Vec::new();
    if let Some(instructions) = body.text("instructions", &top)? {
        messages.push(Message::said(Role::System, Some(Content::Text(instructions))));
    }
    let input = body.need("input", &top)?;
    let path = top.member("input");
    if input.get().starts_with('"') {
        messages.push(Message::said(Role::User, Some(Content::Text(input))));
        return Ok(messages);
    }
    let items = as_array(input, &path).map_err(|_| path.refused(Why::Expected("a string or an array")))?;
    let items = items.into_iter().enumerate().map(|(at, item)| Object::read(item, &path.item(at)));
    let items: Vec<Object<'a>> = items.collect::<Result<_, _>>()?;
    let turn = items.iter().rposition(|item| item.peek("role") == Some("\"user\""));
    for (at, item) in items.into_iter().enumerate() {
        let is_over = turn.is_some_and(|turn| at < turn);
        add(item, &path.item(at), is_over, &mut messages)?;
    }
    match messages.is_empty() {
        true => Err(path.refused(Why::Missing)),
        false => Ok(messages),
    }
}

/// Adds what an item says. `is_over` is whether a message of the user follows.
fn add<'a>(
    mut item: Object<'a>,
    path: &Path<'_>,
    is_over: bool,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), Untranslatable> {
    let kind = item.word("type", path)?;
    // ids and states are of items that were made: no model sees them
    item.take("id");
    item.take("status");
    match kind.as_deref() {
        None | Some("message") => messages.push(message(&mut item, path)?),
        Some("function_call") => {
            let call = call(&mut item, path)?;
            match messages.last_mut().filter(|last| last.role == Role::Assistant) {
                Some(last) => last.tool_calls.push(call),
                None => {
                    let calls = Message { tool_calls: vec![call], ..Message::said(Role::Assistant, None) };
                    messages.push(calls);
                }
            }
        }
        Some("function_call_output") => messages.push(call_output(&mut item, path)?),
        // of a turn that is over no thought is shown to the model again (`Reasoning.context`, `current_turn`)
        Some("reasoning") if is_over => return Ok(()),
        Some("reasoning") => return Err(path.member("type").refused(Why::Thought)),
        Some("item_reference") => return Err(path.member("type").refused(Why::Stored)),
        Some(_) => return Err(path.member("type").refused(Why::NoEqual)),
    }
    item.ends(path)
}

fn message<'a>(item: &mut Object<'a>, path: &Path<'_>) -> Result<Message<'a>, Untranslatable> {
    let role = item.word("role", path)?;
    let role = match role.as_deref() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some(_) => return Err(path.member("role").refused(Why::NoEqual)),
        None => return Err(path.member("role").refused(Why::Missing)),
    };
    let content = content(item.need("content", path)?, &path.member("content"), role)?;
    Ok(Message::said(role, Some(content)))
}

fn call<'a>(item: &mut Object<'a>, path: &Path<'_>) -> Result<Call<'a>, Untranslatable> {
    called_directly(item, path)?;
    let id = item.need_text("call_id", path)?;
    let name = item.need_text("name", path)?;
    Ok(Call { id, function: Called { name, arguments: item.need_text("arguments", path)? } })
}

fn call_output<'a>(item: &mut Object<'a>, path: &Path<'_>) -> Result<Message<'a>, Untranslatable> {
    called_directly(item, path)?;
    // the call itself says it
    item.text("name", path)?;
    let tool_call_id = Some(item.need_text("call_id", path)?);
    let output = content(item.need("output", path)?, &path.member("output"), Role::Tool)?;
    Ok(Message { tool_call_id, ..Message::said(Role::Tool, Some(output)) })
}

/// Refuses a call that a program made, which only its provider runs.
fn called_directly(item: &mut Object<'_>, path: &Path<'_>) -> Result<(), Untranslatable> {
    let Some(caller) = item.take("caller") else { return Ok(()) };
    let path = path.member("caller");
    match Object::read(caller, &path)?.word("type", &path)?.as_deref() {
        Some("direct") => Ok(()),
        _ => Err(path.refused(Why::NoEqual)),
    }
}

fn content<'a>(value: &'a RawValue, path: &Path<'_>, role: Role) -> Result<Content<'a>, Untranslatable> {
    if value.get().starts_with('"') {
        return Ok(Content::Text(value));
    }
    let parts = as_array(value, path).map_err(|_| path.refused(Why::Expected("a string or an array")))?;
    let parts = parts.into_iter().enumerate().map(|(at, value)| part(value, &path.item(at), role));
    let parts: Vec<Part<'a>> = parts.collect::<Result<_, _>>()?;
    Ok(match parts.as_slice() {
        // every server reads a text
        [Part::Text { text, prompt_cache_breakpoint: None }] => Content::Text(text),
        _ => Content::Parts(parts),
    })
}

fn part<'a>(value: &'a RawValue, path: &Path<'_>, role: Role) -> Result<Part<'a>, Untranslatable> {
    let mut part = Object::read(value, path)?;
    let kind = part.word("type", path)?.ok_or_else(|| path.member("type").refused(Why::Missing))?;
    let made = match (&*kind, role) {
        ("input_text", _) => Part::Text {
            text: part.need_text("text", path)?,
            prompt_cache_breakpoint: part.take("prompt_cache_breakpoint"),
        },
        ("output_text", Role::Assistant) => {
            part.only("annotations", &["[]"], Why::NoEqual, path)?;
            // how likely the words were: no model sees it
            part.take("logprobs");
            Part::Text { text: part.need_text("text", path)?, prompt_cache_breakpoint: None }
        }
        ("refusal", Role::Assistant) => Part::Refusal { refusal: part.need_text("refusal", path)? },
        ("input_image", Role::User) => image(&mut part, path)?,
        ("input_file", Role::User) => file(&mut part, path)?,
        ("input_audio", Role::User) => Part::InputAudio { input_audio: part.need("input_audio", path)? },
        _ => return Err(path.member("type").refused(Why::NoEqual)),
    };
    part.ends(path)?;
    Ok(made)
}

fn image<'a>(part: &mut Object<'a>, path: &Path<'_>) -> Result<Part<'a>, Untranslatable> {
    part.only("file_id", &[], Why::Stored, path)?;
    let url = part.need_text("image_url", path)?;
    let detail = part.text("detail", path)?;
    if detail.is_some_and(|detail| detail.get() == "\"original\"") {
        return Err(path.member("detail").refused(Why::NoEqual));
    }
    let prompt_cache_breakpoint = part.take("prompt_cache_breakpoint");
    Ok(Part::ImageUrl { image_url: Image { url, detail }, prompt_cache_breakpoint })
}

/// A file, by id or inline. Chat knows none by its address, and no detail.
fn file<'a>(part: &mut Object<'a>, path: &Path<'_>) -> Result<Part<'a>, Untranslatable> {
    part.only("detail", &["\"auto\""], Why::NoEqual, path)?;
    let file = File {
        file_id: part.text("file_id", path)?,
        file_data: part.text("file_data", path)?,
        filename: part.text("filename", path)?,
    };
    let prompt_cache_breakpoint = part.take("prompt_cache_breakpoint");
    Ok(Part::File { file, prompt_cache_breakpoint })
}
