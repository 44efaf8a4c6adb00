//! Rows of training files, made of what was kept.

use std::borrow::Cow;

use serde_json::Number;
use tunegate_dataset::json::Json;

/// A row for supervised fine-tuning. Answers that stand in what was asked have the weight 0: what is learned is the one
/// answer that this deployment gave, and each of those once.
///
/// Nothing where what was kept is damaged.
pub fn supervised(prompt: &str, answer: &str) -> Option<String> {
    let mut row: Json<'_> = serde_json::from_str(prompt).ok()?;
    let answer: Json<'_> = serde_json::from_str(answer).ok()?;
    let Json::List(messages) = row.get_mut("messages")? else { return None };
    for message in messages.iter_mut() {
        if message.get("role").and_then(Json::text) == Some("assistant")
            && let Json::Object(members) = message
        {
            members.push((Cow::Borrowed("weight"), Json::Number(Number::from(0))));
        }
    }
    messages.push(answer);
    Some(row.written())
}

/// A row for DPO: what was asked, the better answer and the worse.
///
/// Nothing where what was kept is damaged, and where one of them calls a tool: such pairs are not trained on.
pub fn preference(prompt: &str, preferred: &str, other: &str) -> Option<String> {
    let input: Json<'_> = serde_json::from_str(prompt).ok()?;
    let answers = [preferred, other].map(|answer| {
        let answer: Json<'_> = serde_json::from_str(answer).ok()?;
        answer.get("content").and_then(Json::text)?;
        let calls = answer.get("tool_calls").or_else(|| answer.get("function_call"));
        calls.is_none().then_some(answer)
    });
    let [preferred, other] = answers;
    let (preferred, other) = (preferred?, other?);
    if preferred == other {
        return None;
    }
    let list = |answer| Json::List(vec![answer]);
    let row = vec![
        (Cow::Borrowed("input"), input),
        (Cow::Borrowed("preferred_output"), list(preferred)),
        (Cow::Borrowed("non_preferred_output"), list(other)),
    ];
    Some(Json::Object(row).written())
}

/// A text as the assistant's message.
pub fn said(text: &str) -> String {
    let members = [("role", "assistant"), ("content", text)];
    let members = members.map(|(name, text)| (Cow::Borrowed(name), Json::Text(Cow::Borrowed(text))));
    Json::Object(members.into()).written()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_itself_is_learned() {
        let asked = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"tools":[]}"#;
        let row = supervised(asked, &said("d")).expect("a row");
        let want = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},{"role":"user","content":"c"},{"role":"assistant","content":"d"}],"tools":[]}"#;
        assert_eq!(row, want);
        for (asked, answer) in [("", "{}"), ("{}", "{}"), (r#"{"messages":1}"#, "{}"), (asked, "{")] {
            assert_eq!(supervised(asked, answer), None, "{asked} {answer}");
        }
    }

    #[test]
    fn a_pair_is_of_two_texts_that_differ() {
        let asked = r#"{"messages":[{"role":"user","content":"a"}]}"#;
        let row = preference(asked, &said("good"), &said("bad")).expect("a row");
        let want = r#"{"input":{"messages":[{"role":"user","content":"a"}]},"preferred_output":[{"role":"assistant","content":"good"}],"non_preferred_output":[{"role":"assistant","content":"bad"}]}"#;
        assert_eq!(row, want);
        assert_eq!(preference(asked, &said("same"), &said("same")), None);
        let calls = r#"{"role":"assistant","content":"x","tool_calls":[]}"#;
        for worse in [calls, r#"{"role":"assistant"}"#, ""] {
            assert_eq!(preference(asked, &said("good"), worse), None, "{worse}");
        }
    }
}
