//! `tunegate hosting`: a client of the admin API.

use clap::Args;
use serde_json::Value;

use super::admin_client::AdminClient;
use super::table::{Column, table, text};
use super::{ConfigOption, say};

const HOUR_MS: i64 = 3_600_000;

/// Options of `tunegate hosting`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,

    /// Write the gateway's answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let answer: Value = client.ask("GET", "/admin/v1/hosting", None)?.read(200)?;
    say(&if options.json { answer.to_string() } else { shown(&answer) });
    Ok(())
}

/// A line a deployment, and one for each account that can't be read.
fn shown(answer: &Value) -> String {
    let all = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = match all {
        [] => "no deployment costs by the hour, as far as is known".to_owned(),
        some => table(&COLUMNS, some),
    };
    for account in answer["accounts"].as_array().into_iter().flatten() {
        if let Some(error) = account["error"].as_str() {
            lines.push_str(&format!("\n{} can't be read: {error}", text(&account["provider"])));
        }
    }
    lines
}

const COLUMNS: [Column; 9] = [
    Column("DEPLOYMENT", |one| text(&one["deployment"])),
    Column("PROVIDER", |one| text(&one["provider"])),
    Column("SKU", |one| text(&one["sku"])),
    Column("TEAM", |one| text(&one["team"])),
    Column("SINCE", |one| moment(&one["since_ms"])),
    Column("STATE", state),
    Column("USD/H", |one| text(&one["usd_per_hour"])),
    Column("LAST 24 H", |one| text(&one["day_usd"])),
    Column("IN ALL", |one| text(&one["charged_usd"])),
];

/// How it stands, and what is worth knowing of that.
fn state(one: &Value) -> String {
    if !one["until_ms"].is_null() {
        return format!("gone {}", moment(&one["until_ms"]));
    }
    let mut words = Vec::new();
    if one["usd_per_hour"].is_null() {
        words.push("no price".to_owned());
    }
    if one["idle"] == true
        && let (Some(seen), Some(since)) = (one["seen_ms"].as_i64(), one["idle_since_ms"].as_i64())
    {
        words.push(format!("idle {} h", (seen - since).max(0) / HOUR_MS));
    }
    if !one["ends_at_ms"].is_null() {
        words.push(format!("ends {}", moment(&one["ends_at_ms"])));
    }
    if words.is_empty() { "stands".to_owned() } else { words.join(", ") }
}

/// A moment to the minute, UTC.
fn moment(value: &Value) -> String {
    let at = value.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_in_words() {
        assert_eq!(
            shown(&json!({"data": [], "accounts": []})),
            "no deployment costs by the hour, as far as is known"
        );
        let one = json!({
            "deployment": "support", "provider": "azure", "sku": "Standard", "team": null, "since_ms": 0,
            "until_ms": null, "seen_ms": 7_200_000, "usd_per_hour": 1.7, "day_usd": 3.4, "charged_usd": 3.4,
            "idle_since_ms": 0, "idle": true, "ends_at_ms": 86_400_000,
        });
        let account = json!({"provider": "azure", "error": "it can't be reached"});
        let words = shown(&json!({"data": [one], "accounts": [account]}));
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(lines.len(), 3, "{words}");
        assert!(lines[1].starts_with("support"), "{words}");
        assert!(
            lines[1].contains("1970-01-01 00:00") && lines[1].contains("idle 2 h, ends 1970-01-02 00:00")
        );
        assert_eq!(lines[2], "azure can't be read: it can't be reached");
    }

    #[test]
    fn how_one_stands_in_words() {
        let standing = json!({"until_ms": null, "usd_per_hour": 1, "idle": false, "ends_at_ms": null});
        assert_eq!(state(&standing), "stands");
        assert_eq!(state(&json!({"until_ms": 60_000})), "gone 1970-01-01 00:01");
        assert_eq!(state(&json!({"until_ms": null, "usd_per_hour": null, "ends_at_ms": null})), "no price");
    }
}
