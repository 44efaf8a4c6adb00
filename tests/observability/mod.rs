//! What an operator sees: rules and alerts in Prometheus' own tools.

mod birth;
mod boards;
mod cardinality;
mod everything;
mod history;
mod live;

use std::path::PathBuf;
use std::process::Command;

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
