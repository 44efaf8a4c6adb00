//! Every way the data address says no by itself.

use serde_json::{Value, json};

use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn without_a_good_key_nothing_goes_upstream() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = chat("support-bot", "hi");
    let wrong_by_one = {
        let mut key = gateway.key().to_owned();
        let last = if key.pop() == Some('A') { 'B' } else { 'A' };
        key.push(last);
        key
    };
    for value in ["Bearer sk-wrong", "Bearer ", "Basic abc", "", &format!("Bearer {wrong_by_one}")] {
        let answer = gateway.call(Call::post(CHAT, &body).header("authorization", value));
        let error = answer.expect_error(401, "invalid_api_key");
        assert!(!answer.text().contains(&wrong_by_one), "a key in the answer: {error}");
    }
    // A bare connection, so that no key is added.
    let answer = gateway.connect().call(&Call::post(CHAT, &body));
    answer.expect_error(401, "invalid_api_key");
    gateway.call(Call::post(CHAT, &body).header("api-key", "nonsense")).expect_error(401, "invalid_api_key");
    assert!(provider.requests().is_empty());
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!((&outcome["ending"], &outcome["usage"]), (&json!("refused"), &json!(null)));
    assert!(!gateway.log().contains(&wrong_by_one), "a presented key is in the log");
}

#[test]
fn an_unknown_model_is_not_found_and_named() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for path in [CHAT, "/v1/completions", "/v1/embeddings", "/v1/responses"] {
        let body = json!({"model": "no-such-bot", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi",
            "input": "hi"});
        let error = gateway.post(path, &body).expect_error(404, "model_not_found");
        assert_eq!(error["param"], "model", "{path}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("no-such-bot")), "{error}");
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn a_body_that_cannot_be_metered_is_refused_with_its_place() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let cases: [(&str, &str, &str, Value); 13] = [
        (CHAT, "no body", "", json!(null)),
        (CHAT, "not JSON", "{\"model\": \"support-bot\"", json!(null)),
        (CHAT, "trailing bytes", "{\"model\":\"support-bot\",\"messages\":[]} x", json!(null)),
        (CHAT, "not an object", "[1]", json!(null)),
        (CHAT, "no model", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", json!("model")),
        (
            CHAT,
            "a model that is a number",
            "{\"model\":1,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            json!("model"),
        ),
        (
            CHAT,
            "an empty model",
            "{\"model\":\"\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            json!("model"),
        ),
        (CHAT, "no messages", "{\"model\":\"support-bot\"}", json!("messages")),
        (
            CHAT,
            "messages that are a string",
            "{\"model\":\"support-bot\",\"messages\":\"hi\"}",
            json!("messages"),
        ),
        (
            CHAT,
            "a stream that is a string",
            "{\"model\":\"support-bot\",\"stream\":\"yes\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
            json!("stream"),
        ),
        ("/v1/embeddings", "no input", "{\"model\":\"embedder\"}", json!("input")),
        ("/v1/completions", "no model", "{\"prompt\":\"hi\"}", json!("model")),
        ("/v1/responses", "no model", "{\"input\":\"hi\"}", json!("model")),
    ];
    for (path, case, body, param) in cases {
        let answer = gateway.call(Call::new("POST", path).body("application/json", body.as_bytes()));
        assert_eq!(answer.status, 400, "{case}: {}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "{case}: {error}");
        assert_eq!(error["param"], param, "{case}: {error}");
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn the_same_member_twice_cannot_mean_two_models() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = br#"{"model":"support-bot","model":"embedder","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = gateway.call(Call::new("POST", CHAT).body("application/json", body));
    if answer.status == 200 {
        let names = String::from_utf8_lossy(&provider.last_request().body).matches("\"model\"").count();
        assert_eq!(names, 1, "two models went upstream");
    } else {
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
}

#[test]
fn a_model_name_hidden_behind_an_escape_is_the_same_name() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = br#"{"mod\u0065l":"support\u002dbot","messages":[{"role":"user","content":"hi"}]}"#;
    gateway.call(Call::new("POST", CHAT).body("application/json", body)).expect(200);
    assert_eq!(provider.last_request().json()["model"], crate::support::setup::FINE_TUNED);
}

#[test]
fn too_large_a_body_is_refused_whether_announced_or_in_chunks() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider).server("max_body_bytes = 4096")).start();
    let body = chat("support-bot", &"x".repeat(5_000));
    let answer = gateway.post(CHAT, &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(
        answer.json()["error"]["message"].as_str().is_some_and(|text| text.contains("4096")),
        "{}",
        answer.text()
    );
    let mut connection = gateway.connect();
    connection.write(
        format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n", gateway.key())
            .as_bytes(),
    );
    for _ in 0..10 {
        connection.write(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes());
    }
    assert_eq!(connection.answer().status, 413);
    assert!(provider.requests().is_empty());
    gateway.post(CHAT, &chat("support-bot", "small enough")).expect(200);
}

#[test]
fn unknown_and_unmetered_endpoints_are_not_passed_on() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for path in [
        "/v1/batches",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/v1/realtime/sessions",
        "/v1/assistants",
        "/v1/nonsense",
        "/nonsense",
        "/v1/chat/completions/extra/deep",
        "/openai/deployments/support-bot/audio/speech?api-version=2024-10-21",
        "/openai/deployments/support-bot/images/generations?api-version=2024-10-21",
        "/v1//chat/completions",
        "/v1/../admin/v1/keys",
        "/admin/v1/keys",
        "/metrics",
    ] {
        gateway.post(path, &chat("support-bot", "hi")).expect_error(404, "unsupported_endpoint");
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn the_wrong_method_is_told_apart_from_the_wrong_path() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (method, path) in [
        ("GET", CHAT),
        ("DELETE", "/v1/embeddings"),
        ("PUT", "/v1/completions"),
        ("POST", "/v1/models"),
        ("PATCH", "/openai/v1/chat/completions"),
        ("POST", "/livez"),
    ] {
        let answer = gateway.call(Call::new(method, path));
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
        let allow = answer.header("allow").unwrap_or_default().to_owned();
        assert!(!allow.is_empty() && !allow.contains(method), "{method} {path}: allow: {allow}");
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn every_refusal_is_counted_once_and_has_its_own_id() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let ids: std::collections::BTreeSet<String> =
        (0..5).map(|_| gateway.post(CHAT, &chat("no-such-bot", "hi")).request_id()).collect();
    assert_eq!(ids.len(), 5);
    let refused = gateway.outcomes();
    let found: std::collections::BTreeSet<String> =
        refused.iter().filter_map(|outcome| outcome["request_id"].as_str().map(str::to_owned)).collect();
    assert_eq!(found, ids);
    assert!(refused.iter().all(|outcome| outcome["code"] == "model_not_found"), "{refused:#?}");
}
