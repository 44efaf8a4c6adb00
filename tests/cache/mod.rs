//! The response cache through the door: what is kept and for whom, calls that several share, and what all of it costs.

mod control;
mod flights;
mod kept;
mod purge;
mod semantic;
mod tenants;

use serde_json::{Value, json};

use crate::support::{Answer, Setup, SimulatedProvider};

const CHAT: &str = "/v1/chat/completions";

/// A deployment on the provider and a model, `kept`, whose answers are kept: `cache` is its policy.
fn keeping(provider: &SimulatedProvider, cache: &str) -> Setup {
    Setup::in_front_of(provider).and(&format!(
        r#"
[deployments.keeper]
provider = "openai"
model = "gpt-4.1-mini-2025-04-14"

[models.kept]
deployments = ["keeper"]
cache = {{ {cache} }}
"#
    ))
}

/// A question whose answer may be kept.
fn question(words: &str) -> Value {
    json!({"model": "kept", "temperature": 0, "messages": [{"role": "user", "content": words}]})
}

/// The same, its answer as a stream.
fn streamed(words: &str) -> Value {
    let mut body = question(words);
    body["stream"] = true.into();
    body
}

/// What the cache did for an answer, and why it was left alone.
fn did(answer: &Answer) -> (&str, Option<&str>) {
    (answer.header("x-tunegate-cache").expect("told"), answer.header("x-tunegate-cache-reason"))
}

/// Makes a key, of a team if one is named, and returns its secret.
fn key(gateway: &crate::support::TestGateway, terms: &Value) -> String {
    let made = gateway.admin(crate::support::Call::post("/admin/v1/keys", terms)).expect(201).json();
    made["key"].as_str().expect("a secret").to_owned()
}
