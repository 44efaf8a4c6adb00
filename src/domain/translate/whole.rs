//! A whole chat completion as a response.

use bytes::Bytes;

use super::answer::{Answer, Call, Cut, Frame, Kind, Made, Part};
use super::chat::{Chat, Choice};
use super::echo::Echo;
use super::text::Escaped;

/// An answer that is no chat completion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not the JSON of one.
    #[error("it is no chat completion: {0}")]
    NotChat(String),
    /// Nothing was answered.
    #[error("it is a chat completion without any choice")]
    NoChoice,
}

/// A whole chat completion as the object `response`. `id` is the caller's, `resp_…`; `created_at_s` is when it was
/// asked for, seconds since 1970 UTC.
///
/// # Errors
///
/// When `chat` is no chat completion: the upstream's fault.
pub fn response_of(chat: &[u8], echo: &Echo, id: &str, created_at_s: i64) -> Result<Bytes, Unreadable> {
    let not_chat = |error: serde_json::Error| Unreadable::NotChat(error.to_string());
    let chat: Chat<'_> = serde_json::from_slice(chat).map_err(not_chat)?;
    let choice = chat.choices.as_ref().and_then(|choices| choices.first()).ok_or(Unreadable::NoChoice)?;
    let frame = Frame { echo: echo.clone(), id: id.to_owned(), created_at_s };
    let mut answer = Answer::default();
    answer.note(&chat);
    add(choice, &frame, &mut answer);
    answer.end(choice.finish_reason.as_deref().and_then(Cut::of));
    serde_json::to_vec(&answer.response(&frame)).map(Bytes::from).map_err(not_chat)
}

/// Adds what a whole choice says: its words first, then its calls.
fn add(choice: &Choice<'_>, frame: &Frame, answer: &mut Answer) {
    let Some(said) = &choice.message else { return };
    let mut parts = Vec::new();
    for (kind, text) in [(Kind::Text, said.content), (Kind::Refusal, said.refusal)] {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let mut part = Part::new(kind);
        part.text.push(text);
        if kind == Kind::Text {
            part.logprobs = choice.logprobs();
        }
        parts.push(part);
    }
    if !parts.is_empty() {
        let at = answer.begin_message(frame);
        answer.items[at].made = Made::Message(parts);
    }
    for (index, call) in (0..).zip(said.tool_calls.iter().flatten()) {
        let function = call.function.as_ref();
        let call = Call {
            index,
            call_id: Escaped::of(call.id),
            name: Escaped::of(function.and_then(|function| function.name)),
            arguments: Escaped::of(function.and_then(|function| function.arguments)),
        };
        answer.begin_call(frame, call);
    }
}
