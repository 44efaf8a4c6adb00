//! What is in `deploy/`: the image, compose, the Helm chart and the systemd units pass the tools that `deploy/check.py`
//! runs, and every configuration in them is one that the gateway accepts. `make setup` installs the tools.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::gateway::TUNEGATE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `deploy/check.py`, which leaves the configurations in `folder`; none when `TUNEGATE_SKIP_DEPLOY` gives a reason
/// to go without.
fn checked(folder: &Path) -> Option<Output> {
    if let Some(reason) = std::env::var("TUNEGATE_SKIP_DEPLOY").ok().filter(|reason| !reason.is_empty()) {
        println!("deploy/ is not checked: {reason}");
        return None;
    }
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: `make setup` installs it", python.display());
    let output = Command::new(python)
        .args(["deploy/check.py", "--configs"])
        .arg(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root())
        .stdin(Stdio::null())
        .output();
    Some(output.expect("Python starts"))
}

/// `check-config` of a configuration with the environment that its container would have, and no other.
fn check_config(folder: &Path) -> Output {
    let environment = std::fs::read_to_string(folder.join("environment")).expect("an environment");
    Command::new(TUNEGATE)
        .args(["check-config", "--config", "tunegate.toml"])
        .env_clear()
        .envs(environment.lines().map(|line| line.split_once('=').expect("NAME=VALUE")))
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary under test starts")
}

#[test]
fn what_is_deployed_passes_its_tools_and_the_gateway_reads_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(output) = checked(folder.path()) else { return };
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}\n{complained}");
    let mut read = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        let output = check_config(&entry.path());
        let name = entry.file_name().to_string_lossy().into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        read.push(name);
    }
    read.sort();
    let known = [
        "compose",
        "compose-postgres",
        "helm-default",
        "helm-postgres",
        "helm-sqlite",
        "helm-worker",
        "systemd",
        "systemd-providers",
    ];
    assert_eq!(read, known);
}
