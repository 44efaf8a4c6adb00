//! What the catalog names is in the exposition before its first request, at 0 and under the very labels that
//! docs/METRICS.md gives it: else `increase()` would not see the first one.

use std::collections::BTreeSet;

use serde_json::json;

use super::labels::Contract;
use crate::support::exposition::{Exposition, Family};
use crate::support::setup::FINE_TUNED;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, eventually};

/// What a gateway without a worker does not export: `live` has one. Only with one can questions be compared.
const OF_THE_WORKER: [&str; 4] =
    ["gen_ai_server_", "tunegate_worker_", "tunegate_semantic_lookups_", "tunegate_semantic_similarity"];
/// What is there only while a job is followed or a deployment is hosted: `live` has both.
const OF_TUNING: [&str; 8] = [
    "tunegate_tuning_job_info",
    "tunegate_tuning_job_step",
    "tunegate_tuning_job_train_loss",
    "tunegate_tuning_job_valid_loss",
    "tunegate_tuning_job_token_accuracy",
    "tunegate_hosting_cost_usd_total",
    "tunegate_hosting_usd_per_hour",
    "tunegate_hosted_",
];
/// What is not there for everything in the catalog, and why.
const SPARSE: [(&str, &str); 12] = [
    ("tunegate_deployment_retirement_timestamp_seconds", "nobody knows of most when they end"),
    ("tunegate_budget_reset_timestamp_seconds", "some windows never end"),
    ("tunegate_budget_window_seconds", "some windows never end"),
    ("tunegate_compute_seconds_total", "only of our own workers is it believed"),
    ("tunegate_hosting_reads_total", "only Azure has a list of deployments"),
    ("tunegate_captures_total", "most models' traffic is not kept"),
    ("tunegate_captured_rows", "most models' traffic is not kept"),
    ("tunegate_captured_bytes", "most models' traffic is not kept"),
    ("tunegate_prompt_requests_total", "most deployments get no prompt"),
    ("tunegate_prompt_tokens_total", "most deployments get no prompt"),
    ("tunegate_prompt_cost_usd_total", "most deployments get no prompt"),
    ("tunegate_prompt_mismatches_total", "most deployments were trained with none"),
];
/// Of budgets for each of something; the other figures are of those that have one counter.
const OF_EACH: [&str; 3] =
    ["tunegate_budget_counters", "tunegate_budget_counters_above", "tunegate_budget_worst_ratio"];

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
                    retires = \"2077-01-14\"\n\
                    [deployments.bound]\nprovider = \"openai\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n\
                    prompt = { name = \"support\" }\ntrained_with = { prompt = \"support@1\" }\n\
                    [providers.node]\nkind = \"candle\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                    [deployments.own]\nprovider = \"node\"\nmodel = \"own\"\n\
                    price = { compute_per_hour_usd = \"0.36\" }\n\
                    [models.faq]\ndeployments = [\"bound\"]\ncache = {}\ncapture = {}\n";

#[track_caller]
fn exposition(gateway: &TestGateway) -> Exposition {
    Exposition::read(&gateway.admin(Call::get("/metrics")).expect(200).text())
}

/// Every metric of the document is there, of its type and with its labels, and no other is.
#[track_caller]
fn is_as_documented(exposition: &Exposition) {
    let contract = Contract::shipped();
    let mut wrong = Vec::new();
    for (name, kind, labels) in contract.metrics() {
        let of_worker = OF_THE_WORKER.iter().any(|prefix| name.starts_with(prefix))
            && name != "tunegate_worker_starts_total";
        let Some(family) = exposition.family(name) else {
            if !of_worker && !OF_TUNING.iter().any(|prefix| name.starts_with(prefix)) {
                wrong.push(format!("{name} is documented and not there"));
            }
            continue;
        };
        if family.kind != kind {
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
        if !contract.has(&family.name) {
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
    let is_meant = |name: &&&str| label != "budget" || of_each == (**name == "users");
    let wanted = all.iter().filter(is_meant);
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
    let prompt = json!({"name": "support", "text": "Be kind.", "label": "production"});
    gateway.admin(Call::post("/admin/v1/prompts", &prompt)).expect(201);
    // the ledger's sums are read for the first time behind the start
    let first = eventually("the ledger's sums", || {
        let read = exposition(&gateway);
        (!read.samples("tunegate_spend_usd", &[]).is_empty()).then_some(read)
    });
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
    // the ledger's sums are read anew every 15 s
    let second = eventually("the newcomer in all metrics", || {
        let read = exposition(&gateway);
        (!read.samples("tunegate_spend_usd", &[("model", "newcomer")]).is_empty()).then_some(read)
    });
    is_as_documented(&second);
    // the reload itself is counted
    let of_reloads = |family: &Family| family.name == "tunegate_config_reloads_total";
    is_born(&Exposition(second.0.into_iter().filter(|family| !of_reloads(family)).collect()), &names);
}
