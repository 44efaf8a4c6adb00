//! The recording and alert rules: promtool's own checks and unit tests, and what it does not look at: that every alert has
//! both kinds of test, a runbook and its annotations, and that every name is one that the gateway exports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

use super::labels::{Contract, Labels, selectors};
use super::prometheus_tool;

/// Where runbooks are published: the repository of Cargo.toml.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/docs/runbooks.md#");

/// A rule file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    #[serde(default)]
    interval: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    #[serde(rename = "keep_firing_for")]
    _keeps: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A file of unit tests, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct TestFile {
    tests: Vec<UnitTest>,
}

#[derive(Debug, Deserialize)]
struct UnitTest {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Debug, Deserialize)]
struct AlertTest {
    alertname: String,
    exp_alerts: Vec<serde_yaml::Value>,
}

#[derive(Debug, Deserialize)]
struct ExprTest {
    expr: String,
    exp_samples: Vec<serde_yaml::Value>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML files of a folder, in order.
fn yaml_in(folder: &str) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

fn parsed<T: DeserializeOwned>(path: &Path) -> T {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn groups() -> Vec<Group> {
    yaml_in("dashboards/rules").iter().flat_map(|path| parsed::<RuleFile>(path).groups).collect()
}

fn rules() -> Vec<Rule> {
    groups().into_iter().flat_map(|group| group.rules).collect()
}

/// All alerts with their names.
fn alerts() -> Vec<(String, Rule)> {
    rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

fn recorded() -> BTreeSet<String> {
    rules().into_iter().filter_map(|rule| rule.record).collect()
}

/// All unit tests with the names of their files.
fn unit_tests() -> Vec<(String, UnitTest)> {
    let files = yaml_in("dashboards/rules/tests").into_iter();
    let named = files.map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), path));
    named
        .flat_map(|(name, path)| {
            parsed::<TestFile>(&path).tests.into_iter().map(move |test| (name.clone(), test))
        })
        .collect()
}

#[track_caller]
fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let Some(program) = prometheus_tool("promtool") else { return };
    let output = Command::new(program).args(arguments).args(files).output().expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
}

#[test]
fn promtool_has_nothing_against_the_rules() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &yaml_in("dashboards/rules"));
}

#[test]
fn promtools_unit_tests_pass() {
    // a process a file: they keep both cores busy
    let tested: Vec<_> = yaml_in("dashboards/rules/tests")
        .into_iter()
        .map(|file| std::thread::spawn(move || promtool(&["test", "rules"], &[file])))
        .collect();
    for file in tested {
        file.join().expect("a file's tests pass");
    }
}

#[test]
fn every_alert_has_a_test_where_it_fires_and_one_where_it_nearly_does() {
    let tests = unit_tests();
    let known: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let tested = |fires: bool| -> BTreeSet<String> {
        // that of the idle gateway is about all of them, and near to none
        let near =
            tests.iter().filter(|(file, _)| file != "idle").flat_map(|(_, test)| &test.alert_rule_test);
        near.filter(|test| test.exp_alerts.is_empty() != fires).map(|test| test.alertname.clone()).collect()
    };
    assert_eq!(tested(true), known, "where they fire");
    assert_eq!(tested(false), known, "where they nearly do");
}

#[test]
fn every_recording_rule_is_used_and_its_value_is_tested() {
    let recorded = recorded();
    let used: BTreeSet<String> =
        rules().iter().flat_map(|rule| asked(&rule.expr)).filter(|name| recorded.contains(name)).collect();
    assert_eq!(used, recorded, "used by a rule");
    let tested: BTreeSet<String> = unit_tests()
        .iter()
        .flat_map(|(_, test)| &test.promql_expr_test)
        .filter(|test| !test.exp_samples.is_empty())
        .flat_map(|test| asked(&test.expr))
        .filter(|name| recorded.contains(name))
        .collect();
    assert_eq!(tested, recorded, "has a test of its value");
}

#[test]
fn names_are_as_prometheus_wants_them() {
    for group in groups() {
        assert!(group.name.starts_with("tunegate."), "{}", group.name);
        // an instant query looks back for five minutes
        assert!(
            group.interval.as_deref().is_none_or(|interval| ["1m", "2m", "3m", "4m"].contains(&interval))
        );
    }
    for rule in rules() {
        match (&rule.record, &rule.alert) {
            (Some(record), None) => {
                assert_eq!(record.split(':').count(), 3, "{record}: level:metric:operations");
            }
            (None, Some(alert)) => {
                assert!(alert.starts_with("Tunegate") && alert.chars().all(char::is_alphanumeric), "{alert}");
            }
            _ => panic!("either records or alerts: {rule:?}"),
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_to_do_and_where_to_look() {
    let boards: BTreeSet<String> = std::fs::read_dir(root().join("dashboards"))
        .expect("dashboards/")
        .filter_map(|entry| {
            Some(entry.expect("an entry").file_name().to_str()?.strip_suffix(".json")?.to_owned())
        })
        .collect();
    let mut named = BTreeSet::new();
    for (name, rule) in alerts() {
        assert!(named.insert(name.clone()), "{name} is there twice");
        assert!(rule.lasts.is_some(), "{name}: for");
        let severity = rule.labels.get("severity").map_or("", String::as_str);
        assert!(["page", "ticket", "info"].contains(&severity), "{name}: severity {severity}");
        let annotation =
            |key: &str| rule.annotations.get(key).unwrap_or_else(|| panic!("{name}: {key}")).clone();
        assert!(
            !annotation("summary").is_empty() && annotation("description").len() > 80,
            "{name}: more words"
        );
        assert_eq!(annotation("runbook_url"), format!("{RUNBOOKS}{}", name.to_lowercase()));
        assert!(boards.contains(&annotation("dashboard_uid")), "{name}: {}", annotation("dashboard_uid"));
    }
}

#[test]
fn every_alert_has_its_section_in_the_runbooks() {
    let known: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let text = read(&root().join("docs/runbooks.md"));
    let sections: Vec<(&str, &str)> =
        text.split("\n### ").skip(1).map(|section| section.split_once('\n').expect("a title")).collect();
    let titles: BTreeSet<String> = sections.iter().map(|(title, _)| (*title).to_owned()).collect();
    assert_eq!(titles, known);
    assert_eq!(titles.len(), sections.len(), "a section is there twice");
    for (name, rule) in alerts() {
        let (_, words) = sections.iter().find(|(title, _)| **title == name).expect("just seen");
        let means = format!("**Means** ({}): ", rule.labels["severity"]);
        for part in
            [&*means, "**How bad:** ", "**Look first:**", "**Act:** ", "**Over:** ", "**Silence or tune:**"]
        {
            assert!(words.contains(part), "{name}: {part}");
        }
    }
    for link in text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(known.iter().any(|name| name.to_lowercase() == link), "#{link} leads nowhere");
    }
}

#[test]
fn rules_name_only_what_is_documented() {
    let mut contract = Contract::shipped();
    for rule in rules() {
        let own: Labels = rule.labels.keys().cloned().collect();
        let found = match &rule.record {
            Some(name) => contract.record(name, &rule.expr, &own),
            None => contract.check(&rule.expr).map(drop),
        };
        found.unwrap_or_else(|error| panic!("{}\n{error}", rule.expr));
    }
}

/// The names that an expression asks for.
fn asked(expr: &str) -> Vec<String> {
    let parsed = promql_parser::parser::parse(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
    selectors(&parsed).iter().filter_map(|one| one.vector.name.clone()).collect()
}
