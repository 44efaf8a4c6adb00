//! What operators see of a running gateway.

pub mod log;
