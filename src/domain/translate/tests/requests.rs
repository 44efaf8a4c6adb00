//! Each member of a request: what becomes of it, or by which name it is refused.

use serde_json::{Value, json};

use crate::domain::translate::{Untranslatable, Why, chat_of};

fn translated(body: &Value) -> Result<Value, Untranslatable> {
    let chat = chat_of(body.to_string().as_bytes())?;
    Ok(serde_json::from_slice(&chat).expect("a chat completion is JSON"))
}

/// `base` with the members of `more`.
fn with(base: Value, more: &Value) -> Value {
    let (Value::Object(mut base), Value::Object(more)) = (base, more) else { unreachable!("two objects") };
    base.extend(more.clone());
    Value::Object(base)
}

#[test]
fn each_member_has_its_place() {
    let f = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let chat_f = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let table = [
        (json!({}), json!({})),
        (json!({"instructions": null, "store": null, "tools": null, "whatever": null}), json!({})),
        (json!({"max_output_tokens": 40}), json!({"max_completion_tokens": 40})),
        (json!({"temperature": 0.2, "top_p": 0.9}), json!({"temperature": 0.2, "top_p": 0.9})),
        (json!({"store": false, "background": false, "truncation": "disabled"}), json!({})),
        (json!({"metadata": {"a": "b"}}), json!({})),
        (json!({"service_tier": "flex"}), json!({"service_tier": "flex"})),
        (json!({"user": "u", "safety_identifier": "s"}), json!({"user": "u", "safety_identifier": "s"})),
        (json!({"prompt_cache_key": "k"}), json!({"prompt_cache_key": "k"})),
        (
            json!({"prompt_cache_options": {"mode": "explicit"}, "prompt_cache_retention": "24h"}),
            json!({"prompt_cache_options": {"mode": "explicit"}, "prompt_cache_retention": "24h"}),
        ),
        (json!({"stream": false, "stream_options": {"include_obfuscation": false}}), json!({})),
        (json!({"stream": true}), json!({"stream": true, "stream_options": {"include_usage": true}})),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": false}}),
            json!({"stream": true,
                "stream_options": {"include_usage": true, "include_obfuscation": false}}),
        ),
        (json!({"reasoning": {"effort": "low", "summary": null}}), json!({"reasoning_effort": "low"})),
        (json!({"reasoning": {"mode": "standard", "context": "current_turn"}}), json!({})),
        (json!({"include": ["message.output_text.logprobs"]}), json!({"logprobs": true})),
        (
            json!({"include": ["message.output_text.logprobs"], "top_logprobs": 3}),
            json!({"logprobs": true, "top_logprobs": 3}),
        ),
        (json!({"include": [], "top_logprobs": 0}), json!({})),
        (json!({"text": {"format": {"type": "text"}, "verbosity": "low"}}), json!({"verbosity": "low"})),
        (
            json!({"text": {"format": {"type": "json_object"}}}),
            json!({"response_format": {"type": "json_object"}}),
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "description": "d",
                "schema": {"type": "object"}, "strict": true}}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n",
                "description": "d", "schema": {"type": "object"}, "strict": true}}}),
        ),
        (json!({"tools": [f]}), json!({"tools": [chat_f]})),
        (
            json!({"tools": [{"type": "function", "name": "g", "description": "d", "parameters": null,
                "strict": true, "defer_loading": false, "allowed_callers": ["direct"]}]}),
            json!({"tools": [{"type": "function",
                "function": {"name": "g", "description": "d", "strict": true}}]}),
        ),
        // without tools chat refuses to hear of calls
        (json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": true}), json!({})),
        (json!({"tool_choice": "required"}), json!({"tool_choice": "required"})),
        (
            json!({"tools": [f], "tool_choice": "none", "parallel_tool_calls": false}),
            json!({"tools": [chat_f], "tool_choice": "none", "parallel_tool_calls": false}),
        ),
        (
            json!({"tools": [f], "tool_choice": {"type": "function", "name": "f"}}),
            json!({"tools": [chat_f], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            json!({"tools": [f], "tool_choice": {"type": "allowed_tools", "mode": "auto",
                "tools": [{"type": "function", "name": "f"}]}}),
            json!({"tools": [chat_f], "tool_choice": {"type": "allowed_tools", "allowed_tools": {
                "mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}}),
        ),
    ];
    for (asked, want) in table {
        let body = with(json!({"model": "m", "input": "Hi"}), &asked);
        let base = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        assert_eq!(translated(&body), Ok(with(base, &want)), "{asked}");
    }
}

#[test]
fn items_become_messages() {
    let user = json!({"role": "user", "content": "Hi"});
    let call = |id: &str| {
        json!({"type": "function_call", "id": "fc_1", "status": "completed",
        "call_id": id, "name": "f", "arguments": "{\"a\":1}", "caller": {"type": "direct"}})
    };
    let called = |id: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": "f", "arguments": "{\"a\":1}"}})
    };
    let output = |id: &str, output: Value| json!({"type": "function_call_output", "call_id": id, "name": "f", "output": output});
    let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"});
    let table = [
        (json!("Hi"), json!([user])),
        (json!([user]), json!([user])),
        (
            json!([{"type": "message", "role": "user", "id": "msg_1", "status": "completed",
                "content": [{"type": "input_text", "text": "Hi"}]}]),
            json!([user]),
        ),
        (
            json!([{"role": "system", "content": "S"}, {"role": "developer", "content": [
                {"type": "input_text", "text": "D"}, {"type": "input_text", "text": "E"}]}]),
            json!([{"role": "system", "content": "S"}, {"role": "developer", "content": [
                {"type": "text", "text": "D"}, {"type": "text", "text": "E"}]}]),
        ),
        (
            json!([{"role": "user", "content": [
                {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "input_image", "image_url": "https://x.test/i.png", "detail": "low"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "file_id": null},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "input_file", "filename": "f.pdf", "file_data": "data:application/pdf;base64,AA=="},
                {"type": "input_file", "file_id": "file-1", "detail": "auto"}]}]),
            json!([{"role": "user", "content": [
                {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "https://x.test/i.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                {"type": "file", "file": {"filename": "f.pdf",
                    "file_data": "data:application/pdf;base64,AA=="}},
                {"type": "file", "file": {"file_id": "file-1"}}]}]),
        ),
        (
            json!([{"type": "message", "role": "assistant", "id": "msg_1", "content": [
                {"type": "output_text", "text": "A", "annotations": [], "logprobs": [{}]}]}]),
            json!([{"role": "assistant", "content": "A"}]),
        ),
        (
            json!([{"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}]),
            json!([{"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}]),
        ),
        // one turn of the assistant's is one message
        (
            json!([user, {"role": "assistant", "content": "Look"}, call("a"), call("b"),
                output("a", json!("1")), output("b", json!([{"type": "input_text", "text": "2"}])),
                call("c"), output("c", json!("3"))]),
            json!([user, {"role": "assistant", "content": "Look", "tool_calls": [called("a"), called("b")]},
                {"role": "tool", "content": "1", "tool_call_id": "a"},
                {"role": "tool", "content": "2", "tool_call_id": "b"},
                {"role": "assistant", "content": null, "tool_calls": [called("c")]},
                {"role": "tool", "content": "3", "tool_call_id": "c"}]),
        ),
        // a turn that is over
        (
            json!([user, thought, {"role": "assistant", "content": "A"}, user]),
            json!([user, {"role": "assistant", "content": "A"}, user]),
        ),
    ];
    for (input, want) in table {
        let chat = translated(&json!({"model": "m", "input": input})).expect("translatable");
        assert_eq!(chat["messages"], want, "{input}");
    }
    let body = json!({"model": "m", "instructions": "Be brief", "input": [user]});
    let chat = translated(&body).expect("translatable");
    assert_eq!(chat["messages"], json!([{"role": "system", "content": "Be brief"}, user]));
}

#[test]
fn what_chat_can_not_do_is_refused_by_name() {
    use Why::{CanNotStore, Expected, Missing, NoEqual, Stored, Thought};
    let user = |part: Value| json!({"input": [{"role": "user", "content": "Hi"}, {"role": "user", "content": [part]}]});
    let tool = |tool: Value| json!({"tools": [{"type": "function", "name": "f"}, tool]});
    let table = [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id", Stored),
        (json!({"conversation": "conv_1"}), "conversation", Stored),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt", Stored),
        (json!({"store": true}), "store", CanNotStore),
        (json!({"background": true}), "background", CanNotStore),
        (json!({"truncation": "auto"}), "truncation", NoEqual),
        (json!({"max_tool_calls": 3}), "max_tool_calls", NoEqual),
        (json!({"context_management": []}), "context_management", NoEqual),
        (json!({"moderation": {"model": "m"}}), "moderation", NoEqual),
        (json!({"stop": "x"}), "stop", NoEqual),
        (json!({"made_up": 1}), "made_up", NoEqual),
        (json!({"reasoning": {"summary": "auto"}}), "reasoning.summary", NoEqual),
        (json!({"reasoning": {"generate_summary": "auto"}}), "reasoning.generate_summary", NoEqual),
        (json!({"reasoning": {"context": "all_turns"}}), "reasoning.context", NoEqual),
        (json!({"reasoning": {"mode": "pro"}}), "reasoning.mode", NoEqual),
        (
            json!({"include": ["reasoning.encrypted_content", "file_search_call.results"]}),
            "include[1]",
            NoEqual,
        ),
        (
            json!({"include": ["message.output_text.logprobs", "web_search_call.results"]}),
            "include[1]",
            NoEqual,
        ),
        (json!({"text": {"format": {"type": "grammar"}}}), "text.format.type", NoEqual),
        (json!({"text": {"format": {"type": "json_schema", "name": "n"}}}), "text.format.schema", Missing),
        (json!({"text": {"made_up": 1}}), "text.made_up", NoEqual),
        (json!({"text": 3}), "text", Expected("an object")),
        (json!({"stream_options": {"include_usage": true}}), "stream_options.include_usage", NoEqual),
        (tool(json!({"type": "web_search"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "file_search"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "code_interpreter"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "computer"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "mcp"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "image_generation"})), "tools[1].type", NoEqual),
        (tool(json!({"type": "custom", "name": "c"})), "tools[1].type", NoEqual),
        (tool(json!({"name": "c"})), "tools[1].type", Missing),
        (tool(json!({"type": "function"})), "tools[1].name", Missing),
        (
            tool(json!({"type": "function", "name": "g", "defer_loading": true})),
            "tools[1].defer_loading",
            NoEqual,
        ),
        (
            tool(json!({"type": "function", "name": "g", "allowed_callers": ["programmatic"]})),
            "tools[1].allowed_callers",
            NoEqual,
        ),
        (
            tool(json!({"type": "function", "name": "g", "output_schema": {}})),
            "tools[1].output_schema",
            NoEqual,
        ),
        (json!({"tools": {}}), "tools", Expected("an array")),
        (json!({"tool_choice": {"type": "web_search_preview"}}), "tool_choice.type", NoEqual),
        (
            json!({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}}),
            "tool_choice.tools[0].type",
            NoEqual,
        ),
        (json!({"tool_choice": 3}), "tool_choice", Expected("a string or an object")),
        (json!({"instructions": []}), "instructions", Expected("a string")),
        (json!({"input": null}), "input", Missing),
        (json!({"input": []}), "input", Missing),
        (json!({"input": 3}), "input", Expected("a string or an array")),
        (json!({"input": ["Hi"]}), "input[0]", Expected("an object")),
        (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), "input[0].type", Stored),
        (json!({"input": [{"type": "web_search_call", "id": "ws_1"}]}), "input[0].type", NoEqual),
        (json!({"input": [{"type": "custom_tool_call", "call_id": "c"}]}), "input[0].type", NoEqual),
        (
            json!({"input": [{"role": "user", "content": "Hi"}, {"type": "reasoning", "summary": []}]}),
            "input[1].type",
            Thought,
        ),
        (json!({"input": [{"id": "msg_1"}]}), "input[0].role", Missing),
        (json!({"input": [{"role": "tool", "content": "x"}]}), "input[0].role", NoEqual),
        (json!({"input": [{"role": "user"}]}), "input[0].content", Missing),
        (json!({"input": [{"role": "user", "content": "x", "made_up": 1}]}), "input[0].made_up", NoEqual),
        (
            json!({"input": [{"role": "assistant", "content": "x", "phase": "commentary"}]}),
            "input[0].phase",
            NoEqual,
        ),
        (user(json!({"type": "input_text"})), "input[1].content[0].text", Missing),
        (user(json!({"type": "input_text", "text": 3})), "input[1].content[0].text", Expected("a string")),
        (user(json!({"type": "output_text", "text": "x"})), "input[1].content[0].type", NoEqual),
        (user(json!({"type": "input_image", "file_id": "file-1"})), "input[1].content[0].file_id", Stored),
        (
            user(json!({"type": "input_image", "image_url": "x", "detail": "original"})),
            "input[1].content[0].detail",
            NoEqual,
        ),
        (user(json!({"type": "input_file", "file_url": "x"})), "input[1].content[0].file_url", NoEqual),
        (
            user(json!({"type": "input_file", "file_id": "x", "detail": "high"})),
            "input[1].content[0].detail",
            NoEqual,
        ),
        (user(json!({"type": "input_video"})), "input[1].content[0].type", NoEqual),
        (
            json!({"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].content[0].type",
            NoEqual,
        ),
        (
            json!({"input": [{"role": "assistant",
                "content": [{"type": "output_text", "text": "x", "annotations": [{}]}]}]}),
            "input[0].content[0].annotations",
            NoEqual,
        ),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c",
                "output": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].output[0].type",
            NoEqual,
        ),
        (json!({"input": [{"type": "function_call_output", "output": "x"}]}), "input[0].call_id", Missing),
        (
            json!({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}",
                "namespace": "n"}]}),
            "input[0].namespace",
            NoEqual,
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}",
                "caller": {"type": "program", "caller_id": "p"}}]}),
            "input[0].caller",
            NoEqual,
        ),
    ];
    for (asked, param, why) in table {
        let body = with(json!({"model": "m", "input": "Hi"}), &asked);
        assert_eq!(translated(&body), Err(Untranslatable { param: param.to_owned(), why }), "{asked}");
    }
}

#[test]
fn a_member_given_twice_is_refused() {
    for (body, param) in [
        (r#"{"input":"a","input":"b"}"#, "input"),
        (r#"{"input":[{"role":"user","content":"a","content":"b"}]}"#, "input[0].content"),
        (r#"{"input":"a","tools":[{"type":"function","name":"f","name":"g"}]}"#, "tools[0].name"),
    ] {
        let refused = chat_of(body.as_bytes()).expect_err("refused");
        assert_eq!((refused.param.as_str(), refused.why), (param, Why::Twice));
    }
}

#[test]
fn what_is_moved_stays_as_it_was_written() {
    let body = r#"{"input":"Z\u00fcrich","temperature":1.50,"tools":[{"type":"function","name":"f",
        "parameters":{"z":1e2, "a" : 0.10}}]}"#;
    let chat = chat_of(body.as_bytes()).expect("translatable");
    let want = concat!(
        r#"{"messages":[{"role":"user","content":"Z\u00fcrich"}],"#,
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"z":1e2, "a" : 0.10}}}],"#,
        r#""temperature":1.50}"#
    );
    assert_eq!(String::from_utf8_lossy(&chat), want);
}

#[test]
fn a_refusal_says_what_to_do() {
    let refused = translated(&json!({"input": "Hi", "store": true})).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "'store' can't be asked of a deployment that speaks only chat completions: the answer can't be stored \
         there; leave it out or set it to false"
    );
}
