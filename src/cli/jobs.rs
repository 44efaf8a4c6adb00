//! `tunegate jobs`: clients of the admin API.

use std::io::{self, IsTerminal as _};
use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::progress::{Line, bar, time};
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say};

/// Between two looks at a job that is watched.
const LOOK: Duration = Duration::from_secs(2);
/// Characters of the bar of a job that is watched.
const BAR: u64 = 20;
/// Jobs or events that are asked for at once.
const PAGE: usize = 100;

/// Options of `tunegate jobs`.
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
    /// Make a job of a file that is uploaded. What it may cost is held before anything is sent to a provider.
    Create {
        /// The base model, or a fine-tuned one to go on from; `azure/RESOURCE/MODEL` and `local/MODEL` say where.
        #[arg(long, value_name = "MODEL")]
        model: String,
        /// The id of the training file.
        #[arg(long, value_name = "FILE-ID")]
        file: String,
        /// The id of the validation file.
        #[arg(long, value_name = "FILE-ID")]
        validation: Option<String>,
        /// How often the data is gone through [default: the provider chooses]
        #[arg(long, value_name = "N")]
        epochs: Option<u64>,
        /// What the model's name shall hold.
        #[arg(long, value_name = "TEXT")]
        suffix: Option<String>,
        /// For a run that can be repeated.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// More members of the request, as one JSON object: `{"method": {"type": "dpo", …}}`.
        #[arg(long, value_name = "JSON")]
        more: Option<String>,
        /// The team that it is made and paid for.
        #[arg(long, value_name = "NAME")]
        team: Option<String>,
    },
    /// List jobs, the latest first.
    List {
        /// Only this team's.
        #[arg(long, value_name = "NAME")]
        team: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Show one job.
    Show {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Write what happens to a job until it ends; the exit code says whether it succeeded.
    Watch {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// List what happened to a job, the latest first.
    Events {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// End a job: what was trained until then is billed.
    Cancel {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Stop a job that can go on later.
    Pause {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
    },
    /// Let a job go on.
    Resume {
        /// The job's id.
        #[arg(value_name = "JOB")]
        job: String,
    },
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let answer: Value = match &options.command {
        Command::Create { team, .. } => {
            let path = for_team("/admin/v1/fine_tuning/jobs", team.as_deref());
            client.ask("POST", &path, Some(&body(&options.command)?))?.read(200)?
        }
        Command::List { team, limit } => {
            let path = for_team(&format!("/admin/v1/fine_tuning/jobs?limit={limit}"), team.as_deref());
            let listed: Value = client.ask("GET", &path, None)?.read(200)?;
            say(&if options.json { listed.to_string() } else { table(&COLUMNS, listing(&listed)) });
            return Ok(());
        }
        Command::Events { job, limit } => {
            let path = format!("{}/events?limit={limit}", path_of(job));
            let listed: Value = client.ask("GET", &path, None)?.read(200)?;
            say(&if options.json { listed.to_string() } else { table(&EVENTS, listing(&listed)) });
            return Ok(());
        }
        Command::Watch { job } => return watch(&client, job, options.json),
        Command::Show { job } => client.ask("GET", &path_of(job), None)?.read(200)?,
        Command::Cancel { job } => wish(&client, job, "cancel")?,
        Command::Pause { job } => wish(&client, job, "pause")?,
        Command::Resume { job } => wish(&client, job, "resume")?,
    };
    say(&if options.json { answer.to_string() } else { one(&shown_job(answer)) });
    Ok(())
}

fn path_of(job: &str) -> String {
    format!("/admin/v1/fine_tuning/jobs/{}", path_segment(job))
}

fn for_team(path: &str, team: Option<&str>) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    team.map_or_else(|| path.to_owned(), |team| format!("{path}{sign}team={}", path_segment(team)))
}

fn wish(client: &AdminClient, job: &str, word: &str) -> anyhow::Result<Value> {
    client.ask("POST", &format!("{}/{word}", path_of(job)), None)?.read(200)
}

/// The request of a new job.
fn body(command: &Command) -> anyhow::Result<Value> {
    let Command::Create { model, file, validation, epochs, suffix, seed, more, .. } = command else {
        return Ok(Value::Null);
    };
    let mut body: Map<String, Value> = match more {
        Some(more) => match serde_json::from_str(more) {
            Ok(Value::Object(more)) => more,
            _ => bail!("--more is no JSON object"),
        },
        None => Map::new(),
    };
    body.insert("model".to_owned(), json!(model));
    body.insert("training_file".to_owned(), json!(file));
    let named = [
        ("validation_file", validation.as_ref().map(|id| json!(id))),
        ("suffix", suffix.as_ref().map(|suffix| json!(suffix))),
        ("seed", seed.map(|seed| json!(seed))),
    ];
    body.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    if let Some(epochs) = epochs {
        let supervised = json!({"type": "supervised", "supervised": {"hyperparameters": {}}});
        let method = body.entry("method").or_insert(supervised);
        let kind = method["type"].as_str().unwrap_or("supervised").to_owned();
        method[kind.as_str()]["hyperparameters"]["n_epochs"] = json!(epochs);
    }
    Ok(body.into())
}

/// A job for a person: what is long and of use to programs only is left out.
fn shown_job(mut job: Value) -> Value {
    if let Some(ours) = job.get_mut("tunegate").and_then(Value::as_object_mut) {
        ours.remove("raw");
    }
    job
}

/// Writes new events as they come, until the job is over.
fn watch(client: &AdminClient, job: &str, json: bool) -> anyhow::Result<()> {
    let shown = !json && io::stdout().is_terminal() && io::stderr().is_terminal();
    let (mut known, mut figures): (Option<String>, Value) = (None, Value::Null);
    let progress = Line::new(shown);
    loop {
        // first how it stands: what happens behind that is told at the next look
        let now: Value = client.ask("GET", &path_of(job), None)?.read(200)?;
        let path = format!("{}/events?limit={PAGE}", path_of(job));
        let events: Value = client.ask("GET", &path, None)?.read(200)?;
        let new: Vec<&Value> = listing(&events)
            .iter()
            .take_while(|event| event["id"].as_str() != known.as_deref() || known.is_none())
            .collect();
        progress.wipe();
        for event in new.iter().rev() {
            if event["data"]["step"].is_u64() {
                figures = event["data"].clone();
                if progress.is_shown() && !ends_epoch(&figures) {
                    continue;
                }
            }
            say(&if json { event.to_string() } else { line(event) });
        }
        if let Some(last) = new.first() {
            known = last["id"].as_str().map(str::to_owned);
        }
        match now["status"].as_str() {
            Some("succeeded") => {
                say(&if json { now.to_string() } else { one(&shown_job(now)) });
                return Ok(());
            }
            Some(end @ ("failed" | "cancelled")) => {
                bail!(
                    "the job {job} has {end}: {}",
                    now["error"]["message"].as_str().unwrap_or("without a reason")
                );
            }
            _ => {
                progress.draw(&standing(&now, &figures));
                sleep(LOOK);
            }
        }
    }
}

/// Whether a step's figures are of more than the step: they stay to be read.
fn ends_epoch(figures: &Value) -> bool {
    figures["full_valid_loss"].is_number()
}

/// How a job stands, in a line: as much as is known of it. `figures` are those of its last step.
fn standing(job: &Value, figures: &Value) -> String {
    let status = text(&job["status"]);
    let count = |name: &str| figures[name].as_u64().or_else(|| job["tunegate"][name].as_u64());
    let mut parts = Vec::new();
    match (count("step").unwrap_or(0), count("total_steps").filter(|total| *total > 0)) {
        (step, Some(total)) => {
            // its bar says that it runs
            let word = if status == "running" { String::new() } else { format!("{status}  ") };
            parts.push(format!("{word}{} {step}/{total}", bar(step, total, BAR)));
        }
        (_, None) => parts.push(status.clone()),
    }
    if let Some(loss) = figures["train_loss"].as_f64() {
        parts.push(format!("loss {loss:.3}"));
    }
    // of one that waits, the speed of its last step says nothing
    if status == "running" {
        parts.extend(figures["tokens_per_second"].as_f64().map(|speed| format!("{speed:.0} tok/s")));
        parts.extend(figures["eta_seconds"].as_u64().map(|left| format!("{} left", time(left))));
    }
    parts.join("  ")
}

fn line(event: &Value) -> String {
    format!("{}  {:<5}  {}", date(&event["created_at"]), text(&event["level"]), text(&event["message"]))
}

const COLUMNS: [Column; 8] = [
    Column("ID", |job| text(&job["id"])),
    Column("STATUS", |job| text(&job["status"])),
    Column("MODEL", |job| text(&job["model"])),
    Column("STEP", |job| match (&job["tunegate"]["step"], &job["tunegate"]["total_steps"]) {
        (_, total) if total.as_u64().unwrap_or(0) == 0 => String::new(),
        (step, total) => format!("{step}/{total}"),
    }),
    Column("HELD USD", |job| number(&job["tunegate"]["held_usd"])),
    Column("COST USD", |job| number(&job["tunegate"]["cost_usd"])),
    Column("CREATED", |job| date(&job["created_at"])),
    Column("RESULT", |job| match &job["fine_tuned_model"] {
        Value::Null => text(&job["error"]["message"]),
        model => text(model),
    }),
];

const EVENTS: [Column; 3] = [
    Column("TIME", |event| date(&event["created_at"])),
    Column("LEVEL", |event| text(&event["level"])),
    Column("MESSAGE", |event| text(&event["message"])),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_was_named() {
        let create = |epochs, more: Option<&str>| Command::Create {
            model: "gpt-4.1-mini".to_owned(),
            file: "file-1".to_owned(),
            validation: None,
            epochs,
            suffix: Some("eu".to_owned()),
            seed: None,
            more: more.map(str::to_owned),
            team: None,
        };
        let plain = json!({"model": "gpt-4.1-mini", "training_file": "file-1", "suffix": "eu"});
        assert_eq!(body(&create(None, None)).expect("sound"), plain);
        let counted = body(&create(Some(3), None)).expect("sound");
        assert_eq!(counted["method"]["supervised"]["hyperparameters"]["n_epochs"], 3);
        let dpo = r#"{"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}}"#;
        let dpo = body(&create(Some(2), Some(dpo))).expect("sound");
        assert_eq!(dpo["method"]["dpo"]["hyperparameters"], json!({"beta": 0.1, "n_epochs": 2}));
        assert!(body(&create(None, Some("[]"))).is_err());
        assert_eq!(for_team("/x?limit=1", Some("a b")), "/x?limit=1&team=a%20b");
        assert_eq!(for_team("/x", None), "/x");
    }

    #[test]
    fn a_job_s_line_has_what_is_known_of_it() {
        let figures = json!({"step": 45, "total_steps": 90, "train_loss": 0.3125, "tokens_per_second": 209.7,
            "eta_seconds": 62});
        let openai = json!({"step": 3, "train_loss": 0.5, "train_mean_token_accuracy": 0.9});
        let job = |status: &str| json!({"status": status, "tunegate": {"step": null, "total_steps": null}});
        let counted = json!({"status": "running", "tunegate": {"step": 4, "total_steps": 8}});
        for (job, figures, want) in [
            (job("running"), &figures, "[##########··········] 45/90  loss 0.312  210 tok/s  1m 02s left"),
            (job("paused"), &figures, "paused  [##########··········] 45/90  loss 0.312"),
            (job("queued"), &Value::Null, "queued"),
            (job("running"), &Value::Null, "running"),
            (job("running"), &openai, "running  loss 0.500"),
            (counted.clone(), &Value::Null, "[##########··········] 4/8"),
            (counted, &openai, "[#######·············] 3/8  loss 0.500"),
        ] {
            assert_eq!(standing(&job, figures), want);
        }
        assert!(!ends_epoch(&figures) && ends_epoch(&json!({"step": 5, "full_valid_loss": 1.5})));
    }
}
