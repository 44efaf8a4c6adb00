use serde_json::{Value, json};

use super::*;
use crate::domain::capture::tests::policy;

const CHAT: Endpoint = Endpoint::ChatCompletions;

/// A chat's answer with this message, ended so.
fn answer(message: &Value, finish_reason: &str) -> String {
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason});
    json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": {}}).to_string()
}

fn said(text: &str) -> Value {
    json!({"role": "assistant", "content": text, "refusal": null, "annotations": []})
}

fn asks(text: &str) -> Value {
    json!({"model": "bot", "messages": [{"role": "user", "content": text}]})
}

fn of(endpoint: Endpoint, body: &Value, answer: &str, policy: &Policy) -> Result<Example, CaptureResult> {
    example(endpoint, body.to_string().as_bytes(), &Answer::Whole(answer.as_bytes()), policy)
}

#[track_caller]
fn made(body: &Value, answer: &str) -> (Value, Value) {
    let Ok(made) = of(CHAT, body, answer, &policy()) else { panic!("{body} {answer}") };
    let read = |text: &str| serde_json::from_str(text).expect("JSON");
    (read(&made.prompt), read(&made.answer))
}

fn why_not(endpoint: Endpoint, body: &Value, answer: &str, policy: &Policy) -> Option<CaptureResult> {
    of(endpoint, body, answer, policy).err()
}

#[test]
fn an_example_is_what_the_deployment_read_and_said() {
    let tool = json!({"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}});
    let body = json!({
        "model": "bot", "temperature": 0.2, "stream": true, "user": "ada", "tools": [tool],
        "parallel_tool_calls": false, "tool_choice": "auto",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
            {"role": "assistant", "content": "There.", "refusal": null, "audio": null, "annotations": []},
            {"role": "user", "content": "And now?"},
        ],
    });
    let (prompt, says) = made(&body, &answer(&said("Here."), "stop"));
    let want = json!({
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
            {"role": "assistant", "content": "There."},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [tool], "parallel_tool_calls": false,
    });
    assert_eq!(prompt, want);
    assert_eq!(says, json!({"role": "assistant", "content": "Here."}));
    // a call is kept as it was made, without the place that a stream gives it
    let call = json!({"index": 0, "id": "call_1", "type": "function",
        "function": {"name": "find", "arguments": "{\"a\":1}"}});
    let calls = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let (_, says) = made(&body, &answer(&calls, "tool_calls"));
    let kept =
        json!({"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{\"a\":1}"}});
    assert_eq!(says, json!({"role": "assistant", "tool_calls": [kept]}));
}

#[test]
fn a_stream_is_the_same_example_as_a_whole_answer() {
    let body = asks("hi");
    let events = "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n\
        data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n\
        data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n\
        data: [DONE]\n\n";
    let bytes = body.to_string();
    let streamed =
        |events: &str| example(CHAT, bytes.as_bytes(), &Answer::Stream(events.as_bytes()), &policy());
    let whole = of(CHAT, &body, &answer(&said("Hello"), "stop"), &policy());
    assert!(whole.is_ok() && streamed(events) == whole, "word for word");
    // what broke off is none
    let (broken, _) = events.split_at(events.find("lo\\").unwrap_or(events.len() / 2));
    assert_eq!(streamed(broken).err(), Some(CaptureResult::Unfinished));
}

#[test]
fn only_a_whole_answer_in_words_or_calls_is_an_example() {
    use CaptureResult::{OptedOut, TooLarge, Unfinished, Unfit};
    let (hi, ok) = (asks("hi"), said("Hello"));
    let two = json!({"choices": [{"message": ok, "finish_reason": "stop"}, {"message": ok, "finish_reason": "stop"}]});
    let refused = json!({"role": "assistant", "content": null, "refusal": "I can't."});
    let sound = json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]});
    let unknown_call = json!({"role": "assistant", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "nobody_defined", "arguments": "{}"}}]});
    for (endpoint, body, answer, want) in [
        (CHAT, &hi, answer(&ok, "length"), Unfinished),
        (CHAT, &hi, answer(&ok, "content_filter"), Unfinished),
        (CHAT, &hi, answer(&said(""), "stop"), Unfinished),
        (CHAT, &hi, answer(&refused, "stop"), Unfinished),
        (CHAT, &hi, "{}".to_owned(), Unfinished),
        (CHAT, &hi, "no JSON".to_owned(), Unfinished),
        (CHAT, &hi, two.to_string(), Unfit),
        (CHAT, &hi, answer(&unknown_call, "tool_calls"), Unfit),
        (CHAT, &json!({"messages": [sound]}), answer(&ok, "stop"), Unfit),
        (CHAT, &json!({"messages": "hi"}), answer(&ok, "stop"), Unfit),
        (Endpoint::Completions, &json!({"prompt": "hi"}), answer(&ok, "stop"), Unfit),
        (Endpoint::Embeddings, &json!({"input": "hi"}), "{}".to_owned(), Unfit),
    ] {
        assert_eq!(why_not(endpoint, body, &answer, &policy()), Some(want), "{endpoint:?} {body} {answer}");
    }
    let short = Policy { max_row_bytes: 100, ..policy() };
    assert_eq!(why_not(CHAT, &asks(&"a".repeat(100)), &answer(&ok, "stop"), &short), Some(TooLarge));
    assert_eq!(why_not(CHAT, &hi, &answer(&ok, "stop"), &short), None);
    for (body, want) in [(json!({"store": false}), true), (json!({"store": true}), false), (json!({}), false)]
    {
        assert_eq!(opted_out(body.to_string().as_bytes()), want, "{body}: {}", OptedOut.name());
    }
}

#[test]
fn personal_data_is_gone_before_anybody_sees_it() {
    let body = json!({"messages": [
        {"role": "system", "content": "Answer ada@example.org."},
        {"role": "user", "name": "Ada", "content": "I am ada@example.org, card 4111 1111 1111 1111"},
    ]});
    let told = answer(&said("Written to ada@example.org."), "stop");
    let Ok(masked) = of(CHAT, &body, &told, &policy()) else { panic!("an example") };
    for gone in ["ada@example.org", "4111", "Ada"] {
        assert!(!masked.prompt.contains(gone) && !masked.answer.contains(gone), "{gone}: {}", masked.prompt);
    }
    assert!(masked.answer.contains("[EMAIL]"), "{}", masked.answer);
    assert_eq!(masked.masked, 4);
    let bare = Policy { mask: false, ..policy() };
    let Ok(plain) = of(CHAT, &body, &told, &bare) else { panic!("an example") };
    assert!(
        plain.prompt.contains("ada@example.org") && plain.prompt.contains("\"Ada\"") && plain.masked == 0
    );
    // a picture can't be masked
    let picture = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}]});
    assert_eq!(why_not(CHAT, &picture, &told, &policy()), Some(CaptureResult::Unmaskable));
    assert_eq!(why_not(CHAT, &picture, &told, &bare), None);
}

#[test]
fn a_response_is_the_chat_that_it_could_have_been() {
    let body = json!({"model": "bot", "instructions": "Be kind.", "input": "Where?", "tools": [
        {"type": "function", "name": "find", "parameters": {"type": "object"}}]});
    let told = json!({"id": "resp_1", "status": "completed", "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Here."}]},
        {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": "{}"},
    ]});
    let Ok(made) = of(Endpoint::Responses, &body, &told.to_string(), &policy()) else { panic!("an example") };
    assert_eq!(made.answer_id, "resp_1");
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}});
    let answer: Value = serde_json::from_str(&made.answer).expect("JSON");
    assert_eq!(answer, json!({"role": "assistant", "content": "Here.", "tool_calls": [call]}));
    let prompt: Value = serde_json::from_str(&made.prompt).expect("JSON");
    assert_eq!(prompt["messages"][1]["content"], "Where?", "{prompt}");
    assert_eq!(prompt["tools"][0]["function"]["name"], "find", "{prompt}");
    for (change, want) in [
        (json!({"status": "incomplete"}), CaptureResult::Unfinished),
        (json!({"output": [{"type": "web_search_call"}]}), CaptureResult::Unfit),
        (json!({"output": []}), CaptureResult::Unfinished),
    ] {
        let mut told = told.clone();
        told.as_object_mut().expect("an object").extend(change.as_object().cloned().expect("an object"));
        let why = why_not(Endpoint::Responses, &body, &told.to_string(), &policy());
        assert_eq!(why, Some(want), "{change}");
    }
    let stored = json!({"model": "bot", "input": "And now?", "previous_response_id": "resp_0"});
    let why = why_not(Endpoint::Responses, &stored, &told.to_string(), &policy());
    assert_eq!(why, Some(CaptureResult::Unfit), "nobody here knows what came before");
}

#[test]
fn the_same_prompt_has_the_same_hash_whatever_is_answered() {
    let hash = |body: &Value, words: &str| {
        of(CHAT, body, &answer(&said(words), "stop"), &policy()).map(|made| made.prompt_hash).ok()
    };
    assert_eq!(hash(&asks("hi"), "a"), hash(&asks("hi"), "b"));
    assert_ne!(hash(&asks("hi"), "a"), hash(&asks("ho"), "a"));
    assert!(hash(&asks("hi"), "a").is_some_and(|hash| hash.len() == 64));
}

#[test]
fn an_id_that_no_database_keeps_is_none() {
    for (id, want) in [("chatcmpl-1", "chatcmpl-1"), ("chatcmpl\u{0}", "")] {
        let mut whole: Value = serde_json::from_str(&answer(&said("Here."), "stop")).expect("JSON");
        whole["id"] = id.into();
        let made = of(CHAT, &asks("Where?"), &whole.to_string(), &policy());
        assert_eq!(made.map(|made| made.answer_id).ok().as_deref(), Some(want), "{id:?}");
    }
}
