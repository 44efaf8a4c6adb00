//! Routing through the door: who is asked, in which order, how often, and what that costs, whatever upstreams do.

mod detours;
mod faults;
mod overload;
mod plans;
mod retries;

use serde_json::{Value, json};

use crate::support::provider::UPSTREAM_KEY;
use crate::support::{Call, Setup, TestGateway};

const CHAT: &str = "/v1/chat/completions";
/// What deployments serve unless a test says otherwise; it is on the provider's price list and on ours.
const MODEL: &str = "gpt-4.1-mini-2025-04-14";

/// A catalog with the provider's credential and nothing else.
fn lab() -> Setup {
    Setup::bare().patient().file("upstream.key", UPSTREAM_KEY)
}

/// A provider and a deployment of one name; the lines go into the deployment's section.
fn deployment(name: &str, base_url: &str, lines: &str) -> String {
    served(name, base_url, MODEL, lines)
}

/// The same with the provider's own name for the model.
fn served(name: &str, base_url: &str, model: &str, lines: &str) -> String {
    format!(
        "\n[providers.{name}]\nkind = \"openai\"\nbase_url = \"{base_url}\"\n\
         api_key = {{ file = \"upstream.key\" }}\n\
         \n[deployments.{name}]\nprovider = \"{name}\"\nmodel = \"{model}\"\n{lines}\n"
    )
}

/// A model by its lines.
fn model(name: &str, lines: &str) -> String {
    format!("\n[models.\"{name}\"]\n{lines}\n")
}

/// A short question of an end user, with a cap, so that what is held is known.
fn question(model: &str, user: &str) -> Value {
    json!({"model": model, "max_tokens": 20, "user": user, "messages": [{"role": "user", "content": "hi"}]})
}

/// The same, streamed.
fn streamed(model: &str, user: &str) -> Value {
    let mut body = question(model, user);
    body["stream"] = true.into();
    body
}

/// The sum of a metric's lines for a deployment.
#[track_caller]
fn metric(gateway: &TestGateway, name: &str, deployment: &str) -> Option<u64> {
    let text = gateway.admin(Call::get("/metrics")).expect(200).text();
    let label = format!("deployment=\"{deployment}\"");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(&label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).reduce(|a, b| a + b)
}
