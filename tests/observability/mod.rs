//! What an operator sees from outside: health, log lines, traces, dashboards, and what Prometheus' own tools make of the
//! metrics.

mod boards;
mod contract;
mod dashboards;
mod everything;
mod health;
mod history;
mod labels;
mod linter;
mod live;
mod logs;
mod rules;
#[cfg(feature = "otel")]
mod traces;

use std::path::PathBuf;
use std::process::Command;

/// Where chats are asked.
const CHAT: &str = "/v1/chat/completions";

/// A program of Debian's Prometheus packages, or nothing when `TUNEGATE_SKIP_PROMETHEUS` gives a reason to go without.
pub(crate) fn prometheus_tool(name: &str) -> Option<PathBuf> {
    if Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some(PathBuf::from(name));
    }
    match std::env::var("TUNEGATE_SKIP_PROMETHEUS") {
        Ok(reason) if !reason.is_empty() => {
            println!("skipped without {name}: {reason}");
            None
        }
        _ => panic!(
            "{name} is missing: `make setup` installs it; TUNEGATE_SKIP_PROMETHEUS=REASON goes without"
        ),
    }
}
