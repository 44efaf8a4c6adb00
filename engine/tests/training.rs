//! Training through the engine's face: beside PyTorch, resumed, killed, refused, and on the real model.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as its tests do")]

#[path = "training/kills.rs"]
mod kills;
#[path = "training/oracle.rs"]
mod oracle;
#[path = "training/real.rs"]
mod real;
#[path = "training/resume.rs"]
mod resume;
#[path = "training/steps.rs"]
mod steps;
#[path = "support/tiny.rs"]
mod tiny;
