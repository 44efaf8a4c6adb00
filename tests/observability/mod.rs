//! What an operator sees of the gateway from outside.

mod health;
mod logs;
#[cfg(feature = "otel")]
mod traces;

/// The chat endpoint.
const CHAT: &str = "/v1/chat/completions";
