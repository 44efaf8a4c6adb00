//! `POST /v1/embeddings`, and `POST /v1/moderations`, which costs nothing.

use serde_json::json;

use crate::support::{Setup, SimulatedProvider, TestGateway};

#[test]
fn numbers_and_base64_come_as_the_provider_wrote_them() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut body = json!({"model": "embedder", "input": ["one two", "three"]});
    let answer = gateway.post("/v1/embeddings", &body).expect(200);
    assert_eq!(answer.json()["data"][1]["embedding"], json!([0.25, -0.5, 1.0]));
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["endpoint"], "embeddings");
    assert_eq!(
        (&outcome["usage"]["prompt_tokens"], &outcome["usage"]["completion_tokens"]),
        (&json!(3), &json!(0))
    );
    body["encoding_format"] = "base64".into();
    let answer = gateway.post("/v1/embeddings", &body).expect(200);
    assert_eq!(answer.json()["data"][0]["embedding"], "AACAPgAAAL8AAIA/");
}

#[test]
fn moderations_are_served_and_used_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"model": "openai/omni-moderation-latest", "input": "a kind word"});
    let answer = gateway.post("/v1/moderations", &body).expect(200);
    assert_eq!(answer.json()["results"][0]["flagged"], false);
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!((&outcome["endpoint"], &outcome["ending"]), (&json!("moderations"), &json!("served")));
}

#[test]
fn a_deployment_serves_only_its_endpoints() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).and(
        "[deployments.only-vectors]\nprovider = \"openai\"\nmodel = \"acme-embeddings\"\n\
         price_model = \"text-embedding-3-small\"\nendpoints = [\"embeddings\"]\n[models.only-vectors]\ndeployments = [\"only-vectors\"]\n",
    );
    let gateway = TestGateway::with(setup).start();
    gateway.post("/v1/embeddings", &json!({"model": "only-vectors", "input": "hi"})).expect(200);
    let refused = gateway.post("/v1/chat/completions", &crate::support::chat("only-vectors", "hi"));
    assert!(matches!(refused.status, 400 | 404), "{} {}", refused.status, refused.text());
    assert!(refused.json()["error"]["code"].is_string(), "{}", refused.text());
    assert_eq!(provider.requests().len(), 1);
}
