//! What can be seen from outside: metrics, each declared once, and log lines.

pub mod log;
pub mod metrics;
