//! Log lines: one a request in JSON, and no word of a prompt, an answer or a secret anywhere.

use serde_json::{Value, json};

use super::CHAT;
use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat};

/// The lines that a gateway logged of requests.
fn lines(gateway: &TestGateway) -> Vec<Value> {
    let log = gateway.log();
    let json = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    json.filter(|line| line["target"] == "tunegate::request").collect()
}

#[track_caller]
fn line_of(gateway: &TestGateway, request_id: &str) -> Value {
    eventually("the line of a request", || {
        let mut found = lines(gateway).into_iter().filter(|line| line["request_id"] == request_id);
        let line = found.next()?;
        assert!(found.next().is_none(), "one line a request");
        Some(line)
    })
}

#[test]
fn a_request_is_one_line_with_the_outcomes_names() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).log("format = \"json\"").and("\n[teams.support]\n");
    let gateway = TestGateway::with(setup).start();
    let made =
        gateway.admin(Call::post("/admin/v1/keys", &json!({"alias": "app", "team": "support"}))).expect(201);
    let key = made.json()["key"].as_str().expect("shown once").to_owned();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = Call::post(CHAT, &streamed_chat("support-bot", "hi")).bearer(&key);
    let call = call.header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let id = gateway.call(call).expect(200).request_id();
    let (line, outcome) = (line_of(&gateway, &id), gateway.outcome_of(&id));
    assert_eq!((&line["level"], &line["message"]), (&json!("INFO"), &json!("request")));
    assert_eq!((&line["key"], &line["team"]), (&json!("app"), &json!("support")));
    assert_eq!((&line["trace_id"], &line["attempts"]), (&json!(trace), &json!(1)));
    for name in [
        "request_id",
        "trace_id",
        "endpoint",
        "key",
        "team",
        "model",
        "deployment",
        "stream",
        "ending",
        "status",
        "duration_us",
        "overhead_us",
        "first_byte_us",
        "attempts",
    ] {
        assert!(!line[name].is_null(), "{name} is missing in {line}");
        assert_eq!(line[name], outcome[name], "{name}");
    }
    for name in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(line[name], outcome["usage"][name], "{name}");
    }
    assert_eq!(line["usage_source"], outcome["usage"]["source"]);
    let cost: f64 = line["cost_usd"].as_str().and_then(|cost| cost.parse().ok()).expect("money");
    assert_eq!(Some(cost), outcome["cost_usd"].as_f64());
    // what there is nothing to say of is not there
    assert!(line.get("code").is_none() && line["failed_attempts"] == 0, "{line}");
    let refused = gateway.post(CHAT, &chat("nobody", "hi")).expect(404).request_id();
    let line = line_of(&gateway, &refused);
    assert_eq!(
        (&line["code"], &line["status"], &line["attempts"]),
        (&json!("model_not_found"), &json!(404), &json!(0))
    );
    assert!(line.get("team").is_none() && line.get("deployment").is_none(), "{line}");
}

#[test]
fn lines_of_requests_can_be_switched_off_alone() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).log("format = \"json\"");
    let quiet = setup.level("info,tunegate::request=off");
    let gateway = TestGateway::with(quiet).start();
    let id = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id();
    gateway.outcome_of(&id);
    provider.replies(Reply::trouble(Trouble::server_error()));
    gateway.post(CHAT, &chat("support-bot", "hi"));
    eventually("the word about the upstream", || gateway.log().contains("\"WARN\"").then_some(()));
    assert!(lines(&gateway).is_empty(), "{}", gateway.log());
}

#[test]
fn no_word_of_anybody_is_logged_counted_or_kept() {
    let provider = SimulatedProvider::start();
    provider.says("Xylophonanswer");
    let gateway = TestGateway::with(Setup::in_front_of(&provider).log("format = \"json\"")).start();
    let text = "Xylophonprompt";
    let chats = ["support-bot", "azure-bot", "classic-bot", "thinker", "openai/gpt-4.1"];
    for model in chats {
        for mut body in [chat(model, text), streamed_chat(model, text)] {
            body["user"] = json!("Xylophonuser");
            gateway.post(CHAT, &body).expect(200);
        }
    }
    for (path, body) in [
        ("/v1/completions", json!({"model": "support-bot", "prompt": text})),
        ("/v1/responses", json!({"model": "support-bot", "input": text, "instructions": text})),
        ("/v1/responses", json!({"model": "support-bot", "input": text, "stream": true})),
        ("/v1/embeddings", json!({"model": "embedder", "input": text})),
        ("/v1/moderations", json!({"model": "openai/omni-moderation-latest", "input": text})),
    ] {
        assert!(gateway.post(path, &body).status < 500, "{path}");
    }
    let trouble =
        json!({"error": {"message": "went wrong", "code": "Xylophoncode", "param": "Xylophonparam"}});
    for status in [400, 401, 404, 429, 500] {
        provider.replies(Reply::json(status, &trouble));
        gateway.post(CHAT, &chat("support-bot", text));
    }
    for reply in [
        Reply::usual().resets_after_events(3),
        Reply::body(200, "application/json", b"{\"Xylophongarbage".to_vec()).billed(9, 9),
        Reply::body(200, "text/html", b"<p>Xylophonpage".to_vec()).billed(9, 9),
    ] {
        provider.replies(reply);
        gateway.post(CHAT, &streamed_chat("support-bot", text));
    }
    let mut left = gateway.open(CHAT, &streamed_chat("support-bot", text));
    left.await_events(1);
    drop(left);
    gateway.post(CHAT, &json!({"model": ["Xylophonmodel"], "messages": text}));
    gateway.call(Call::new("POST", CHAT).body("application/json", b"{\"Xylophonjson")).expect(400);
    let stranger = "sk-tg-Xylophonkey-Xylophonkey";
    gateway.call(Call::post("/v1/Xylophonpath?Xylophonquery=1", &chat("a", text))).expect(404);
    gateway
        .call(Call::post(CHAT, &chat("a", text)).bearer(stranger).header("user-agent", "Xylophonagent"))
        .expect(401);
    let asked = gateway.outcomes().len();
    eventually("a line for each", || (lines(&gateway).len() >= asked.max(25)).then_some(()));
    let admin_key = std::fs::read_to_string(gateway.folder().join("state/admin_key")).expect("a key");
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let requests = gateway.admin(Call::get("/admin/v1/requests?limit=1000")).expect(200).text();
    // without the banner, which shows the first key
    let log = gateway.log();
    let log: String = log.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n");
    for (place, said) in [("the log", &log), ("/metrics", &metrics), ("/admin/v1/requests", &requests)] {
        for word in ["Xylophon", UPSTREAM_KEY, gateway.key(), admin_key.trim()] {
            let line = said.lines().find(|line| line.contains(word)).unwrap_or_default();
            assert!(!said.contains(word), "{word} is in {place}: {line}");
        }
    }
}
