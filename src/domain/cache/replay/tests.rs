use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::stream::StreamReader;

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

/// The events of a stream as JSON, without `[DONE]`.
fn told(stream: &[u8]) -> Vec<Value> {
    let events = events_of(stream).expect("events");
    events.iter().filter(|event| *event != DONE).map(|event| value(event.as_bytes())).collect()
}

fn stream(events: &[&str]) -> Vec<u8> {
    events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
}

#[test]
fn a_stream_is_put_together() {
    let events = stream(&[
        r#"{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}"#,
        r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"m","service_tier":"auto","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"x"}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c","choices":[{"index":1,"delta":{"role":"assistant","content":"B\ud83c"},"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Four"},"logprobs":{"content":[{"token":"Four","logprob":-0.020000000000000001,"bytes":null,"top_logprobs":[]}],"refusal":null},"finish_reason":null}]}"#,
        r#"{"id":"c","choices":[{"index":1,"delta":{"content":"\udf89"},"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":" crates\n"},"logprobs":{"content":[{"token":" crates\n","logprob":-1,"bytes":null,"top_logprobs":[]}],"refusal":null},"finish_reason":null}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop","content_filter_results":{"hate":{"filtered":false}}}]}"#,
        r#"{"id":"c","choices":[{"index":1,"finish_reason":"length"}],"system_fingerprint":"fp"}"#,
        r#"{"id":"c","service_tier":"default","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        "[DONE]",
    ]);
    let whole = whole_of(Endpoint::ChatCompletions, &events).expect("an answer");
    let want = json!({
        "id": "c", "object": "chat.completion", "created": 7, "model": "m", "service_tier": "default",
        "system_fingerprint": "fp", "prompt_filter_results": [{"prompt_index": 0}],
        "choices": [
            {
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Four crates\n", "refusal": null, "reasoning_content": "Hm"},
                "logprobs": {"refusal": null, "content": [
                    {"token": "Four", "logprob": -0.02, "bytes": null, "top_logprobs": []},
                    {"token": " crates\n", "logprob": -1, "bytes": null, "top_logprobs": []},
                ]},
                "content_filter_results": {"hate": {"filtered": false}},
            },
            {"index": 1, "finish_reason": "length", "logprobs": null, "message": {"role": "assistant", "content": "B🎉"}},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    });
    assert_eq!(value(&whole), want);
    assert!(
        memchr::memmem::find(&whole, b"-0.020000000000000001").is_some(),
        "numbers stay as they are written"
    );
}

#[test]
fn calls_are_put_together_by_their_index() {
    let events = stream(&[
        r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"d","type":"custom","custom":{"name":"h","input":"x"}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        "[DONE]",
    ]);
    let whole = value(&whole_of(Endpoint::ChatCompletions, &events).expect("an answer"));
    let want = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"q\":1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"id": "d", "type": "custom", "custom": {"name": "h", "input": "x"}},
    ]});
    assert_eq!(whole["choices"][0]["message"], want);
}

#[test]
fn what_did_not_come_to_its_end_is_no_answer() {
    let said = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    for events in [
        &[said, stop][..],
        &[said, "[DONE]"],
        &["[DONE]"],
        &[],
        &[said, stop, r#"{"error":{"message":"x"}}"#, "[DONE]"],
        &[said, stop, "{", "[DONE]"],
        &[r#"{"choices":[{"index":"0","delta":{},"finish_reason":"stop"}]}"#, "[DONE]"],
        &["\u{0}", "[DONE]"],
    ] {
        assert_eq!(whole_of(Endpoint::ChatCompletions, &stream(events)), None, "{events:?}");
    }
    assert!(whole_of(Endpoint::ChatCompletions, &stream(&[said, stop, "[DONE]"])).is_some());
    for endpoint in [Endpoint::Embeddings, Endpoint::Moderations] {
        assert_eq!(whole_of(endpoint, b"data: {}\n\n"), None);
        assert_eq!(stream_of(endpoint, b"{}"), None);
    }
    for whole in [
        "",
        "[]",
        "{}",
        r#"{"choices":[]}"#,
        r#"{"error":{},"choices":[{"message":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{}}]}"#,
    ] {
        assert_eq!(stream_of(Endpoint::ChatCompletions, whole.as_bytes()), None, "{whole}");
    }
}

#[test]
fn a_whole_answer_streams_as_live_ones_do() {
    let words = "Zürich 漢 🎉 ".repeat(40);
    let whole = json!({
        "id": "c", "object": "chat.completion", "created": 7, "model": "m", "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
            "message": {"role": "assistant", "content": words, "refusal": null, "annotations": []}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    });
    // written over several lines, as some servers do
    let written = serde_json::to_vec_pretty(&whole).expect("written");
    let events = stream_of(Endpoint::ChatCompletions, &written).expect("a stream");
    assert!(events.ends_with(b"data: [DONE]\n\n"));
    let told = told(&events);
    let first = json!({"index": 0, "delta": {"role": "assistant", "content": "", "refusal": null, "annotations": []},
        "logprobs": null, "finish_reason": null});
    assert_eq!(told[0]["choices"][0], first);
    for chunk in &told {
        let same =
            (&chunk["id"], &chunk["object"], &chunk["created"], &chunk["model"], &chunk["service_tier"]);
        assert_eq!(
            same,
            (&json!("c"), &json!("chat.completion.chunk"), &json!(7), &json!("m"), &json!("default"))
        );
    }
    let [.., stop, usage] = told.as_slice() else { panic!("too few") };
    let end = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]);
    assert_eq!((&stop["choices"], &stop["usage"]), (&end, &Value::Null));
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
    assert!(told.len() > 4, "in pieces: {}", told.len());
    // who did not ask for the usage does not see that it was there
    let mut reader = StreamReader::new(Endpoint::ChatCompletions, true);
    let seen = [reader.push(events), reader.finish()].concat();
    assert!(memchr::memmem::find(&seen, b"usage").is_none() && reader.is_complete() && !reader.has_failed());
    assert_eq!(reader.usage().expect("usage").completion, 2);
}

#[test]
fn tokens_go_with_their_words() {
    let token = |token: &str| json!({"token": token, "logprob": -0.5, "bytes": null, "top_logprobs": []});
    let whole = |words: &str, tokens: &[&str]| {
        let tokens: Vec<Value> = tokens.iter().map(|said| token(said)).collect();
        json!({"id": "c", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": words}, "logprobs": {"content": tokens, "refusal": null}}]})
    };
    for (words, tokens, chunks) in [
        ("Hi there", &["Hi", " there"][..], 2),
        // a character that two tokens make is no text in either
        ("é", &["\\xc3", "\\xa9"], 1),
        ("", &[], 0),
    ] {
        let whole = whole(words, tokens);
        let events = stream_of(Endpoint::ChatCompletions, whole.to_string().as_bytes()).expect("a stream");
        let with_words = told(&events)
            .iter()
            .filter(|chunk| {
                chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|said| !said.is_empty())
            })
            .map(|chunk| assert!(chunk["choices"][0]["logprobs"]["content"].is_array(), "{chunk}"))
            .count();
        assert_eq!(with_words, chunks, "{words}");
        let back = value(&whole_of(Endpoint::ChatCompletions, &events).expect("an answer"));
        assert_eq!(back["choices"], whole["choices"]);
    }
}

/// A message that a model might make.
fn messages() -> impl Strategy<Value = Value> {
    let words = || proptest::option::of("[ -~\n\té漢🎉\"\\\\]{0,700}");
    let call = ("[a-z]{1,8}", "[ -~\n漢\"\\\\]{0,600}", any::<bool>()).prop_map(|(name, told, custom)| match custom {
        false => json!({"id": format!("call_{name}"), "type": "function", "function": {"name": name, "arguments": told}}),
        true => json!({"id": format!("call_{name}"), "type": "custom", "custom": {"name": name, "input": told}}),
    });
    let calls = proptest::collection::vec(call, 0..3);
    (words(), words(), words(), calls, any::<bool>()).prop_map(
        |(content, refusal, thoughts, calls, annotated)| {
            let mut message = json!({"role": "assistant", "content": content, "refusal": refusal});
            let members = message.as_object_mut().expect("an object");
            // what is said beside a call and empty is nothing
            if content.as_deref() == Some("") && !calls.is_empty() {
                members.insert("content".to_owned(), Value::Null);
            }
            // an empty text has no piece
            if refusal.as_deref() == Some("") {
                members.insert("refusal".to_owned(), Value::Null);
            }
            if let Some(thoughts) = thoughts.filter(|thoughts| !thoughts.is_empty()) {
                members.insert("reasoning_content".to_owned(), thoughts.into());
            }
            if !calls.is_empty() {
                members.insert("tool_calls".to_owned(), calls.into());
            }
            if annotated {
                members.insert(
                    "annotations".to_owned(),
                    json!([{"type": "url_citation", "url_citation": {"url": "u"}}]),
                );
            }
            message
        },
    )
}

proptest! {
    #[test]
    fn a_chat_is_the_same_told_either_way(
        messages in proptest::collection::vec(messages(), 1..3),
        reason in prop_oneof![Just("stop"), Just("length"), Just("tool_calls")],
    ) {
        let choices: Vec<Value> = messages
            .into_iter()
            .enumerate()
            .map(|(index, mut message)| {
                if message["refusal"].is_null() {
                    message.as_object_mut().expect("an object").remove("refusal");
                }
                json!({"index": index, "message": message, "logprobs": null, "finish_reason": reason, "x": {"y": 1.50}})
            })
            .collect();
        let whole = json!({"id": "c", "object": "chat.completion", "created": 7, "model": "m", "z": [1],
            "choices": choices, "usage": {"prompt_tokens": 3}});
        let events = stream_of(Endpoint::ChatCompletions, whole.to_string().as_bytes()).expect("a stream");
        let back = whole_of(Endpoint::ChatCompletions, &events).expect("an answer");
        prop_assert_eq!(value(&back), whole);
        // once more, from what was put together: the very same bytes
        let again = stream_of(Endpoint::ChatCompletions, &back).expect("a stream");
        prop_assert_eq!(whole_of(Endpoint::ChatCompletions, &again), Some(back));
    }

    #[test]
    fn a_completion_is_the_same_told_either_way(text in "[ -~\n漢\"\\\\]{0,700}", with_tokens in any::<bool>()) {
        let logprobs = with_tokens.then(|| json!({"tokens": ["a"], "token_logprobs": [-0.25], "top_logprobs": [null], "text_offset": [0]}));
        let whole = json!({"id": "c", "object": "text_completion", "created": 7, "model": "m",
            "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}});
        let events = stream_of(Endpoint::Completions, whole.to_string().as_bytes()).expect("a stream");
        prop_assert_eq!(value(&whole_of(Endpoint::Completions, &events).expect("an answer")), whole);
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in "[\\[\\]{}:,\"a\\\\0-9 ]{0,60}") {
        for endpoint in Endpoint::ALL {
            for odd in [bytes.as_slice(), json.as_bytes(), format!("data: {json}\n\ndata: [DONE]\n\n").as_bytes()] {
                let _ = (whole_of(endpoint, odd), stream_of(endpoint, odd), has_failed(odd));
            }
        }
    }
}

#[test]
fn a_response_streams_as_live_ones_do() {
    let whole = json!({
        "id": "resp_1", "object": "response", "created_at": 7, "completed_at": 8, "status": "completed", "error": null,
        "model": "m", "incomplete_details": null,
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Thought"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "Done.", "annotations": [{"type": "url_citation"}], "logprobs": []},
                {"type": "refusal", "refusal": "No."},
            ]},
            {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "custom_tool_call", "id": "ct_1", "status": "completed", "call_id": "c", "name": "f", "input": "x"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    });
    let written = serde_json::to_vec_pretty(&whole).expect("written");
    let events = stream_of(Endpoint::Responses, &written).expect("a stream");
    let told = told(&events);
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    let want = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds, want);
    for (number, event) in told.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    let begun = &told[0]["response"];
    assert_eq!(
        (&begun["status"], &begun["output"], &begun["usage"], &begun["completed_at"]),
        (&json!("in_progress"), &json!([]), &Value::Null, &Value::Null)
    );
    let added = json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []});
    assert_eq!((&told[8]["item"], &told[8]["output_index"]), (&added, &json!(1)));
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 10, "item_id": "msg_1", "output_index": 1,
        "content_index": 0, "delta": "Done.", "logprobs": []});
    assert_eq!(told[10], delta);
    assert_eq!(told[4]["summary_index"], 0);
    assert_eq!((&told[21]["arguments"], &told[21]["name"]), (&json!("{}"), &json!("f")));
    assert_eq!(value(&whole_of(Endpoint::Responses, &events).expect("an answer")), whole);
    // the stream's usage is where it is looked for
    let mut reader = StreamReader::new(Endpoint::Responses, false);
    reader.push(events);
    assert_eq!(reader.usage().expect("usage").completion, 2);
}

#[test]
fn only_a_response_that_is_whole_is_told_again() {
    for status in ["failed", "in_progress", "queued", "cancelled"] {
        let whole = json!({"status": status, "output": []}).to_string();
        assert_eq!(stream_of(Endpoint::Responses, whole.as_bytes()), None, "{status}");
    }
    let cut =
        json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []});
    let events = stream_of(Endpoint::Responses, cut.to_string().as_bytes()).expect("a stream");
    assert_eq!(told(&events).last().expect("one")["type"], "response.incomplete");
    assert_eq!(value(&whole_of(Endpoint::Responses, &events).expect("an answer")), cut);
    let failed = br#"data: {"type":"response.failed","response":{"status":"failed"}}"#;
    assert_eq!(whole_of(Endpoint::Responses, failed), None);
}
