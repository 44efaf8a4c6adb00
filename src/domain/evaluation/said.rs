//! What an assistant said: words, calls of tools, or both.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of an assistant's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its words; empty where it only calls tools.
    pub text: String,
    /// The tools that it calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments as they were written: JSON, where the model kept to that.
    pub arguments: String,
}

impl Said {
    /// Reads a message of a training file or of an answer, the older `function_call` included.
    pub fn of(message: &Value) -> Self {
        let listed = message["tool_calls"].as_array().into_iter().flatten();
        let older = message.get("function_call").filter(|call| call.is_object());
        let calls =
            listed.filter_map(|call| call.get("function").or_else(|| call.get("custom"))).chain(older);
        Self { text: text_of(&message["content"]), calls: calls.map(ToolCall::of).collect() }
    }

    /// Whether the same tools are called with the same arguments, in whatever order.
    pub fn calls_the_same_as(&self, other: &Self) -> bool {
        let mut left: Vec<&ToolCall> = other.calls.iter().collect();
        self.calls.len() == left.len()
            && self.calls.iter().all(|call| match left.iter().position(|one| call.is_as(one)) {
                Some(at) => {
                    left.swap_remove(at);
                    true
                }
                None => false,
            })
    }
}

impl ToolCall {
    fn of(call: &Value) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let arguments = call.get("arguments").or_else(|| call.get("input")).map(text).unwrap_or_default();
        Self { name: call["name"].as_str().unwrap_or_default().to_owned(), arguments }
    }

    /// Arguments are compared as JSON values: neither blanks nor the order of members count, and `1` is `1.0`. What is no
    /// JSON is compared as it is written.
    fn is_as(&self, other: &Self) -> bool {
        let value = |text: &str| serde_json::from_str::<Value>(text);
        self.name == other.name
            && match (value(&self.arguments), value(&other.arguments)) {
                (Ok(one), Ok(two)) => same(&one, &two),
                _ => self.arguments == other.arguments,
            }
    }
}

fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => one == two,
    }
}

/// The words of a content: a text, or the texts of its parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_of_every_form_are_read() {
        let call = |name: &str, arguments: &str| ToolCall { name: name.into(), arguments: arguments.into() };
        for (message, text, calls) in [
            (json!({"content": "hi"}), "hi", vec![]),
            (
                json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
                "ab",
                vec![],
            ),
            (json!({"content": null, "refusal": "no"}), "", vec![]),
            (
                json!({"content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}),
                "",
                vec![call("f", "{}")],
            ),
            (
                json!({"tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]}),
                "",
                vec![call("sql", "SELECT 1")],
            ),
            (
                json!({"function_call": {"name": "f", "arguments": "{\"a\":1}"}}),
                "",
                vec![call("f", "{\"a\":1}")],
            ),
            (json!({"function_call": null, "content": "x"}), "x", vec![]),
        ] {
            assert_eq!(Said::of(&message), Said { text: text.into(), calls }, "{message}");
        }
    }

    #[test]
    fn calls_are_compared_as_values() {
        let said = |calls: &[(&str, &str)]| Said {
            text: String::new(),
            calls: calls
                .iter()
                .map(|(name, arguments)| ToolCall { name: (*name).into(), arguments: (*arguments).into() })
                .collect(),
        };
        type Calls = &'static [(&'static str, &'static str)];
        let table: [(Calls, Calls, bool); 11] = [
            (&[], &[], true),
            (&[("f", "{}")], &[], false),
            (&[("f", r#"{"a":1,"b":[true]}"#)], &[("f", "{ \"b\": [true], \"a\": 1.0 }")], true),
            (&[("f", r#"{"a":1}"#)], &[("f", r#"{"a":2}"#)], false),
            (&[("f", r#"{"a":"1"}"#)], &[("f", r#"{"a":1}"#)], false),
            (&[("f", r#"{"a":1}"#)], &[("f", r#"{"a":1,"b":null}"#)], false),
            (&[("f", "{}")], &[("g", "{}")], false),
            (&[("f", "{}"), ("g", "{}")], &[("g", "{}"), ("f", "{}")], true),
            (&[("f", "{}"), ("f", "{}")], &[("f", "{}"), ("g", "{}")], false),
            (&[("f", "SELECT 1")], &[("f", "SELECT 1")], true),
            (&[("f", "SELECT 1")], &[("f", "select 1")], false),
        ];
        for (one, two, want) in table {
            assert_eq!(said(one).calls_the_same_as(&said(two)), want, "{one:?} {two:?}");
        }
    }
}
