//! Bans and licences: `deny.toml` held against what cargo really resolves, with no tool to install and no network.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages that this platform builds.
fn packages() -> Vec<Value> {
    let compiler = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let compiler = String::from_utf8_lossy(&compiler.stdout).into_owned();
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("no packages: {other}"),
    }
}

fn rules() -> String {
    std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml")
}

/// The strings of a list in `deny.toml`, in order.
fn list<'a>(rules: &'a str, name: &str, before: &str) -> Vec<&'a str> {
    let start = format!("{name} = [");
    let list = rules.split(&start).nth(1).and_then(|rest| rest.split("\n]").next()).expect("the list");
    list.lines().filter_map(|line| line.split_once(before)?.1.split('"').next()).collect()
}

/// Whether an SPDX expression can be met with the allowed licences.
fn is_met(expression: &str, allowed: &[&str]) -> bool {
    let words = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = words.split_whitespace().rev().collect();
    let met = any_of(&mut words, allowed);
    assert!(words.is_empty(), "not understood: {expression}");
    met
}

fn any_of(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut met = all_of(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        met |= all_of(words, allowed);
    }
    met
}

fn all_of(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut met = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let word = words.pop().expect("a licence");
    if word == "(" {
        let met = any_of(words, allowed);
        assert_eq!(words.pop(), Some(")"));
        return met;
    }
    if words.last() == Some(&"WITH") {
        words.pop();
        let exception = words.pop().expect("an exception");
        return allowed.contains(&format!("{word} WITH {exception}").as_str());
    }
    allowed.contains(&word)
}

#[test]
fn every_licence_is_on_the_list() {
    let rules = rules();
    let allowed = list(&rules, "allow", "    \"");
    assert!(allowed.len() > 5, "{allowed:?}");
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|licence| is_met(licence, &allowed)))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn no_banned_crate_is_in_the_tree() {
    let rules = rules();
    let banned = list(&rules, "deny", "crate = \"");
    assert!(banned.contains(&"openssl"), "{banned:?}");
    let found: Vec<String> = packages()
        .iter()
        .filter_map(|package| package["name"].as_str())
        .filter(|name| banned.contains(name))
        .map(str::to_owned)
        .collect();
    assert!(found.is_empty(), "banned by deny.toml: {found:?}");
}

#[test]
fn there_is_one_of_each_library_that_is_linked_or_trusted() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        let text = |name: &str| package[name].as_str().unwrap_or_default().to_owned();
        versions.entry(text("name")).or_default().push(text("version"));
    }
    for name in ["libsqlite3-sys", "rustls", "ring", "tokio", "hyper", "http"] {
        if let Some(found) = versions.get(name) {
            assert_eq!(found.len(), 1, "{name}: {found:?}");
        }
    }
}

#[test]
fn lock_files_name_no_registry_but_the_public_ones() {
    let cargo = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let mut sources: Vec<&str> = cargo.lines().filter(|line| line.starts_with("source = ")).collect();
    sources.sort_unstable();
    sources.dedup();
    // a private mirror, a path or a git checkout would be another line
    assert!(matches!(sources[..], [one] if one.contains("/rust-lang/")), "{sources:?}");
    for folder in ["tests/clients/node", "tests/observability/schema"] {
        let npm =
            std::fs::read_to_string(root().join(folder).join("package-lock.json")).expect("a lock file");
        assert!(
            !npm.contains("\"resolved\""),
            "{folder}: package-lock.json names the registry it was made with"
        );
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"];
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND MIT", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(is_met(expression, &allowed), met, "{expression}");
    }
}
