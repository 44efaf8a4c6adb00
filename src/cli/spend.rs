//! `tunegate spend`: what was spent, from a running gateway.

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, listing, number, table, text};
use super::{ConfigOption, say};

/// Options of `tunegate spend`.
#[derive(Args)]
pub(super) struct Options {
    /// A line for each of these together: key, key_id, team, end_user, tag, model, deployment, provider, purpose, day.
    #[arg(long, value_name = "NAME,…", default_value = "key,model")]
    by: String,
    /// From this day or moment on (UTC), to the quarter of an hour.
    #[arg(long, value_name = "2026-11-22")]
    from: Option<String>,
    /// To before this day or moment (UTC), to the quarter of an hour.
    #[arg(long, value_name = "2026-11-23")]
    until: Option<String>,
    /// As JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// As CSV.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = query(
        "/admin/v1/spend",
        &[
            ("by", Some(&options.by)),
            ("from", options.from.as_ref()),
            ("until", options.until.as_ref()),
            ("format", options.csv.then(|| "csv".to_owned()).as_ref()),
        ],
    );
    let reply = client.ask("GET", &path, None)?;
    if options.csv || options.json {
        say(reply.text(200)?.trim_end());
        return Ok(());
    }
    let answer: Value = reply.read(200)?;
    let by: Vec<&str> = options.by.split(',').map(str::trim).collect();
    say(&lines(&by, listing(&answer)));
    Ok(())
}

/// A path with the parameters that are given.
pub(super) fn query(path: &str, parameters: &[(&str, Option<&String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    let given: Vec<String> = given.map(|(name, value)| format!("{name}={}", path_segment(value))).collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// The names that were asked by in front of the sums.
fn lines(by: &[&str], objects: &[Value]) -> String {
    let named = |object: &Value| by.iter().map(|name| text(&object[*name])).collect::<Vec<_>>().join(" / ");
    let objects: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut object = object.clone();
            object["by"] = named(&object).into();
            object
        })
        .collect();
    table(&COLUMNS, &objects)
}

const COLUMNS: [Column; 9] = [
    Column("BY", |line| text(&line["by"])),
    Column("COST USD", |line| number(&line["cost_usd"])),
    Column("REQUESTS", |line| number(&line["requests"])),
    Column("INPUT", |line| number(&line["prompt_tokens"])),
    Column("CACHED", |line| number(&line["cached_tokens"])),
    Column("OUTPUT", |line| number(&line["completion_tokens"])),
    Column("COMPUTED S", |line| seconds(&line["compute_us"])),
    Column("SAVED USD", |line| number(&line["saved_usd"])),
    Column("UNCONFIRMED", |line| number(&line["unconfirmed"])),
];

/// Microseconds as seconds, to the thousandth; nothing where there are none.
fn seconds(micros: &Value) -> String {
    match micros.as_u64() {
        None | Some(0) => "-".to_owned(),
        Some(micros) => format!("{}.{:03}", micros / 1_000_000, micros / 1_000 % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_asked_by_stands_in_front() {
        let object = json!({"key": "app", "model": "", "cost_usd": 0.5, "requests": 2, "prompt_tokens": 10,
            "cached_tokens": 0, "completion_tokens": 3, "compute_us": 61_002_999, "saved_usd": 0.0, "unconfirmed": 0});
        assert_eq!(
            lines(&["key", "model"], &[object]),
            "BY      COST USD  REQUESTS  INPUT  CACHED  OUTPUT  COMPUTED S  SAVED USD  UNCONFIRMED\n\
             app /   0.5       2         10     0       3       61.002      0.0        0"
        );
    }

    #[test]
    fn time_is_told_in_seconds() {
        for (micros, want) in
            [(json!(null), "-"), (json!(0), "-"), (json!(999), "0.000"), (json!(1_500_000), "1.500")]
        {
            assert_eq!(seconds(&micros), want);
        }
    }

    #[test]
    fn only_what_is_given_is_asked() {
        assert_eq!(query("/a", &[("b", None)]), "/a");
        assert_eq!(query("/a", &[("b", Some(&"x,y z".to_owned())), ("c", None)]), "/a?b=x%2Cy%20z");
    }
}
