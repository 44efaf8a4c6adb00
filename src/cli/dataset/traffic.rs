//! Kept traffic: clients of the admin API.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Map, Value, json};

use crate::cli::admin_client::AdminClient;
use crate::cli::spend::query;
use crate::cli::table::{Column, listing, number, table, text};
use crate::cli::{ConfigOption, say};

const CAPTURED: &str = "/admin/v1/datasets/captured";

/// Options of `tunegate dataset from-traffic`.
#[derive(Args)]
pub(in crate::cli) struct FromTraffic {
    /// The model whose traffic it is.
    #[arg(long, value_name = "MODEL")]
    route: String,
    /// Only answers of this deployment.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    deployment: Option<String>,
    /// Only traffic of this team, which owns the file; without it all traffic, and the file is the operator's.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    team: Option<String>,
    /// From this day or moment on, UTC.
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Before this day or moment, UTC.
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// By what people thought of the answer: any, up, not-down or corrected.
    #[arg(long, value_name = "WHICH")]
    feedback: Option<String>,
    /// At most so many rows, the newest.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Leave rows out that repeat a newer one.
    #[arg(long)]
    dedupe: bool,
    /// Make pairs for DPO: a correction and what it corrects, a good and a bad answer to the same prompt.
    #[arg(long)]
    preference: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Options of `tunegate dataset captured`.
#[derive(Args)]
pub(in crate::cli) struct Captured {
    #[command(flatten)]
    common: Common,
}

/// Options of `tunegate dataset forget`.
#[derive(Args)]
pub(in crate::cli) struct Forget {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    common: Common,
}

// an empty value, as of a shell's variable that is not set, would take all that the others name
#[derive(Args)]
#[group(required = true, multiple = true)]
struct What {
    /// Of this request.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    request_id: Option<String>,
    /// Of this user, as the application named them in `safety_identifier`, or else in `user`.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// Of this team.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    team: Option<String>,
    /// Of this model.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    route: Option<String>,
}

#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    config: ConfigOption,
    /// Write the gateway's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Common {
    fn says(&self, answer: &Value, words: fn(&Value) -> String) {
        say(&if self.json { answer.to_string() } else { words(answer) });
    }
}

pub(super) fn from_traffic(options: &FromTraffic) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.common.config)?;
    let answer = client.ask("POST", "/admin/v1/datasets/from-traffic", Some(&order(options)))?.read(200)?;
    options.common.says(&answer, made);
    Ok(())
}

fn order(options: &FromTraffic) -> Value {
    let FromTraffic { route, deployment, team, from, to, feedback, limit, dedupe, preference, .. } = options;
    let mut order = Map::new();
    order.insert("route".to_owned(), json!(route));
    for (name, value) in
        [("deployment", deployment), ("team", team), ("from", from), ("to", to), ("feedback", feedback)]
    {
        order.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
    }
    order.extend(limit.iter().map(|limit| ("limit".to_owned(), json!(limit))));
    for (name, value) in [("dedupe", *dedupe), ("preference", *preference)] {
        order.extend(value.then(|| (name.to_owned(), json!(true))));
    }
    Value::Object(order)
}

pub(super) fn captured(options: &Captured) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.common.config)?;
    let answer = client.ask("GET", CAPTURED, None)?.read(200)?;
    options.common.says(&answer, counts);
    Ok(())
}

pub(super) fn forget(options: &Forget) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.common.config)?;
    let What { request_id, user, team, route } = &options.what;
    let what = [
        ("request_id", request_id.as_ref()),
        ("user", user.as_ref()),
        ("team", team.as_ref()),
        ("model", route.as_ref()),
    ];
    let answer = client.ask("DELETE", &query(CAPTURED, &what), None)?.read(200)?;
    options.common.says(&answer, erased);
    Ok(())
}

/// The file, and what was left out of it.
fn made(answer: &Value) -> String {
    let mut words = format!(
        "{} ({}): {} rows, {} bytes, of {}",
        text(&answer["file"]),
        text(&answer["filename"]),
        text(&answer["rows"]),
        text(&answer["bytes"]),
        text(&answer["owner"]),
    );
    for (name, what) in [
        ("corrected", "with a correction for an answer"),
        ("repeated", "left out: they repeat a newer one"),
        ("unfit", "left out: no row can be made of them"),
    ] {
        if answer[name].as_u64() > Some(0) {
            words.push_str(&format!("\n{} {what}", text(&answer[name])));
        }
    }
    words.push_str(&format!("\nits check: tunegate files show {}", text(&answer["file"])));
    words
}

fn counts(answer: &Value) -> String {
    match listing(answer) {
        [] => "no traffic is kept: `capture` of a model switches it on".to_owned(),
        some => table(&COLUMNS, some),
    }
}

fn erased(answer: &Value) -> String {
    format!(
        "{} exchanges are gone; files that were made of them are not: delete those yourself",
        text(&answer["erased"])
    )
}

const COLUMNS: [Column; 9] = [
    Column("MODEL", |one| text(&one["model"])),
    Column("DEPLOYMENT", |one| text(&one["deployment"])),
    Column("ROWS", |one| number(&one["rows"])),
    Column("BYTES", |one| number(&one["bytes"])),
    Column("UP", |one| number(&one["up"])),
    Column("DOWN", |one| number(&one["down"])),
    Column("CORRECTED", |one| number(&one["corrected"])),
    Column("OLDEST", |one| day(&one["oldest_ms"])),
    Column("NEWEST", |one| day(&one["newest_ms"])),
];

/// The day of a moment, UTC.
fn day(value: &Value) -> String {
    let at = value.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_in_words() {
        let answer = json!({
            "file": "file-1", "filename": "bot-traffic.jsonl", "rows": 12, "bytes": 345, "owner": "team:ops",
            "corrected": 2, "repeated": 0, "unfit": 1,
        });
        assert_eq!(
            made(&answer),
            "file-1 (bot-traffic.jsonl): 12 rows, 345 bytes, of team:ops\n2 with a correction for an answer\n1 left \
             out: no row can be made of them\nits check: tunegate files show file-1"
        );
        assert_eq!(counts(&json!({"data": []})), "no traffic is kept: `capture` of a model switches it on");
        let one =
            json!({"model": "bot", "deployment": "v3", "rows": 3, "oldest_ms": 0, "newest_ms": 86_400_000});
        let shown = counts(&json!({"data": [one]}));
        assert!(shown.lines().count() == 2 && shown.ends_with("1970-01-02"), "{shown}");
    }
}
