//! Answers, whole and streamed: the response each is, and that both ways lead to the same one.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::domain::translate::{Echo, ResponsesStream, Unreadable, response_of};
use crate::sse::{self, Piece, Splitter};

const ID: &str = "resp_4f";
const CREATED_AT_S: i64 = 1_767_225_600;

fn echo() -> Echo {
    Echo::of(br#"{"model":"m","input":"Hi"}"#)
}

fn whole(chat: &Value, echo: &Echo) -> Value {
    let response =
        response_of(chat.to_string().as_bytes(), echo, ID, CREATED_AT_S).expect("a chat completion");
    serde_json::from_slice(&response).expect("a response is JSON")
}

/// A response that says nothing but what every response says.
fn plain() -> Value {
    json!({
        "id": ID, "object": "response", "created_at": CREATED_AT_S, "status": "completed", "background": false,
        "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null,
        "max_tool_calls": null, "model": "gpt-x", "output": [], "parallel_tool_calls": true,
        "previous_response_id": null, "prompt_cache_key": null, "prompt_cache_retention": null,
        "reasoning": {"effort": null, "summary": null}, "safety_identifier": null, "service_tier": null,
        "store": false, "temperature": null, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "top_logprobs": null, "top_p": null, "truncation": "disabled", "usage": null, "user": null,
        "metadata": {},
    })
}

fn with(mut base: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        base[name] = value.clone();
    }
    base
}

fn message(status: &str, content: &Value) -> Value {
    json!({"type": "message", "id": "msg_4f_0", "status": status, "role": "assistant", "content": content})
}

fn text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn call(at: usize, status: &str, call_id: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_4f_{at}"), "status": status, "call_id": call_id,
        "name": "f", "arguments": arguments})
}

#[test]
fn whole_answers() {
    let f = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let logprobs = json!({"content": [{"token": "D", "logprob": -0.5, "bytes": null,
        "top_logprobs": [{"token": "D", "logprob": -0.5, "bytes": [68]}]}], "refusal": null});
    let shown = json!([{"token": "D", "logprob": -0.5, "bytes": [],
        "top_logprobs": [{"token": "D", "logprob": -0.5, "bytes": [68]}]}]);
    let table = [
        (
            json!({"message": {"content": "Done.", "refusal": null, "annotations": []}, "finish_reason": "stop"}),
            json!({"output": [message("completed", &json!([text("Done.")]))]}),
        ),
        (
            json!({"message": {"content": "D"}, "logprobs": logprobs, "finish_reason": "stop"}),
            json!({"output": [message("completed", &json!([with(text("D"), &json!({"logprobs": shown}))]))]}),
        ),
        (
            json!({"message": {"content": null, "refusal": "No"}, "finish_reason": "stop"}),
            json!({"output": [message("completed", &json!([{"type": "refusal", "refusal": "No"}]))]}),
        ),
        (
            json!({"message": {"content": null, "tool_calls": [f("a"), f("b")]}, "finish_reason": "tool_calls"}),
            json!({"output": [call(0, "completed", "a", "{}"), call(1, "completed", "b", "{}")]}),
        ),
        (
            json!({"message": {"content": "Look", "tool_calls": [f("")]}, "finish_reason": "tool_calls"}),
            json!({"output": [message("completed", &json!([text("Look")])), call(1, "completed", "fc_4f_1", "{}")]}),
        ),
        (
            json!({"message": {"content": "Do"}, "finish_reason": "length"}),
            json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
                "output": [message("incomplete", &json!([text("Do")]))]}),
        ),
        (
            json!({"message": {"content": "Do", "tool_calls": [f("a")]}, "finish_reason": "length"}),
            json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
                "output": [message("completed", &json!([text("Do")])), call(1, "incomplete", "a", "{}")]}),
        ),
        // Azure: the content may be absent
        (
            json!({"finish_reason": "content_filter", "content_filter_results": {}}),
            json!({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}),
        ),
    ];
    for (choice, want) in table {
        let chat = json!({"id": "chatcmpl-1", "model": "gpt-x", "choices": [choice]});
        assert_eq!(whole(&chat, &echo()), with(plain(), &want), "{choice}");
    }
}

#[test]
fn usage_and_tier_have_the_names_of_responses() {
    let chat = json!({"model": "gpt-x", "choices": [{"message": {"content": ""}, "finish_reason": "stop"}],
        "service_tier": "flex",
        "usage": {"cost": 0.25, "prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0}}});
    let want = json!({"service_tier": "flex", "usage": {"cost": 0.25, "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}, "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 19}});
    assert_eq!(whole(&chat, &echo()), with(plain(), &want));
}

#[test]
fn the_request_is_repeated_as_it_was_written() {
    let said = json!({"instructions": "Be brief", "max_output_tokens": 9, "metadata": {"a": "b"},
        "parallel_tool_calls": false, "prompt_cache_key": "k", "prompt_cache_retention": "24h",
        "safety_identifier": "s", "temperature": 0.5, "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": true}], "top_logprobs": 2,
        "top_p": 0.1, "user": "u"});
    let nested = json!({"input": "Hi", "model": "m", "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"}});
    let body = serde_json::to_string_pretty(&with(nested, &said)).expect("JSON");
    let echo = Echo::of(body.as_bytes());
    let chat = json!({"model": "gpt-x", "choices": [{"message": {}, "finish_reason": "stop"}]});
    let shown = with(plain(), &said);
    let told = json!({"reasoning": {"effort": "low", "summary": null},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"}});
    let shown = with(shown, &told);
    assert_eq!(whole(&chat, &echo), shown);
    // an event's data stays on one line
    let mut stream = ResponsesStream::new(echo, ID.to_owned(), CREATED_AT_S);
    let events = stream.push(chunk(&json!({"delta": {}, "finish_reason": "stop"})));
    let created = &events_of(&events)[0];
    assert_eq!(created["response"], with(shown, &json!({"status": "in_progress"})));
}

#[test]
fn what_is_no_chat_completion_is_said_so() {
    let read = |chat: &str| response_of(chat.as_bytes(), &echo(), ID, CREATED_AT_S);
    assert_eq!(read(r#"{"choices":[]}"#), Err(Unreadable::NoChoice));
    for chat in ["", "<html>", "null", r#"{"choices":[{"message":{"content":[]}}]}"#] {
        assert!(matches!(read(chat), Err(Unreadable::NotChat(_))), "{chat}");
    }
}

/// A chunk with one choice.
fn chunk(choice: &Value) -> Bytes {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "model": "gpt-x", "choices": [choice]});
    sse::event(&chunk.to_string())
}

/// The data of events, each checked for its name, its number and its one line.
fn events_of(bytes: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    let mut splitter = Splitter::new();
    splitter.push(Bytes::copy_from_slice(bytes), |piece| {
        let Piece::Event(event) = piece else { return };
        let Some(json) = sse::data(&event) else { return };
        let json: Value = serde_json::from_slice(&json).expect("an event is JSON");
        let name = json["type"].as_str().expect("an event has a type");
        assert_eq!(event.split(|byte| *byte == b'\n').count(), 4, "two lines and a blank one");
        assert!(event.starts_with(format!("event: {name}\ndata: ").as_bytes()));
        events.push(json);
    });
    assert!(splitter.is_between_events());
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], json!(number), "{event}");
    }
    events
}

/// All that a stream makes of `parts`, and whether it ended.
fn streamed(parts: &[&[u8]]) -> (Vec<u8>, bool) {
    let mut stream = ResponsesStream::new(echo(), ID.to_owned(), CREATED_AT_S);
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&stream.push(Bytes::copy_from_slice(part)));
    }
    out.extend_from_slice(&stream.finish());
    (out, stream.is_ended())
}

fn joined(chunks: &[Value]) -> Vec<u8> {
    let chunks: Vec<Bytes> = chunks.iter().map(chunk).collect();
    chunks.concat()
}

const DONE: &[u8] = b"data: [DONE]\n\n";

#[test]
fn a_text_byte_by_byte() {
    let chat = concat!(
        // Azure's first chunk
        "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[]}\n\n",
        "data: {\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}}],\"usage\":null,\"obfuscation\":\"q\"}\n\n",
        ": alive\n\n",
        "data: {\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ud83d\"}}],\"usage\":null,\"obfuscation\":\"q8\"}\n\n",
        "data: {\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ude00\\n\"}}],\"usage\":null}\n\n",
        "data: {\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "data: {\"model\":\"gpt-x\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n",
        "data: [DONE]\n\n",
    );
    let head = r#""id":"resp_4f","object":"response","created_at":1767225600"#;
    let tail = concat!(
        r#""parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":null,"#,
        r#""prompt_cache_retention":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"#,
        r#""service_tier":null,"store":false,"temperature":null,"text":{"format":{"type":"text"}},"#,
        r#""tool_choice":"auto","tools":[],"top_logprobs":null,"top_p":null,"truncation":"disabled","#,
    );
    let nulls = concat!(
        r#""background":false,"error":null,"incomplete_details":null,"instructions":null,"#,
        r#""max_output_tokens":null,"max_tool_calls":null,"model":"gpt-x""#
    );
    let begun = format!(
        r#"{{{head},"status":"in_progress",{nulls},"output":[],{tail}"usage":null,"user":null,"metadata":{{}}}}"#
    );
    let part = r#"{"type":"output_text","text":"\ud83d\ude00\n","annotations":[],"logprobs":[]}"#;
    let item = |status: &str, parts: &str| {
        format!(
            r#"{{"type":"message","id":"msg_4f_0","status":"{status}","role":"assistant","content":[{parts}]}}"#
        )
    };
    let place = r#""item_id":"msg_4f_0","output_index":0,"content_index":0"#;
    let done = item("completed", part);
    let usage = concat!(
        r#"{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"#,
        r#""output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5}"#
    );
    let want = [
        ("response.created", format!(r#""response":{begun}"#)),
        ("response.in_progress", format!(r#""response":{begun}"#)),
        (": alive", String::new()),
        ("response.output_item.added", format!(r#""output_index":0,"item":{}"#, item("in_progress", ""))),
        (
            "response.content_part.added",
            format!(r#"{place},"part":{{"type":"output_text","text":"","annotations":[],"logprobs":[]}}"#),
        ),
        (
            "response.output_text.delta",
            format!(r#"{place},"delta":"\ud83d","logprobs":[],"obfuscation":"q8""#),
        ),
        ("response.output_text.delta", format!(r#"{place},"delta":"\ude00\n","logprobs":[]"#)),
        ("response.output_text.done", format!(r#"{place},"text":"\ud83d\ude00\n","logprobs":[]"#)),
        ("response.content_part.done", format!(r#"{place},"part":{part}"#)),
        ("response.output_item.done", format!(r#""output_index":0,"item":{done}"#)),
        (
            "response.completed",
            format!(
                r#""response":{{{head},"status":"completed",{nulls},"output":[{done}],{tail}"usage":{usage},"user":null,"metadata":{{}}}}"#
            ),
        ),
    ];
    let mut number = 0;
    let mut bytes = String::new();
    for (name, members) in want {
        if name.starts_with(':') {
            bytes += &format!("{name}\n\n");
            continue;
        }
        bytes += &format!(
            "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{number},{members}}}\n\n"
        );
        number += 1;
    }
    for cut in 0..=chat.len() {
        let (a, b) = chat.as_bytes().split_at(cut);
        let (out, ended) = streamed(&[a, b]);
        assert_eq!(String::from_utf8_lossy(&out), bytes, "cut at {cut}");
        assert!(ended);
    }
    let single: Vec<&[u8]> = chat.as_bytes().chunks(1).collect();
    assert_eq!(streamed(&single).0, bytes.as_bytes());
}

/// The types of events, short, each with its place among the items.
fn outline(events: &[Value]) -> Vec<String> {
    let short = |event: &Value| {
        let name = event["type"].as_str().unwrap_or_default().trim_start_matches("response.").to_owned();
        match event["output_index"].as_u64() {
            Some(at) => format!("{name} {at}"),
            None => name,
        }
    };
    events.iter().map(short).collect()
}

#[test]
fn events_come_in_their_usual_order() {
    let say = |text: &str| json!({"delta": {"content": text}});
    let refuse = |text: &str| json!({"delta": {"refusal": text}});
    let call = |index: u64, id: &str| {
        json!({"delta": {"tool_calls": [{"index": index, "id": id, "type": "function",
            "function": {"name": "f", "arguments": ""}}]}})
    };
    let args = |index: u64, text: &str| json!({"delta": {"tool_calls": [{"index": index, "function": {"arguments": text}}]}});
    let stop = |reason: &str| json!({"delta": {}, "finish_reason": reason});
    let table: [(&[Value], &str); 6] = [
        (&[stop("stop")], "completed"),
        (
            &[refuse("N"), refuse("o"), stop("stop")],
            "output_item.added 0, content_part.added 0, refusal.delta 0, refusal.delta 0, refusal.done 0, \
             content_part.done 0, output_item.done 0, completed",
        ),
        (
            &[say("a"), refuse("b"), stop("length")],
            "output_item.added 0, content_part.added 0, output_text.delta 0, output_text.done 0, \
             content_part.done 0, content_part.added 0, refusal.delta 0, refusal.done 0, content_part.done 0, \
             output_item.done 0, incomplete",
        ),
        // a message ends where calls begin; pieces of calls come in turns
        (
            &[
                say("a"),
                call(0, "x"),
                call(1, "y"),
                args(0, "{"),
                args(1, "{}"),
                args(0, "}"),
                stop("tool_calls"),
            ],
            "output_item.added 0, content_part.added 0, output_text.delta 0, output_text.done 0, \
             content_part.done 0, output_item.done 0, output_item.added 1, output_item.added 2, \
             function_call_arguments.delta 1, function_call_arguments.delta 2, function_call_arguments.delta 1, \
             function_call_arguments.done 1, output_item.done 1, function_call_arguments.done 2, \
             output_item.done 2, completed",
        ),
        // a server that counts every call as the first
        (
            &[call(0, "x"), args(0, "{}"), call(0, "y"), args(0, "[]"), stop("tool_calls")],
            "output_item.added 0, function_call_arguments.delta 0, output_item.added 1, \
             function_call_arguments.delta 1, function_call_arguments.done 0, output_item.done 0, \
             function_call_arguments.done 1, output_item.done 1, completed",
        ),
        // words behind a call are a message of their own; what comes behind the end is not heard
        (
            &[call(0, "x"), say("a"), stop("content_filter"), say("b")],
            "output_item.added 0, output_item.added 1, content_part.added 1, output_text.delta 1, \
             function_call_arguments.done 0, output_item.done 0, output_text.done 1, content_part.done 1, \
             output_item.done 1, incomplete",
        ),
    ];
    for (chunks, want) in table {
        let (out, ended) = streamed(&[&joined(chunks), DONE]);
        let want = format!("created, in_progress, {want}");
        assert_eq!(outline(&events_of(&out)).join(", "), want, "{chunks:?}");
        assert!(ended);
    }
}

#[test]
fn a_stream_ends_only_where_the_answer_does() {
    let word = json!({"delta": {"content": "a"}});
    let stop = json!({"delta": {}, "finish_reason": "stop"});
    for (bytes, ends) in [
        (joined(std::slice::from_ref(&word)), false),
        ([&joined(std::slice::from_ref(&word)), DONE].concat(), false),
        (DONE.to_vec(), false),
        (joined(&[word.clone(), stop.clone()]), true),
        (joined(&[word, stop])[..].strip_suffix(b"\n").expect("a line end").to_vec(), true),
    ] {
        let (out, ended) = streamed(&[&bytes]);
        assert_eq!(ended, ends, "{}", String::from_utf8_lossy(&bytes));
        let last = outline(&events_of(&out)).pop();
        assert_eq!(last.is_some_and(|last| last == "completed"), ends);
    }
}

#[test]
fn what_breaks_off_fails_aloud() {
    let word = chunk(&json!({"delta": {"content": "a"}}));
    let table = [
        (
            sse::event(r#"{"error":{"message":"busy","type":"tokens","code":"rate_limit_exceeded"}}"#),
            ("tokens", "rate_limit_exceeded", "rate_limit_exceeded"),
        ),
        (
            sse::event(r#"{"error":{"message":"busy","type":"server_error","code":500}}"#),
            ("server_error", "500", "server_error"),
        ),
        (sse::event(r#"{"error":{"message":"busy"}}"#), ("server_error", "server_error", "server_error")),
        (sse::event("<html>"), ("server_error", "upstream_broke", "server_error")),
        (
            sse::event(r#"{"choices":[{"delta":{"content":["a"]}}]}"#),
            ("server_error", "upstream_broke", "server_error"),
        ),
    ];
    for (last, (kind, code, known)) in table {
        for words in [&word, &Bytes::new()] {
            let mut stream = ResponsesStream::new(echo(), ID.to_owned(), CREATED_AT_S);
            let mut out = [stream.push(words.clone()), stream.push(last.clone())].concat();
            assert!(stream.is_ended() && stream.has_failed());
            out.extend_from_slice(&stream.push(word.clone()));
            out.extend_from_slice(&stream.broke("again", "again"));
            let events = events_of(&out);
            let [.., error, failed] = events.as_slice() else { unreachable!("two events at least") };
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
            let object = json!({"message": error["message"], "type": kind, "param": null, "code": code});
            assert_eq!(error["error"], object);
            assert_eq!(failed["type"], "response.failed");
            let response = &failed["response"];
            assert_eq!(response["error"], json!({"code": known, "message": error["message"]}));
            let (model, output) = match words.is_empty() {
                true => ("m", json!([])),
                false => ("gpt-x", json!([message("incomplete", &json!([text("a")]))])),
            };
            let want =
                json!({"status": "failed", "model": model, "output": output, "error": response["error"]});
            assert_eq!(*response, with(plain(), &want));
        }
    }
}

#[test]
fn an_answer_that_never_ends_is_not_kept_for_ever() {
    let word = chunk(&json!({"delta": {"content": "a".repeat(1 << 20)}}));
    let mut stream = ResponsesStream::new(echo(), ID.to_owned(), CREATED_AT_S);
    let mut pushed = 0;
    while !stream.is_ended() {
        stream.push(word.clone());
        pushed += 1;
        assert!(pushed < 70);
    }
    assert!(stream.has_failed() && pushed > 64);
}

/// An answer as a whole and as a stream, its texts cut at these lengths.
fn both_ways(
    content: &Option<String>,
    refusal: &Option<String>,
    calls: &[(String, String)],
    reason: &str,
    cut: usize,
) -> (Value, Vec<u8>) {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13});
    let called: Vec<Value> = calls
        .iter()
        .enumerate()
        .map(|(at, (name, arguments))| {
            json!({"id": format!("call_{at}"), "type": "function",
                "function": {"name": name, "arguments": arguments}})
        })
        .collect();
    let whole = json!({"model": "gpt-x", "service_tier": "default", "usage": usage, "choices": [{"index": 0,
        "message": {"role": "assistant", "content": content, "refusal": refusal, "tool_calls": called},
        "finish_reason": reason}]});
    let pieces = |text: &str| -> Vec<String> {
        let letters: Vec<char> = text.chars().collect();
        letters.chunks(cut).map(|piece| piece.iter().collect()).collect()
    };
    let mut deltas = vec![json!({"role": "assistant", "content": "", "refusal": null})];
    for piece in content.iter().flat_map(|text| pieces(text)) {
        deltas.push(json!({"content": piece}));
    }
    for piece in refusal.iter().flat_map(|text| pieces(text)) {
        deltas.push(json!({"refusal": piece}));
    }
    let mut rest = Vec::new();
    for (at, (name, arguments)) in calls.iter().enumerate() {
        deltas.push(json!({"tool_calls": [{"index": at, "id": format!("call_{at}"), "type": "function",
            "function": {"name": name, "arguments": ""}}]}));
        for (turn, piece) in pieces(arguments).into_iter().enumerate() {
            rest.push((turn, json!({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})));
        }
    }
    // in turns
    rest.sort_by_key(|(turn, _)| *turn);
    deltas.extend(rest.into_iter().map(|(_, delta)| delta));
    let mut choices: Vec<Value> = deltas.into_iter().map(|delta| json!({"delta": delta})).collect();
    choices.push(json!({"delta": {}, "finish_reason": reason}));
    let mut stream = joined(&choices);
    let last = json!({"model": "gpt-x", "service_tier": "default", "choices": [], "usage": usage});
    stream.extend_from_slice(&sse::event(&last.to_string()));
    stream.extend_from_slice(DONE);
    (whole, stream)
}

/// What a client has that adds up the deltas.
fn added_up(events: &[Value]) -> Value {
    let mut output: Vec<Value> = Vec::new();
    for event in events {
        let at = event["output_index"].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
        let part =
            event["content_index"].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
        let more = event["delta"].as_str().unwrap_or_default();
        let grow = |text: &mut Value| *text = json!(format!("{}{more}", text.as_str().unwrap_or_default()));
        match event["type"].as_str().unwrap_or_default() {
            "response.output_item.added" => output.push(event["item"].clone()),
            "response.content_part.added" => {
                output[at]["content"].as_array_mut().expect("parts").push(event["part"].clone());
            }
            "response.output_text.delta" => grow(&mut output[at]["content"][part]["text"]),
            "response.refusal.delta" => grow(&mut output[at]["content"][part]["refusal"]),
            "response.function_call_arguments.delta" => grow(&mut output[at]["arguments"]),
            "response.output_text.done" => assert_eq!(output[at]["content"][part]["text"], event["text"]),
            "response.refusal.done" => assert_eq!(output[at]["content"][part]["refusal"], event["refusal"]),
            "response.function_call_arguments.done" => {
                assert_eq!(output[at]["arguments"], event["arguments"]);
            }
            "response.content_part.done" => assert_eq!(output[at]["content"][part], event["part"]),
            "response.output_item.done" => {
                output[at]["status"] = event["item"]["status"].clone();
                assert_eq!(output[at], event["item"]);
            }
            _ => {}
        }
    }
    json!(output)
}

proptest! {
    #[test]
    fn a_stream_ends_as_the_response_that_the_whole_answer_is(
        content in proptest::option::of(".{0,12}"),
        refusal in proptest::option::of("[a-z\"\\\\]{0,5}"),
        calls in proptest::collection::vec(("[a-z]{1,4}", ".{0,8}"), 0..4),
        reason in prop_oneof![Just("stop"), Just("tool_calls"), Just("length"), Just("content_filter")],
        cut in 1usize..5,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (chat, stream) = both_ways(&content, &refusal, &calls, reason, cut);
        let (out, ended) = streamed(&[&stream]);
        prop_assert!(ended);
        let events = events_of(&out);
        let last = events.last().expect("a last event");
        prop_assert_eq!(&last["response"], &whole(&chat, &echo()));
        prop_assert_eq!(added_up(&events), last["response"]["output"].clone());
        // the same events, wherever the stream is cut
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut from = 0;
        for cut in cuts {
            parts.push(&stream[from..cut]);
            from = cut;
        }
        parts.push(&stream[from..]);
        prop_assert_eq!(streamed(&parts).0, out);
    }
}
