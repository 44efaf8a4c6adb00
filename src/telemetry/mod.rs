//! What can be seen from outside: metrics, each declared once.

pub mod metrics;
