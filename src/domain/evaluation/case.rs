//! A row of a training file as a question with a known answer: its last assistant message is the reference, and what stands
//! before that is asked.

use serde_json::{Map, Value, json};

use super::said::Said;

/// Members of a row that belong to the request.
const OF_THE_REQUEST: [&str; 4] = ["tools", "functions", "parallel_tool_calls", "response_format"];

/// A question with a known answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The request, but for the model and how it is asked.
    pub asked: Map<String, Value>,
    /// The known answer.
    pub reference: Said,
}

impl Case {
    /// Reads a row: a chat, a preference (its preferred answer is the reference), or a completion, which is asked as one
    /// message of a user's.
    ///
    /// # Errors
    ///
    /// Why nothing can be asked of it.
    pub fn read(row: &Value) -> Result<Self, &'static str> {
        let members = row.as_object().ok_or("no JSON object")?;
        if let (Some(prompt), Some(completion)) = (row["prompt"].as_str(), row["completion"].as_str()) {
            let asked =
                Map::from_iter([("messages".to_owned(), json!([{"role": "user", "content": prompt}]))]);
            return Ok(Self { asked, reference: Said { text: completion.to_owned(), calls: Vec::new() } });
        }
        let preferred = row.get("preferred_output").or_else(|| row.get("preferred_completion"));
        if let (Some(input), Some(preferred)) = (row.get("input").and_then(Value::as_object), preferred) {
            let answer = preferred.as_array().and_then(|messages| messages.last());
            let answer = answer.ok_or("its preferred output has no message")?;
            let messages =
                input.get("messages").and_then(Value::as_array).ok_or("its input has no messages")?;
            return Self::of(input, messages, answer);
        }
        let messages =
            row["messages"].as_array().ok_or("neither messages, nor a prompt with its completion")?;
        let is_answer = |message: &Value| message["role"] == "assistant";
        let at = messages
            .iter()
            .rposition(is_answer)
            .ok_or("no message of an assistant: nothing is known to be right")?;
        Self::of(members, &messages[..at], &messages[at])
    }

    fn of(members: &Map<String, Value>, before: &[Value], answer: &Value) -> Result<Self, &'static str> {
        if before.is_empty() {
            return Err("nothing stands before its answer: nothing is asked");
        }
        let mut asked = Map::from_iter([("messages".to_owned(), before.iter().map(untrained).collect())]);
        let more =
            OF_THE_REQUEST.iter().filter_map(|name| Some(((*name).to_owned(), members.get(*name)?.clone())));
        asked.extend(more.filter(|(_, value)| !value.is_null()));
        Ok(Self { asked, reference: Said::of(answer) })
    }

    /// The whole conversation, its known answer at the end; none where that is no words alone: with tools no worker reads
    /// it.
    pub fn told(&self) -> Option<Map<String, Value>> {
        if self.has_tools() || self.reference.text.is_empty() {
            return None;
        }
        let mut messages = self.asked.get("messages")?.as_array()?.clone();
        messages.push(json!({"role": "assistant", "content": self.reference.text}));
        Some(Map::from_iter([("messages".to_owned(), messages.into())]))
    }

    /// Whether tools may be called.
    pub fn has_tools(&self) -> bool {
        ["tools", "functions"].iter().any(|name| self.asked.contains_key(*name))
            || !self.reference.calls.is_empty()
    }
}

/// A message without what only training reads.
fn untrained(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(members) = message.as_object_mut() {
        members.remove("weight");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_the_reference_and_the_rest_is_asked() {
        let user = json!({"role": "user", "content": "q"});
        let answer = |text: &str| json!({"role": "assistant", "content": text, "weight": 0});
        let row = json!({"messages": [user, answer("one"), user, answer("two"), {"role": "tool", "content": "late"}],
            "tools": [{"type": "function"}], "functions": null, "metadata": {}});
        let case = Case::read(&row).expect("a case");
        let asked = json!({"messages": [user, {"role": "assistant", "content": "one"}, user],
            "tools": [{"type": "function"}]});
        assert_eq!(Value::Object(case.asked.clone()), asked);
        assert_eq!(case.reference.text, "two");
        assert!(case.has_tools());
    }

    #[test]
    fn every_format_of_rows_is_read() {
        let user = json!({"role": "user", "content": "q"});
        for row in [
            json!({"messages": [user, {"role": "assistant", "content": "a"}]}),
            json!({"prompt": "q", "completion": "a"}),
            json!({"input": {"messages": [user]}, "preferred_output": [{"role": "assistant", "content": "a"}],
                "non_preferred_output": [{"role": "assistant", "content": "b"}]}),
        ] {
            let case = Case::read(&row).expect("a case");
            assert_eq!(
                (&case.asked["messages"], case.reference.text.as_str()),
                (&json!([user]), "a"),
                "{row}"
            );
        }
    }

    #[test]
    fn what_is_told_ends_with_the_answer_and_knows_no_tools() {
        let told = |row: Value| Case::read(&row).expect("a case").told().map(Value::Object);
        let asked = json!({"role": "user", "content": "q"});
        let plain = json!({"messages": [asked, {"role": "assistant", "content": "a", "weight": 1}],
            "response_format": {"type": "text"}});
        let whole = json!({"messages": [asked, {"role": "assistant", "content": "a"}]});
        assert_eq!(told(plain), Some(whole.clone()));
        assert_eq!(told(json!({"prompt": "q", "completion": "a"})), Some(whole));
        for row in [
            json!({"messages": [asked, {"role": "assistant", "content": "a"}], "tools": [{"type": "function"}]}),
            json!({"messages": [asked, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}),
            json!({"messages": [asked, {"role": "assistant", "content": ""}]}),
        ] {
            assert_eq!(told(row.clone()), None, "{row}");
        }
    }

    #[test]
    fn what_can_t_be_asked_is_said() {
        for (row, why) in [
            (json!([]), "no JSON object"),
            (json!({}), "neither messages"),
            (json!({"messages": [{"role": "user", "content": "q"}]}), "no message of an assistant"),
            (json!({"messages": [{"role": "assistant", "content": "a"}]}), "nothing stands before"),
            (json!({"input": {"messages": []}, "preferred_output": []}), "no message"),
        ] {
            assert!(Case::read(&row).expect_err("no case").contains(why), "{row}");
        }
    }
}
