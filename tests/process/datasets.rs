//! `tunegate dataset`: the check and the repairs, as they are typed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::gateway::TUNEGATE;
use crate::support::provider::Trouble;
use crate::support::{Setup, SimulatedProvider, TestGateway};

fn cats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/datasets/cat.jsonl")
}

fn dataset(arguments: &str, folder: &Path, key: Option<&str>) -> Output {
    let mut command = Command::new(TUNEGATE);
    command.arg("dataset").args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
    if let Some(key) = key {
        command.env("TUNEGATE_KEY", key);
    }
    command.output().expect("the binary under test starts")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A folder with the cats in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(cats(), folder.path().join("cat.jsonl")).expect("copied");
    folder
}

#[test]
fn the_cats_are_checked_offline() {
    let folder = folder();
    let output = dataset("check cat.jsonl --model gpt-4o-mini --format json", folder.path(), None);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for (member, value) in [
        ("/examples", "15"),
        ("/errors", "[]"),
        ("/tokens/total", "1849"),
        ("/over_limit", "0"),
        ("/billed_tokens", "1849"),
        ("/epochs", "6"),
        ("/total_billed_tokens", "11094"),
        ("/system_prompt/rows", "15"),
    ] {
        assert_eq!(report.pointer(member).map(Value::to_string).as_deref(), Some(value), "{member}");
    }
    // 11,094 tokens at $3 for a million
    assert_eq!(report["cost_usd_by_target"]["openai"]["usd"], "0.033282");

    let words = said(&dataset("check cat.jsonl --model gpt-4o-mini --epochs 2", folder.path(), None));
    for part in [
        "15 examples",
        "1,849 tokens x 2 epochs = 3,698",
        "0 errors",
        "language_mix",
        "(line 8)",
        "ja 14, en 1",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    let words = said(&dataset("check cat.jsonl --model gpt-3.5-turbo --fast", folder.path(), None));
    assert!(words.contains("2,559 tokens") && words.contains("(--fast)"), "{words}");
}

#[test]
fn a_broken_file_fails_and_says_where() {
    let folder = folder();
    let nine: String = std::fs::read_to_string(cats())
        .expect("text")
        .lines()
        .take(9)
        .map(|row| format!("{row}\n"))
        .collect();
    let text = format!("{nine}{{\"messages\":[{{\"role\":\"boss\",\"content\":\"x\"}}]}}\nnonsense\n");
    std::fs::write(folder.path().join("bad.jsonl"), text).expect("written");
    let output = dataset("check bad.jsonl --model gpt-4o-mini", folder.path(), None);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for part in [
        "line 10, messages[0].role: \"boss\" is no role",
        "line 11: not JSON",
        "a provider would refuse the file",
    ] {
        assert!(said(&output).contains(part), "{part} is not in {}", said(&output));
    }
    let missing = dataset("check absent.jsonl --model gpt-4o-mini", folder.path(), None);
    assert!(!missing.status.success() && said(&missing).contains("absent.jsonl"), "{}", said(&missing));
}

#[test]
fn repairs_write_new_files_and_overwrite_none() {
    let folder = folder();
    let rows = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name).lines().count();
    std::fs::write(folder.path().join("system.md"), "You are a dog.\n").expect("written");
    for (command, written) in [
        (
            "split cat.jsonl --validation 0.2 --training-out t.jsonl --validation-out v.jsonl",
            &[("t.jsonl", 12), ("v.jsonl", 3)][..],
        ),
        ("dedupe cat.jsonl --near --out d.jsonl", &[("d.jsonl", 15)]),
        ("mask cat.jsonl --out m.jsonl", &[("m.jsonl", 15)]),
        ("convert cat.jsonl --system-prompt-file system.md --out c.jsonl", &[("c.jsonl", 15)]),
    ] {
        let output = dataset(command, folder.path(), None);
        assert!(output.status.success(), "{}", said(&output));
        for (name, count) in written {
            assert_eq!(rows(name), *count, "{command}");
        }
        let again = dataset(command, folder.path(), None);
        assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
    }
    let report = dataset("check c.jsonl --model gpt-4o-mini --format json", folder.path(), None);
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["system_prompt"]["text"], "You are a dog.");
    let leaks =
        dataset("check t.jsonl --validation v.jsonl --model gpt-4o-mini --format json", folder.path(), None);
    let leaks: Value = serde_json::from_slice(&leaks.stdout).expect("JSON");
    let findings = leaks["findings"].as_array().expect("findings");
    let leakage = findings.iter().find(|finding| finding["kind"] == "leakage").expect("looked for");
    assert_eq!((&leakage["count"], &leakage["rows_examined"]), (&0.into(), &3.into()));
    let share =
        dataset("split cat.jsonl --validation 1.5 --training-out a --validation-out b", folder.path(), None);
    assert!(!share.status.success() && said(&share).contains("between 0 and 1"), "{}", said(&share));
    assert!(!folder.path().join("a").exists());
}

#[test]
fn other_words_are_found_through_the_gateway_and_metered() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let folder = folder();
    let row = |words: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"{words}"}},{{"role":"assistant","content":"ok"}}]}}"#
        )
    };
    std::fs::write(folder.path().join("two.jsonl"), [row("one"), row("two")].join("\n")).expect("written");
    let command =
        format!("augment two.jsonl --model support-bot --gateway {} --out new.jsonl", gateway.url());
    let output = dataset(&command, folder.path(), Some(gateway.key()));
    assert!(output.status.success(), "{}", said(&output));
    let text = std::fs::read_to_string(folder.path().join("new.jsonl")).expect("the new file");
    let lines: Vec<&str> = text.lines().collect();
    let new = row("Four crates fit on the pallet.");
    assert_eq!(lines, [&*row("one"), &*new, &*row("two"), &*new]);
    let list = std::fs::read_to_string(folder.path().join("new.jsonl.augmented.json")).expect("the list");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let rows = serde_json::json!([{"line": 2, "augmented_from": 1}, {"line": 4, "augmented_from": 2}]);
    assert_eq!(list["rows"], rows);
    assert_eq!(gateway.outcomes().len(), 2, "both were metered");

    // what fails leaves nothing behind
    provider.fails(Trouble::bad_request());
    let command = command.replace("new.jsonl", "other.jsonl");
    let failed = dataset(&command, folder.path(), Some(gateway.key()));
    assert!(!failed.status.success(), "{}", said(&failed));
    assert!(
        !folder.path().join("other.jsonl").exists()
            && !folder.path().join("other.jsonl.augmented.json").exists()
    );
    let without = dataset(&command, folder.path(), None);
    assert!(said(&without).contains("TUNEGATE_KEY"), "{}", said(&without));
}
