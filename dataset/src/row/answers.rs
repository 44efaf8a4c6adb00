//! Rows that are no chat: two answers of which one is preferred, and a prompt with its completion.

use std::borrow::Cow;

use super::message::{self, Message, Role};
use super::{Expected, Format, Oddity, Row, Seen, note_unknown, tools};
use crate::json::Json;

const PREFERENCE_MEMBERS: [&str; 5] =
    ["input", "preferred_output", "non_preferred_output", "preferred_completion", "non_preferred_completion"];

/// Reads a preference row.
pub(super) fn preference<'v>(value: &'v Json<'v>, expected: Expected, seen: &mut Seen) -> Option<Row<'v>> {
    note_unknown(value, &PREFERENCE_MEMBERS, seen);
    let (mut messages, tools) = match value.get("input") {
        Some(input) if input.object().is_some() => {
            note_unknown(input, &["messages", "tools", "parallel_tool_calls"], seen);
            let tools = tools::defined(input, "input.", seen);
            let messages = match input.get("messages") {
                Some(list) => message::list(list, "input.messages", &tools, expected, seen),
                None => {
                    seen.fault("input.messages", "missing: what is asked");
                    None
                }
            };
            (messages.unwrap_or_default(), tools)
        }
        Some(other) => {
            seen.fault("input", format!("an object with `messages` is needed, not {}", other.kind()));
            Default::default()
        }
        None => {
            seen.fault("input", "missing: an object with `messages`");
            Default::default()
        }
    };
    let answer_at = messages.len();
    for (name, old) in
        [("preferred_output", "preferred_completion"), ("non_preferred_output", "non_preferred_completion")]
    {
        let (list, path) = match (value.get(name), value.get(old)) {
            (Some(list), _) => (list, name),
            (None, Some(list)) => {
                seen.odd(Oddity::PreferredCompletion);
                (list, old)
            }
            (None, None) => {
                seen.fault(name, "missing: a list with one message of the assistant");
                continue;
            }
        };
        let answers = message::list(list, path, &tools, expected, seen).unwrap_or_default();
        let of_others = answers.iter().any(|answer| answer.role != Role::Assistant);
        if answers.len() > 1 || of_others {
            seen.fault(path, "exactly one message, and that of the assistant, is needed");
        }
        messages.extend(answers);
    }
    Some(Row { format: Format::Preference, messages, answer_at, tools: tools.definitions })
}

/// Reads a completion row.
pub(super) fn completion<'v>(value: &'v Json<'v>, seen: &mut Seen) -> Option<Row<'v>> {
    note_unknown(value, &["prompt", "completion"], seen);
    let mut messages = Vec::new();
    for (name, role) in [("prompt", Role::User), ("completion", Role::Assistant)] {
        match value.get(name) {
            Some(Json::Text(text)) => {
                messages.push(Message { role, text: Cow::Borrowed(text), members: &[], trained: true });
            }
            Some(other) => seen.fault(name, format!("a string is needed, not {}", other.kind())),
            None => seen.fault(name, "missing: a completion row has `prompt` and `completion`"),
        }
    }
    Some(Row { format: Format::Completion, messages, answer_at: 1, tools: Vec::new() })
}
