//! The dashboards: what is committed is what their source says, keeps to the linter's rules, asks for metrics that
//! there are, leads to dashboards that there are, and is what Grafana's types say a dashboard is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::labels::{Contract, Labels};
use super::linter::{Exceptions, Finding, lint, panels, substituted, targets, text, variable_selector};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each committed dashboard: the file, its text.
fn committed() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(root().join("dashboards")).expect("dashboards/");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a readable dashboard"))
        })
        .collect()
}

fn dashboards() -> Vec<Value> {
    let all: Vec<Value> =
        committed().values().map(|text| serde_json::from_str(text).expect("a dashboard in JSON")).collect();
    assert_eq!(all.len(), 8);
    all
}

/// The dashboard whose file is so called.
fn dashboard(file: &str) -> Value {
    serde_json::from_str(&committed()[file]).expect("a dashboard in JSON")
}

#[test]
fn what_is_committed_is_what_the_source_says() {
    let said: BTreeMap<String, String> =
        tunegate_dashboards::all().iter().map(|one| (one.file_name(), one.json())).collect();
    let committed = committed();
    assert_eq!(committed.keys().collect::<Vec<_>>(), said.keys().collect::<Vec<_>>());
    for (name, text) in &said {
        assert!(committed[name] == *text, "dashboards/{name} is not what its source says: `make dashboards`");
    }
}

#[test]
fn the_linter_finds_nothing_but_the_stated_exceptions() {
    let file = std::fs::read_to_string(root().join("dashboards/.lint")).expect("dashboards/.lint");
    let findings: Vec<Finding> = dashboards().iter().flat_map(lint).collect();
    let (left, unused) = Exceptions::read(&file).apply(findings);
    let said: Vec<String> = left.iter().map(|finding| format!("{finding:?}")).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
    assert!(unused.is_empty(), "exceptions that nothing needs: {}", unused.join("\n"));
}

/// The labels in `{{…}}`.
fn named_in(legend: &str) -> Labels {
    legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim().to_owned())).collect()
}

/// What is wrong with what a dashboard asks.
fn unknown(contract: &Contract, dashboard: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for panel in panels(dashboard) {
        let place = format!("{} / {}", text(dashboard, "title"), text(panel, "title"));
        let mut columns = BTreeSet::new();
        for target in targets(panel) {
            match contract.check(&substituted(&text(target, "expr"))) {
                Err(why) => wrong.push(format!("{place}: {why}: {}", text(target, "expr"))),
                Ok(mut labels) => {
                    let legend = named_in(&text(target, "legendFormat"));
                    if !legend.is_subset(&labels) {
                        wrong.push(format!("{place}: its legend has {legend:?}, its series {labels:?}"));
                    }
                    labels.remove("job");
                    columns.insert(labels);
                }
            }
        }
        if panel["type"] == "table" && columns.len() > 1 {
            wrong.push(format!("{place}: columns with other labels make rows of their own: {columns:?}"));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let query = text(variable, "query");
        let label = query.rsplit(", ").next().unwrap_or_default().trim_end_matches(')').to_owned();
        let selector = variable_selector(&query).expect("a function").expect("a selector");
        match contract.check(selector) {
            Ok(labels) if labels.contains(&label) => {}
            other => wrong.push(format!("variable {}: {other:?}", variable["name"])),
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        if let Err(why) = contract.check(&substituted(&text(annotation, "expr"))) {
            wrong.push(format!("annotation {}: {why}", annotation["name"]));
        }
    }
    wrong
}

#[test]
fn every_metric_and_label_is_in_the_document() {
    let contract = Contract::shipped();
    let wrong: Vec<String> =
        dashboards().iter().flat_map(|dashboard| unknown(&contract, dashboard)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_metric_or_label_that_is_not_in_the_document_is_seen() {
    let contract = Contract::shipped();
    let overview = dashboard("tunegate-overview.json");
    for (what, is, instead) in [
        ("a metric", "tunegate_requests_total", "tunegate_request_total"),
        ("a label", "sum by (ending)", "sum by (endings)"),
        ("a legend", "{{ending}}", "{{model}}"),
        ("a variable", "label_values(tunegate_build_info, job)", "label_values(tunegate_build, job)"),
        ("an annotation", "changes(tunegate_config_loaded", "changes(tunegate_config_read"),
    ] {
        let text = overview.to_string();
        assert!(text.contains(is), "{what}: {is}");
        let broken: Value = serde_json::from_str(&text.replace(is, instead)).expect("JSON");
        assert!(!unknown(&contract, &broken).is_empty(), "{what}");
    }
}

/// Every address of a dashboard in a text.
fn addresses(text: &str) -> Vec<String> {
    text.split("\"/d/").skip(1).map(|rest| rest.split('"').next().unwrap_or_default().to_owned()).collect()
}

/// What is wrong with where the links of `dashboard` lead.
fn astray(dashboard: &Value, all: &[Value]) -> Vec<String> {
    let names = |of: &Value| -> BTreeSet<String> {
        let list = of["templating"]["list"].as_array().expect("variables");
        list.iter().map(|variable| text(variable, "name")).collect()
    };
    let mut wrong = Vec::new();
    for panel in panels(dashboard) {
        if panel["fieldConfig"]["defaults"]["links"].as_array().is_none_or(Vec::is_empty) {
            wrong.push(format!("{} leads nowhere", panel["title"]));
        }
        for address in addresses(&panel.to_string()) {
            let (uid, query) = address.split_once('?').unwrap_or((&address, ""));
            let Some(target) = all.iter().find(|one| one["uid"] == uid) else {
                wrong.push(format!("{} leads to {uid}", panel["title"]));
                continue;
            };
            if !query.contains("${__url_time_range}") {
                wrong.push(format!("{} forgets the time: {address}", panel["title"]));
            }
            for part in query.split('&').filter(|part| *part != "${__url_time_range}") {
                let (name, known) = match part.strip_prefix("var-").and_then(|set| set.split_once('=')) {
                    Some((name, _)) => (name, true),
                    None => {
                        let name = part.trim_start_matches("${").trim_end_matches(":queryparam}");
                        (name, names(dashboard).contains(name))
                    }
                };
                if !known || !names(target).contains(name) {
                    wrong.push(format!("{}: {part} to {uid}", panel["title"]));
                }
            }
        }
    }
    wrong
}

#[test]
fn every_panel_leads_to_a_dashboard_with_its_variables_and_time() {
    let all = dashboards();
    let wrong: Vec<String> = all.iter().flat_map(|dashboard| astray(dashboard, &all)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let overview = dashboard("tunegate-overview.json");
    for (is, instead) in [
        ("/d/tunegate-spend?", "/d/tunegate-money?"),
        ("?${__url_time_range}&", "?"),
        ("${job:queryparam}", "${task:queryparam}"),
        ("var-team=", "var-crew="),
    ] {
        let broken: Value = serde_json::from_str(&overview.to_string().replace(is, instead)).expect("JSON");
        assert!(!astray(&broken, &all).is_empty(), "{instead}");
    }
}

/// What is wrong with the places and numbers of the panels.
fn misplaced(dashboard: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    let rows = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] == "row");
    for panel in panels(dashboard).into_iter().chain(rows) {
        if !ids.insert(panel["id"].as_u64().expect("an id")) {
            wrong.push(format!("two panels have the id {}", panel["id"]));
        }
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
        if x + w > 24 || w == 0 || h == 0 {
            wrong.push(format!("{} does not fit", panel["title"]));
        }
        for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
            if let Some(other) = taken.insert(cell, panel["title"].clone()) {
                wrong.push(format!("{} lies on {other}", panel["title"]));
            }
        }
    }
    wrong
}

#[test]
fn panels_lie_beside_each_other() {
    for dashboard in dashboards() {
        assert_eq!(misplaced(&dashboard), [""; 0], "{}", dashboard["title"]);
    }
    let sound = dashboard("tunegate-models.json");
    for (member, value) in [("/panels/2/id", 1), ("/panels/2/gridPos/x", 30), ("/panels/3/gridPos/y", 1)] {
        let mut broken = sound.clone();
        *broken.pointer_mut(member).expect(member) = value.into();
        assert!(!misplaced(&broken).is_empty(), "{member}");
    }
}

#[test]
fn a_file_can_be_provisioned_as_it_is() {
    let mut uids = BTreeSet::new();
    for dashboard in dashboards() {
        let (uid, title) = (text(&dashboard, "uid"), text(&dashboard, "title"));
        assert!(!uid.is_empty() && uid.len() <= 40 && uids.insert(uid.clone()), "{title}: {uid}");
        assert!(dashboard.get("id").is_none(), "{title}: Grafana numbers dashboards itself");
        assert!(dashboard.get("__inputs").is_none(), "{title}: inputs are for imports");
        assert!(!dashboard.to_string().contains("${DS_"), "{title}: inputs are for imports");
        assert!((39..=42).contains(&dashboard["schemaVersion"].as_u64().expect("a version")), "{title}");
        assert_eq!(dashboard["graphTooltip"], 1, "{title}");
        let names: Vec<String> = dashboard["templating"]["list"]
            .as_array()
            .expect("variables")
            .iter()
            .map(|variable| text(variable, "name"))
            .collect();
        assert_eq!(names[..3], ["datasource", "job", "instance"], "{title}");
        for panel in dashboard["panels"].as_array().expect("panels") {
            if let Some(repeated) = panel["repeat"].as_str() {
                assert!(names.iter().any(|name| name == repeated), "{title}: no variable {repeated}");
            }
        }
    }
}

#[test]
fn the_rules_and_the_dashboards_speak_of_the_same() {
    let rules = root().join("dashboards/rules");
    let read = |name: &str| std::fs::read_to_string(rules.join(name)).expect(name);
    let (recording, alerts) = (read("recording.yaml"), read("alerts.yaml"));
    let objective = format!("expr: vector({})", tunegate_dashboards::ERROR_BUDGET);
    assert!(recording.contains(&objective), "no {objective} in recording.yaml");
    let uids: BTreeSet<String> = dashboards().iter().map(|dashboard| text(dashboard, "uid")).collect();
    let named = alerts.split("dashboard_uid: ").skip(1).filter_map(|rest| rest.lines().next());
    for uid in named {
        assert!(uids.contains(uid), "an alert leads to {uid}: {uids:?}");
    }
}

/// Type-checks dashboards, or nothing when `TUNEGATE_SKIP_GRAFANA_TYPES` gives a reason to go without the packages.
fn typed(files: &[PathBuf]) -> Option<Output> {
    let folder = root().join("tests/observability/schema");
    let package = folder.join("node_modules/typescript");
    if !package.exists() {
        match std::env::var("TUNEGATE_SKIP_GRAFANA_TYPES") {
            Ok(reason) if !reason.is_empty() => {
                println!("skipped without {}: {reason}", package.display());
                return None;
            }
            _ => panic!(
                "{} is missing: `make setup` installs it; TUNEGATE_SKIP_GRAFANA_TYPES=REASON goes without",
                package.display()
            ),
        }
    }
    Some(Command::new("node").arg(folder.join("check.mjs")).args(files).output().expect("node runs"))
}

#[test]
fn a_dashboard_is_what_grafanas_types_say() {
    let files: Vec<PathBuf> = committed().keys().map(|name| root().join("dashboards").join(name)).collect();
    let Some(output) = typed(&files) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sound = std::fs::read_to_string(files.last().expect("a file")).expect("a dashboard");
    let broken: Vec<PathBuf> = [
        ("a value", "\"graphMode\": \"area\"", "\"graphMode\": \"aera\""),
        ("a panel's member", "\"gridPos\"", "\"gridpos\""),
        ("a type", "\"refresh\": \"30s\"", "\"refresh\": 30"),
        ("an option", "\"reduceOptions\"", "\"reduce\""),
    ]
    .iter()
    .map(|(what, is, instead)| {
        assert!(sound.contains(is), "{what}: {is}");
        let file = folder.path().join(format!("{what}.json"));
        std::fs::write(&file, sound.replace(is, instead)).expect("written");
        file
    })
    .collect();
    let output = typed(&broken).expect("it was there just now");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for file in broken {
        assert!(said.contains(&format!("{}:", file.display())), "{} passed:\n{said}", file.display());
    }
}
