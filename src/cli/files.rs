//! `tunegate files`: clients of the admin API.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::admin_client::{AdminClient, path_segment};
use super::spend::query;
use super::table::{Column, listing, number, one, table, text};
use super::{ConfigOption, say};

const FILES: &str = "/admin/v1/files";
/// Problems of a file that are shown.
const SHOWN_PROBLEMS: usize = 20;

/// Options of `tunegate files`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigOption,

    /// Act for this team: its alias or id. Without it all files are seen, and what is uploaded is the operator's.
    #[arg(long, global = true, value_name = "TEAM")]
    team: Option<String>,

    /// Write the gateway's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Upload a training file; its check begins by itself.
    Upload {
        /// The file, JSON lines.
        file: PathBuf,
    },
    /// List files, the newest first.
    List,
    /// Show a file and what its check found.
    Show {
        /// Its id.
        id: String,
    },
    /// Delete a file. Its content stays until no job needs it.
    Delete {
        /// Its id.
        id: String,
    },
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let at = |path: &str| query(path, &[("team", options.team.as_ref())]);
    let one_at = |id: &str, below: &str| at(&format!("{FILES}/{}{below}", path_segment(id)));
    let (answer, words): (Value, fn(&Value) -> String) = match &options.command {
        Command::Upload { file } => (client.upload(&at(FILES), file)?.read(200)?, one),
        Command::List => (client.ask("GET", &at(FILES), None)?.read(200)?, list),
        Command::Show { id } => {
            let mut file: Value = client.ask("GET", &one_at(id, ""), None)?.read(200)?;
            let report: Value = client.ask("GET", &one_at(id, "/report"), None)?.read(200)?;
            file["report"] = report["report"].clone();
            (file, show)
        }
        Command::Delete { id } => (client.ask("DELETE", &one_at(id, ""), None)?.read(200)?, deleted),
    };
    say(&if options.json { answer.to_string() } else { words(&answer) });
    Ok(())
}

fn list(answer: &Value) -> String {
    const COLUMNS: [Column; 6] = [
        Column("ID", |file| text(&file["id"])),
        Column("NAME", |file| text(&file["filename"])),
        Column("PURPOSE", |file| text(&file["purpose"])),
        Column("BYTES", |file| number(&file["bytes"])),
        Column("STATUS", |file| text(&file["status"])),
        Column("OWNER", |file| text(&file["tunegate"]["owner"])),
    ];
    table(&COLUMNS, listing(answer))
}

/// The file, and the first problems and warnings of its check.
fn show(file: &Value) -> String {
    let mut plain = file.clone();
    let report = plain.as_object_mut().and_then(|members| members.remove("report")).unwrap_or_default();
    let mut lines = vec![one(&plain)];
    let figures = ["examples", "billed_tokens", "epochs", "total_billed_tokens", "error_count"];
    lines.extend(
        figures
            .iter()
            .filter(|name| !report[**name].is_null())
            .map(|name| format!("{name}: {}", text(&report[*name]))),
    );
    for (name, place) in [("error", "errors"), ("warning", "warnings")] {
        let found = report[place].as_array().map(Vec::as_slice).unwrap_or_default();
        lines.extend(found.iter().take(SHOWN_PROBLEMS).map(|problem| problem_line(name, problem)));
    }
    lines.join("\n")
}

fn problem_line(name: &str, problem: &Value) -> String {
    let line = problem["line"].as_u64().map(|line| format!(" in line {line}")).unwrap_or_default();
    let member = problem["path"].as_str().filter(|path| !path.is_empty());
    let member = member.map(|path| format!(", {path}")).unwrap_or_default();
    format!("{name}{line}{member}: {}", text(&problem["message"]))
}

fn deleted(answer: &Value) -> String {
    format!("{} is deleted", text(&answer["id"]))
}
