//! `tunegate ledger`: the ledger of a running gateway, and what really became of an unconfirmed request.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::spend::query;
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say};

/// Options of `tunegate ledger`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
    /// As JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    config: ConfigOption,
}

#[derive(Subcommand)]
enum Command {
    /// List what was booked, the latest first.
    List {
        /// The key's id or alias.
        #[arg(long)]
        key: Option<String>,
        /// The team.
        #[arg(long)]
        team: Option<String>,
        /// The model that was asked for.
        #[arg(long)]
        model: Option<String>,
        /// hold, usage, release, cache_hit, adjustment, training or hosting.
        #[arg(long)]
        kind: Option<String>,
        /// From this day or moment on (UTC).
        #[arg(long, value_name = "2026-11-22")]
        from: Option<String>,
        /// To before this day or moment (UTC).
        #[arg(long, value_name = "2026-11-23")]
        until: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// List what was charged at an upper bound because nobody knows what was used.
    Unconfirmed {
        #[command(flatten)]
        page: Page,
    },
    /// Show all entries of a request, or the one of a number.
    Show {
        /// The request's id, or the entry's number.
        #[arg(value_name = "REQUEST-OR-NUMBER")]
        request: String,
    },
    /// Say what an unconfirmed request really used; the difference is booked.
    Resolve {
        /// The request's id, or the entry's number.
        #[arg(value_name = "REQUEST-OR-NUMBER")]
        request: String,
        #[command(flatten)]
        resolution: ResolutionOptions,
        /// Why, or from where that is known.
        #[arg(long)]
        note: Option<String>,
    },
    /// Add everything up again and say what does not agree; exit code 1 when something does not.
    Audit,
}

/// What it was: one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct ResolutionOptions {
    /// So many tokens of input and output, at the price of that time.
    #[arg(long, value_name = "IN,OUT", value_parser = tokens)]
    tokens: Option<(u64, u64)>,
    /// So much, as the provider's bill says.
    #[arg(long, value_name = "USD")]
    cost_usd: Option<String>,
    /// Nothing.
    #[arg(long)]
    release: bool,
}

fn tokens(text: &str) -> Result<(u64, u64), String> {
    let parsed = text
        .split_once(',')
        .and_then(|(input, output)| Some((input.trim().parse().ok()?, output.trim().parse().ok()?)));
    parsed.ok_or_else(|| "two numbers with a comma, such as 1200,350".to_owned())
}

/// Which part of a long list.
#[derive(Args)]
struct Page {
    /// So many at most.
    #[arg(long)]
    limit: Option<String>,
    /// Only those before this number: the last one of the page before.
    #[arg(long, value_name = "NUMBER")]
    before: Option<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = match &options.command {
        Command::List { key, team, model, kind, from, until, page } => query(
            "/admin/v1/ledger",
            &[
                ("key", key.as_ref()),
                ("team", team.as_ref()),
                ("model", model.as_ref()),
                ("kind", kind.as_ref()),
                ("from", from.as_ref()),
                ("until", until.as_ref()),
                ("limit", page.limit.as_ref()),
                ("before", page.before.as_ref()),
            ],
        ),
        Command::Unconfirmed { page } => query(
            "/admin/v1/ledger/unconfirmed",
            &[("limit", page.limit.as_ref()), ("before", page.before.as_ref())],
        ),
        Command::Show { request } => format!("/admin/v1/ledger/{}", path_segment(request)),
        Command::Resolve { request, resolution, note } => {
            return resolve(&client, options.json, request, resolution, note.as_deref());
        }
        Command::Audit => return audit(&client, options.json),
    };
    let reply = client.ask("GET", &path, None)?;
    if options.json {
        say(reply.text(200)?);
        return Ok(());
    }
    let answer: Value = reply.read(200)?;
    say(&table(&COLUMNS, listing(&answer)));
    if let (Some(true), Some(last)) = (answer["has_more"].as_bool(), listing(&answer).last()) {
        super::warn(&format!("there is more: --before {}", last["seq"]));
    }
    Ok(())
}

fn resolve(
    client: &AdminClient,
    json: bool,
    request: &str,
    resolution: &ResolutionOptions,
    note: Option<&str>,
) -> anyhow::Result<()> {
    let mut body = match (resolution.tokens, &resolution.cost_usd) {
        (Some((input, output)), _) => json!({"tokens": {"input": input, "output": output}}),
        (None, Some(cost)) => json!({"cost_usd": cost}),
        (None, None) => json!({"release": true}),
    };
    if let Some(note) = note {
        body["note"] = note.into();
    }
    let path = format!("/admin/v1/ledger/{}/resolve", path_segment(request));
    let reply = client.ask("POST", &path, Some(&body))?;
    if json {
        say(reply.text(200)?);
        return Ok(());
    }
    let correction: Value = reply.read(200)?;
    say(&format!(
        "booked {} USD as entry {}: {}",
        correction["cost_usd"],
        correction["seq"],
        text(&correction["note"])
    ));
    Ok(())
}

fn audit(client: &AdminClient, json: bool) -> anyhow::Result<()> {
    let reply = client.ask("GET", "/admin/v1/ledger/audit", None)?;
    let mut answer: Value = reply.read(200)?;
    let drifts = answer["budget_drifts"].as_array().map_or(0, Vec::len) as u64;
    let count = answer["difference_count"].as_u64().unwrap_or_default() + drifts;
    if json {
        say(reply.text(200)?);
    } else {
        let differences = answer.as_object_mut().and_then(|audit| audit.remove("differences"));
        say(&one(&answer));
        for difference in differences.as_ref().and_then(Value::as_array).into_iter().flatten() {
            say(&text(difference));
        }
    }
    if count > 0 {
        bail!("the books don't agree: {count} differences");
    }
    Ok(())
}

const COLUMNS: [Column; 9] = [
    Column("NUMBER", |entry| number(&entry["seq"])),
    Column("AT", |entry| date(&entry["at_ms"].as_i64().map(|ms| ms.div_euclid(1_000)).into())),
    Column("KIND", |entry| text(&entry["kind"])),
    Column("KEY", |entry| text(&entry["key"])),
    Column("MODEL", |entry| text(&entry["model"])),
    Column("HELD USD", |entry| number(&entry["held_usd"])),
    Column("COST USD", |entry| number(&entry["cost_usd"])),
    Column("SOURCE", |entry| text(&entry["source"])),
    Column("REQUEST", |entry| text(&entry["request_id"])),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_in_a_table() {
        let entry = json!({"seq": 7, "at_ms": 60_000, "kind": "usage", "key": "app", "model": "m",
            "held_usd": 0.01, "cost_usd": 0.002, "source": null, "request_id": "req_1"});
        assert_eq!(
            table(&COLUMNS, &[entry]),
            "NUMBER  AT                 KIND   KEY  MODEL  HELD USD  COST USD  SOURCE  REQUEST\n\
             7       1970-01-01 00:01Z  usage  app  m      0.01      0.002     -       req_1"
        );
    }
}
