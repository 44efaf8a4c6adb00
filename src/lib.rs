//! **tunegate**: a cost-aware gateway for fine-tuned language models.
//!
//! The rooms, from the top floor down; imports run downwards only (`tests/architecture.rs` holds that):
//!
//! 9. [`cli`] the commands ·
//! 8. [`app`] builds the gateway and starts its services ·
//! 7. [`config`] what the operator writes ·
//! 6. `http` the doors ·
//! 5. [`tuning`] the training plane ·
//! 4. `gateway` the data plane, [`control`] what operators do ·
//! 3. `upstream` live handles to deployments, [`worker`] the local backend ·
//! 2. [`store`] rows, `provider` dialects, [`telemetry`] metrics and logs ·
//! 1. [`domain`] the rules: pure ·
//! 0. [`sse`] server-sent events: pure; [`clock`] the only place that reads the time; [`memory`] how it is backed.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod memory;
pub mod provider;
pub mod sse;
pub mod store;
pub mod telemetry;
pub mod tuning;
pub mod upstream;
#[cfg(feature = "candle")]
pub mod worker;
