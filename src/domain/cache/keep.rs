//! Which answers are kept: whole ones that are nothing but the model's answer.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Policy;
use super::replay::whole_of;
use crate::domain::endpoint::Endpoint;

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotKept {
    /// It is longer than an answer may be.
    TooLarge,
    /// It calls a tool.
    ToolCalls,
    /// It is an error, or nothing that we know.
    Error,
    /// It broke off.
    Truncated,
    /// It was cut by a cap that was ours, not the client's.
    Capped,
    /// A content filter cut it.
    Denied,
}

impl NotKept {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 6] =
        [Self::TooLarge, Self::ToolCalls, Self::Error, Self::Truncated, Self::Capped, Self::Denied];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::ToolCalls => "tool_calls",
            Self::Error => "error",
            Self::Truncated => "truncated",
            Self::Capped => "capped",
            Self::Denied => "denied",
        }
    }
}

/// An answer of any endpoint, as far as we look.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: Option<IgnoredAny>,
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    data: Vec<IgnoredAny>,
    #[serde(default)]
    results: Vec<IgnoredAny>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    incomplete_details: Option<Incomplete>,
    #[serde(default)]
    output: Vec<Item>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
}

impl Message {
    fn calls(&self) -> bool {
        self.function_call.is_some() || self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
    }
}

#[derive(Deserialize)]
struct Incomplete {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// Whether an answer with the status 200 may be kept. `capped`: the cap on its output was ours, not the client's.
///
/// # Errors
///
/// Why not.
pub fn check_whole(endpoint: Endpoint, body: &[u8], policy: &Policy, capped: bool) -> Result<(), NotKept> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| NotKept::Error)?;
    if answer.error.is_some() {
        return Err(NotKept::Error);
    }
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => check_choices(&answer.choices, policy, capped),
        Endpoint::Responses => check_response(&answer, policy, capped),
        Endpoint::Embeddings if answer.data.is_empty() => Err(NotKept::Error),
        Endpoint::Moderations if answer.results.is_empty() => Err(NotKept::Error),
        Endpoint::Embeddings | Endpoint::Moderations => Ok(()),
    }
}

/// Whether a stream that ended well for who read it may be kept.
///
/// # Errors
///
/// Why not.
pub fn check_stream(endpoint: Endpoint, events: &[u8], policy: &Policy, capped: bool) -> Result<(), NotKept> {
    let whole = whole_of(endpoint, events).ok_or(NotKept::Truncated)?;
    check_whole(endpoint, &whole, policy, capped)
}

fn check_choices(choices: &[Choice], policy: &Policy, capped: bool) -> Result<(), NotKept> {
    if choices.is_empty() {
        return Err(NotKept::Error);
    }
    for choice in choices {
        match choice.finish_reason.as_deref() {
            None => return Err(NotKept::Truncated),
            Some("content_filter") => return Err(NotKept::Denied),
            Some("length") if capped => return Err(NotKept::Capped),
            Some("tool_calls" | "function_call") if !policy.tool_calls => return Err(NotKept::ToolCalls),
            Some(_) => {}
        }
        if !policy.tool_calls && choice.message.as_ref().is_some_and(Message::calls) {
            return Err(NotKept::ToolCalls);
        }
    }
    Ok(())
}

fn check_response(answer: &Answer, policy: &Policy, capped: bool) -> Result<(), NotKept> {
    let reason = answer.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
    match (answer.status.as_deref(), reason) {
        (Some("completed"), _) => {}
        (Some("incomplete"), Some("max_output_tokens")) if capped => return Err(NotKept::Capped),
        (Some("incomplete"), Some("max_output_tokens")) => {}
        (Some("incomplete"), Some("content_filter")) => return Err(NotKept::Denied),
        (Some("failed"), _) => return Err(NotKept::Error),
        _ => return Err(NotKept::Truncated),
    }
    let words = |item: &Item| matches!(item.kind.as_deref(), Some("message" | "reasoning"));
    match policy.tool_calls || answer.output.iter().all(words) {
        true => Ok(()),
        false => Err(NotKept::ToolCalls),
    }
}
