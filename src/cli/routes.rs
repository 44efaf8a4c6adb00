//! `tunegate routes`: where the names of a running gateway lead, and how its deployments stand.

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, listing, number, table, text};
use super::{ConfigOption, say};

/// Options of `tunegate routes`.
#[derive(Args)]
pub(super) struct Options {
    /// Show the deployments of this model: its name, an alias, or any name that a pattern matches.
    model: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = match &options.model {
        Some(model) => format!("/admin/v1/routes/{}", path_segment(model)),
        None => "/admin/v1/routes".to_owned(),
    };
    let reply = client.ask("GET", &path, None)?;
    if options.json {
        say(reply.text(200)?);
        return Ok(());
    }
    let answer: Value = reply.read(200)?;
    say(&match options.model {
        Some(_) => one(&answer),
        None => table(&MODELS, listing(&answer)),
    });
    Ok(())
}

/// A model's plans, and its deployments in a table.
fn one(route: &Value) -> String {
    let mut lines = vec![format!("{}: {}", text(&route["model"]), text(&route["words"]))];
    for label in route["labels"].as_array().into_iter().flatten() {
        lines.push(format!("@{}: {}", text(&label["label"]), text(&label["words"])));
    }
    for (member, words) in [("longer_context", "too long"), ("content_filtered", "content-filtered")] {
        if let Some(plan) = route[member]["words"].as_str() {
            lines.push(format!("{words}: {plan}"));
        }
    }
    let deployments = route["deployments"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.push(table(&DEPLOYMENTS, deployments));
    lines.join("\n")
}

/// How many of a route's deployments can be asked: `2/3`.
fn ready(route: &Value) -> String {
    let deployments = route["deployments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = deployments.iter().filter(|deployment| state(deployment) == "closed").count();
    format!("{ready}/{}", deployments.len())
}

/// How a deployment stands: its breaker, or that it is no more.
fn state(deployment: &Value) -> String {
    match deployment["retired"].as_bool() {
        Some(true) => "retired".to_owned(),
        _ => text(&deployment["breaker"]),
    }
}

/// When it is asked again, where it is left alone.
fn again(deployment: &Value) -> String {
    match deployment["ready_in_ms"].as_u64() {
        Some(ms @ 1..) => format!("{} s", ms.div_ceil(1_000)),
        _ => "-".to_owned(),
    }
}

fn labels(route: &Value) -> String {
    let labels = route["labels"].as_array().map(Vec::as_slice).unwrap_or_default();
    labels.iter().map(|label| text(&label["label"])).collect::<Vec<_>>().join(" ")
}

const MODELS: [Column; 5] = [
    Column("MODEL", |route| text(&route["model"])),
    Column("ALIASES", |route| text(&route["aliases"])),
    Column("LABELS", labels),
    Column("READY", ready),
    Column("PLAN", |route| text(&route["words"])),
];

const DEPLOYMENTS: [Column; 12] = [
    Column("DEPLOYMENT", |one| text(&one["deployment"])),
    Column("PROVIDER", |one| text(&one["provider"])),
    Column("MODEL", |one| text(&one["upstream_model"])),
    Column("STATE", state),
    Column("AGAIN IN", again),
    Column("LAST TROUBLE", |one| text(&one["last_trouble"])),
    Column("IN FLIGHT", |one| number(&one["in_flight"])),
    Column("WAITING", |one| number(&one["waiting"])),
    Column("FIRST TOKEN MS", |one| number(&one["first_token_ms"])),
    Column("TOKENS/S", |one| number(&one["tokens_per_second"])),
    Column("QUOTA LEFT", |one| number(&one["quota_left"])),
    Column("RETIRES", |one| text(&one["retires_on"])),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route() -> Value {
        let deployment = |name: &str, breaker: &str| {
            json!({"deployment": name, "provider": "p", "upstream_model": "m", "breaker": breaker, "in_flight": 1,
                "waiting": 0, "first_token_ms": 120, "tokens_per_second": 40.5, "quota_left": null,
                "retires_on": "2027-01-14", "retired": false, "ready_in_ms": if breaker == "open" { 4_200 } else { 0 },
                "last_trouble": if breaker == "open" { json!("transient") } else { json!(null) }})
        };
        json!({"model": "bot", "aliases": ["a", "b"], "words": "x, then y",
            "labels": [{"label": "next", "words": "y"}], "longer_context": {"words": "z"}, "content_filtered": null,
            "deployments": [deployment("x", "closed"), deployment("y", "open")]})
    }

    #[test]
    fn models_in_a_table() {
        assert_eq!(
            table(&MODELS, &[route()]),
            "MODEL  ALIASES  LABELS  READY  PLAN\n\
             bot    a b      next    1/2    x, then y"
        );
    }

    #[test]
    fn one_model_with_its_deployments() {
        assert_eq!(
            one(&route()),
            "bot: x, then y\n@next: y\ntoo long: z\n\
             DEPLOYMENT  PROVIDER  MODEL  STATE   AGAIN IN  LAST TROUBLE  IN FLIGHT  WAITING  FIRST TOKEN MS  \
             TOKENS/S  QUOTA LEFT  RETIRES\n\
             x           p         m      closed  -         -             1          0        120             \
             40.5      -           2027-01-14\n\
             y           p         m      open    5 s       transient     1          0        120             \
             40.5      -           2027-01-14"
        );
    }
}
