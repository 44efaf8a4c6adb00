//! `tunegate evaluations`: what was asked, how far it is, and what was found. Clients of the admin API.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::spend::query;
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say};
use crate::domain::evaluation::report::NOT_AVAILABLE;

/// Where they are.
pub(super) const EVALUATIONS: &str = "/admin/v1/evaluations";

/// How a report is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For a wiki or a pull request
    Markdown,
}

/// Options of `tunegate evaluations`.
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
    /// List evaluations, the latest first.
    List {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Show how far one is.
    Show {
        /// Its id.
        id: String,
    },
    /// Show what was found.
    Report {
        /// Its id.
        id: String,
        /// How it is written
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// List answers, with their words where those were kept.
    Answers {
        /// The evaluation's id.
        id: String,
        /// Only of this set: held_out, general, judge or loss.
        #[arg(long, value_name = "SET")]
        part: Option<String>,
        /// Only of this model, by its number from 0.
        #[arg(long, value_name = "N")]
        model: Option<String>,
    },
    /// End one: nothing more is asked.
    Cancel {
        /// Its id.
        id: String,
    },
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let at = |id: &str| format!("{EVALUATIONS}/{}", path_segment(id));
    let (answer, words): (Value, fn(&Value) -> String) = match &options.command {
        Command::List { limit } => {
            let path = format!("{EVALUATIONS}?limit={limit}");
            (client.ask("GET", &path, None)?.read(200)?, |answer| table(&COLUMNS, listing(answer)))
        }
        Command::Show { id } => (client.ask("GET", &at(id), None)?.read(200)?, one),
        Command::Cancel { id } => (client.ask("POST", &format!("{}/cancel", at(id)), None)?.read(200)?, one),
        Command::Answers { id, part, model } => {
            let which = [("part", part.as_ref()), ("model", model.as_ref())];
            (all_answers(&client, &format!("{}/answers", at(id)), which)?, |answer| {
                table(&ANSWERS, listing(answer))
            })
        }
        Command::Report { id, format } => {
            let format = if options.json { Format::Json } else { *format };
            say(&written(&client, id, format)?);
            return Ok(());
        }
    };
    say(&if options.json { answer.to_string() } else { words(&answer) });
    Ok(())
}

/// Answers, page after page.
fn all_answers(
    client: &AdminClient,
    path: &str,
    [part, model]: [(&str, Option<&String>); 2],
) -> anyhow::Result<Value> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let path = query(path, &[part, model, ("after", after.as_ref())]);
        let mut page: Value = client.ask("GET", &path, None)?.read(200)?;
        if let Some(answers) = page["data"].as_array_mut() {
            all.append(answers);
        }
        after = page["next"].as_str().map(ToOwned::to_owned);
        if after.is_none() {
            return Ok(json!({"object": "list", "data": all}));
        }
    }
}

/// A report as it is wanted.
pub(super) fn written(client: &AdminClient, id: &str, format: Format) -> anyhow::Result<String> {
    let path = format!("{EVALUATIONS}/{}/report", path_segment(id));
    if format == Format::Markdown {
        let reply = client.ask("GET", &format!("{path}?format=markdown"), None)?;
        return Ok(reply.text(200)?.trim_end().to_owned());
    }
    let report: Value = client.ask("GET", &path, None)?.read(200)?;
    Ok(match format {
        Format::Json => report.to_string(),
        _ => told(&report),
    })
}

/// The report in words and tables.
fn told(report: &Value) -> String {
    let part = |name: &str| report[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut told = vec![format!("{}: {} USD", text(&report["evaluation"]), text(&report["cost_usd"]))];
    told.push(table(&MODELS, part("models")));
    let mut rows = Vec::new();
    for model in part("models") {
        for (measure, of) in model["measures"].as_object().into_iter().flatten() {
            let mut row = of.clone();
            row["model"] = model["model"].clone();
            row["measure"] = measure.as_str().into();
            rows.push(row);
        }
    }
    told.push(table(&QUALITY, &rows));
    told.extend(part("models").iter().filter_map(perplexity));
    if !part("comparisons").is_empty() {
        told.push(table(&COMPARED, part("comparisons")));
    }
    for verdict in part("gate") {
        let word = if verdict["passed"] == true { "passes" } else { "does not pass" };
        let rules = verdict["rules"].as_array().into_iter().flatten().map(|rule| {
            let mark = if rule["passed"] == true { "kept" } else { "NOT KEPT" };
            format!("\n  {}: {mark}, {}", text(&rule["rule"]), text(&rule["words"]))
        });
        told.push(format!("{} {word}{}", text(&verdict["model"]), rules.collect::<String>()));
    }
    told.join("\n\n")
}

/// What a model's loss comes to, where it was asked for.
fn perplexity(model: &Value) -> Option<String> {
    let (name, loss) = (text(&model["model"]), model.get("loss")?);
    if loss["available"] == false {
        return Some(format!("loss of {name}: {NOT_AVAILABLE}"));
    }
    let of = &loss["perplexity"];
    let unmeasured = match loss["unmeasured"].as_u64() {
        None | Some(0) => String::new(),
        Some(rows) => format!("; {rows} rows could not be measured: {}", text(&loss["failures"])),
    };
    let (value, low, high) = (share(&of["value"]), share(&of["low"]), share(&of["high"]));
    Some(format!("perplexity of {name}: {value} ({low} to {high}){unmeasured}"))
}

fn share(figure: &Value) -> String {
    figure.as_f64().map(|figure| format!("{figure:.3}")).unwrap_or_default()
}

const COLUMNS: [Column; 6] = [
    Column("EVALUATION", |one| text(&one["id"])),
    Column("STATUS", |one| text(&one["status"])),
    Column("ANSWERS", |one| format!("{} of {}", number(&one["answers"]), number(&one["questions"]))),
    Column("MODELS", |one| text(&one["models"])),
    Column("COST USD", |one| text(&one["cost_usd"])),
    Column("MADE", |one| date(&one["created_at"])),
];

const MODELS: [Column; 7] = [
    Column("MODEL", |one| text(&one["model"])),
    Column("ROLE", |one| text(&one["role"])),
    Column("ASKED", |one| number(&one["asked"])),
    Column("FAILED", |one| number(&one["failed"])),
    Column("P50 MS", |one| number(&one["latency"]["p50_ms"])),
    Column("P95 MS", |one| number(&one["latency"]["p95_ms"])),
    Column("USD PER 1000", |one| text(&one["usd_per_1000"])),
];

const QUALITY: [Column; 6] = [
    Column("MODEL", |one| text(&one["model"])),
    Column("MEASURE", |one| text(&one["measure"])),
    Column("VALUE", |one| share(&one["value"])),
    Column("LOW", |one| share(&one["low"])),
    Column("HIGH", |one| share(&one["high"])),
    Column("ROWS", |one| number(&one["rows"])),
];

const COMPARED: [Column; 7] = [
    Column("AGAINST THE BASE", |one| text(&one["model"])),
    Column("MEASURE", |one| text(&one["measure"])),
    Column("DIFFERENCE", |one| share(&one["difference"]["value"])),
    Column("LOW", |one| share(&one["difference"]["low"])),
    Column("HIGH", |one| share(&one["difference"]["high"])),
    Column("BETTER", |one| number(&one["better"])),
    Column("WORSE", |one| number(&one["worse"])),
];

const ANSWERS: [Column; 6] = [
    Column("SET", |one| text(&one["part"])),
    Column("QUESTION", |one| number(&one["question"])),
    Column("MODEL", |one| number(&one["model"])),
    Column("SCORES", |one| {
        let scores = one["scores"].as_object().into_iter().flatten();
        scores.map(|(name, value)| format!("{name}={}", share(value))).collect::<Vec<_>>().join(" ")
    }),
    Column("MS", |one| number(&one["latency_ms"])),
    Column("SAID", |one| match one["failed"].as_str() {
        Some(why) => format!("(none: {why})"),
        None => text(&one["said"]["text"]).split_whitespace().collect::<Vec<_>>().join(" "),
    }),
];
