//! The data address, endpoint by endpoint.

mod azure;
mod chat;
mod client_gone;
mod completions;
mod embeddings;
mod errors;
mod limits;
mod metrics;
mod models;
mod prompts;
mod responses;
mod retirements;
mod smuggling;
mod splits;
mod streaming;
mod timeouts;
mod tls;
mod upstream_errors;
