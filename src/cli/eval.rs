//! `tunegate eval`: models asked what is known, by the running gateway; a file on disk is uploaded first.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::evaluations::{EVALUATIONS, Format, written};
use super::table::{number, text};
use super::{ConfigOption, say, warn};
use crate::clock;

/// Between two looks at an evaluation that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// Options of `tunegate eval`.
#[derive(Args)]
pub(super) struct Options {
    /// The held-out file on disk, or the id of an uploaded one (file-…); may be left out with --general
    #[arg(value_name = "FILE", required_unless_present = "general")]
    file: Option<String>,
    /// The models, with commas between; the others are compared with the first
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    models: Vec<String>,
    /// The route whose deployments may be named among the models
    #[arg(long, value_name = "MODEL")]
    route: Option<String>,
    /// Also a fixed set of general questions: what was forgotten in training
    #[arg(long)]
    general: bool,
    /// Also how likely each model finds the file's answers: loss and perplexity, of local models only
    #[arg(long)]
    loss: bool,
    /// A model that marks the answers from 1 to 5
    #[arg(long, value_name = "MODEL")]
    judge: Option<String>,
    /// A file with what the judge is told
    #[arg(long, value_name = "FILE", requires = "judge")]
    judge_prompt: Option<PathBuf>,
    /// Rows of the file that are asked [default: 200]
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// What rows and orders are drawn by [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A rule that each model but the first has to keep, such as "min exact 0.8"; may be repeated [default: the route's]
    #[arg(long, value_name = "RULE")]
    gate: Vec<String>,
    /// A file with a JSON schema that answers have to keep
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The key that pays: its alias or id
    #[arg(long, value_name = "KEY", conflicts_with = "team")]
    key: Option<String>,
    /// The team that pays
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Questions at once [default: 4]
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// The temperature, or `none` to leave it to the models [default: 0]
    #[arg(long, value_name = "T")]
    temperature: Option<String>,
    /// The cap on each answer
    #[arg(long, value_name = "TOKENS")]
    max_output_tokens: Option<u64>,
    /// Keep the words of the answers, for `tunegate evaluations answers`
    #[arg(long)]
    keep_answers: bool,
    /// Wait for the report; the exit code says whether the gate was passed
    #[arg(long)]
    wait: bool,
    /// Wait for so many minutes at most; the evaluation itself goes on
    #[arg(long, value_name = "MINUTES", requires = "wait")]
    timeout: Option<u64>,
    /// How the answer is written
    #[arg(long, default_value = "text")]
    format: Format,

    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let body = body(options)?;
    let client = AdminClient::new(&options.config)?;
    let body = with_file(&client, options, body)?;
    let made: Value = client.ask("POST", EVALUATIONS, Some(&body))?.read(201)?;
    if !options.wait {
        let told = match options.format {
            Format::Json => made.to_string(),
            _ => format!(
                "{}: {} questions; `tunegate evaluations report {0}` has what comes of them",
                text(&made["id"]),
                number(&made["questions"])
            ),
        };
        say(&told);
        return Ok(());
    }
    let ended = wait(&client, &made, options.timeout)?;
    say(&written(&client, &text(&ended["id"]), options.format)?);
    let is_refused = |verdict: &&Value| verdict["passed"] == false;
    match ended["gate"].as_array().into_iter().flatten().find(is_refused) {
        Some(refused) => bail!("{} does not pass the gate", text(&refused["model"])),
        None => Ok(()),
    }
}

/// What is asked for, but for the file.
fn body(options: &Options) -> anyhow::Result<Map<String, Value>> {
    let judge = match (&options.judge, &options.judge_prompt) {
        (None, _) => Value::Null,
        (Some(model), None) => json!({"model": model}),
        (Some(model), Some(prompt)) => json!({"model": model, "prompt": read(prompt)?}),
    };
    let schema: Value = match &options.schema {
        None => Value::Null,
        Some(path) => {
            serde_json::from_str(&read(path)?).with_context(|| format!("{} is no JSON", path.display()))?
        }
    };
    let members = json!({
        "models": options.models,
        "route": options.route,
        "general": options.general,
        "loss": options.loss,
        "judge": judge,
        "rows": options.rows,
        "seed": options.seed,
        "gate": (!options.gate.is_empty()).then_some(&options.gate),
        "schema": schema,
        "key": options.key,
        "team": options.team,
        "concurrency": options.concurrency,
        "max_output_tokens": options.max_output_tokens,
        "keep_answers": options.keep_answers,
    });
    let Value::Object(mut body) = members else { return Ok(Map::new()) };
    body.retain(|_, value| !value.is_null());
    match options.temperature.as_deref() {
        None => {}
        // null is not the same as nothing: that is 0
        Some("none") => drop(body.insert("temperature".to_owned(), Value::Null)),
        Some(number) => {
            let number: f64 = number.parse().context("--temperature is a number of 0 to 2, or none")?;
            body.insert("temperature".to_owned(), json!(number));
        }
    }
    Ok(body)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// With the held-out file, which is uploaded where it is one on disk.
fn with_file(client: &AdminClient, options: &Options, mut body: Map<String, Value>) -> anyhow::Result<Value> {
    let Some(file) = &options.file else { return Ok(Value::Object(body)) };
    let path = Path::new(file);
    let id = match path.exists() {
        true => {
            let uploaded: Value = client.upload("/admin/v1/files", path)?.read(200)?;
            let id = text(&uploaded["id"]);
            warn(&format!("{file} is uploaded as {id}"));
            id
        }
        false if file.starts_with("file-") => file.clone(),
        false => bail!("there is no file {file}, and an uploaded one is named by its id, file-…"),
    };
    body.insert("file".to_owned(), id.into());
    Ok(Value::Object(body))
}

/// Waits for the end, for so many minutes where that is said, and tells now and then how far it is.
fn wait(client: &AdminClient, made: &Value, minutes: Option<u64>) -> anyhow::Result<Value> {
    let began = clock::monotonic();
    let most = minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let path = format!("{EVALUATIONS}/{}", path_segment(&text(&made["id"])));
    let mut told = None;
    loop {
        let shown: Value = client.ask("GET", &path, None)?.read(200)?;
        match text(&shown["status"]).as_str() {
            "succeeded" => return Ok(shown),
            "failed" => bail!("{} has failed: {}", text(&shown["id"]), text(&shown["why"])),
            "cancelled" => bail!("{} was cancelled", text(&shown["id"])),
            _ => {}
        }
        let (answers, questions) = (shown["answers"].as_u64(), shown["questions"].as_u64().unwrap_or(1));
        let tenth = answers.map(|answers| answers * 10 / questions.max(1));
        if tenth != told {
            told = tenth;
            warn(&format!("{} of {questions} questions are answered", answers.unwrap_or_default()));
        }
        if most.is_some_and(|most| clock::monotonic().saturating_duration_since(began) >= most) {
            bail!(
                "{0} has not ended: {1} of {questions} questions are answered, and it goes on; `tunegate evaluations \
                 show {0}` says how it stands",
                text(&shown["id"]),
                answers.unwrap_or_default()
            );
        }
        sleep(LOOK);
    }
}
