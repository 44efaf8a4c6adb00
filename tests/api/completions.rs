//! `POST /v1/completions`.

use serde_json::json;

use crate::support::{Setup, SimulatedProvider, TestGateway};

const PATH: &str = "/v1/completions";

#[test]
fn a_whole_answer_is_metered() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"model": "support-bot", "prompt": ["one two", "three"], "max_tokens": 2});
    let answer = gateway.post(PATH, &body).expect(200);
    assert_eq!(answer.json()["choices"][0]["text"], "Four crates");
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["endpoint"], "completions");
    assert_eq!(
        (&outcome["usage"]["prompt_tokens"], &outcome["usage"]["completion_tokens"]),
        (&json!(3), &json!(2))
    );
}

#[test]
fn a_stream_is_metered_and_shows_no_usage_that_was_not_asked_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"model": "support-bot", "prompt": "one two", "stream": true});
    let answer = gateway.post(PATH, &body).expect(200);
    assert!(!answer.text().contains("usage"), "{}", answer.text());
    let events = answer.events();
    let text: String = events
        .iter()
        .filter(|e| !e.is_done())
        .map(|e| e.json()["choices"][0]["text"].as_str().map(str::to_owned))
        .map(Option::unwrap_or_default)
        .collect();
    assert_eq!(text, "Four crates fit on the pallet.");
    assert!(events.last().is_some_and(|event| event.is_done()), "{}", answer.text());
    assert_eq!(provider.last_request().json()["stream_options"], json!({"include_usage": true}));
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!((&outcome["stream"], &outcome["usage"]["source"]), (&json!(true), &json!("reported")));
}

#[test]
fn a_prompt_of_token_numbers_is_good() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &json!({"model": "support-bot", "prompt": [1, 2, 3]})).expect(200);
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["prompt_tokens"], 3);
}
