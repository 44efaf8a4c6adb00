//! `tunegate cache`: clients of the admin API.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::admin_client::AdminClient;
use super::spend::query;
use super::table::{Column, number, table, text};
use super::{ConfigOption, say};

/// Options of `tunegate cache`.
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
    /// Show how many answers are kept, and of which models.
    Show,
    /// Let answers go: those that all of this is true of.
    Purge(Purge),
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Purge {
    /// Of this model: its name in the catalog.
    #[arg(long)]
    model: Option<String>,
    /// Given by this deployment.
    #[arg(long)]
    deployment: Option<String>,
    /// Paid for by this key: its id or its alias.
    #[arg(long, value_name = "ID-OR-ALIAS")]
    key: Option<String>,
    /// Given to this stored prompt, or to one version of it.
    #[arg(long, value_name = "NAME|NAME@NUMBER")]
    prompt: Option<String>,
    /// Older than so many seconds.
    #[arg(long, value_name = "SECONDS")]
    older_than: Option<u64>,
    /// The one that has this x-tunegate-cache-key.
    #[arg(long, value_name = "KEY")]
    entry: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["model", "deployment", "key", "prompt", "older_than", "entry"])]
    all: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let (answer, words): (Value, fn(&Value) -> String) = match &options.command {
        Command::Show => (client.ask("GET", "/admin/v1/cache", None)?.read(200)?, shown),
        Command::Purge(which) => (client.ask("DELETE", &path(which), None)?.read(200)?, purged),
    };
    say(&if options.json { answer.to_string() } else { words(&answer) });
    Ok(())
}

fn path(which: &Purge) -> String {
    let Purge { model, deployment, key, prompt, older_than, entry, all } = which;
    query(
        "/admin/v1/cache",
        &[
            ("model", model.as_ref()),
            ("deployment", deployment.as_ref()),
            ("key", key.as_ref()),
            ("prompt", prompt.as_ref()),
            ("older_than_s", older_than.map(|seconds| seconds.to_string()).as_ref()),
            ("entry", entry.as_ref()),
            ("all", all.then(|| "true".to_owned()).as_ref()),
        ],
    )
}

/// What is kept in all, and a line a model.
fn shown(answer: &Value) -> String {
    let (entries, bytes, limit) =
        (text(&answer["entries"]), text(&answer["bytes"]), text(&answer["limit_bytes"]));
    let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all = format!("{entries} answers, {bytes} of {limit} bytes");
    if models.is_empty() { all } else { format!("{all}\n{}", table(&MODELS, models)) }
}

fn purged(answer: &Value) -> String {
    format!("{} answers are gone", text(&answer["purged"]))
}

const MODELS: [Column; 3] = [
    Column("MODEL", |model| text(&model["model"])),
    Column("ANSWERS", |model| number(&model["entries"])),
    Column("BYTES", |model| number(&model["bytes"])),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_kept_in_words() {
        let none = json!({"entries": 0, "bytes": 0, "limit_bytes": 9, "models": []});
        assert_eq!(shown(&none), "0 answers, 0 of 9 bytes");
        let some = json!({"entries": 2, "bytes": 7, "limit_bytes": 9,
            "models": [{"model": "bot", "entries": 2, "bytes": 7}]});
        assert_eq!(shown(&some), "2 answers, 7 of 9 bytes\nMODEL  ANSWERS  BYTES\nbot    2        7");
    }

    #[test]
    fn what_goes_is_asked_by_name() {
        let which = Purge {
            model: Some("a/b".to_owned()),
            deployment: None,
            key: None,
            prompt: Some("support@3".to_owned()),
            older_than: Some(60),
            entry: None,
            all: false,
        };
        assert_eq!(path(&which), "/admin/v1/cache?model=a%2Fb&prompt=support%403&older_than_s=60");
    }
}
