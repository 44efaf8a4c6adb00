//! `tunegate quote`: what a data set costs to train and to serve on every target, and what that is worth beside a longer
//! prompt.
//!
//! A file on disk is counted and priced here; only its route's traffic is asked for. A stored file is quoted by the
//! gateway.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::admin_client::AdminClient;
use super::table::{Column, table, text};
use super::{ConfigOption, say};
use crate::clock;
use crate::config::{self, ProcessEnvironment, prices};
use crate::control::form::Problem;
use crate::domain::economics::Load;
use crate::domain::price::book::PriceBook;
use crate::domain::usage::TokenCounts;
use crate::tuning::quote::{Ask, Book, Market, Quote, Source, Traffic, quote, targets};

/// How a stored file's id begins.
const STORED: &str = "file-";

/// How the answer looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// As the admin API says it
    Json,
}

/// Options of `tunegate quote`.
#[derive(Args)]
pub(super) struct Options {
    /// A training file on disk, or the id of a stored one (file-…)
    file: String,
    /// The model whose last 30 days are the traffic that is quoted for; asks the running gateway
    #[arg(long, value_name = "MODEL")]
    route: Option<String>,
    /// Passes over the data [default: as many as a provider is thought to make]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Only this base model, as a job names it; may be repeated [default: all that the configured providers train]
    #[arg(long = "target", value_name = "MODEL")]
    targets: Vec<String>,
    /// Examples that are put into the base model's prompt instead [default: 5]
    #[arg(long, value_name = "N")]
    few_shot: Option<u64>,
    /// How many tokens longer that makes it [default: as many as so many rows have]
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<u64>,
    /// Tokens of passages that retrieval would put into a request [default: 1500]
    #[arg(long, value_name = "TOKENS")]
    retrieval_tokens: Option<u64>,
    /// The traffic's prompts are the base model's long ones already: a fine-tuned model's would be shorter
    #[arg(long)]
    long_prompts: bool,
    /// Months that training is spread over [default: 12]
    #[arg(long, value_name = "N")]
    months: Option<u64>,
    /// How long training takes, where it is billed by the hour
    #[arg(long, value_name = "MINUTES")]
    training_minutes: Option<u64>,
    /// The kind of deployment that serves at Azure [default: Standard]
    #[arg(long)]
    sku: Option<String>,
    /// With the prices of this day or moment, UTC [default: now]
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// How the answer looks
    #[arg(long, default_value = "text")]
    format: Format,
    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let path = Path::new(&options.file);
    let quote = if options.file.starts_with(STORED) && !path.exists() {
        let body = body(options, &[("file", options.file.as_str().into())]);
        AdminClient::new(&options.config)?.ask("POST", "/admin/v1/tuning/quote", Some(&body))?.read(200)?
    } else {
        serde_json::to_value(offline(options, path)?)?
    };
    say(&match options.format {
        Format::Text => in_words(&options.file, &quote),
        Format::Json => quote.to_string(),
    });
    Ok(())
}

/// What is asked, as the admin API takes it.
fn body(options: &Options, more: &[(&str, Value)]) -> Value {
    let number = |given: Option<u64>| given.map(Value::from);
    let words = |given: &Option<String>| given.as_deref().map(Value::from);
    let members = [
        ("route", words(&options.route)),
        ("epochs", number(options.epochs)),
        ("targets", (!options.targets.is_empty()).then(|| json!(options.targets))),
        ("few_shot", number(options.few_shot)),
        ("prompt_tokens", number(options.prompt_tokens)),
        ("retrieval_tokens", number(options.retrieval_tokens)),
        ("traffic_prompts", options.long_prompts.then(|| "long".into())),
        ("months", number(options.months)),
        ("training_seconds", number(options.training_minutes.map(|minutes| minutes.saturating_mul(60)))),
        ("sku", words(&options.sku)),
        ("at", words(&options.at)),
    ];
    let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Value::Object(given.chain(more).collect::<Map<String, Value>>())
}

fn offline(options: &Options, path: &Path) -> anyhow::Result<Quote> {
    // a file on disk has no id: the rest is read as the gateway reads it
    let body = body(options, &[("file", options.file.as_str().into())]);
    let ask = Ask::read(&body).map_err(|problems| said(&problems))?;
    let config_file: Option<PathBuf> = options.config.path();
    let config = config::load_without_secrets(config_file.as_deref(), &ProcessEnvironment)?;
    let book = PriceBook::new(&config.prices, &[], 0)
        .map_err(|problems| anyhow!(problems.iter().map(prices::line).collect::<Vec<_>>().join("\n")))?;
    let targets = targets(&config.catalog, &ask.targets).map_err(|problems| said(&problems))?;
    let traffic = match &ask.route {
        Some(route) => traffic(&options.config, route)?,
        None => Traffic::unknown("no route was named (--route)"),
    };
    let mut counted =
        Book::open(path, ask.epochs).with_context(|| format!("{} can't be read", path.display()))?;
    let at_ms = ask.at_ms.unwrap_or_else(clock::unix_ms);
    let market = Market { catalog: &config.catalog, book: &book, at_ms, trained: None, paces: None };
    Ok(quote(&targets, &market, traffic, ask.terms, &mut |target| counted.study(target)))
}

fn said(problems: &[Problem]) -> anyhow::Error {
    let line = |problem: &Problem| format!("{}: {}", problem.path, problem.message);
    anyhow!(problems.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// What a running gateway has of a route's last 30 days: what it would quote anything for.
fn traffic(config: &ConfigOption, route: &str) -> anyhow::Result<Traffic> {
    let body = json!({"figures": {"billed_tokens": 0}, "few_shot": 0, "route": route});
    let answer: Value =
        AdminClient::new(config)?.ask("POST", "/admin/v1/tuning/quote", Some(&body))?.read(200)?;
    let told = &answer["traffic"];
    let (note, load) = (text(&told["note"]), told["requests"].is_u64().then(|| load(told)));
    let source = if load.is_some() { Source::Ledger } else { Source::Dataset };
    Ok(Traffic { source, route: told["route"].as_str().map(str::to_owned), load, note })
}

fn load(told: &Value) -> Load {
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    let tokens = TokenCounts {
        prompt: number("prompt_tokens"),
        cached: number("cached_tokens"),
        cache_write: number("cache_write_tokens"),
        audio_prompt: number("audio_prompt_tokens"),
        completion: number("completion_tokens"),
        reasoning: number("reasoning_tokens"),
        audio_completion: number("audio_completion_tokens"),
        compute_us: number("compute_us"),
    };
    Load { requests: number("requests"), tokens }
}

/// A table of the targets, then what is missing, what should be known, and the answer.
fn in_words(file: &str, quote: &Value) -> String {
    let targets = quote["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = vec![
        format!("{file} at {}, prices {}", text(&quote["at"]), text(&quote["price_version"])),
        format!("traffic: {}", text(&quote["traffic"]["note"])),
        String::new(),
        table(&COLUMNS, targets),
        String::new(),
    ];
    for target in targets {
        let name = text(&target["target"]);
        lines.extend(missing(target).into_iter().map(|what| of_target(&name, what)));
        let notes = target["notes"].as_array().into_iter().flatten().map(text);
        lines.extend(notes.map(|note| of_target(&name, note)));
    }
    let meetings = quote["break_even"].as_array().into_iter().flatten();
    lines.extend(meetings.map(|meeting| text(&meeting["words"])));
    lines.push(String::new());
    lines.push(text(&quote["answer"]));
    lines.join("\n")
}

/// What is said of a target, with its name in front where it does not begin with it.
fn of_target(name: &str, words: String) -> String {
    if words.starts_with(name) { words } else { format!("{name}: {words}") }
}

/// What is not known of a target, each once; without traffic a month is not asked for.
fn missing(target: &Value) -> Vec<String> {
    let of = |figure: &Value| figure["unknown"].as_str().map(str::to_owned);
    let mut all: Vec<String> = ["dataset", "training", "hosting_month_usd"]
        .into_iter()
        .filter_map(|name| of(&target[name]))
        .collect();
    all.dedup();
    all
}

/// A figure, or that it is not known.
fn figure(value: &Value) -> String {
    if value["unknown"].is_string() { "unknown".to_owned() } else { text(value) }
}

fn way(target: &Value, index: usize) -> String {
    let served = &target["ways"][index];
    let total = &served["month"]["total_usd"];
    match &served["cached_usd"] {
        Value::Null => text(total),
        cached => format!("{} ({} cached)", text(total), text(cached)),
    }
}

const COLUMNS: [Column; 9] = [
    Column("TARGET", |target| text(&target["target"])),
    Column("STANDING", |target| text(&target["standing"])),
    Column("TOKENS", |target| text(&target["dataset"]["billed_tokens"])),
    Column("EPOCHS", |target| text(&target["dataset"]["epochs"])),
    Column("TRAINING USD", |target| {
        let training = &target["training"];
        if training["unknown"].is_string() { "unknown".to_owned() } else { text(&training["cost_usd"]) }
    }),
    Column("HOSTING/MONTH", |target| figure(&target["hosting_month_usd"])),
    Column("PROMPT/MONTH", |target| way(target, 0)),
    Column("RETRIEVAL/MONTH", |target| way(target, 1)),
    Column("FINE-TUNED/MONTH", |target| way(target, 2)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_said_and_never_nothing() {
        let set = "training at openai/gpt-9 has no price: set it with `tunegate prices set …`";
        let unknown = json!({"unknown": set});
        let known = json!({"target": "openai/gpt-4.1-mini", "standing": "open", "notes": ["a note", "openai/gpt-4.1-mini closes"],
            "dataset": {"billed_tokens": 1_000, "epochs": 3}, "training": {"cost_usd": 0.015}, "hosting_month_usd": 0.00,
            "ways": [{"month": {"total_usd": 11.20}, "cached_usd": 5.20}, {"month": {"total_usd": 9.20}},
                {"month": {"total_usd": 6.40}}]});
        let not = json!({"target": "openai/gpt-9", "standing": "open", "notes": [], "dataset": {"billed_tokens": 1_000,
            "epochs": 3}, "training": unknown, "hosting_month_usd": unknown,
            "ways": [{"month": unknown}, {"month": unknown}, {"month": unknown}]});
        let quote = json!({"at": "2026-11-22", "price_version": "v", "traffic": {"note": "10 requests"}, "targets":
            [known, not], "break_even": [{"words": "a is cheaper than b"}], "answer": "fine-tuning"});
        let found = in_words("cat.jsonl", &quote);
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines[0], "cat.jsonl at 2026-11-22, prices v");
        assert!(lines[4].contains("0.015") && lines[4].contains("11.2 (5.2 cached)"), "{found}");
        let gpt9: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(gpt9, ["openai/gpt-9", "open", "1000", "3", "unknown", "unknown", "-", "-", "-"]);
        assert_eq!(found.matches(set).count(), 1, "{found}");
        assert!(found.contains("openai/gpt-4.1-mini: a note\nopenai/gpt-4.1-mini closes\n"), "{found}");
        assert!(found.ends_with("a is cheaper than b\n\nfine-tuning"), "{found}");
    }
}
