//! `POST /v1/chat/completions`, whole answers.

use serde_json::json;

use crate::support::provider::UPSTREAM_KEY;
use crate::support::setup::FINE_TUNED;
use crate::support::{Call, End, Reply, Setup, SimulatedProvider, TestGateway, chat};

const PATH: &str = "/v1/chat/completions";

#[test]
fn a_whole_answer_is_served_metered_and_named() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &chat("support-bot", "how many crates fit")).expect(200);
    let said = &answer.json()["choices"][0]["message"]["content"];
    assert_eq!(said, "Four crates fit on the pallet.");
    assert_eq!(answer.end, End::Clean);
    let outcome = gateway.outcome_of(&answer.request_id());
    for (member, value) in [
        ("endpoint", json!("chat.completions")),
        ("model", json!("support-bot")),
        ("asked", json!("support-bot")),
        ("deployment", json!("support-v3")),
        ("stream", json!(false)),
        ("ending", json!("served")),
        ("status", json!(200)),
        ("upstream_status", json!(200)),
        ("code", json!(null)),
    ] {
        assert_eq!(outcome[member], value, "{member} in {outcome:#}");
    }
    let usage = json!({"prompt_tokens": 4, "cached_tokens": 0, "cache_write_tokens": 0, "audio_prompt_tokens": 0,
        "completion_tokens": 6, "reasoning_tokens": 0, "audio_completion_tokens": 0,
        "compute_us": 0, "source": "reported"});
    assert_eq!(outcome["usage"], usage);
    assert!(outcome["duration_us"].as_u64() >= outcome["first_byte_us"].as_u64(), "{outcome:#}");
    assert!(outcome["key"].is_string(), "{outcome:#}");
}

#[test]
fn the_body_goes_up_as_it_came_but_for_the_models_name() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let sent = r#"{ "messages": [{"role":"user","content":"Z\u00fcrich \ud83d\ude9a 🚚"}] , "x_new": 1.50e+3,
        "big": 12345678901234567890123, "model" : "support-bot","metadata":{"model":"support-bot"} }"#;
    gateway.call(Call::new("POST", PATH).body("application/json", sent.as_bytes())).expect(200);
    let body = String::from_utf8(provider.last_request().body).expect("UTF-8");
    let expected = sent.replacen(r#""model" : "support-bot""#, &format!(r#""model" : "{FINE_TUNED}""#), 1);
    assert_eq!(body, expected);
}

#[test]
fn the_answer_comes_down_as_the_provider_wrote_it() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let written = "{\n  \"id\": \"chatcmpl-1\", \"x_new\": 1.50e+3, \"choices\": [ ],\n  \
                   \"usage\": {\"prompt_tokens\": 0, \"completion_tokens\": 0, \"total_tokens\": 0}\n}\n";
    let reply = Reply::body(200, "application/json", written.as_bytes().to_vec()).billed(0, 0);
    provider.replies(reply);
    let answer = gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    assert_eq!(answer.text(), written);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn credentials_stop_at_the_gateway() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = gateway.key().to_owned();
    for (name, value) in
        [("authorization", format!("Bearer {key}")), ("api-key", key.clone()), ("x-api-key", key.clone())]
    {
        let call = Call::post(PATH, &chat("support-bot", "hi")).header(name, &value).header("cookie", "a=b");
        gateway.call(call).expect(200);
        let seen = provider.last_request();
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()), "{name}");
        let leaked: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains(&key)).collect();
        assert!(leaked.is_empty(), "our key went upstream: {leaked:?}");
        assert_eq!(seen.header("cookie"), None);
        let coding = seen.header("accept-encoding");
        assert!(matches!(coding, None | Some("identity")), "accept-encoding: {coding:?}");
    }
}

#[test]
fn headers_that_bind_to_one_connection_or_one_client_do_not_come_down() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let reply = Reply::usual()
        .with_header("set-cookie", "__cf_bm=1; path=/")
        .with_header("keep-alive", "timeout=5")
        .with_header("connection", "x-private")
        .with_header("x-private", "1")
        .with_header("x-ratelimit-remaining-tokens", "149984");
    provider.replies(reply);
    let answer = gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    for name in ["set-cookie", "keep-alive", "x-private"] {
        assert_eq!(answer.header(name), None, "{:?}", answer.headers);
    }
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("149984"));
    assert_eq!(answer.header("openai-processing-ms"), Some("12"));
}

#[test]
fn tools_and_choices_travel() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut body = chat("support-bot", "weather in Zürich");
    body["tools"] =
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    let answer = gateway.post(PATH, &body).expect(200).json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["arguments"], "{\"city\":\"Zürich\"}");
    let mut body = chat("support-bot", "hi");
    body["n"] = json!(3);
    let answer = gateway.post(PATH, &body).expect(200).json();
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(gateway.last_outcome()["usage"]["completion_tokens"], 18);
}

#[test]
fn reasoning_is_booked_as_a_part_of_the_completion() {
    let provider = SimulatedProvider::start();
    provider.thinks(40);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &chat("thinker", "hi")).expect(200);
    let usage = gateway.outcome_of(&answer.request_id())["usage"].clone();
    assert_eq!((&usage["completion_tokens"], &usage["reasoning_tokens"]), (&json!(46), &json!(40)));
}

#[test]
fn a_pattern_hands_its_rest_to_the_provider() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &chat("openai/gpt-4.1-nano", "hi")).expect(200);
    assert_eq!(provider.last_request().json()["model"], "gpt-4.1-nano");
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["model"], "openai/*", "the catalog's entry, a bounded set");
    assert_eq!(outcome["asked"], "openai/gpt-4.1-nano");
}

#[test]
fn the_path_works_without_v1_and_with_a_query() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for path in ["/chat/completions", "/v1/chat/completions?beta=true"] {
        gateway.post(path, &chat("support-bot", "hi")).expect(200);
    }
    assert_eq!(provider.requests().len(), 2);
}

#[test]
fn a_request_in_chunks_arrives_whole() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let words = "word ".repeat(60_000);
    let body = chat("support-bot", words.trim()).to_string();
    let mut wire = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        gateway.key()
    )
    .into_bytes();
    for chunk in body.as_bytes().chunks(7_001) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    let mut connection = gateway.connect();
    connection.write(&wire);
    connection.answer().expect(200);
    assert_eq!(provider.last_request().body.len(), body.len() - "support-bot".len() + FINE_TUNED.len());
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut connection = gateway.connect();
    for _ in 0..3 {
        connection.call(&gateway.signed(Call::post(PATH, &chat("support-bot", "hi")))).expect(200);
    }
    let upstream: Vec<usize> = provider.requests().iter().map(|request| request.connection).collect();
    assert_eq!(upstream, [0, 0, 0], "the upstream connection is kept too");
}

#[test]
fn a_kept_connection_that_the_provider_closed_is_not_the_clients_problem() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for _ in 0..20 {
        provider.replies(Reply::usual().then_closes());
        gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    }
    assert_eq!(provider.requests().len(), 20, "nothing was asked twice");
}

#[test]
fn compression_that_nobody_asked_for_is_undone_and_metered() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().gzipped());
    let answer = gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Four crates fit on the pallet.");
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["source"], "reported");
}

#[test]
fn the_next_deployment_serves_when_the_first_cannot_be_reached() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider)
        .model("dead", "http://127.0.0.1:9/v1", "", "")
        .and("[models.two-homes]\ndeployments = [\"dead\", \"support-v3\"]\n");
    let gateway = TestGateway::with(setup).start();
    let answer = gateway.post(PATH, &chat("two-homes", "hi")).expect(200);
    assert_eq!(gateway.outcome_of(&answer.request_id())["deployment"], "support-v3");
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let line = "tunegate_upstream_errors_total{deployment=\"dead\",kind=\"upstream_unreachable\"} 1\n";
    assert!(metrics.contains(line), "the one that was passed over is counted:\n{metrics}");
}

#[test]
fn the_next_deployment_is_not_asked_after_an_answer() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider)
        .and("[models.two-homes]\ndeployments = [\"support-v3\", \"drainer\"]\n");
    let gateway = TestGateway::with(setup).start();
    provider.fails(crate::support::provider::Trouble::server_error());
    gateway.post(PATH, &chat("two-homes", "hi")).expect(500);
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn many_clients_at_once_are_each_booked_once() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                for n in 0..10 {
                    let words = "word ".repeat(client * 10 + n + 1);
                    gateway.post(PATH, &chat("support-bot", &words)).expect(200);
                }
            });
        }
    });
    let mut prompts: Vec<u64> =
        gateway.outcomes().iter().filter_map(|outcome| outcome["usage"]["prompt_tokens"].as_u64()).collect();
    prompts.sort_unstable();
    assert_eq!(prompts, (1..=80).collect::<Vec<u64>>());
}

#[test]
fn an_answer_says_what_it_cost_and_so_does_its_request_for_its_own_key_alone() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &chat("support-bot", "how many crates fit")).expect(200);
    let id = answer.request_id();
    assert_eq!(answer.header("x-tunegate-request-id"), Some(id.as_str()));
    assert_eq!(answer.header("x-tunegate-cache"), Some("bypass"));
    assert_eq!(answer.header("x-tunegate-cache-reason"), Some("off"));
    // 4 tokens at 0.80 USD and 6 at 3.20 USD per 1M
    assert_eq!(answer.header("x-tunegate-cost-usd"), Some("0.0000224"));
    let path = format!("/v1/tunegate/requests/{id}");
    let report = crate::support::eventually("a settled request", || {
        let report = gateway.get(&path).expect(200).json();
        (report["settled"] == true && report["cost_usd"] != json!(0.0)).then_some(report)
    });
    assert_eq!(report["cost_usd"], json!(0.000_022_4));
    assert_eq!(
        (&report["outcome"]["status"], &report["outcome"]["model"]),
        (&json!(200), &json!("support-bot"))
    );
    assert_eq!(report["entries"].as_array().map(Vec::len), Some(2), "{report:#}");
    let other = gateway.admin(Call::post("/admin/v1/keys", &json!({"alias": "other"}))).expect(201).json();
    let other = other["key"].as_str().expect("a key").to_owned();
    gateway.call(Call::get(&path).bearer(&other)).expect_error(404, "request_not_found");
    gateway.get("/v1/tunegate/requests/req_unknown").expect_error(404, "request_not_found");
}
