//! What the catalog names is in the exposition before its first request, at 0 and under the very labels that
//! docs/METRICS.md gives it: else `increase()` would not see the first one.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::exposition::{Exposition, Family};
use crate::support::setup::FINE_TUNED;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway};

/// What a gateway without a worker does not export: `live` has one.
const OF_THE_WORKER: [&str; 2] = ["gen_ai_server_", "tunegate_worker_"];
/// What is not there for everything in the catalog, and why.
const SPARSE: [(&str, &str); 3] = [
    ("tunegate_deployment_retirement_timestamp_seconds", "nobody knows of most when they end"),
    ("tunegate_budget_reset_timestamp_seconds", "some windows never end"),
    ("tunegate_budget_window_seconds", "some windows never end"),
];
/// Of budgets for each of something only.
const OF_EACH: [&str; 2] = ["tunegate_budget_counters", "tunegate_budget_counters_above"];

/// Names of the catalog, by the label that they are values of.
type Names = Vec<(&'static str, Vec<&'static str>)>;

fn names() -> Names {
    let deployments =
        ["support-v3", "support-azure", "support-classic", "thinker", "drainer", "embedder", "anything"];
    let models =
        ["support-bot", FINE_TUNED, "azure-bot", "classic-bot", "thinker", "drainer", "embedder", "openai/*"];
    vec![
        ("deployment", deployments.into()),
        ("model", models.into()),
        ("provider", vec!["openai", "azure", "azure-classic"]),
        ("budget", vec!["everything", "users"]),
    ]
}

const MORE: &str = "\n[teams.support]\n[budgets.everything]\nlimit_usd = \"5\"\nwindow = \"month\"\n\
                    [budgets.users]\nlimit_usd = \"1\"\nwindow = \"total\"\nscope = { each = \"end_user\" }\n\
                    [deployments.ending]\nprovider = \"openai\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n\
                    retires = \"2077-01-14\"\n";

#[track_caller]
fn exposition(gateway: &TestGateway) -> Exposition {
    Exposition::read(&gateway.admin(Call::get("/metrics")).expect(200).text())
}

/// What the document says of a metric.
struct Row {
    kind: String,
    labels: BTreeSet<String>,
}

/// The words in backquotes; those in brackets, a label's values, aside.
fn quoted(cell: &str) -> Vec<String> {
    let outside = cell.split('(').map(|part| part.split_once(')').map_or(part, |(_, behind)| behind));
    // the first part has no bracket before it
    let first = cell.split('(').next().unwrap_or_default();
    let text: String = std::iter::once(first).chain(outside.skip(1)).collect();
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `_spent_usd` behind `tunegate_budget_limit_usd` is `tunegate_budget_spent_usd`.
fn whole_name(first: &str, name: &str) -> String {
    let Some(end) = name.strip_prefix('_') else { return name.to_owned() };
    let kept = first.split('_').count() - end.split('_').count();
    let words: Vec<&str> = first.split('_').take(kept).chain([end]).collect();
    words.join("_")
}

/// The tables of docs/METRICS.md.
fn documented() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let (mut shared, mut before) = (BTreeSet::new(), BTreeSet::new());
    for part in include_str!("../../docs/METRICS.md").split("\n\n") {
        if let Some(rest) = part.strip_prefix("All `gen_ai_client_*` have ") {
            shared = quoted(rest.split(". ").next().unwrap_or_default()).into_iter().collect();
        }
        let has_shared = part.starts_with("| name | type | further labels");
        for line in part.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, names, kinds, labels, ..] = cells[..] else { panic!("no row: {line}") };
            let mut own: BTreeSet<String> = quoted(labels).into_iter().collect();
            if let Some(less) = labels.strip_prefix("the same") {
                let less = quoted(less);
                own = before.iter().filter(|label| !less.contains(*label)).cloned().collect();
            } else {
                before.clone_from(&own);
            }
            if has_shared {
                own.extend(shared.iter().cloned());
            }
            let names = quoted(names);
            let kinds: Vec<&str> = kinds.split(", ").filter(|kind| *kind != "1").collect();
            for (at, name) in names.iter().enumerate() {
                let kind = kinds.get(at).or(kinds.first()).expect("a type");
                let row = Row { kind: (*kind).to_owned(), labels: own.clone() };
                rows.insert(whole_name(&names[0], name), row);
            }
        }
    }
    rows.remove("process_*").expect("a row for the process");
    rows
}

/// Every metric of the document is there, of its type and with its labels, and no other is.
#[track_caller]
fn is_as_documented(exposition: &Exposition) {
    let documented = documented();
    let mut wrong = Vec::new();
    for (name, Row { kind, labels }) in &documented {
        let of_worker = OF_THE_WORKER.iter().any(|prefix| name.starts_with(prefix))
            && name != "tunegate_worker_starts_total";
        let Some(family) = exposition.family(name) else {
            if !of_worker {
                wrong.push(format!("{name} is documented and not there"));
            }
            continue;
        };
        if family.kind != *kind {
            wrong.push(format!("{name} is a {}, not a {kind}", family.kind));
        }
        let wanted: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
        for sample in &family.samples {
            let found: BTreeSet<&str> =
                sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            if found != wanted {
                wrong.push(format!("{sample} has not the labels {wanted:?}"));
                break;
            }
        }
    }
    for family in &exposition.0 {
        let is_known = documented.contains_key(&family.name) || family.name.starts_with("process_");
        if !is_known {
            wrong.push(format!("{} is there and not documented", family.name));
        }
        if !family.help.ends_with('.') && !family.name.starts_with("process_") {
            wrong.push(format!("{}: no sentence: {}", family.name, family.help));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each family with a label of the catalog has all of the catalog's names in it, and nothing was counted yet.
#[track_caller]
fn is_born(exposition: &Exposition, names: &Names) {
    let mut wrong = Vec::new();
    for family in &exposition.0 {
        for (label, all) in names {
            wrong.extend(unborn(family, label, all));
        }
        let counts =
            family.samples.iter().filter(|_| family.kind != "gauge" && !family.name.starts_with("process_"));
        wrong.extend(
            counts.filter(|sample| sample.value() != 0.0).map(|sample| format!("{sample} {}", sample.text)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names that a family should have and has not.
fn unborn(family: &Family, label: &str, all: &[&str]) -> Vec<String> {
    let is_sparse = SPARSE.iter().any(|(name, _)| *name == family.name);
    let has_label = family.samples.iter().any(|sample| sample.labels.contains_key(label));
    if !has_label || is_sparse {
        return Vec::new();
    }
    let found: BTreeSet<&str> = family.samples.iter().map(|sample| sample.label(label)).collect();
    let of_each = OF_EACH.contains(&family.name.as_str());
    let wanted = all.iter().filter(|name| !of_each || **name == "users");
    wanted
        .filter(|name| !found.contains(**name))
        .map(|name| format!("no {label} {name} in {}", family.name))
        .collect()
}

#[test]
fn all_that_the_catalog_names_begins_at_nothing_also_after_a_reload() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).and(MORE);
    let gateway = TestGateway::with(setup.clone()).start();
    let first = exposition(&gateway);
    is_as_documented(&first);
    let mut names = names();
    is_born(&first, &names);
    for (name, why) in SPARSE {
        assert!(!first.samples(name, &[]).is_empty(), "{name}, of which {why}");
    }
    let teams = first.samples("tunegate_cost_usd_total", &[("team", "support"), ("kind", "usage")]);
    assert!(teams.len() >= names[1].1.len(), "a declared team has a series for each model: {teams:?}");

    let more = "\n[deployments.late]\nprovider = \"openai\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n\
                [models.newcomer]\ndeployments = [\"late\"]\n";
    gateway.rewrite(&setup.and(more));
    gateway.reload().expect(200);
    names[0].1.push("late");
    names[1].1.push("newcomer");
    let second = exposition(&gateway);
    is_as_documented(&second);
    // the reload itself is counted
    let of_reloads = |family: &Family| family.name == "tunegate_config_reloads_total";
    is_born(&Exposition(second.0.into_iter().filter(|family| !of_reloads(family)).collect()), &names);
}
