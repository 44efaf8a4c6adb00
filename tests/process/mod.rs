//! The life of the process: its start, its end, and what it does without a model.

mod commands;
mod datasets;
#[cfg(feature = "candle")]
mod local_worker;
mod postgres;
mod serve_without_model;
mod shutdown;
mod upgrade;
