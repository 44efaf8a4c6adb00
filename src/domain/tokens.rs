//! Counting tokens ourselves, for what a provider did not report: the input of an aborted request and the part of its
//! output that was streamed.
//!
//! Source: tiktoken's model table and OpenAI's cookbook "How to count tokens" (3 tokens a message, 1 a name, 3 to
//! prime the reply), both read on 2026-11-21. tiktoken's own table sends `ft:gpt-4.1…` to the wrong encoding; here the
//! base is looked up.

use serde_json::Value;
use tiktoken_rs::CoreBPE;

use super::endpoint::Endpoint;
use super::model_name::base_of;

/// A byte-pair encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// gpt-3.5, gpt-4, text-embedding-3.
    Cl100k,
    /// gpt-4o and everything since; what an unknown name is counted with.
    O200k,
    /// gpt-oss.
    O200kHarmony,
    /// text-davinci-002 and -003, code models.
    P50k,
    /// davinci, curie, babbage, ada.
    R50k,
}

/// Text is counted in pieces of this size: a hostile text costs no more than a plain one, and the sum of the pieces is
/// never below the whole by more than the tokens that would cross their borders.
const PIECE_BYTES: usize = 64 << 10;

/// A longer text is not counted but bounded: a byte-level encoding never makes more tokens than there are bytes, and
/// nobody's odd text holds a core for seconds.
pub const COUNTED_BYTES: usize = 1 << 20;

/// What an image part is taken for, tokens: a 1024×1024 image at high detail (OpenAI's tile rule).
const IMAGE_TOKENS: u64 = 765;

/// Prefixes of base names, first match wins.
const ENCODINGS: [(&str, Encoding); 22] = [
    ("o1", Encoding::O200k),
    ("o3", Encoding::O200k),
    ("o4", Encoding::O200k),
    ("gpt-5", Encoding::O200k),
    ("gpt-6", Encoding::O200k),
    ("gpt-4.5", Encoding::O200k),
    ("gpt-4.1", Encoding::O200k),
    ("chatgpt-4o", Encoding::O200k),
    ("gpt-4o", Encoding::O200k),
    ("gpt-oss", Encoding::O200kHarmony),
    ("gpt-4", Encoding::Cl100k),
    ("gpt-3.5", Encoding::Cl100k),
    ("gpt-35", Encoding::Cl100k),
    ("text-embedding", Encoding::Cl100k),
    ("davinci-002", Encoding::Cl100k),
    ("babbage-002", Encoding::Cl100k),
    ("text-davinci-00", Encoding::P50k),
    ("code-", Encoding::P50k),
    ("davinci", Encoding::R50k),
    ("curie", Encoding::R50k),
    ("babbage", Encoding::R50k),
    ("ada", Encoding::R50k),
];

impl Encoding {
    /// The encoding of a model, by its base; o200k where the name says nothing.
    pub fn of_model(model: &str) -> Self {
        let base = base_of(model);
        ENCODINGS
            .iter()
            .find(|(prefix, _)| base.starts_with(prefix))
            .map_or(Self::O200k, |(_, encoding)| *encoding)
    }

    /// Its table, built at the first call (about half a second, 25 to 50 MiB).
    pub fn table(self) -> &'static CoreBPE {
        match self {
            Self::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            Self::O200k => tiktoken_rs::o200k_base_singleton(),
            Self::O200kHarmony => tiktoken_rs::o200k_harmony_singleton(),
            Self::P50k => tiktoken_rs::p50k_base_singleton(),
            Self::R50k => tiktoken_rs::r50k_base_singleton(),
        }
    }

    /// Tokens of a text; what looks like a special token is plain text. Beyond [`COUNTED_BYTES`] each byte counts as one.
    pub fn count(self, text: &str) -> u64 {
        if text.len() > COUNTED_BYTES {
            return text.len() as u64;
        }
        let table = self.table();
        let mut total = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let cut = rest.floor_char_boundary(PIECE_BYTES);
            let (piece, behind) = rest.split_at(if cut == 0 { rest.len() } else { cut });
            total += table.encode_ordinary(piece).len() as u64;
            rest = behind;
        }
        total
    }
}

/// Tokens of a request's input, estimated.
pub fn count_input(encoding: Encoding, endpoint: Endpoint, body: &[u8]) -> u64 {
    // a number or an escape that has no value, or a nest too deep for us, need be no trouble to the provider: then all
    // the text there is counts
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return encoding.count(&String::from_utf8_lossy(body));
    };
    match endpoint {
        Endpoint::ChatCompletions => {
            let framing = 3 + count_messages(encoding, &body["messages"]);
            framing + count_schema(encoding, &body["tools"]) + count_schema(encoding, &body["functions"])
        }
        Endpoint::Completions => count_content(encoding, &body["prompt"]),
        Endpoint::Embeddings | Endpoint::Moderations => count_content(encoding, &body["input"]),
        Endpoint::Responses => {
            let input = match &body["input"] {
                Value::Array(items) => {
                    3 + items.iter().map(|item| 3 + count_item(encoding, item)).sum::<u64>()
                }
                other => 6 + count_content(encoding, other),
            };
            input + count_content(encoding, &body["instructions"]) + count_schema(encoding, &body["tools"])
        }
    }
}

fn count_messages(encoding: Encoding, messages: &Value) -> u64 {
    let Some(messages) = messages.as_array() else { return 0 };
    messages.iter().map(|message| 3 + count_item(encoding, message)).sum()
}

/// A message or an input item: all its texts, and one more token for a name.
fn count_item(encoding: Encoding, item: &Value) -> u64 {
    let Some(members) = item.as_object() else { return count_content(encoding, item) };
    members
        .iter()
        .filter(|(key, _)| *key != "type" && *key != "id")
        .map(|(key, value)| u64::from(key == "name") + count_content(encoding, value))
        .sum()
}

/// Texts, arrays of texts or parts, and token arrays.
fn count_content(encoding: Encoding, content: &Value) -> u64 {
    match content {
        Value::String(text) => encoding.count(text),
        Value::Number(_) => 1,
        Value::Array(parts) => parts.iter().map(|part| count_content(encoding, part)).sum(),
        Value::Object(part) => match part.get("type").and_then(Value::as_str) {
            Some("image_url" | "input_image") => IMAGE_TOKENS,
            // base64 of a sound or a file says nothing about its tokens; what stands beside it does
            Some("input_audio" | "file" | "input_file") => 0,
            _ => part.iter().filter(|(key, _)| *key != "type").map(|(_, v)| count_content(encoding, v)).sum(),
        },
        Value::Null | Value::Bool(_) => 0,
    }
}

/// Tools are shown to the model in a form of its own, a little shorter than their JSON.
fn count_schema(encoding: Encoding, schema: &Value) -> u64 {
    match schema {
        Value::Array(tools) if !tools.is_empty() => 12 + encoding.count(&schema.to_string()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fine_tuned_names_count_as_their_base() {
        for (model, want) in [
            ("ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY", Encoding::O200k),
            ("ft:gpt-4o-mini-2024-07-18:acme::id:ckpt-step-10", Encoding::O200k),
            ("ft:gpt-3.5-turbo-0613:acme::id", Encoding::Cl100k),
            ("gpt-4.1-mini-2025-04-14.ft-b044a9d3cf9c4228b5d393567f693b83", Encoding::O200k),
            ("gpt-35-turbo", Encoding::Cl100k),
            ("gpt-4-0613", Encoding::Cl100k),
            ("gpt-oss-20b", Encoding::O200kHarmony),
            ("text-embedding-3-small", Encoding::Cl100k),
            ("something-new", Encoding::O200k),
        ] {
            assert_eq!(Encoding::of_model(model), want, "{model}");
        }
    }

    #[test]
    fn the_cookbooks_messages_count_as_the_api_counts_them() {
        let text = |role: &str, name: Option<&str>, content: &str| match name {
            Some(name) => json!({"role": role, "name": name, "content": content}),
            None => json!({"role": role, "content": content}),
        };
        let messages = json!([
            text(
                "system",
                None,
                "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
            ),
            text("system", Some("example_user"), "New synergies will help drive top-line growth."),
            text("system", Some("example_assistant"), "Things working well together will increase revenue."),
            text(
                "system",
                Some("example_user"),
                "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."
            ),
            text(
                "system",
                Some("example_assistant"),
                "Let's talk later when we're less busy about how to do better."
            ),
            text(
                "user",
                None,
                "This late pivot means we don't have time to boil the ocean for the client deliverable."
            ),
        ]);
        let body = json!({"messages": messages}).to_string();
        let count = |encoding| count_input(encoding, Endpoint::ChatCompletions, body.as_bytes());
        assert_eq!(count(Encoding::Cl100k), 129);
        assert_eq!(count(Encoding::O200k), 124);
    }

    #[test]
    fn a_text_beyond_all_sense_is_bounded_and_not_counted() {
        let sensible = "word ".repeat(1_000);
        assert_eq!(Encoding::Cl100k.count(&sensible), 1_001);
        let long = " ".repeat(COUNTED_BYTES + 1);
        assert_eq!(Encoding::Cl100k.count(&long), COUNTED_BYTES as u64 + 1);
    }

    #[test]
    fn other_inputs_count_what_is_in_them() {
        let count =
            |endpoint, body: Value| count_input(Encoding::Cl100k, endpoint, body.to_string().as_bytes());
        assert_eq!(count(Endpoint::Embeddings, json!({"input": ["hello world", "hello"]})), 3);
        assert_eq!(count(Endpoint::Embeddings, json!({"input": [1, 2, 3]})), 3);
        assert_eq!(count(Endpoint::Completions, json!({"prompt": "hello world"})), 2);
        assert!(count(Endpoint::Responses, json!({"input": "hello", "instructions": "hi"})) >= 2);
        let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:…"}}]}]});
        assert_eq!(count(Endpoint::ChatCompletions, image), 3 + 3 + 1 + IMAGE_TOKENS);
    }

    #[test]
    fn an_input_that_is_hard_to_read_is_not_free() {
        let nest = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for odd in [r#""half \ud83d""#, "1e999", &nest] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"hello world"}}],"x":{odd}}}"#);
            let count = count_input(Encoding::O200k, Endpoint::ChatCompletions, body.as_bytes());
            assert!(count >= 6, "{odd}: {count}");
        }
    }
}
