//! What an operator sees from outside: health, log lines, traces, dashboards, and what Prometheus' own tools make of the
//! metrics.

mod birth;
mod boards;
mod cardinality;
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

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// Insists that `promtool check metrics` has nothing to say about a text: neither its format nor its names.
#[track_caller]
pub(crate) fn promtool_is_content(text: &str) {
    let Some(promtool) = prometheus_tool("promtool") else { return };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&said)), (Some(0), "".into()));
}
