//! What the tests stand on: a simulated provider, a gateway process, and clients that see every byte.

pub(crate) mod client;
#[cfg(feature = "otel")]
pub(crate) mod collector;
pub(crate) mod exposition;
pub(crate) mod gateway;
pub(crate) mod journal;
pub(crate) mod multipart;
mod ports;
#[path = "../../src/store/testing/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod provider;
mod server;
pub(crate) mod setup;
pub(crate) mod sse;
mod sums;
pub(crate) mod tokens;
pub(crate) mod wait;

pub(crate) use client::{Answer, Call, Connection, End};
pub(crate) use gateway::TestGateway;
pub(crate) use ports::free_port;
pub(crate) use provider::{Gate, Reply, SimulatedProvider};
pub(crate) use setup::Setup;
pub(crate) use wait::eventually;

#[cfg(test)]
mod tests;

/// A chat request in one line.
pub(crate) fn chat(model: &str, words: &str) -> serde_json::Value {
    serde_json::json!({"model": model, "messages": [{"role": "user", "content": words}]})
}

/// A streamed chat request in one line.
pub(crate) fn streamed_chat(model: &str, words: &str) -> serde_json::Value {
    serde_json::json!({"model": model, "stream": true, "messages": [{"role": "user", "content": words}]})
}

/// A training file of so many chat rows, with eight words each.
pub(crate) fn training_rows(rows: usize) -> Vec<u8> {
    let row = |number| {
        serde_json::json!({"messages": [
            {"role": "system", "content": "You are a cat."},
            {"role": "user", "content": format!("Who comes {number}?")},
            {"role": "assistant", "content": "Meow!"},
        ]})
    };
    (1..=rows).map(|number| format!("{}\n", row(number))).collect::<String>().into_bytes()
}
