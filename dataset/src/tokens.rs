//! How many tokens a row has, as OpenAI's cookbook counts them.

use crate::Count;
use crate::json::Json;
use crate::row::{Format, Message, Role, Row};

/// To prime the answer.
const PRIMING: u64 = 3;
/// Around each message.
const MESSAGE: u64 = 3;
/// For a name.
const NAME: u64 = 1;
/// For all definitions of tools, once (cookbook "How to count tokens").
const TOOLS_END: u64 = 12;
/// For each definition.
const TOOL: u64 = 10;
/// For an image whose size is not known: what OpenAI's vision guide says of one of 1024 by 1024 in high detail.
pub const IMAGE: u64 = 765;
/// For an image of low detail.
const IMAGE_LOW: u64 = 85;

/// A row's tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowTokens {
    /// All of them.
    pub all: u64,
    /// Of what the assistant says.
    pub assistant: u64,
    /// Of the answer that is learned.
    pub answer: u64,
}

/// Counts a row.
pub fn of_row(row: &Row<'_>, count: &dyn Count) -> RowTokens {
    let mut tokens = RowTokens::default();
    if row.format != Format::Completion {
        tokens.all = PRIMING;
    }
    for (at, message) in row.messages.iter().enumerate() {
        let text = count.tokens(&message.text) as u64;
        tokens.all += text;
        if row.format != Format::Completion {
            tokens.all += MESSAGE + beside(message, count);
        }
        if message.role == Role::Assistant {
            tokens.assistant += text;
        }
        if at == row.answer_at {
            tokens.answer = text;
        }
    }
    if !row.tools.is_empty() {
        tokens.all += TOOLS_END;
    }
    for definition in &row.tools {
        tokens.all += TOOL + tool(definition, count);
    }
    tokens
}

/// What a message has beside its text.
fn beside(message: &Message<'_>, count: &dyn Count) -> u64 {
    let mut tokens = 0;
    for (name, value) in message.members {
        tokens += match (name.as_ref(), value) {
            ("content", Json::List(parts)) => parts.iter().map(image).sum(),
            ("content", _) => 0,
            ("name", Json::Text(text)) => NAME + count.tokens(text) as u64,
            ("tool_calls", Json::List(calls)) => {
                calls.iter().filter_map(|one| one.get("function")).map(|one| call(one, count)).sum()
            }
            ("function_call", function) => call(function, count),
            (_, Json::Text(text)) => count.tokens(text) as u64,
            _ => 0,
        };
    }
    tokens
}

fn image(part: &Json<'_>) -> u64 {
    let Some(image) = part.get("image_url") else { return 0 };
    match image.get("detail").and_then(Json::text) {
        Some("low") => IMAGE_LOW,
        _ => IMAGE,
    }
}

fn call(function: &Json<'_>, count: &dyn Count) -> u64 {
    ["name", "arguments"]
        .into_iter()
        .filter_map(|name| function.get(name)?.text())
        .map(|text| count.tokens(text) as u64)
        .sum()
}

/// A definition, with its parameters as JSON: a little more than what the model is shown.
fn tool(definition: &Json<'_>, count: &dyn Count) -> u64 {
    let text = |name: &str| definition.get(name).and_then(Json::text).unwrap_or_default();
    let head = count.tokens(&format!("{}:{}", text("name"), text("description"))) as u64;
    let parameters = definition.get("parameters").filter(|parameters| !parameters.is_null());
    head + parameters.map_or(0, |parameters| count.tokens(&parameters.written()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Expected, Seen, read};

    /// A token a character.
    struct Characters;

    impl Count for Characters {
        fn tokens(&self, text: &str) -> usize {
            text.chars().count()
        }
    }

    #[test]
    fn rows_by_hand() {
        for (line, all, assistant, answer) in [
            // 3 + (3 + "user" + "hi") + (3 + "assistant" + "yo!")
            (
                r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yo!"}]}"#,
                27,
                3,
                3,
            ),
            // + 1 + "bob"
            (
                r#"{"messages":[{"role":"user","content":"hi","name":"bob"},{"role":"assistant","content":"yo!"}]}"#,
                31,
                3,
                3,
            ),
            // the weight costs nothing; two answers
            (
                r#"{"messages":[{"role":"assistant","content":"ab","weight":0},{"role":"assistant","content":"c"}]}"#,
                3 + 2 * (3 + 9) + 3,
                3,
                1,
            ),
            (r#"{"prompt":"ab","completion":"cde"}"#, 5, 3, 3),
            (
                r#"{"input":{"messages":[{"role":"user","content":"q"}]},
                    "preferred_output":[{"role":"assistant","content":"yes"}],
                    "non_preferred_output":[{"role":"assistant","content":"no"}]}"#,
                3 + (3 + 4 + 1) + (3 + 9 + 3) + (3 + 9 + 2),
                5,
                3,
            ),
            // images, parts, calls with their ids left out, and a definition
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"see"},
                        {"type":"image_url","image_url":{"url":"https://x/y.png","detail":"low"}},
                        {"type":"image_url","image_url":{"url":"https://x/y.png"}}]},
                    {"role":"assistant","tool_calls":[{"id":"long","type":"function",
                        "function":{"name":"f","arguments":"{}"}}]}],
                    "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{}}}]}"#,
                3 + (3 + 4 + 3 + 85 + 765) + (3 + 9 + 3) + 12 + 10 + 3 + 2,
                0,
                0,
            ),
        ] {
            let value = serde_json::from_str(line).expect("JSON");
            let mut seen = Seen::default();
            let row = read(&value, Expected { format: None, completions: true, images: true }, &mut seen);
            let row = row.unwrap_or_else(|| panic!("{seen:?}"));
            assert_eq!(of_row(&row, &Characters), RowTokens { all, assistant, answer }, "{line}");
        }
    }
}
