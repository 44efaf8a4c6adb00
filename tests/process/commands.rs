//! The command line: mistakes are told before anything starts.

use std::process::{Command, Output, Stdio};

use crate::support::gateway::TUNEGATE;

fn tunegate(arguments: &[&str], folder: &std::path::Path) -> Output {
    Command::new(TUNEGATE)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary under test starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn check_config_names_every_mistake_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[worker]\nenabled = false\n\
                [deployments.a]\nprovider = \"nobody\"\nmodel = \"x\"\n[models.m]\ndeployments = [\"nowhere\"]\n";
    std::fs::write(folder.path().join("bad.toml"), text).expect("a file");
    let output = tunegate(&["check-config", "--config", "bad.toml"], folder.path());
    assert!(!output.status.success(), "{}", said(&output));
    for word in ["nobody", "nowhere"] {
        assert!(said(&output).contains(word), "{word} is not named: {}", said(&output));
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("bad.toml"), "[server]\nlissten = \"127.0.0.1:0\"\n").expect("a file");
    for arguments in [["check-config", "--config", "bad.toml"], ["serve", "--config", "bad.toml"]] {
        let output = tunegate(&arguments, folder.path());
        assert!(!output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("lissten"), "{}", said(&output));
    }
}

#[test]
fn a_missing_file_is_told_without_a_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = tunegate(&["serve", "--config", "absent.toml"], folder.path());
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("absent.toml") && !text.contains("panicked"), "{text}");
}

#[test]
fn a_probe_before_the_first_start_does_not_miss_our_own_worker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("good.toml"), "").expect("a file");
    let output = tunegate(&["check-config", "--probe", "--config", "good.toml"], folder.path());
    assert!(output.status.success(), "{}", said(&output));
    for part in ["`tunegate serve` starts it", "1 provider,", "(good.toml)"] {
        assert!(said(&output).contains(part), "{part} is not in {}", said(&output));
    }
}

#[test]
fn help_and_version_are_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for arguments in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let output = tunegate(arguments, folder.path());
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn a_price_is_computed_without_a_gateway() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = "ft:gpt-3.5-turbo-0613:acme::x";
    for (at, total) in [("2023-09-01", "$0.028"), ("2023-12-01", "$0.009")] {
        let output =
            tunegate(&["price", model, "--input", "1000", "--output", "1000", "--at", at], folder.path());
        assert!(output.status.success() && said(&output).contains(total), "{}", said(&output));
    }
    let list = r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6}}"#;
    std::fs::write(folder.path().join("list.json"), list).expect("a file");
    let output = tunegate(&["prices", "import", "list.json", "--litellm", "--out", "p.toml"], folder.path());
    assert!(output.status.success() && said(&output).contains("taken: 1"), "{}", said(&output));
    std::fs::write(folder.path().join("c.toml"), "[prices]\nfile = \"p.toml\"\n").expect("a file");
    let output = tunegate(&["price", "m", "--input", "1000000", "--config", "c.toml"], folder.path());
    assert!(output.status.success() && said(&output).contains("$2.00"), "{}", said(&output));
}
