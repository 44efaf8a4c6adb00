//! What can be seen from outside: metrics, each declared once, log lines, and the spans of traces.

pub mod log;
pub mod metrics;
#[cfg(feature = "otel")]
pub mod spans;
pub mod traces;
