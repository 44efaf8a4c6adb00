//! One exchange as a training example: what the deployment read, and what it answered.
//!
//! The messages are those that the deployment got, a stored prompt's words among them: so the example has the words that
//! the model was trained with, and its successor is trained with the same. Members that no training row has are left
//! out. Only a whole answer is one: `stop`, or a call of a tool.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tunegate_dataset::Format;
use tunegate_dataset::json::Json;
use tunegate_dataset::repair::mask::mask;
use tunegate_dataset::row::{self, Expected, Seen};

use super::rows::supervised;
use super::{CaptureResult, Policy};
use crate::domain::cache::replay;
use crate::domain::endpoint::Endpoint;
use crate::domain::prompt::hash::sha256_of;
use crate::domain::translate::chat_of;

/// Members of a message that training rows have.
const MESSAGE: [&str; 7] =
    ["role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal"];
/// Members of a request that training rows have, beside the messages.
const BESIDE: [&str; 3] = ["tools", "parallel_tool_calls", "functions"];

/// The answer of a deployment, as it came.
pub enum Answer<'a> {
    /// Whole.
    Whole(&'a [u8]),
    /// As events.
    Stream(&'a [u8]),
}

/// An example, ready to be written.
#[derive(PartialEq, Eq)]
pub struct Example {
    /// What was asked: an object of JSON with `messages`, and `tools` where there were any.
    pub prompt: String,
    /// The assistant's message, JSON.
    pub answer: String,
    /// SHA-256 of the prompt, 64 hex digits: who was asked the same.
    pub prompt_hash: String,
    /// The provider's id of the answer; empty where it has none.
    pub answer_id: String,
    /// How many pieces gave way to words such as `[EMAIL]`.
    pub masked: u64,
}

/// Whether the client said `store: false`: then nothing of it is kept.
pub fn opted_out(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Json<'_>>(body) else { return false };
    matches!(body.get("store"), Some(Json::Bool(false)))
}

/// Makes an example of an exchange.
///
/// # Errors
///
/// Why it is none.
pub fn example(
    endpoint: Endpoint,
    body: &[u8],
    answer: &Answer<'_>,
    policy: &Policy,
) -> Result<Example, CaptureResult> {
    let chat = match endpoint {
        Endpoint::ChatCompletions => Cow::Borrowed(body),
        Endpoint::Responses => Cow::Owned(chat_of(body).map_err(|_| CaptureResult::Unfit)?.to_vec()),
        Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score => {
            return Err(CaptureResult::Unfit);
        }
    };
    let chat: Json<'_> = serde_json::from_slice(&chat).map_err(|_| CaptureResult::Unfit)?;
    let whole = match answer {
        Answer::Whole(whole) => Cow::Borrowed(*whole),
        Answer::Stream(events) => {
            let whole = replay::whole_of(endpoint, events).ok_or(CaptureResult::Unfinished)?;
            Cow::Owned(whole.to_vec())
        }
    };
    let whole: Json<'_> = serde_json::from_slice(&whole).map_err(|_| CaptureResult::Unfinished)?;
    let mut said = match endpoint {
        Endpoint::Responses => of_response(&whole)?,
        _ => of_choices(&whole)?,
    };
    let mut asked = asked(&chat)?;
    let mut found = BTreeMap::new();
    if policy.mask {
        if has_image(&asked) {
            return Err(CaptureResult::Unmaskable);
        }
        nameless(&mut asked);
        mask(&mut asked, &mut found);
        mask(&mut said, &mut found);
    }
    let (prompt, answer) = (asked.written(), said.written());
    if prompt.len() + answer.len() > policy.max_row_bytes {
        return Err(CaptureResult::TooLarge);
    }
    if !is_trainable(&prompt, &answer) {
        return Err(CaptureResult::Unfit);
    }
    Ok(Example {
        prompt_hash: sha256_of(&prompt),
        answer_id: answer_id(&whole),
        prompt,
        answer,
        masked: found.values().sum(),
    })
}

/// The provider's id of an answer; none that not every database can keep.
fn answer_id(whole: &Json<'_>) -> String {
    let id = whole.get("id").and_then(Json::text).unwrap_or_default();
    if id.contains('\0') { String::new() } else { id.to_owned() }
}

/// Whether a provider would train on it.
fn is_trainable(prompt: &str, answer: &str) -> bool {
    let Some(row) = supervised(prompt, answer) else { return false };
    let Ok(row) = serde_json::from_str::<Json<'_>>(&row) else { return false };
    let expected = Expected { format: Some(Format::Chat), completions: false, images: true };
    row::read(&row, expected, &mut Seen::default()).is_some()
}

/// What was asked, with what a training row may have of it.
fn asked<'a>(chat: &Json<'a>) -> Result<Json<'a>, CaptureResult> {
    let messages = chat.get("messages").and_then(Json::list).ok_or(CaptureResult::Unfit)?;
    let messages = messages.iter().map(|message| only(message, &MESSAGE)).collect();
    let mut members = vec![(Cow::Borrowed("messages"), Json::List(messages))];
    for name in BESIDE {
        let given = chat.get(name).filter(|value| !value.is_null());
        members.extend(given.map(|value| (Cow::Borrowed(name), value.clone())));
    }
    Ok(Json::Object(members))
}

/// An object with some of its members, those that are `null` left out; what is no object stays.
fn only<'a>(value: &Json<'a>, names: &[&str]) -> Json<'a> {
    let Some(members) = value.object() else { return value.clone() };
    let kept = members.iter().filter(|(name, value)| names.contains(&name.as_ref()) && !value.is_null());
    Json::Object(kept.cloned().collect())
}

/// The one message of a chat completion.
fn of_choices<'a>(whole: &Json<'a>) -> Result<Json<'a>, CaptureResult> {
    let choice = match whole.get("choices").and_then(Json::list) {
        Some([choice]) => choice,
        Some([_, _, ..]) => return Err(CaptureResult::Unfit),
        _ => return Err(CaptureResult::Unfinished),
    };
    let ended = choice.get("finish_reason").and_then(Json::text);
    if !matches!(ended, Some("stop" | "tool_calls" | "function_call")) {
        return Err(CaptureResult::Unfinished);
    }
    let message = choice.get("message").ok_or(CaptureResult::Unfinished)?;
    if message.get("refusal").is_some_and(|refusal| !refusal.is_null()) {
        return Err(CaptureResult::Unfinished);
    }
    let content = message.get("content").filter(|content| !content.is_null()).cloned();
    let calls = message.get("tool_calls").and_then(Json::list).filter(|calls| !calls.is_empty());
    let calls = calls.map(|calls| calls.iter().map(call).collect());
    let old = message.get("function_call").filter(|call| !call.is_null()).cloned();
    assistants(content, calls, old.map(|call| only(&call, &["name", "arguments"])))
}

/// A call as training rows have it: a stream's has its place, too.
fn call<'a>(call: &Json<'a>) -> Json<'a> {
    let mut kept = only(call, &["id", "type", "function"]);
    if let Some(function) = kept.get_mut("function") {
        *function = only(function, &["name", "arguments"]);
    }
    kept
}

/// The messages and calls of a response, in one message.
fn of_response<'a>(whole: &Json<'a>) -> Result<Json<'a>, CaptureResult> {
    if whole.get("status").and_then(Json::text) != Some("completed") {
        return Err(CaptureResult::Unfinished);
    }
    let (mut text, mut calls) = (String::new(), Vec::new());
    for item in whole.get("output").and_then(Json::list).unwrap_or_default() {
        match item.get("type").and_then(Json::text) {
            Some("reasoning") => {}
            Some("message") => {
                for part in item.get("content").and_then(Json::list).unwrap_or_default() {
                    match part.get("type").and_then(Json::text) {
                        Some("output_text") => {
                            text.push_str(part.get("text").and_then(Json::text).unwrap_or_default());
                        }
                        _ => return Err(CaptureResult::Unfinished),
                    }
                }
            }
            Some("function_call") => calls.push(called(item).ok_or(CaptureResult::Unfit)?),
            _ => return Err(CaptureResult::Unfit),
        }
    }
    let content = (!text.is_empty()).then(|| Json::owned(text));
    assistants(content, (!calls.is_empty()).then_some(calls), None)
}

/// A call of a response as chats have it.
fn called<'a>(item: &Json<'a>) -> Option<Json<'a>> {
    let function = ["name", "arguments"].map(|name| Some((Cow::Borrowed(name), item.get(name)?.clone())));
    let [name, arguments] = function;
    Some(Json::Object(vec![
        (Cow::Borrowed("id"), item.get("call_id")?.clone()),
        (Cow::Borrowed("type"), Json::Text(Cow::Borrowed("function"))),
        (Cow::Borrowed("function"), Json::Object(vec![name?, arguments?])),
    ]))
}

/// The assistant's message; none where nothing is said.
fn assistants<'a>(
    content: Option<Json<'a>>,
    calls: Option<Vec<Json<'a>>>,
    old: Option<Json<'a>>,
) -> Result<Json<'a>, CaptureResult> {
    let says = content.as_ref().is_some_and(|content| content.text() != Some(""));
    if !says && calls.is_none() && old.is_none() {
        return Err(CaptureResult::Unfinished);
    }
    let said = [
        ("content", content.filter(|_| says)),
        ("tool_calls", calls.map(Json::List)),
        ("function_call", old),
    ];
    let mut members = vec![(Cow::Borrowed("role"), Json::Text(Cow::Borrowed("assistant")))];
    members.extend(said.into_iter().filter_map(|(name, value)| Some((Cow::Borrowed(name), value?))));
    Ok(Json::Object(members))
}

fn messages<'j, 'a>(asked: &'j Json<'a>) -> &'j [Json<'a>] {
    asked.get("messages").and_then(Json::list).unwrap_or_default()
}

fn has_image(asked: &Json<'_>) -> bool {
    let parts = messages(asked).iter().filter_map(|message| message.get("content").and_then(Json::list));
    parts.flatten().any(|part| part.get("type").and_then(Json::text) == Some("image_url"))
}

/// Takes the speakers' names out; that of a function says what it answers.
fn nameless(asked: &mut Json<'_>) {
    let Some(Json::List(messages)) = asked.get_mut("messages") else { return };
    for message in messages {
        let is_function = message.get("role").and_then(Json::text) == Some("function");
        if let (false, Json::Object(members)) = (is_function, message) {
            members.retain(|(name, _)| name != "name");
        }
    }
}

#[cfg(test)]
mod tests;
