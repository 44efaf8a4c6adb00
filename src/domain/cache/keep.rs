//! Which answers are kept: whole ones that are nothing but the model's answer.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Policy;
use super::replay::{has_failed, whole_of};
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
    /// Answers were let go while it came.
    Purged,
}

impl NotKept {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::ToolCalls,
        Self::Error,
        Self::Truncated,
        Self::Capped,
        Self::Denied,
        Self::Purged,
    ];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::ToolCalls => "tool_calls",
            Self::Error => "error",
            Self::Truncated => "truncated",
            Self::Capped => "capped",
            Self::Denied => "denied",
            Self::Purged => "purged",
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
        // nobody asks the same twice: it is the gateway itself that asks
        Endpoint::Score => Err(NotKept::Error),
        Endpoint::Embeddings | Endpoint::Moderations => Ok(()),
    }
}

/// Whether a stream that ended well for who read it may be kept.
///
/// # Errors
///
/// Why not.
pub fn check_stream(endpoint: Endpoint, events: &[u8], policy: &Policy, capped: bool) -> Result<(), NotKept> {
    match whole_of(endpoint, events) {
        Some(whole) => check_whole(endpoint, &whole, policy, capped),
        None if has_failed(events) => Err(NotKept::Error),
        None => Err(NotKept::Truncated),
    }
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

#[cfg(test)]
mod tests {
    use super::super::eligible::tests::policy;
    use super::*;

    #[test]
    fn only_what_is_nothing_but_the_model_s_answer_is_kept() {
        use Endpoint::{ChatCompletions as Chat, Completions, Embeddings, Moderations, Responses};
        let no = Err;
        for (endpoint, body, want, of_tools, where_capped) in [
            (
                Chat,
                r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}"#,
                Ok(()),
                Ok(()),
                Ok(()),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"content":"a"},"finish_reason":"length"}]}"#,
                Ok(()),
                Ok(()),
                no(NotKept::Capped),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{},"finish_reason":"stop"},{"message":{},"finish_reason":"length"}]}"#,
                Ok(()),
                Ok(()),
                no(NotKept::Capped),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{},"finish_reason":"stop"},{"message":{},"finish_reason":null}]}"#,
                no(NotKept::Truncated),
                no(NotKept::Truncated),
                no(NotKept::Truncated),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{},"finish_reason":"content_filter"}]}"#,
                no(NotKept::Denied),
                no(NotKept::Denied),
                no(NotKept::Denied),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"tool_calls":[{}]},"finish_reason":"stop"}]}"#,
                no(NotKept::ToolCalls),
                Ok(()),
                no(NotKept::ToolCalls),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"tool_calls":[],"function_call":null},"finish_reason":"stop"}]}"#,
                Ok(()),
                Ok(()),
                Ok(()),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"function_call":{}},"finish_reason":"function_call"}]}"#,
                no(NotKept::ToolCalls),
                Ok(()),
                no(NotKept::ToolCalls),
            ),
            (Chat, r#"{"choices":[]}"#, no(NotKept::Error), no(NotKept::Error), no(NotKept::Error)),
            (
                Chat,
                r#"{"error":{"message":"x"},"choices":[{"finish_reason":"stop"}]}"#,
                no(NotKept::Error),
                no(NotKept::Error),
                no(NotKept::Error),
            ),
            (Chat, "not JSON", no(NotKept::Error), no(NotKept::Error), no(NotKept::Error)),
            (
                Completions,
                r#"{"choices":[{"text":"a","finish_reason":"stop"}],"error":null}"#,
                Ok(()),
                Ok(()),
                Ok(()),
            ),
            (
                Completions,
                r#"{"choices":[{"text":"a","finish_reason":"length"}]}"#,
                Ok(()),
                Ok(()),
                no(NotKept::Capped),
            ),
            (Embeddings, r#"{"data":[{"embedding":[1]}]}"#, Ok(()), Ok(()), Ok(())),
            (Embeddings, r#"{"data":[]}"#, no(NotKept::Error), no(NotKept::Error), no(NotKept::Error)),
            (Moderations, r#"{"results":[{"flagged":true}]}"#, Ok(()), Ok(()), Ok(())),
            (
                Responses,
                r#"{"status":"completed","error":null,"output":[{"type":"reasoning"},{"type":"message"}]}"#,
                Ok(()),
                Ok(()),
                Ok(()),
            ),
            (
                Responses,
                r#"{"status":"completed","output":[{"type":"function_call"}]}"#,
                no(NotKept::ToolCalls),
                Ok(()),
                no(NotKept::ToolCalls),
            ),
            (
                Responses,
                r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#,
                Ok(()),
                Ok(()),
                no(NotKept::Capped),
            ),
            (
                Responses,
                r#"{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}"#,
                no(NotKept::Denied),
                no(NotKept::Denied),
                no(NotKept::Denied),
            ),
            (
                Responses,
                r#"{"status":"failed","output":[]}"#,
                no(NotKept::Error),
                no(NotKept::Error),
                no(NotKept::Error),
            ),
            (
                Responses,
                r#"{"status":"in_progress","output":[]}"#,
                no(NotKept::Truncated),
                no(NotKept::Truncated),
                no(NotKept::Truncated),
            ),
        ] {
            let found = |tools, capped| check_whole(endpoint, body.as_bytes(), &policy(false, tools), capped);
            assert_eq!(
                (found(false, false), found(true, false), found(false, true)),
                (want, of_tools, where_capped),
                "{body}"
            );
        }
    }

    #[test]
    fn a_stream_is_kept_where_it_came_to_its_end() {
        let chat = |events: &[&str]| {
            let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            check_stream(Endpoint::ChatCompletions, stream.as_bytes(), &policy(false, false), false)
        };
        let said = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let call =
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c"}]},"finish_reason":null}]}"#;
        assert_eq!(chat(&[said, stop, "[DONE]"]), Ok(()));
        assert_eq!(chat(&[said, stop]), Err(NotKept::Truncated));
        assert_eq!(chat(&[said, "[DONE]"]), Err(NotKept::Truncated));
        assert_eq!(chat(&[call, stop, "[DONE]"]), Err(NotKept::ToolCalls));
        assert_eq!(chat(&[said, r#"{"error":{"message":"x"}}"#, "[DONE]"]), Err(NotKept::Error));
        assert_eq!(chat(&[said, "{broken", stop, "[DONE]"]), Err(NotKept::Error));
        let response =
            |event: &str| check_stream(Endpoint::Responses, event.as_bytes(), &policy(false, false), false);
        let completed =
            r#"data: {"type":"response.completed","response":{"status":"completed","output":[]}}"#;
        assert_eq!(response(completed), Ok(()));
        assert_eq!(
            response(r#"data: {"type":"response.failed","response":{"status":"failed"}}"#),
            Err(NotKept::Error)
        );
        assert_eq!(response(r#"data: {"type":"response.output_text.delta"}"#), Err(NotKept::Truncated));
    }
}
