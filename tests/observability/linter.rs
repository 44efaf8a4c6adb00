//! The 17 rules of Grafana's dashboard-linter, in our words: its own program is written in Go and needs one newer than
//! distributions have. Stricter where ours can be: a title, a description and a unit for every kind of panel.
//!
//! An exception stands in `dashboards/.lint`, in the linter's format (JSON, which is YAML), with its reason.

use std::collections::BTreeSet;

use promql_parser::parser::parse;
use serde_json::{Value, json};

use super::labels::selectors;

/// What a rule found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) dashboard: String,
    pub(crate) panel: Option<String>,
    pub(crate) target: Option<usize>,
    pub(crate) what: String,
}

type Rule = fn(&Value, &mut Vec<Found>);

/// A finding, without its rule and dashboard: panel, target, words.
type Found = (Option<String>, Option<usize>, String);

/// The rules by the linter's names.
const RULES: [(&str, Rule); 17] = [
    ("template-datasource-rule", template_datasource),
    ("template-job-rule", |dashboard, found| template(dashboard, "job", "Job", found)),
    ("template-instance-rule", |dashboard, found| template(dashboard, "instance", "Instance", found)),
    ("template-label-promql-rule", template_label_promql),
    ("template-on-time-change-reload-rule", template_reload),
    ("panel-datasource-rule", panel_datasource),
    ("panel-title-description-rule", panel_words),
    ("panel-units-rule", panel_units),
    ("panel-no-targets-rule", panel_no_targets),
    ("target-logql-rule", target_logql),
    ("target-logql-auto-rule", target_logql_auto),
    ("target-promql-rule", target_promql),
    ("target-rate-interval-rule", target_rate_interval),
    ("target-job-rule", |dashboard, found| target_matcher(dashboard, "job", found)),
    ("target-instance-rule", |dashboard, found| target_matcher(dashboard, "instance", found)),
    ("target-counter-agg-rule", target_counter),
    ("uneditable-dashboard", uneditable),
];

/// Returns all that the rules find in a dashboard, exceptions not yet made.
pub(crate) fn lint(dashboard: &Value) -> Vec<Finding> {
    let title = text(dashboard, "title");
    let mut all = Vec::new();
    for (rule, look) in RULES {
        let mut found = Vec::new();
        look(dashboard, &mut found);
        all.extend(found.into_iter().map(|(panel, target, what)| Finding {
            rule,
            dashboard: title.clone(),
            panel,
            target,
            what,
        }));
    }
    all
}

/// Returns the panels of a dashboard, those in closed rows among them; no rows.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = Vec::new();
    for panel in list(dashboard, "panels") {
        if panel["type"] == "row" { all.extend(list(panel, "panels")) } else { all.push(panel) }
    }
    all
}

/// Returns the queries of a panel.
pub(crate) fn targets(panel: &Value) -> &[Value] {
    list(panel, "targets")
}

/// Returns the text of a member; empty where there is none.
pub(crate) fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

/// Each target with its panel's title and its own number.
fn all_targets<'a>(dashboard: &'a Value, of: &str) -> Vec<(Option<String>, usize, &'a Value)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for (i, target) in targets(panel).iter().enumerate() {
            let kind = target["datasource"]["type"].as_str().or(panel["datasource"]["type"].as_str());
            if kind == Some(of) {
                all.push((Some(text(panel, "title")), i, target));
            }
        }
    }
    all
}

/// What stands for `$__rate_interval` when an expression is parsed: no range that anybody would write.
const RATE_INTERVAL: &str = "11h22m33s";
const RATE_INTERVAL_MS: u128 = ((11 * 60 + 22) * 60 + 33) * 1000;

/// Returns an expression as Grafana would send it, as far as a parser needs that: variables in strings stay.
pub(crate) fn substituted(expr: &str) -> String {
    expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__interval", "1m").replace("$__range", "6h")
}

fn template_datasource(dashboard: &Value, found: &mut Vec<Found>) {
    let sources: Vec<&Value> =
        variables(dashboard).iter().filter(|variable| variable["type"] == "datasource").collect();
    if sources.is_empty() {
        found.push((None, None, "no variable for the data source".to_owned()));
    }
    let mut kinds = BTreeSet::new();
    for source in sources {
        let (kind, name, label) = (text(source, "query"), text(source, "name"), text(source, "label"));
        if !kinds.insert(kind.clone()) {
            found.push((None, None, format!("a second data source of kind {kind}")));
        }
        if name != "datasource" && name != format!("{kind}_datasource") {
            found.push((None, None, format!("the data source's variable is named {name}")));
        }
        if !label.eq_ignore_ascii_case("data source")
            && !label.eq_ignore_ascii_case(&format!("{kind} data source"))
        {
            found.push((None, None, format!("the data source's variable is labelled {label}")));
        }
    }
}

/// Names by which a data source may be referred to.
fn is_templated(dashboard: &Value, uid: &str) -> bool {
    let name = uid.trim_start_matches("${").trim_start_matches('$').trim_end_matches('}');
    uid.starts_with('$')
        && variables(dashboard)
            .iter()
            .any(|variable| variable["type"] == "datasource" && variable["name"] == name)
}

fn template(dashboard: &Value, name: &str, label: &str, found: &mut Vec<Found>) {
    let Some(variable) = variables(dashboard).iter().find(|variable| variable["name"] == name) else {
        found.push((None, None, format!("no variable {name}")));
        return;
    };
    let mut wants = |is: bool, what: &str| {
        if !is {
            found.push((None, None, format!("variable {name}: {what}")));
        }
    };
    wants(
        is_templated(dashboard, &text(&variable["datasource"], "uid")),
        "its data source is not the variable's",
    );
    wants(variable["type"] == "query", "is no query");
    wants(variable["label"] == label, "has another label");
    wants(variable["multi"] == true, "takes one value only");
    wants(variable["allValue"] == ".+", "`allValue` is not `.+`");
}

fn template_label_promql(dashboard: &Value, found: &mut Vec<Found>) {
    for variable in variables(dashboard).iter().filter(|variable| variable["type"] == "query") {
        let (name, query) = (text(variable, "name"), text(variable, "query"));
        if let Err(why) = variable_selector(&query).and_then(|selector| match selector {
            Some(selector) => parse(&substituted(selector)).map(|_| ()),
            None => Ok(()),
        }) {
            found.push((None, None, format!("variable {name}: {query}: {why}")));
        }
    }
}

/// Returns the selector in `label_values(selector, label)`; nothing where there is none to look at.
pub(crate) fn variable_selector(query: &str) -> Result<Option<&str>, String> {
    let (function, rest) = query.split_once('(').ok_or("no function")?;
    let inside = rest.trim_end().strip_suffix(')').ok_or("the bracket stays open")?;
    match function.trim() {
        "label_values" => Ok(inside.rsplit_once(',').map(|(selector, _)| selector.trim())),
        "query_result" => Ok(Some(inside)),
        "label_names" | "metrics" => Ok(None),
        other => Err(format!("no such function: {other}")),
    }
}

fn template_reload(dashboard: &Value, found: &mut Vec<Found>) {
    for variable in variables(dashboard).iter().filter(|variable| variable["type"] == "query") {
        if variable["refresh"] != 2 {
            let name = text(variable, "name");
            found.push((None, None, format!("variable {name} is not asked again when the time changes")));
        }
    }
}

fn panel_datasource(dashboard: &Value, found: &mut Vec<Found>) {
    for panel in panels(dashboard) {
        let sources =
            std::iter::once(panel).chain(targets(panel)).map(|part| text(&part["datasource"], "uid"));
        for uid in sources {
            if !is_templated(dashboard, &uid) {
                found.push((Some(text(panel, "title")), None, format!("data source {uid:?}")));
            }
        }
    }
}

fn panel_words(dashboard: &Value, found: &mut Vec<Found>) {
    for panel in panels(dashboard) {
        for member in ["title", "description"] {
            if text(panel, member).trim().is_empty() {
                found.push((
                    Some(text(panel, "title")),
                    None,
                    format!("panel {} has no {member}", panel["id"]),
                ));
            }
        }
    }
}

/// The ids of units that Grafana 13.2.3 knows, from the package @grafana/data.
fn is_unit(id: &str) -> bool {
    let free =
        ["suffix:", "prefix:"].iter().any(|kind| id.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()));
    free || include_str!("grafana-units.txt").lines().any(|known| known == id)
}

fn panel_units(dashboard: &Value, found: &mut Vec<Found>) {
    for panel in panels(dashboard) {
        let field = &panel["fieldConfig"];
        let overrides = list(field, "overrides").iter().flat_map(|one| list(one, "properties"));
        let units =
            overrides.filter(|property| property["id"] == "unit").map(|property| text(property, "value"));
        for unit in std::iter::once(text(&field["defaults"], "unit")).chain(units) {
            if !is_unit(&unit) {
                found.push((Some(text(panel, "title")), None, format!("no unit: {unit:?}")));
            }
        }
    }
}

fn panel_no_targets(dashboard: &Value, found: &mut Vec<Found>) {
    for panel in panels(dashboard) {
        if targets(panel).is_empty() {
            found.push((Some(text(panel, "title")), None, "asks nothing".to_owned()));
        }
    }
}

/// There is no parser of LogQL here: a query opens with a selector in braces, and closes what it opens.
fn target_logql(dashboard: &Value, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "loki") {
        let expr = text(target, "expr");
        let even = |open: char, close: char| expr.matches(open).count() == expr.matches(close).count();
        if !expr.contains('{') || !even('{', '}') || !even('(', ')') || !even('[', ']') {
            found.push((panel, Some(i), format!("not LogQL: {expr}")));
        }
    }
}

fn target_logql_auto(dashboard: &Value, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "loki") {
        let expr = text(target, "expr");
        let fixed = expr.split('[').skip(1).any(|rest| !rest.starts_with("$__auto]"));
        if fixed {
            found.push((panel, Some(i), format!("a range that is not $__auto: {expr}")));
        }
    }
}

fn target_promql(dashboard: &Value, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "prometheus") {
        if let Err(why) = parse(&substituted(&text(target, "expr"))) {
            found.push((panel, Some(i), why));
        }
    }
}

const RATES: [&str; 3] = ["rate", "irate", "increase"];

fn target_rate_interval(dashboard: &Value, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "prometheus") {
        let Ok(expr) = parse(&substituted(&text(target, "expr"))) else { continue };
        for selected in selectors(&expr) {
            let fixed = selected.range_ms.is_some_and(|range| range != RATE_INTERVAL_MS);
            if fixed && RATES.contains(&selected.function) {
                found.push((panel.clone(), Some(i), format!("{} of {}", selected.function, selected.vector)));
            }
        }
    }
}

fn target_matcher(dashboard: &Value, label: &str, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "prometheus") {
        let Ok(expr) = parse(&substituted(&text(target, "expr"))) else { continue };
        for selected in selectors(&expr) {
            if !selected.is_narrowed(label, &format!("${label}")) {
                found.push((panel.clone(), Some(i), format!("not narrowed by {label}: {}", selected.vector)));
            }
        }
    }
}

fn target_counter(dashboard: &Value, found: &mut Vec<Found>) {
    for (panel, i, target) in all_targets(dashboard, "prometheus") {
        let Ok(expr) = parse(&substituted(&text(target, "expr"))) else { continue };
        for selected in selectors(&expr) {
            let is_counter = selected.vector.name.as_deref().is_some_and(|name| name.ends_with("_total"));
            if is_counter && !RATES.contains(&selected.function) {
                found.push((panel.clone(), Some(i), format!("a counter as it is: {}", selected.vector)));
            }
        }
    }
}

fn uneditable(dashboard: &Value, found: &mut Vec<Found>) {
    if dashboard["editable"] != false {
        found.push((None, None, "can be edited where it is provisioned".to_owned()));
    }
}

/// The exceptions of a `.lint` file.
pub(crate) struct Exceptions(Value);

impl Exceptions {
    /// Reads the file; every rule in it needs a reason and entries.
    pub(crate) fn read(text: &str) -> Self {
        let file: Value = serde_json::from_str(text).expect("a .lint file in JSON");
        for (rule, exception) in file["exclusions"].as_object().expect("exclusions") {
            assert!(RULES.iter().any(|(known, _)| known == rule), "no rule {rule}");
            assert!(exception["reason"].as_str().is_some_and(|why| why.len() > 20), "{rule}: no reason");
            assert!(!list(exception, "entries").is_empty(), "{rule}: for all dashboards?");
        }
        Self(file)
    }

    /// Returns what is left of the findings, and the exceptions that nothing needed.
    pub(crate) fn apply(&self, findings: Vec<Finding>) -> (Vec<Finding>, Vec<String>) {
        let mut unused = Vec::new();
        let mut left = findings;
        for (rule, exception) in self.0["exclusions"].as_object().expect("exclusions") {
            for entry in list(exception, "entries") {
                let before = left.len();
                left.retain(|finding| finding.rule != rule || !is_meant(entry, finding));
                if left.len() == before {
                    unused.push(format!("{rule}: {entry}"));
                }
            }
        }
        (left, unused)
    }
}

/// What an entry does not name, it means all of.
fn is_meant(entry: &Value, finding: &Finding) -> bool {
    let is = |member: &str, found: Option<&str>| entry[member].is_null() || entry[member].as_str() == found;
    let target = finding.target.map(|i| i.to_string());
    is("dashboard", Some(&finding.dashboard))
        && is("panel", finding.panel.as_deref())
        && is("targetIdx", target.as_deref())
}

/// The smallest dashboard that no rule objects to.
fn sound() -> Value {
    let variable = |name: &str, label: &str| {
        json!({
            "name": name, "label": label, "type": "query", "refresh": 2, "multi": true, "allValue": ".+",
            "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "query": format!("label_values(up{{job=~\"$job\"}}, {name})"),
        })
    };
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    json!({
        "title": "sound",
        "editable": false,
        "templating": { "list": [
            { "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus" },
            variable("job", "Job"),
            variable("instance", "Instance"),
        ]},
        "panels": [{ "type": "row", "title": "a row", "panels": [{
            "id": 1, "type": "stat", "title": "a panel", "description": "what it says", "datasource": source,
            "fieldConfig": { "defaults": { "unit": "s" }, "overrides": [
                { "properties": [{ "id": "unit", "value": "suffix:x" }] },
            ]},
            "targets": [{
                "datasource": source,
                "expr": "sum(rate(a_total{job=~\"$job\", instance=~\"$instance\"}[$__rate_interval]))",
            }],
        }]}],
    })
}

const PANEL: &str = "/panels/0/panels/0";
const TARGET: &str = "/panels/0/panels/0/targets/0";

#[test]
fn each_rule_finds_what_it_is_there_for() {
    assert_eq!(lint(&sound()), []);
    let narrowed = "{job=~\"$job\", instance=~\"$instance\"}";
    let loki = |expr: &str| json!({ "datasource": { "type": "loki", "uid": "${datasource}" }, "expr": expr });
    let expr = |text: &str| json!(text.replace("{}", narrowed));
    let cases = [
        ("template-datasource-rule", "/templating/list/0/name", json!("source")),
        ("template-datasource-rule", "/templating/list/0/label", json!("DB")),
        ("template-datasource-rule", "/templating/list/0/type", json!("custom")),
        ("template-job-rule", "/templating/list/1/name", json!("task")),
        ("template-job-rule", "/templating/list/1/label", json!("Task")),
        ("template-job-rule", "/templating/list/1/multi", json!(false)),
        ("template-instance-rule", "/templating/list/2/allValue", json!(".*")),
        ("template-instance-rule", "/templating/list/2/type", json!("custom")),
        ("template-instance-rule", "/templating/list/2/datasource/uid", json!("prom")),
        ("template-label-promql-rule", "/templating/list/1/query", json!("label_values(up{, job)")),
        ("template-label-promql-rule", "/templating/list/1/query", json!("values(up, job)")),
        ("template-on-time-change-reload-rule", "/templating/list/2/refresh", json!(1)),
        ("panel-datasource-rule", "/datasource/uid", json!("prom")),
        ("panel-datasource-rule", "/datasource", Value::Null),
        ("panel-title-description-rule", "/title", json!("")),
        ("panel-title-description-rule", "/description", Value::Null),
        ("panel-units-rule", "/fieldConfig/defaults/unit", json!("seconds")),
        ("panel-units-rule", "/fieldConfig/defaults/unit", Value::Null),
        ("panel-units-rule", "/fieldConfig/overrides/0/properties/0/value", json!("suffix:")),
        ("panel-no-targets-rule", "/targets", json!([])),
        ("target-logql-rule", "/targets/0", loki("{job=\"x\"")),
        ("target-logql-auto-rule", "/targets/0", loki("rate({job=\"x\"}[5m])")),
        ("target-promql-rule", "/targets/0/expr", json!("sum(rate(")),
        ("target-rate-interval-rule", "/targets/0/expr", expr("rate(a_total{}[5m])")),
        ("target-rate-interval-rule", "/targets/0/expr", expr("increase(a_total{}[$__range])")),
        ("target-job-rule", "/targets/0/expr", json!("a{instance=~\"$instance\"}")),
        ("target-job-rule", "/targets/0/expr", json!("a{job=\"$job\", instance=~\"$instance\"}")),
        ("target-instance-rule", "/targets/0/expr", json!("a{job=~\"$job\"}")),
        ("target-counter-agg-rule", "/targets/0/expr", expr("sum(a_total{})")),
        ("target-counter-agg-rule", "/targets/0/expr", expr("max_over_time(a_total{}[$__rate_interval])")),
        ("uneditable-dashboard", "/editable", json!(true)),
    ];
    let mut shown = BTreeSet::new();
    for (rule, place, value) in cases {
        let mut broken = sound();
        let place = match place.split('/').nth(1) {
            Some("templating" | "editable") => place.to_owned(),
            _ => format!("{PANEL}{place}"),
        };
        *broken.pointer_mut(&place).unwrap_or_else(|| panic!("no {place}")) = value.clone();
        let found: BTreeSet<&str> = lint(&broken).into_iter().map(|finding| finding.rule).collect();
        assert!(found.contains(rule), "{place} = {value}: {found:?}");
        shown.insert(rule);
    }
    let all: BTreeSet<&str> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(shown, all, "a rule that no case shows");
}

#[test]
fn a_rule_speaks_of_nothing_else() {
    let mut broken = sound();
    *broken.pointer_mut(&format!("{TARGET}/expr")).expect("a target") = json!("a{job=~\"$job\"}");
    let found = lint(&broken);
    assert!(
        matches!(&found[..], [one] if one.rule == "target-instance-rule"
            && one.panel.as_deref() == Some("a panel") && one.target == Some(0)),
        "{found:?}"
    );
}

#[test]
fn an_exception_is_for_what_it_names_alone() {
    let mut broken = sound();
    *broken.pointer_mut(&format!("{TARGET}/expr")).expect("a target") = json!("a");
    let lint_file = |entries: Value| {
        let file = json!({ "exclusions": { "target-job-rule": {
            "reason": "a reason that says enough", "entries": entries,
        }}});
        Exceptions::read(&file.to_string())
    };
    for (entries, left, unused) in [
        (json!([{ "dashboard": "sound", "panel": "a panel", "targetIdx": "0" }]), 1, 0),
        (json!([{ "dashboard": "sound" }]), 1, 0),
        (json!([{ "dashboard": "sound", "panel": "another" }]), 2, 1),
        (json!([{ "dashboard": "sound", "targetIdx": "1" }]), 2, 1),
    ] {
        let (found, idle) = lint_file(entries.clone()).apply(lint(&broken));
        assert_eq!((found.len(), idle.len()), (left, unused), "{entries}: {found:?} {idle:?}");
    }
}
