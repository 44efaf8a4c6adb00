use super::*;
use crate::repair::convert::Converted;
use crate::repair::dedupe::Likeness;
use crate::repair::split::Parts;
use std::collections::BTreeSet;

use serde_json::json;

fn options() -> Options {
    Options::default()
}

fn chat(question: &str, answer: &str) -> String {
    format!(
        r#"{{ "messages": [{{"role":"user","content":"{question}"}}, {{"role":"assistant","content":"{answer}"}}] }}"#
    )
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_split_keeps_prompts_together_and_rows_as_they_are() {
    let lines: Vec<String> =
        (0..100).map(|row| chat(&format!("question {}", row / 2), &format!("answer {row}"))).collect();
    let file = lines.join("\n");
    let split = |seed: u64, share: f64| {
        let plan = split::plan(file.as_bytes(), &options(), share, seed).expect("a plan");
        let (mut training, mut validation) = (Vec::new(), Vec::new());
        let parts = split::write(file.as_bytes(), &options(), &plan, &mut training, &mut validation)
            .expect("written");
        (parts, text(training), text(validation))
    };
    let (parts, training, validation) = split(1, 0.1);
    assert_eq!(parts, Parts { training: 90, validation: 10 });
    let question = |line: &str| line.split("answer").next().unwrap_or_default().to_owned();
    let asked: BTreeSet<String> = training.lines().map(question).collect();
    assert!(validation.lines().all(|line| !asked.contains(&question(line))));
    let all: BTreeSet<&str> = training.lines().chain(validation.lines()).collect();
    assert_eq!(all, lines.iter().map(String::as_str).collect(), "no row is lost or changed");
    assert_eq!(split(1, 0.1).2, validation, "the same seed draws the same rows");
    assert_ne!(split(2, 0.1).2, validation, "another one draws others");
    assert_eq!(split(1, 0.001).0, Parts { training: 98, validation: 2 }, "never nothing");
}

#[test]
fn what_can_not_be_split_is_said() {
    let same = [chat("q", "a"), chat("q", "b")].join("\n");
    let error = split::plan(same.as_bytes(), &options(), 0.5, 0).expect_err("one prompt");
    assert_eq!(
        error.to_string(),
        "2 rows with 1 prompts can't be split: rows with the same prompt stay together"
    );
    let broken = [chat("q", "a"), "{".to_owned()].join("\n");
    let error = split::plan(broken.as_bytes(), &options(), 0.5, 0).expect_err("no row");
    assert_eq!(
        error.to_string(),
        "line 2: not JSON: EOF while parsing an object at column 1: a row is one JSON object on one line; `tunegate \
         dataset check` names all such lines"
    );
}

#[test]
fn repetitions_are_dropped() {
    let long = "Once upon a time a cat sat on a red roof and looked at the yellow moon for hours on end";
    let file = [
        chat(long, "a"),
        chat("q", "a"),
        chat(&format!("{long}!"), "a"),
        chat("q", " a "),
        chat("q", "b"),
        chat(long, "a"),
    ]
    .join("\n");
    for (likeness, lines) in [(Likeness::Exact, vec![4, 6]), (Likeness::Near, vec![3, 4, 6])] {
        let dropped = dedupe::plan(file.as_bytes(), &options(), likeness).expect("a plan");
        assert_eq!(dropped.iter().copied().collect::<BTreeSet<u64>>(), lines.iter().copied().collect());
        let mut out = Vec::new();
        let left = dedupe::write(file.as_bytes(), &options(), &dropped, &mut out).expect("written");
        assert_eq!(left, 6 - lines.len() as u64);
        let kept: Vec<&str> =
            (1..).zip(file.lines()).filter(|(line, _)| !lines.contains(line)).map(|(_, text)| text).collect();
        assert_eq!(text(out).lines().collect::<Vec<_>>(), kept);
    }
}

#[test]
fn what_is_personal_is_masked_and_nothing_else_is_touched() {
    let file = [
        chat("write to neko@example.com or +81 90-1234-5678", "ok"),
        chat("nothing   here", "\\u732b"),
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"4111 1111 1111 1111"},{"type":"image_url","image_url":{"url":"https://x/neko@example.com"}}]},{"role":"assistant","function_call":{"name":"pay","arguments":"{\"card\":4111111111111111,\"to\":\"a@b.io\"}"}}],"functions":[{"name":"pay"}]}"#.to_owned(),
    ]
    .join("\n");
    let mut out = Vec::new();
    let masked = mask::write(file.as_bytes(), &options(), &mut out).expect("written");
    let out = text(out);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"messages":[{"role":"user","content":"write to [EMAIL] or [PHONE]"},{"role":"assistant","content":"ok"}]}"#
    );
    assert_eq!(Some(lines[1]), file.lines().nth(1), "byte for byte");
    assert_eq!(
        lines[2],
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"[CARD]"},{"type":"image_url","image_url":{"url":"https://x/neko@example.com"}}]},{"role":"assistant","function_call":{"name":"pay","arguments":"{\"card\":\"[CARD]\",\"to\":\"[EMAIL]\"}"}}],"functions":[{"name":"pay"}]}"#
    );
    use crate::personal::Kind::{Card, Email, Phone};
    assert_eq!((masked.rows, masked.changed), (3, 2));
    assert_eq!(masked.of, [(Email, 2), (Phone, 1), (Card, 2)].into());
}

#[test]
fn nothing_is_left_alone_in_what_a_tool_is_called_with() {
    for (arguments, masked) in [
        (r#"{"id":"a@b.io","name":"+49 170 1234567"}"#, r#"{"id":"[EMAIL]","name":"[PHONE]"}"#),
        (
            r#"{"to":[{"type":"a@b.io","role":{"name":"a@b.io"}}]}"#,
            r#"{"to":[{"type":"[EMAIL]","role":{"name":"[EMAIL]"}}]}"#,
        ),
        (r#"{"a@b.io":1,"c@d.io":2,"e@f.io":3}"#, r#"{"[EMAIL]":1,"[EMAIL] 2":2,"[EMAIL] 3":3}"#),
        (r#"["a@b.io"]"#, r#"["[EMAIL]"]"#),
        (r#"{"id":7, "name":"neko"}"#, r#"{"id":7, "name":"neko"}"#),
    ] {
        let row = |arguments: &str, about: &str| {
            let call = json!({"id": "call_a@b.io", "type": "function", "function": {"name": "make", "arguments": arguments}});
            json!({
                "messages": [
                    {"role": "user", "content": "make"},
                    {"role": "assistant", "tool_calls": [call]},
                ],
                "tools": [{"type": "function", "function": {"name": "make", "parameters": {"properties": {
                    "name": {"type": "string", "default": about},
                }}}}],
            })
        };
        let mut out = Vec::new();
        mask::write(row(arguments, "a@b.io").to_string().as_bytes(), &options(), &mut out).expect("written");
        let written: serde_json::Value = serde_json::from_str(&text(out)).expect("JSON");
        assert_eq!(written, row(masked, "[EMAIL]"), "{arguments}");
    }
}

#[test]
fn older_forms_become_todays() {
    let converted = |line: &str, system: Option<&str>| {
        let mut out = Vec::new();
        let converted = convert::write(line.as_bytes(), &options(), system, &mut out).expect("converted");
        (converted, text(out).trim_end().to_owned())
    };
    let one = Converted { rows: 1, ..Converted::default() };
    let plain = chat("q", "a");
    assert_eq!(converted(&plain, None), (one, plain.clone()), "byte for byte");
    assert_eq!(
        converted(r#"{"prompt":"Say hi\n\n","completion":" hi"}"#, Some("Be kind")),
        (
            Converted { completions: 1, prompts: 1, ..one },
            r#"{"messages":[{"role":"system","content":"Be kind"},{"role":"user","content":"Say hi"},{"role":"assistant","content":"hi"}]}"#
                .to_owned()
        )
    );
    let old = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"r"},{"role":"assistant","content":"a"}],"functions":[{"name":"f"}]}"#;
    let new = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1_1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_1_1","content":"r"},{"role":"assistant","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    assert_eq!(converted(old, None), (Converted { functions: 1, ..one }, new.to_owned()));
    assert_eq!(converted(new, None), (one, new.to_owned()), "it is done once");
    let both = r#"{"messages":[{"role":"assistant","content":"a"}],"functions":[{"name":"f"}],"tools":[{"type":"function","function":{"name":"g"}}]}"#;
    let joined = r#"{"messages":[{"role":"assistant","content":"a"}],"tools":[{"type":"function","function":{"name":"g"}},{"type":"function","function":{"name":"f"}}]}"#;
    assert_eq!(converted(both, None).1, joined);
    let preference = r#"{"input":{"messages":[{"role":"system","content":"old"},{"role":"user","content":"q"}]},"preferred_completion":[{"role":"assistant","content":"y"}],"non_preferred_completion":[{"role":"assistant","content":"n"}]}"#;
    let named = r#"{"input":{"messages":[{"role":"system","content":"new"},{"role":"user","content":"q"}]},"preferred_output":[{"role":"assistant","content":"y"}],"non_preferred_output":[{"role":"assistant","content":"n"}]}"#;
    assert_eq!(
        converted(preference, Some("new")),
        (Converted { preferences: 1, prompts: 1, ..one }, named.to_owned())
    );
    let none = r#"{"input":{"messages":[{"role":"user","content":"q"}]},"preferred_output":[{"role":"assistant","content":"y"}],"non_preferred_output":[{"role":"assistant","content":"n"}]}"#;
    assert_eq!(converted(named, Some("")).1, none, "an empty prompt takes it out");
}

#[test]
fn new_rows_stand_behind_those_they_were_made_from() {
    let file = [
        chat("one", "1"),
        r#"{"messages":[{"role":"assistant","content":"alone"}]}"#.to_owned(),
        chat("two", "2"),
    ]
    .join("\n");
    let mut asked = Vec::new();
    let mut answers = ["uno ", "one", "zwei", "deux"].into_iter();
    let mut rephrase = |words: &str| {
        asked.push(words.to_owned());
        Ok(answers.next().unwrap_or_default().to_owned())
    };
    let mut out = Vec::new();
    let augmented = augment::write(file.as_bytes(), &options(), 2, &mut rephrase, &mut out).expect("written");
    let out = text(out);
    let questions: Vec<Option<&str>> =
        out.lines().map(|line| line.split(r#""content":""#).nth(1)?.split('"').next()).collect();
    assert_eq!(questions, ["one", "uno", "alone", "two", "zwei", "deux"].map(Some));
    assert_eq!(asked, ["one", "one", "two", "two"]);
    let origins: Vec<(u64, u64)> =
        augmented.new.iter().map(|origin| (origin.line, origin.augmented_from)).collect();
    assert_eq!(origins, [(2, 1), (5, 3), (6, 3)]);
    assert_eq!((augmented.rows, augmented.skipped, augmented.refused), (3, 1, 1));
    let mut fails = |_: &str| Err(RepairError::Impossible("no gateway".to_owned()));
    let error = augment::write(file.as_bytes(), &options(), 1, &mut fails, &mut Vec::new());
    assert_eq!(error.expect_err("told").to_string(), "no gateway");
}
