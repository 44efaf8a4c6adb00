//! `tunegate explain`: where a running gateway would send a request, and why.

use std::io::Read as _;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, number, table, text};
use super::{ConfigOption, say};
use crate::domain::money::Usd;

/// Options of `tunegate explain`.
#[derive(Args)]
pub(super) struct Options {
    /// The model, as an application asks for it.
    model: String,
    #[command(flatten)]
    request: RequestOptions,
    /// Where it is sent: chat.completions, completions, embeddings, responses or moderations [default: by its members]
    #[arg(long)]
    endpoint: Option<String>,
    /// As a request of this key: its id or alias.
    #[arg(long, conflicts_with = "team")]
    key: Option<String>,
    /// As a request of a key of this team: its id or alias.
    #[arg(long)]
    team: Option<String>,
    /// As a request of this end user, where it does not name one.
    #[arg(long)]
    end_user: Option<String>,
    /// With this tag, as in `x-tunegate-tags`; may be repeated.
    #[arg(long = "tag")]
    tags: Vec<String>,
    /// With this header; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// With the shares, prices and retirements of this day or moment (UTC).
    #[arg(long, value_name = "2027-01-14")]
    at: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigOption,
}

/// The request: one of these.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct RequestOptions {
    /// A file with the request's body; `-` for the standard input.
    #[arg(value_name = "FILE")]
    body_file: Option<String>,
    /// A request of these words alone.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is written as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let request = request(&options.request, options.endpoint.as_deref())?;
    let client = AdminClient::new(&options.config)?;
    let path = format!("/admin/v1/routes/{}/explain", path_segment(&options.model));
    let reply = client.ask("POST", &path, Some(&envelope(options, request)))?;
    if options.json {
        say(reply.text(200)?);
        return Ok(());
    }
    say(&in_words(&reply.read(200)?));
    Ok(())
}

fn request(options: &RequestOptions, endpoint: Option<&str>) -> anyhow::Result<Value> {
    match (&options.prompt, options.body_file.as_deref()) {
        (Some(words), _) => Ok(of_words(words, endpoint)),
        (None, Some(file)) => {
            let mut body = String::new();
            match file {
                "-" => std::io::stdin().read_to_string(&mut body).map(drop),
                path => std::fs::read_to_string(path).map(|text| body = text),
            }
            .with_context(|| format!("the request can't be read from {file}"))?;
            serde_json::from_str(&body).map_err(|why| anyhow!("{file} is not JSON: {why}"))
        }
        (None, None) => bail!("no request: name a FILE, or give --prompt"),
    }
}

/// The plainest request of an endpoint.
fn of_words(words: &str, endpoint: Option<&str>) -> Value {
    match endpoint {
        Some("completions") => json!({"prompt": words}),
        Some("responses" | "embeddings" | "moderations") => json!({"input": words}),
        _ => json!({"messages": [{"role": "user", "content": words}]}),
    }
}

fn envelope(options: &Options, request: Value) -> Value {
    let mut envelope = Map::new();
    envelope.insert("request".to_owned(), request);
    let texts = [
        ("endpoint", &options.endpoint),
        ("key", &options.key),
        ("team", &options.team),
        ("end_user", &options.end_user),
        ("at", &options.at),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            envelope.insert(name.to_owned(), value.as_str().into());
        }
    }
    if !options.tags.is_empty() {
        envelope.insert("tags".to_owned(), json!(options.tags));
    }
    if !options.headers.is_empty() {
        let headers = options.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
        envelope.insert("headers".to_owned(), Value::Object(headers.collect()));
    }
    envelope.into()
}

/// The plan, the candidates in a table, and what else there is to know.
fn in_words(explanation: &Value) -> String {
    let facts = &explanation["facts"];
    let mut lines = vec![
        format!("{}: {}", text(&explanation["model"]), text(&explanation["words"])),
        format!("{} tokens of input to {}", facts["input_tokens"], text(&facts["endpoint"])),
        String::new(),
    ];
    let listed = |member: &str| explanation[member].as_array().cloned().unwrap_or_default();
    let candidates = [listed("order"), listed("out")].concat();
    lines.push(table(&COLUMNS, &candidates));
    let mut said: Vec<String> = listed("notes").iter().map(text).collect();
    for (member, when) in
        [("longer_context", "it is too long"), ("content_filtered", "a content filter stops it")]
    {
        let names = listed(member);
        if !names.is_empty() {
            said.push(format!(
                "where {when}: {}",
                names.iter().map(text).collect::<Vec<_>>().join(", then ")
            ));
        }
    }
    let refusal = &explanation["refusal"];
    if refusal.is_object() {
        let (code, message) = (text(&refusal["code"]), text(&refusal["message"]));
        said.push(format!("the client is told {} {code}: {message}", refusal["status"]));
    }
    if !said.is_empty() {
        lines.push(String::new());
        lines.extend(said);
    }
    lines.join("\n")
}

/// An amount, digit by digit: JSON's own way of writing a small number is hard to read.
fn usd(amount: &Value) -> String {
    Usd::deserialize(amount).map(|amount| amount.to_string()).unwrap_or_default()
}

/// Why a candidate is out, or late, or what can't be said of it.
fn why(candidate: &Value) -> String {
    let reason = |of: &Value| Some(format!("{}: {}", of["code"].as_str()?, text(&of["why"])));
    let words = |member: &str| candidate[member].as_str().map(str::to_owned);
    let out = reason(candidate).map(|why| format!("out, {why}"));
    let late = reason(&candidate["late"]).map(|why| format!("late, {why}"));
    out.or(late).or_else(|| words("unpriced")).or_else(|| words("unbounded")).unwrap_or_default()
}

const COLUMNS: [Column; 9] = [
    Column("#", |one| number(&one["position"])),
    Column("DEPLOYMENT", |one| text(&one["deployment"])),
    Column("COST USD", |one| usd(&one["expected_cost_usd"])),
    Column("AT MOST USD", |one| usd(&one["upper_bound_usd"])),
    Column("INPUT", |one| number(&one["expected"]["input"])),
    Column("OUTPUT", |one| number(&one["expected"]["output"])),
    Column("TIME MS", |one| number(&one["expected_total_ms"])),
    Column("STATE", |one| text(&one["breaker"])),
    Column("WHY", why),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_in_a_table() {
        let explanation = json!({
            "model": "bot", "words": "the cheapest of a, b, c",
            "facts": {"input_tokens": 10, "endpoint": "chat.completions"},
            "order": [
                {"position": 1, "deployment": "a", "expected_cost_usd": 0.000_001_5, "upper_bound_usd": 0.0001,
                 "expected": {"input": 10, "output": 5}, "expected_total_ms": 300, "breaker": "closed", "late": null},
                {"position": 2, "deployment": "b", "expected_cost_usd": 0.5, "breaker": "closed",
                 "late": {"code": "slow", "why": "it is slow"}},
            ],
            "out": [{"deployment": "c", "breaker": "open", "code": "breaker_open", "why": "it broke"}],
            "notes": ["a note"], "longer_context": ["d", "e"],
            "refusal": {"status": 503, "code": "no_deployment", "message": "nobody"},
        });
        assert_eq!(
            in_words(&explanation),
            "bot: the cheapest of a, b, c\n10 tokens of input to chat.completions\n\n\
             #  DEPLOYMENT  COST USD   AT MOST USD  INPUT  OUTPUT  TIME MS  STATE   WHY\n\
             1  a           0.0000015  0.0001       10     5       300      closed  -\n\
             2  b           0.50       -            -      -       -        closed  late, slow: it is slow\n\
             -  c           -          -            -      -       -        open    out, breaker_open: it broke\n\n\
             a note\nwhere it is too long: d, then e\nthe client is told 503 no_deployment: nobody"
        );
    }

    #[test]
    fn the_plainest_request_of_an_endpoint() {
        for (endpoint, member) in [
            (None, "messages"),
            (Some("completions"), "prompt"),
            (Some("responses"), "input"),
            (Some("embeddings"), "input"),
        ] {
            assert!(of_words("hi", endpoint).get(member).is_some(), "{endpoint:?}");
        }
        assert_eq!(header("x-a=b=c"), Ok(("x-a".to_owned(), "b=c".to_owned())));
        assert!(header("x-a").is_err());
    }
}
