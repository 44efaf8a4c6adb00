//! The variables at the top of a dashboard.

use serde_json::{Value, json};

use crate::page::{Filter, Page};

/// The windows for which the ledger's sums are exported, and how each is called.
const WINDOWS: [(&str, &str); 4] =
    [("month", "This month"), ("30d", "30 days"), ("7d", "7 days"), ("today", "Today")];

/// Returns the variables of a dashboard, in the order in which they stand. Deployments are those of the models before.
pub(crate) fn all(page: Page) -> Vec<Value> {
    // a worker on a machine of its own has no gateway's metrics
    let born = if page == Page::Worker { "tunegate_worker_queue" } else { "tunegate_build_info" };
    let mut list = vec![
        datasource(),
        query("job", "Job", ".+", &format!("label_values({born}, job)")),
        query("instance", "Instance", ".+", &format!("label_values({born}{{job=~\"$job\"}}, instance)")),
    ];
    list.extend(page.filters().iter().map(|filter| narrowing(*filter)));
    if page == Page::Spend {
        list.push(window());
    }
    list
}

fn narrowing(filter: Filter) -> Value {
    let here = "job=~\"$job\", instance=~\"$instance\"";
    let (label, metric, matchers) = match filter {
        Filter::Team => ("Team", "tunegate_spend_usd", here.to_owned()),
        Filter::Model => ("Model", "tunegate_route_info", here.to_owned()),
        Filter::Deployment => ("Deployment", "tunegate_route_info", format!("{here}, model=~\"$model\"")),
        Filter::Budget => ("Budget", "tunegate_budget_limit_usd", here.to_owned()),
        Filter::Prompt => ("Prompt", "tunegate_prompt_requests_total", here.to_owned()),
        Filter::Provider => ("Provider", "tunegate_tuning_jobs", here.to_owned()),
    };
    let name = filter.name();
    // what lacks the label is part of the whole, too
    query(name, label, ".*", &format!("label_values({metric}{{{matchers}}}, {name})"))
}

fn datasource() -> Value {
    json!({
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": false,
        "multi": false,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": false,
    })
}

/// A variable of all values that a label has. All of them at first, as one pattern, so that an expression stays short.
fn query(name: &str, label: &str, all: &str, query: &str) -> Value {
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": { "type": "prometheus", "uid": "${datasource}" },
        "query": query,
        "allValue": all,
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        "hide": 0,
        "includeAll": true,
        "multi": true,
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": false,
        "sort": 1,
    })
}

/// Which of the ledger's windows is divided up.
fn window() -> Value {
    let options: Vec<Value> = WINDOWS
        .iter()
        .enumerate()
        .map(|(i, (value, text))| json!({ "selected": i == 0, "text": text, "value": value }))
        .collect();
    let query: Vec<String> = WINDOWS.iter().map(|(value, text)| format!("{text} : {value}")).collect();
    json!({
        "name": "window",
        "label": "Window",
        "type": "custom",
        "query": query.join(", "),
        "current": options[0],
        "hide": 0,
        "includeAll": false,
        "multi": false,
        "options": options,
        "skipUrlSync": false,
    })
}
