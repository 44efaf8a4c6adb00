//! `tunegate prompts`: clients of the admin API.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::keys::variable;
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say};
use crate::config::prompts::{body_of, folder_of};
use crate::domain::prompt::hash::{sha256_of, system_message_of};

/// Options of `tunegate prompts`.
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
    /// List all prompts and where their labels point.
    List,
    /// Show the words of a version.
    Show {
        /// NAME, NAME@LABEL or NAME@VERSION; without more, the label production.
        #[arg(value_name = "PROMPT")]
        prompt: String,
    },
    /// Make the next version of a prompt, unless one says the same.
    Add {
        /// The prompt's name.
        #[arg(value_name = "NAME")]
        name: String,
        /// The file with the words, below a head of TOML between lines of +++ if it has one [default: stdin]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The label that is to point at it.
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
        #[command(flatten)]
        signed: Signed,
    },
    /// Point a label at a version.
    Label {
        /// NAME@LABEL
        #[arg(value_name = "NAME@LABEL")]
        label: String,
        /// The version's number.
        #[arg(value_name = "VERSION", required_unless_present = "remove")]
        to: Option<u32>,
        /// Only if it points at this version now.
        #[arg(long, value_name = "VERSION")]
        expected: Option<u32>,
        /// Take the label away.
        #[arg(long, conflicts_with_all = ["to", "expected"])]
        remove: bool,
        #[command(flatten)]
        signed: Signed,
    },
    /// Show what changed from one version to another, as a unified diff.
    Diff {
        /// The prompt's name.
        #[arg(value_name = "NAME")]
        name: String,
        /// A version's number, or a label.
        #[arg(value_name = "FROM")]
        from: String,
        /// A version's number, or a label.
        #[arg(value_name = "TO", default_value = "production")]
        to: String,
    },
    /// Show all versions and where the labels have pointed.
    History {
        /// The prompt's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Put values into a version and count its tokens on each deployment.
    Render {
        /// NAME, NAME@LABEL or NAME@VERSION; without more, the label production.
        #[arg(value_name = "PROMPT")]
        prompt: String,
        /// A value, JSON or a text; may be given more than once.
        #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
        variables: Vec<(String, Value)>,
    },
    /// Show what a prompt cost by day and deployment, and what other versions would have cost.
    Cost {
        /// The prompt's name.
        #[arg(value_name = "NAME")]
        name: String,
        /// The first day, such as 2026-11-01 [default: thirty days back]
        #[arg(long, value_name = "DATE")]
        from: Option<String>,
        /// The last day [default: today]
        #[arg(long, value_name = "DATE")]
        to: Option<String>,
        /// The only version to compare with [default: the latest ones]
        #[arg(long, value_name = "VERSION")]
        compare: Option<u32>,
    },
    /// Say which system messages a training file has, with their SHA-256 for `trained_with`. Offline.
    Hash {
        /// The training file: JSON lines with `messages`.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Archive a prompt that the configuration does not name; its versions stay.
    Archive {
        /// The prompt's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// See that the prompts of a folder are there and their labels point at them: everything or nothing.
    ///
    /// Reads NAME.md files as `[prompts] folder` does.
    Sync {
        /// The folder.
        #[arg(long, value_name = "DIR")]
        folder: PathBuf,
    },
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
    fn write(&self, body: &mut Value) {
        for (name, value) in [("author", &self.author), ("note", &self.note)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let (answer, told) = match &options.command {
        Command::Hash { file } => hashes(&words(Some(file))?)?,
        online => asked(&AdminClient::new(&options.config)?, online)?,
    };
    say(&if options.json { answer.to_string() } else { told });
    Ok(())
}

/// The gateway's answer, and what a person reads of it.
fn asked(client: &AdminClient, command: &Command) -> anyhow::Result<(Value, String)> {
    let path = |name: &str| format!("/admin/v1/prompts/{}", path_segment(name));
    let get = |path: &str| -> anyhow::Result<Value> { client.ask("GET", path, None)?.read(200) };
    Ok(match command {
        Command::List => {
            let listed = get("/admin/v1/prompts")?;
            let told = table(&PROMPTS, listing(&listed));
            (listed, told)
        }
        Command::Show { prompt } => {
            let (name, meant) = split(prompt);
            let version = get(&format!("{}/versions/{}", path(name), path_segment(meant)))?;
            let words = text(&version["text"]);
            (version, words)
        }
        Command::Add { name, file, label, signed } => {
            let mut body =
                body_of(name, &words(file.as_deref())?).map_err(|wrong| anyhow!(wrong.join("\n")))?;
            signed.write(&mut body);
            if let Some(label) = label {
                body["label"] = json!(label);
            }
            let reply = client.ask("POST", "/admin/v1/prompts", Some(&body))?;
            let made: Value = reply.read(if reply.status == 201 { 201 } else { 200 })?;
            let version = format!("{}@{}", text(&made["prompt"]), number(&made["version"]));
            let told = match made["made"].as_bool() {
                Some(true) => format!("made {version}"),
                _ => format!("{version} says the same: nothing was made"),
            };
            (made, told)
        }
        Command::Label { label, to, expected, remove, signed } => {
            let (name, name_of_label) = split(label);
            let path = format!("{}/labels/{}", path(name), path_segment(name_of_label));
            let prompt: Value = if *remove {
                client.ask("DELETE", &path, None)?.read(200)?
            } else {
                let mut body = json!({"version": to});
                if let Some(expected) = expected {
                    body["expected"] = json!(expected);
                }
                signed.write(&mut body);
                client.ask("PUT", &path, Some(&body))?.read(200)?
            };
            let told = labels(&prompt);
            (prompt, told)
        }
        Command::Diff { name, from, to } => {
            let query = format!("from={}&to={}", path_segment(from), path_segment(to));
            let reply = client.ask("GET", &format!("{}/diff?{query}", path(name)), None)?;
            let diff = reply.text(200)?.trim_end_matches('\n').to_owned();
            (json!({"diff": diff}), diff)
        }
        Command::History { name } => {
            let history = get(&format!("{}/history", path(name)))?;
            let rows = |member: &str| history[member].as_array().cloned().unwrap_or_default();
            let (versions, moves) = (table(&VERSIONS, &rows("versions")), table(&MOVES, &rows("moves")));
            (history, format!("{versions}\n\n{moves}"))
        }
        Command::Render { prompt, variables } => {
            let (name, meant) = split(prompt);
            let meant = match meant.parse::<u32>() {
                Ok(number) => ("version", json!(number)),
                Err(_) => ("label", json!(meant)),
            };
            let mut body = json!({"variables": variables.iter().cloned().collect::<Map<_, _>>()});
            body[meant.0] = meant.1;
            let rendered: Value =
                client.ask("POST", &format!("{}/render", path(name)), Some(&body))?.read(200)?;
            let tokens = one(&rendered["tokens"]);
            let told = format!("{}\n\n{tokens}", text(&rendered["text"]));
            (rendered, told)
        }
        Command::Cost { name, from, to, compare } => {
            let compare = compare.map(|compare| compare.to_string());
            let query = [("from", from), ("to", to), ("compare", &compare)];
            let query: Vec<String> = query
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", path_segment(value.as_deref()?))))
                .collect();
            let cost = get(&format!("{}/cost?{}", path(name), query.join("&")))?;
            let told = costs(&cost);
            (cost, told)
        }
        Command::Hash { .. } => bail!("no gateway is asked for it"),
        Command::Archive { name } => {
            let archived: Value = client.ask("DELETE", &path(name), None)?.read(200)?;
            (archived, format!("archived {name}"))
        }
        Command::Sync { folder } => {
            let drafts = folder_of(folder).map_err(|wrong| anyhow!(wrong.join("\n")))?;
            let prompts: Vec<_> = drafts.into_iter().map(|file| file.draft).collect();
            let body = json!({"prompts": prompts});
            let put: Value = client.ask("PUT", "/admin/v1/prompts", Some(&body))?.read(200)?;
            let told = table(&PUT, listing(&put));
            (put, told)
        }
    })
}

/// A prompt's name, and which version is meant.
fn split(prompt: &str) -> (&str, &str) {
    prompt.split_once('@').unwrap_or((prompt, "production"))
}

/// The words of a file, or of stdin.
fn words(file: Option<&Path>) -> anyhow::Result<String> {
    let text = match file {
        Some(path) => fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?,
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("can't read stdin")?;
            text
        }
    };
    if text.trim().is_empty() {
        bail!("there are no words: name a file, or write them to stdin");
    }
    Ok(text)
}

/// The system messages of a training file, the most frequent first: how many lines have each, and its hash.
fn hashes(lines: &str) -> anyhow::Result<(Value, String)> {
    let mut found = BTreeMap::<String, usize>::new();
    for (at, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let said = system_message_of(line).ok_or_else(|| {
            anyhow!("line {} is no example of a chat: JSON with an array `messages`", at + 1)
        })?;
        *found.entry(said).or_default() += 1;
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, lines)| Reverse(*lines));
    let objects: Vec<Value> = found
        .iter()
        .map(|(said, lines)| {
            json!({"sha256": sha256_of(said), "lines": lines, "starts": said.chars().take(60).collect::<String>()})
        })
        .collect();
    let told = table(&HASHES, &objects);
    Ok((json!({"object": "list", "data": objects}), told))
}

/// Where a prompt's labels point: `production=3 candidate=4`.
fn labels(prompt: &Value) -> String {
    let labels = prompt["labels"].as_object().into_iter().flatten();
    labels.map(|(label, at)| format!("{label}={}", number(&at["version"]))).collect::<Vec<_>>().join(" ")
}

/// The days, then what each other version would have cost instead.
fn costs(cost: &Value) -> String {
    let mut instead = Vec::new();
    for version in cost["versions"].as_array().into_iter().flatten() {
        for other in version["instead"].as_array().into_iter().flatten() {
            let mut line = other.clone();
            line["used"] = version["version"].clone();
            line["spent_usd"] = version["cost_usd"].clone();
            instead.push(line);
        }
    }
    let days = cost["days"].as_array().cloned().unwrap_or_default();
    let sums = format!(
        "{} to {}: {} USD for {} tokens in {} requests",
        text(&cost["from"]),
        text(&cost["to"]),
        text(&cost["cost_usd"]),
        number(&cost["tokens"]),
        number(&cost["requests"])
    );
    let mut told = vec![sums];
    if !days.is_empty() {
        told.push(table(&DAYS, &days));
    }
    if !instead.is_empty() {
        told.push(table(&INSTEAD, &instead));
    }
    told.join("\n\n")
}

const PROMPTS: [Column; 4] = [
    Column("NAME", |prompt| text(&prompt["name"])),
    Column("VERSIONS", |prompt| number(&prompt["last_version"])),
    Column("LABELS", labels),
    Column("CREATED", |prompt| date(&prompt["created_at"])),
];

const VERSIONS: [Column; 6] = [
    Column("VERSION", |version| number(&version["version"])),
    Column("LABELS", |version| text(&version["labels"])),
    Column("CREATED", |version| date(&version["created_at"])),
    Column("AUTHOR", |version| text(&version["author"])),
    Column("SHA256", |version| text(&version["sha256"]).chars().take(12).collect()),
    Column("NOTE", |version| text(&version["note"])),
];

const MOVES: [Column; 6] = [
    Column("LABEL", |moved| text(&moved["label"])),
    Column("FROM", |moved| number(&moved["from"])),
    Column("TO", |moved| number(&moved["to"])),
    Column("AT", |moved| date(&moved["at"])),
    Column("AUTHOR", |moved| text(&moved["author"])),
    Column("NOTE", |moved| text(&moved["note"])),
];

const DAYS: [Column; 7] = [
    Column("DAY", |day| text(&day["day"])),
    Column("VERSION", |day| number(&day["version"])),
    Column("MODEL", |day| text(&day["model"])),
    Column("DEPLOYMENT", |day| text(&day["deployment"])),
    Column("REQUESTS", |day| number(&day["requests"])),
    Column("TOKENS", |day| number(&day["tokens"])),
    Column("USD", |day| text(&day["cost_usd"])),
];

const INSTEAD: [Column; 5] = [
    Column("INSTEAD OF", |line| number(&line["used"])),
    Column("AT USD", |line| text(&line["spent_usd"])),
    Column("VERSION", |line| number(&line["version"])),
    Column("WOULD HAVE COST", |line| text(&line["cost_usd"])),
    Column("AND SAVED", |line| text(&line["saved_usd"])),
];

const HASHES: [Column; 3] = [
    Column("SHA256", |hash| text(&hash["sha256"])),
    Column("LINES", |hash| number(&hash["lines"])),
    Column("SYSTEM MESSAGE", |hash| text(&hash["starts"]).replace('\n', " ")),
];

const PUT: [Column; 3] = [
    Column("PROMPT", |put| text(&put["prompt"])),
    Column("VERSION", |put| number(&put["version"])),
    Column("STATE", |put| match put["made"].as_bool() {
        Some(true) => "made".to_owned(),
        _ => "was there".to_owned(),
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_in_tables() {
        let sums = |mut object: Value, cost: &str| {
            object["requests"] = json!(2);
            object["tokens"] = json!(30);
            object["cost_usd"] = json!(cost);
            object
        };
        let day = json!({"day": "2026-11-22", "version": 1, "model": "bot", "deployment": "v3"});
        let instead = json!([{"version": 2, "tokens": 10, "cost_usd": "0.10", "saved_usd": "0.20"}]);
        let cost = sums(
            json!({
                "from": "2026-11-01", "to": "2026-11-22", "days": [sums(day, "0.30")],
                "versions": [sums(json!({"version": 1, "instead": instead}), "0.30")],
            }),
            "0.30",
        );
        assert_eq!(
            costs(&cost),
            "2026-11-01 to 2026-11-22: 0.30 USD for 30 tokens in 2 requests\n\n\
             DAY         VERSION  MODEL  DEPLOYMENT  REQUESTS  TOKENS  USD\n\
             2026-11-22  1        bot    v3          2         30      0.30\n\n\
             INSTEAD OF  AT USD  VERSION  WOULD HAVE COST  AND SAVED\n\
             1           0.30    2        0.10             0.20"
        );
    }

    #[test]
    fn a_training_files_messages_are_told_with_their_hashes() {
        let line = |words: &str| format!(r#"{{"messages":[{{"role":"system","content":"{words}"}}]}}"#);
        let (kind, curt) = (line("Be kind"), line("Be curt"));
        let (_, told) = hashes(&[&*kind, "", &curt, &kind].join("\n")).expect("sound");
        let want = [("Be kind", 2), ("Be curt", 1)]
            .map(|(words, lines)| format!("{}  {lines}      {words}", sha256_of(words)));
        assert_eq!(told.lines().skip(1).collect::<Vec<_>>(), want);
        let error = hashes(&format!("{kind}\n{{}}")).expect_err("no example");
        assert!(error.to_string().starts_with("line 2"), "{error}");
    }

    #[test]
    fn a_prompt_is_named_with_or_without_a_version() {
        for (prompt, want) in [("a", ("a", "production")), ("a@3", ("a", "3")), ("a@b", ("a", "b"))] {
            assert_eq!(split(prompt), want);
        }
    }
}
