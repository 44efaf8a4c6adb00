//! Azure's paths in front, Azure's dialects behind.

use serde_json::json;

use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, sse, streamed_chat};

#[test]
fn azure_shaped_paths_lead_to_the_same_models() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let words = json!({"messages": [{"role": "user", "content": "hi"}]});
    let key = gateway.key().to_owned();
    let post = |target: &str, body: &serde_json::Value| {
        gateway.call(Call::post(target, body).header("api-key", &key)).expect(200)
    };
    let version = "api-version=2024-10-21";
    post(&format!("/openai/deployments/support-bot/chat/completions?{version}"), &words);
    post(&format!("/openai/deployments/support-bot/completions?{version}"), &json!({"prompt": "hi"}));
    post(&format!("/openai/deployments/embedder/embeddings?{version}"), &json!({"input": "hi"}));
    post("/openai/v1/chat/completions", &chat("support-bot", "hi"));
    post("/openai/v1/responses", &json!({"model": "support-bot", "input": "hi"}));
    post(&format!("/openai/responses?{version}"), &json!({"model": "support-bot", "input": "hi"}));
    let paths: Vec<String> = provider.requests().iter().map(|request| request.target.clone()).collect();
    let expected = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/responses",
    ];
    assert_eq!(paths, expected, "the client's api-version is not the provider's business");
    gateway.get("/openai/v1/models").expect(200);
    gateway.get(&format!("/openai/models?{version}")).expect(200);
}

#[test]
fn the_deployment_in_the_path_wins_over_the_bodys_model() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let target = "/openai/deployments/support-bot/chat/completions?api-version=2024-10-21";
    let answer = gateway.post(target, &chat("something-else", "hi")).expect(200);
    assert_eq!(gateway.outcome_of(&answer.request_id())["model"], "support-bot");
}

#[test]
fn a_deployment_name_in_the_path_may_be_percent_encoded() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let name = crate::support::setup::FINE_TUNED.replace(':', "%3A");
    let target = format!("/openai/deployments/{name}/chat/completions?api-version=2024-10-21");
    gateway.post(&target, &json!({"messages": [{"role": "user", "content": "hi"}]})).expect(200);
}

#[test]
fn azure_v1_behind_names_the_deployment_in_the_body() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    gateway.post("/v1/chat/completions", &chat("azure-bot", "hi")).expect(200);
    let seen = provider.last_request();
    assert_eq!(seen.path(), "/openai/v1/chat/completions");
    assert_eq!(seen.header("api-key"), Some(UPSTREAM_KEY));
    assert_eq!(seen.json()["model"], "support-eu");
}

#[test]
fn azure_classic_behind_names_the_deployment_in_the_path() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    gateway.post("/v1/chat/completions", &chat("classic-bot", "hi")).expect(200);
    let seen = provider.last_request();
    assert_eq!(seen.target, "/openai/deployments/support-eu/chat/completions?api-version=2024-10-21");
    assert_eq!(seen.header("api-key"), Some(UPSTREAM_KEY));
    assert_eq!(seen.header("authorization"), None);
    gateway.post("/v1/responses", &json!({"model": "classic-bot", "input": "hi"})).expect(200);
    let seen = provider.last_request();
    assert_eq!(seen.target, "/openai/responses?api-version=2024-10-21");
    assert_eq!(seen.json()["model"], "support-eu");
}

#[test]
fn azures_first_chunk_without_choices_is_not_taken_for_the_usage_chunk() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post("/v1/chat/completions", &streamed_chat("azure-bot", "hi")).expect(200);
    let events = answer.events();
    let first = events[0].json();
    assert_eq!(first["choices"], json!([]));
    assert!(first["prompt_filter_results"].is_array(), "{first}");
    assert_eq!(sse::spoken(&events), "Four crates fit on the pallet.");
    assert!(!answer.text().contains("\"usage\""), "{}", answer.text());
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["source"], "reported");
}

#[test]
fn errors_of_azure_are_told_like_any_others() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let ask = || gateway.post("/v1/chat/completions", &chat("azure-bot", "hi"));
    provider.fails(Trouble::azure_deployment_not_found());
    let error = ask().expect_error(502, "upstream_deployment_missing");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("support-azure")), "{error}");
    provider.fails(Trouble::azure_unauthorized());
    ask().expect_error(502, "upstream_auth_failed");
    provider.fails(Trouble::azure(
        400,
        "OperationNotSupported",
        "The operation does not work with this model",
    ));
    assert_eq!(ask().expect(400).json()["error"]["code"], "OperationNotSupported");
    provider.fails(
        Trouble::azure(429, "RateLimitReached", "Please retry after 6 seconds")
            .with_header("retry-after", "6"),
    );
    assert_eq!(ask().expect(429).header("retry-after"), Some("6"));
}
