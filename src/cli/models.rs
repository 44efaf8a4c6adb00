//! `tunegate models`: clients of the admin API.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say, warn};

/// Options of `tunegate models`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigOption,

    /// Write the gateway's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// List all models, how far each is, and where it is deployed.
    List,
    /// Show a model: its job, its words, its checkpoints, how its training went.
    Show {
        /// The model's name, or that of one of its checkpoints.
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Move a model onto a route: candidate, then canary, then production.
    Promote {
        /// The model's name, or that of one of its checkpoints.
        #[arg(value_name = "MODEL")]
        model: String,
        /// The model of the configuration that it is to stand behind.
        #[arg(long, value_name = "NAME")]
        route: String,
        /// candidate, canary or production [default: the stage above the one it has]
        #[arg(long, value_name = "STAGE", value_parser = ["candidate", "canary", "production"])]
        to: Option<String>,
        /// A canary's part of the route [default: tuning.canary_percent]
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
        percent: Option<u8>,
        /// Have all its requests get the words that it was trained with, as a stored prompt of this name.
        #[arg(long, value_name = "PROMPT", num_args = 0..=1, default_missing_value = "")]
        bind_prompt: Option<String>,
        #[command(flatten)]
        gated: Gated,
        #[command(flatten)]
        signed: Signed,
    },
    /// Give a model a part of a route: `promote --to canary`.
    Canary {
        /// The model's name, or that of one of its checkpoints.
        #[arg(value_name = "MODEL")]
        model: String,
        /// The model of the configuration that it is to stand behind.
        #[arg(long, value_name = "NAME")]
        route: String,
        /// Its part of the route [default: tuning.canary_percent]
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
        percent: Option<u8>,
        #[command(flatten)]
        gated: Gated,
        #[command(flatten)]
        signed: Signed,
    },
    /// Put back what stood on a route before its last move that is not undone.
    Rollback {
        /// The model of the configuration.
        #[arg(long, value_name = "NAME")]
        route: String,
        #[command(flatten)]
        signed: Signed,
    },
    /// Take a model out of all routes; whoever stood there before stands there again.
    Retire {
        /// The model's name.
        #[arg(value_name = "MODEL")]
        model: String,
        #[command(flatten)]
        signed: Signed,
    },
    /// Show what was moved, by whom and why, the latest first.
    History {
        /// Only on this model of the configuration.
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
    },
    /// Have all requests of a model get the words that it was trained with, as a stored prompt.
    BindPrompt {
        /// The model's name.
        #[arg(value_name = "MODEL")]
        model: String,
        /// How the prompt is to be called [default: the model's suffix, else its job]
        #[arg(long, value_name = "PROMPT")]
        name: Option<String>,
        /// Where the words go beside what a client says.
        #[arg(long, value_name = "MODE", value_parser = ["if_absent", "replace", "prepend", "append"])]
        mode: Option<String>,
        /// Have them get none any more.
        #[arg(long, conflicts_with_all = ["name", "mode"])]
        remove: bool,
    },
    /// Deploy a model at Azure. Standard tiers cost money by the hour, used or not.
    Deploy {
        /// The model's name, or that of one of its checkpoints.
        #[arg(value_name = "MODEL")]
        model: String,
        /// How the deployment is to be called.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// developer ends after 24 hours; the others are billed by the hour.
        #[arg(long, value_name = "TIER", value_parser = ["developer", "standard", "globalstandard"])]
        tier: String,
        /// Thousands of tokens a minute.
        #[arg(long, value_name = "N")]
        capacity: Option<u32>,
        #[command(flatten)]
        signed: Signed,
    },
    /// List deployments at Azure, how far they are and what they cost.
    Deployments,
    /// Take a deployment at Azure away; the model stays.
    Undeploy {
        /// The deployment's name.
        #[arg(value_name = "NAME")]
        name: String,
        /// Also where a route is left without it.
        #[arg(long)]
        force: bool,
    },
    /// Delete a model at its provider and here, for ever.
    Delete {
        /// The model's name.
        #[arg(value_name = "MODEL")]
        model: String,
    },
}

/// What it has to have passed.
#[derive(Args)]
struct Gated {
    /// A rule beside those of the route's gate, such as "min exact 0.8"; may be repeated.
    #[arg(long, value_name = "RULE")]
    gate: Vec<String>,
    /// The evaluation that is to count [default: the latest].
    #[arg(long, value_name = "EVALUATION")]
    evaluation: Option<String>,
    /// Also without an evaluation that passes; the audit log keeps that.
    #[arg(long)]
    force: bool,
}

impl Gated {
    /// What was given, as members of a body.
    fn members(&self) -> [(&'static str, Value); 3] {
        let gate = (!self.gate.is_empty()).then_some(&self.gate);
        let force = self.force.then_some(true);
        [("gate", json!(gate)), ("evaluation", json!(self.evaluation)), ("force", json!(force))]
    }
}

/// Who does it, and why.
#[derive(Args)]
struct Signed {
    /// Who.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

impl Signed {
    /// A body with all that was given.
    fn body(&self, members: &[(&str, Value)]) -> Value {
        let signed = [("author", json!(self.author)), ("note", json!(self.note))];
        let all = members.iter().cloned().chain(signed).filter(|(_, value)| !value.is_null());
        Value::Object(all.map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let (answer, told) = asked(&AdminClient::new(&options.config)?, &options.command)?;
    say(&if options.json { answer.to_string() } else { told });
    Ok(())
}

/// The gateway's answer, and what a person reads of it.
fn asked(client: &AdminClient, command: &Command) -> anyhow::Result<(Value, String)> {
    let path = |name: &str| format!("/admin/v1/models/{}", path_segment(name));
    let get = |path: &str| -> anyhow::Result<Value> { client.ask("GET", path, None)?.read(200) };
    let post = |path: &str, body: &Value, status| -> anyhow::Result<Value> {
        client.ask("POST", path, Some(body))?.read(status)
    };
    Ok(match command {
        Command::List => {
            let listed = get("/admin/v1/models")?;
            let told = table(&MODELS, listing(&listed));
            (listed, told)
        }
        Command::Show { model } => {
            let model = get(&path(model))?;
            let told = whole(&model);
            (model, told)
        }
        Command::Promote { model, route, to, percent, bind_prompt, gated, signed } => {
            if let Some(name) = bind_prompt {
                let body = if name.is_empty() { json!({}) } else { json!({"name": name}) };
                let bound = post(&format!("{}/prompt", path(model)), &body, 200)?;
                warn(&format!("its requests get the stored prompt {}", text(&bound["bound_prompt"])));
            }
            let to = [("route", json!(route)), ("to", json!(to)), ("percent", json!(percent))];
            let body = signed.body(&[&to[..], &gated.members()].concat());
            let moved = post(&format!("{}/promote", path(model)), &body, 200)?;
            let told = told(&moved);
            (moved, told)
        }
        Command::Canary { model, route, percent, gated, signed } => {
            let to = [("route", json!(route)), ("to", json!("canary")), ("percent", json!(percent))];
            let body = signed.body(&[&to[..], &gated.members()].concat());
            let moved = post(&format!("{}/promote", path(model)), &body, 200)?;
            let told = told(&moved);
            (moved, told)
        }
        Command::Rollback { route, signed } => {
            let moved =
                post("/admin/v1/model-moves/rollback", &signed.body(&[("route", json!(route))]), 200)?;
            let told = told(&moved);
            (moved, told)
        }
        Command::Retire { model, signed } => {
            let retired = post(&format!("{}/retire", path(model)), &signed.body(&[]), 200)?;
            (retired, format!("retired {model}: it is on no route"))
        }
        Command::History { route } => {
            let query =
                route.as_ref().map(|route| format!("?route={}", path_segment(route))).unwrap_or_default();
            let moves = get(&format!("/admin/v1/model-moves{query}"))?;
            let told = table(&MOVES, listing(&moves));
            (moves, told)
        }
        Command::BindPrompt { model, remove: true, .. } => {
            let model: Value = client.ask("DELETE", &format!("{}/prompt", path(model)), None)?.read(200)?;
            (model, "its requests get no stored prompt of its own".to_owned())
        }
        Command::BindPrompt { model, name, mode, .. } => {
            let nobody = Signed { author: None, note: None };
            let body = nobody.body(&[("name", json!(name)), ("mode", json!(mode))]);
            let bound = post(&format!("{}/prompt", path(model)), &body, 200)?;
            let told = format!("its requests get the stored prompt {}", text(&bound["bound_prompt"]));
            (bound, told)
        }
        Command::Deploy { model, name, tier, capacity, signed } => {
            let body =
                signed.body(&[("name", json!(name)), ("tier", json!(tier)), ("capacity", json!(capacity))]);
            let asked = post(&format!("{}/deploy", path(model)), &body, 202)?;
            let told = format!("asked for {name}: {}", text(&asked["warning"]));
            (asked, told)
        }
        Command::Deployments => {
            let listed = get("/admin/v1/model-deployments")?;
            let told = table(&DEPLOYMENTS, listing(&listed));
            (listed, told)
        }
        Command::Undeploy { name, force } => {
            let query = if *force { "?force=true" } else { "" };
            let path = format!("/admin/v1/model-deployments/{}{query}", path_segment(name));
            let gone: Value = client.ask("DELETE", &path, None)?.read(202)?;
            (gone, format!("{name} is being taken away"))
        }
        Command::Delete { model } => {
            let deleted: Value = client.ask("DELETE", &path(model), None)?.read(200)?;
            if deleted["deleted"] != true {
                bail!("the gateway did not say that {model} is deleted");
            }
            (deleted, format!("deleted {model}"))
        }
    })
}

/// What a move has made of a route.
fn told(moved: &Value) -> String {
    let route = text(&moved["route"]);
    let plan = format!("{route}: {}", text(&moved["plan"]));
    match moved["candidate_is_asked_by"].as_str() {
        Some(name) => format!("{plan}\n{name} asks the candidate"),
        None => plan,
    }
}

/// A model, and its training in a few lines.
fn whole(model: &Value) -> String {
    let mut plain = model.clone();
    if let Some(members) = plain.as_object_mut() {
        members.retain(|name, _| {
            !matches!(name.as_str(), "curve" | "checkpoints" | "deployments" | "routes" | "evaluations")
        });
    }
    let mut told = vec![one(&plain)];
    let part = |member: &str| model[member].as_array().cloned().unwrap_or_default();
    for (columns, objects) in [
        (&ROUTES[..], part("routes")),
        (&DEPLOYED[..], part("deployments")),
        (&CHECKPOINTS[..], part("checkpoints")),
        (&EVALUATIONS[..], part("evaluations")),
        (&CURVE[..], few(&part("curve"))),
    ] {
        if !objects.is_empty() {
            told.push(table(columns, &objects));
        }
    }
    told.join("\n\n")
}

/// About twelve of the steps, the first and the last among them.
fn few(curve: &[Value]) -> Vec<Value> {
    let every = curve.len().div_ceil(12).max(1);
    let last = curve.len().saturating_sub(1);
    let is_shown = |at: usize| at == last || at.is_multiple_of(every);
    curve.iter().enumerate().filter(|(at, _)| is_shown(*at)).map(|(_, point)| point.clone()).collect()
}

/// The routes on which a model is: `support-bot=canary(10 %)`.
fn routes(model: &Value) -> String {
    let routes = model["routes"].as_array().into_iter().flatten().map(|standing| {
        let (route, stage) = (text(&standing["route"]), text(&standing["stage"]));
        match standing["percent"].as_u64() {
            Some(percent) if stage == "canary" => format!("{route}={stage}({percent} %)"),
            _ => format!("{route}={stage}"),
        }
    });
    routes.collect::<Vec<_>>().join(" ")
}

fn deployed(model: &Value) -> String {
    let all = model["deployments"].as_array().into_iter().flatten();
    all.map(|one| format!("{}({})", text(&one["name"]), text(&one["state"]))).collect::<Vec<_>>().join(" ")
}

/// Who stands where: `production=ft:a canary=ft:b(10 %)`.
fn placed(placement: &Value) -> String {
    let mut told = Vec::new();
    for name in ["production", "former", "candidate"] {
        if let Some(model) = placement[name].as_str() {
            told.push(format!("{name}={model}"));
        }
    }
    if let Some(canary) = placement["canary"]["model"].as_str() {
        told.push(format!("canary={canary}({} %)", number(&placement["canary"]["percent"])));
    }
    told.join(" ")
}

const MODELS: [Column; 7] = [
    Column("MODEL", |model| text(&model["name"])),
    Column("STAGE", |model| text(&model["stage"])),
    Column("ROUTES", routes),
    Column("DEPLOYED", deployed),
    Column("OWNER", |model| text(&model["owner"])),
    Column("TRAINING USD", |model| text(&model["training_cost_usd"])),
    Column("FINISHED", |model| date(&model["finished_at"])),
];

const ROUTES: [Column; 4] = [
    Column("ROUTE", |standing| text(&standing["route"])),
    Column("STAGE", |standing| text(&standing["stage"])),
    Column("PERCENT", |standing| number(&standing["percent"])),
    Column("AS", |standing| text(&standing["model"])),
];

const DEPLOYED: [Column; 5] = [
    Column("DEPLOYMENT", |one| text(&one["name"])),
    Column("OF", |one| text(&one["model"])),
    Column("TIER", |one| text(&one["tier"])),
    Column("STATE", |one| text(&one["state"])),
    Column("ENDS", |one| date(&one["ends_at"])),
];

const EVALUATIONS: [Column; 5] = [
    Column("EVALUATION", |one| text(&one["evaluation"])),
    Column("ENDED", |one| date(&one["ended_at"])),
    Column("AGAINST", |one| text(&one["against"])),
    Column("FOUND", |one| {
        let measures = one["found"]["measures"].as_object().into_iter().flatten();
        measures.map(|(name, of)| format!("{name}={}", number(&of["value"]))).collect::<Vec<_>>().join(" ")
    }),
    Column("GATE", |one| match one["gate"]["passed"].as_bool() {
        Some(true) => "passed".to_owned(),
        Some(false) => "not passed".to_owned(),
        None => String::new(),
    }),
];

const CHECKPOINTS: [Column; 2] = [
    Column("STEP", |checkpoint| number(&checkpoint["step"])),
    Column("CHECKPOINT", |checkpoint| text(&checkpoint["name"])),
];

const CURVE: [Column; 4] = [
    Column("STEP", |point| number(&point["step"])),
    Column("TRAIN LOSS", |point| number(&point["train_loss"])),
    Column("VALID LOSS", |point| number(&point["valid_loss"])),
    Column("ACCURACY", |point| {
        let names = ["train_mean_token_accuracy", "train_accuracy"];
        names
            .into_iter()
            .map(|name| number(&point[name]))
            .find(|figure| !figure.is_empty())
            .unwrap_or_default()
    }),
];

const DEPLOYMENTS: [Column; 9] = [
    Column("DEPLOYMENT", |one| text(&one["name"])),
    Column("OF", |one| text(&one["model"])),
    Column("PROVIDER", |one| text(&one["provider"])),
    Column("TIER", |one| text(&one["tier"])),
    Column("STATE", |one| text(&one["state"])),
    Column("USD/HOUR", |one| text(&one["usd_per_hour"])),
    Column("USD/MONTH", |one| text(&one["usd_per_month"])),
    Column("ENDS", |one| date(&one["ends_at"])),
    Column("WHY", |one| text(&one["why"])),
];

const MOVES: [Column; 8] = [
    Column("AT", |moved| date(&moved["at"])),
    Column("ROUTE", |moved| text(&moved["route"])),
    Column("NO", |moved| number(&moved["number"])),
    Column("WHAT", |moved| text(&moved["kind"])),
    Column("MODEL", |moved| text(&moved["model"])),
    Column("NOW", |moved| placed(&moved["after"])),
    Column("AUTHOR", |moved| text(&moved["author"])),
    Column("NOTE", |moved| text(&moved["note"])),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_in_lines() {
        let model = json!({
            "object": "registered_model", "name": "ft:a", "stage": "canary",
            "routes": [{"route": "bot", "model": "ft:a", "stage": "canary", "percent": 10}],
            "deployments": [{"name": "support-ft", "state": "ready", "model": "ft:a", "tier": "developer", "ends_at": 60}],
            "checkpoints": [{"step": 40, "name": "ft:a:ckpt-step-40"}],
            "curve": [{"step": 1, "train_loss": 1.5}, {"step": 2, "train_loss": 0.5, "train_accuracy": 1.0}],
        });
        assert_eq!(
            (routes(&model), deployed(&model)),
            ("bot=canary(10 %)".to_owned(), "support-ft(ready)".to_owned())
        );
        let told = whole(&model);
        for part in ["ft:a:ckpt-step-40", "1970-01-01 00:01Z", "2     0.5         -           1.0"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(few(&vec![json!(0); 100]).len(), 12);
        assert_eq!(few(&[]), Vec::<Value>::new());
    }

    #[test]
    fn a_placement_in_words() {
        let placement =
            json!({"production": "ft:a", "former": "ft:z", "canary": {"model": "ft:b", "percent": 7}});
        assert_eq!(placed(&placement), "production=ft:a former=ft:z canary=ft:b(7 %)");
        assert_eq!(placed(&json!({})), "");
    }
}
