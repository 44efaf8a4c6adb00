use serde_json::json;

use super::*;

fn with(member: &str, value: &Value) -> Result<ChatRequest, Refusal> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    body[member] = value.clone();
    ChatRequest::parse(body.to_string().as_bytes())
}

fn code(refusal: &Refusal) -> (String, String) {
    let body: Value = serde_json::from_str(&refusal.to_json()).unwrap();
    let member = |name: &str| body["error"][name].as_str().unwrap_or("null").to_owned();
    (member("code"), member("param"))
}

#[test]
fn members_without_effect_are_accepted() {
    for (member, value) in [
        ("user", json!("u")),
        ("metadata", json!({"a": "b"})),
        ("store", json!(false)),
        ("service_tier", json!("auto")),
        ("safety_identifier", json!("s")),
        ("prompt_cache_key", json!("k")),
        ("tools", json!([])),
        ("tool_choice", json!("none")),
        ("parallel_tool_calls", json!(true)),
        ("response_format", json!({"type": "text"})),
        ("logprobs", json!(false)),
        ("presence_penalty", json!(0)),
        ("frequency_penalty", json!(0.0)),
        ("logit_bias", json!({})),
        ("n", json!(1)),
        ("modalities", json!(["text"])),
    ] {
        assert!(with(member, &value).is_ok(), "{member}");
    }
    for member in
        ["temperature", "stop", "tools", "logit_bias", "stream_options", "max_tokens", "response_format"]
    {
        assert!(with(member, &Value::Null).is_ok(), "{member} null");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (member, value, expected) in [
        ("tools", json!([{"type": "function"}]), "unsupported_parameter"),
        ("tool_choice", json!("auto"), "unsupported_value"),
        ("functions", json!([{}]), "unsupported_parameter"),
        ("logprobs", json!(true), "unsupported_value"),
        ("top_logprobs", json!(3), "unsupported_parameter"),
        ("n", json!(2), "unsupported_value"),
        ("logit_bias", json!({"1": 5}), "unsupported_parameter"),
        ("presence_penalty", json!(0.5), "unsupported_value"),
        ("frequency_penalty", json!(-1), "unsupported_value"),
        ("store", json!(true), "unsupported_value"),
        ("reasoning_effort", json!("low"), "unsupported_parameter"),
        ("modalities", json!(["audio"]), "unsupported_value"),
        ("temperature", json!(2.1), "invalid_value"),
        ("temperature", json!("hot"), "invalid_type"),
        ("top_p", json!(-0.1), "invalid_value"),
        ("max_tokens", json!(0), "invalid_value"),
        ("max_tokens", json!(1.5), "invalid_type"),
        ("max_completion_tokens", json!(-3), "invalid_value"),
        ("seed", json!("x"), "invalid_type"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "invalid_value"),
        ("stop", json!(""), "invalid_value"),
        ("stop", json!({}), "invalid_type"),
        ("stream", json!("yes"), "invalid_type"),
        ("stream_options", json!({"include_usage": true}), "invalid_value"),
        ("best_of", json!(1), "unknown_parameter"),
        ("surprise", json!(1), "unknown_parameter"),
        ("messages", json!([]), "invalid_value"),
        ("messages", json!("Hi"), "invalid_type"),
        ("messages", Value::Null, "missing_required_parameter"),
        ("model", Value::Null, "missing_required_parameter"),
        ("model", json!(1), "invalid_type"),
    ] {
        let refusal = with(member, &value).unwrap_err();
        assert_eq!(code(&refusal), (expected.to_owned(), member.to_owned()), "{value}");
    }
    let format = with("response_format", &json!({"type": "json_object"})).unwrap_err();
    assert_eq!(code(&format), ("unsupported_value".into(), "response_format.type".into()));
}

#[test]
fn both_limits_are_refused() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":1,"max_completion_tokens":1}"#;
    assert_eq!(code(&ChatRequest::parse(body).unwrap_err()).1, "max_tokens");
}

#[test]
fn contents_become_text() {
    let messages = json!([
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "annotations": [], "tool_calls": []},
    ]);
    let request = with("messages", &messages).unwrap();
    let flat: Vec<(&str, &str)> = request.messages.iter().map(|m| (m.role, m.content.as_str())).collect();
    assert_eq!(flat, [("system", "Be brief"), ("user", "ab"), ("assistant", "c")]);
    for (bad, param) in [
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            "messages[0].content[0].type",
        ),
        (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "assistant", "content": null, "tool_calls": [{}]}]), "messages[0].content"),
        (json!([{"role": "tool", "content": "x"}]), "messages[0].role"),
        (json!([{"role": "king", "content": "x"}]), "messages[0].role"),
        (json!([{"role": "user", "content": "x", "name": "Eve"}]), "messages[0].name"),
        (json!([{"role": "user", "content": "x", "mood": "sad"}]), "messages[0].mood"),
        (json!(["Hi"]), "messages[0]"),
    ] {
        assert_eq!(code(&with("messages", &bad).unwrap_err()).1, param, "{bad}");
    }
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["", "{", "[]", "null", "\"x\"", "{\"model\":}", "\u{FEFF}{}"] {
        assert!(ChatRequest::parse(body.as_bytes()).is_err(), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert!(ChatRequest::parse(deep.as_bytes()).is_err());
}

#[test]
fn a_seed_is_kept_and_else_drawn() {
    let seed = |value: &Value| with("seed", value).unwrap().generation.sampling.seed;
    assert_eq!(seed(&json!(7)), 7);
    assert_eq!(seed(&json!(-1)), u64::MAX);
    assert_ne!(seed(&Value::Null), seed(&Value::Null));
}
