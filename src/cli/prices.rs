//! `tunegate prices`: clients of the admin API, and the import of other lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::admin_client::{AdminClient, path_segment};
use super::price::Provider;
use super::{ConfigOption, say, warn};
use crate::config::prices::{line, parse};
use crate::domain::price::litellm::{Import, import};

/// Options of `tunegate prices`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigOption,
}

#[derive(Subcommand)]
enum Command {
    /// List the current price of each model.
    List {
        /// Only this provider's
        #[arg(long)]
        provider: Option<Provider>,
        /// As the admin API says it, with all periods
        #[arg(long)]
        json: bool,
    },
    /// Show one row with its history.
    Show {
        /// The row's name, such as gpt-4o or ft:gpt-4.1-2025-04-14
        model: String,
        #[arg(long, default_value = "openai")]
        provider: Provider,
        /// As the admin API says it
        #[arg(long)]
        json: bool,
    },
    /// Put a price over a model's; amounts are USD per 1,000,000 tokens.
    Set(Box<NewPrice>),
    /// Take an override away; what the price file says counts again.
    Remove {
        model: String,
        #[arg(long, default_value = "openai")]
        provider: Provider,
    },
    /// Make a price file from another list, with a report of what was refused and why. Offline.
    Import {
        /// The list
        file: PathBuf,
        /// It is LiteLLM's model_prices_and_context_window.json
        #[arg(long, required = true)]
        litellm: bool,
        /// Where the price file goes [default: stdout]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Options of `tunegate prices set`.
#[derive(Args)]
struct NewPrice {
    /// The model's name, or a family's: ft:BASE, BASE.ft-* (Azure)
    model: String,
    #[arg(long, default_value = "openai")]
    provider: Provider,
    /// USD per 1M tokens of input
    #[arg(long, value_name = "USD", required_unless_present_any = ["body", "compute_per_hour"])]
    input: Option<String>,
    /// USD per 1M tokens of output
    #[arg(long, value_name = "USD", required_unless_present_any = ["body", "compute_per_hour"])]
    output: Option<String>,
    /// USD per 1M cached tokens of input
    #[arg(long, value_name = "USD")]
    cached_input: Option<String>,
    /// USD per 1M tokens written into the provider's cache
    #[arg(long, value_name = "USD")]
    cache_write: Option<String>,
    /// USD per 1M trained tokens
    #[arg(long, value_name = "USD")]
    training: Option<String>,
    /// USD per hour of training
    #[arg(long, value_name = "USD")]
    training_per_hour: Option<String>,
    /// USD per hour of a deployment
    #[arg(long, value_name = "USD")]
    hosting_per_hour: Option<String>,
    /// USD per hour that a worker of ours computes, answering or training; for --provider candle
    #[arg(long, value_name = "USD")]
    compute_per_hour: Option<String>,
    /// From this day on, UTC [default: always]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Up to but not on this day, UTC [default: without end]
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    /// Where the figures come from
    #[arg(long)]
    source: Option<String>,
    /// Instead of all that: a JSON file with a period of config/prices.toml, or several as `periods`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "output", "cached_input", "cache_write", "training",
        "training_per_hour", "hosting_per_hour", "compute_per_hour", "from", "until", "source"])]
    body: Option<PathBuf>,
}

impl NewPrice {
    fn body(&self) -> anyhow::Result<Value> {
        if let Some(path) = &self.body {
            let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
            return serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()));
        }
        let members = [
            ("input_per_1m_usd", &self.input),
            ("output_per_1m_usd", &self.output),
            ("cached_input_per_1m_usd", &self.cached_input),
            ("cache_write_per_1m_usd", &self.cache_write),
            ("training_per_1m_usd", &self.training),
            ("training_per_hour_usd", &self.training_per_hour),
            ("hosting_per_hour_usd", &self.hosting_per_hour),
            ("compute_per_hour_usd", &self.compute_per_hour),
            ("from", &self.from),
            ("until", &self.until),
            ("source", &self.source),
        ];
        let given =
            members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())));
        Ok(Value::Object(given.collect::<Map<String, Value>>()))
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = || AdminClient::new(&options.config);
    match &options.command {
        Command::List { provider, json } => {
            let query = provider.map(|provider| format!("?provider={}", provider.kind().name()));
            let path = format!("/admin/v1/prices{}", query.unwrap_or_default());
            let listed: Value = client()?.ask("GET", &path, None)?.read(200)?;
            say(&if *json { listed.to_string() } else { table(&listed) });
        }
        Command::Show { model, provider, json } => {
            let row: Value = client()?.ask("GET", &path_of(*provider, model), None)?.read(200)?;
            say(&if *json { row.to_string() } else { history(&row) });
        }
        Command::Set(new) => {
            let path = path_of(new.provider, &new.model);
            let row: Value = client()?.ask("PUT", &path, Some(&new.body()?))?.read(200)?;
            say(&history(&row));
        }
        Command::Remove { model, provider } => {
            let removed: Value = client()?.ask("DELETE", &path_of(*provider, model), None)?.read(200)?;
            say(&format!(
                "removed the override of {model}; the prices are version {}",
                text(&removed["version"])
            ));
        }
        Command::Import { file, litellm: _, out } => run_import(file, out.as_deref())?,
    }
    Ok(())
}

fn path_of(provider: Provider, model: &str) -> String {
    format!("/admin/v1/prices/{}/{}", provider.kind().name(), path_segment(model))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The last period of each row.
fn table(listed: &Value) -> String {
    let rows: Vec<&Value> = listed["data"].as_array().into_iter().flatten().collect();
    let width = rows.iter().map(|row| text(&row["model"]).len()).max().unwrap_or(0).max("MODEL".len());
    let mut all = format!(
        "{:<9}{:<width$}  {:>12}{:>12}{:>12}{:>12}  {:<11}FROM         (USD per 1M tokens)",
        "PROVIDER", "MODEL", "INPUT", "CACHED", "OUTPUT", "TRAINING", "ORIGIN"
    );
    for row in rows {
        let last = row["periods"].as_array().and_then(|periods| periods.last()).unwrap_or(&Value::Null);
        let price = |value: &Value| text(&value["per_1m_usd"]).to_owned();
        let tokens = &last["tokens"];
        let doubt = if last["verified"] == false { "  not verified" } else { "" };
        let _ = write!(
            all,
            "\n{:<9}{:<width$}  {:>12}{:>12}{:>12}{:>12}  {:<11}{}{doubt}",
            text(&row["provider"]),
            text(&row["model"]),
            price(&tokens["input"]),
            price(&tokens["cached_input"]),
            price(&tokens["output"]),
            price(&last["training"]),
            text(&row["origin"]),
            text(&last["from"]),
        );
    }
    let _ = write!(all, "\nversion {}", text(&listed["version"]));
    all
}

/// All periods of a row, per 1M and per 1K beside each other.
fn history(row: &Value) -> String {
    let mut all = format!(
        "{} {} ({}), version {}",
        text(&row["provider"]),
        text(&row["model"]),
        text(&row["origin"]),
        text(&row["version"])
    );
    for period in row["periods"].as_array().into_iter().flatten() {
        let bound = |value: &Value, open: &str| value.as_str().unwrap_or(open).to_owned();
        let (from, until) = (bound(&period["from"], "the beginning"), bound(&period["until"], "today"));
        let _ = write!(all, "\nfrom {from} until {until}; source: {}", text(&period["source"]));
        if period["verified"] == false {
            all.push_str(" (not verified)");
        }
        let training = [("training", &period["training"])];
        let classes = period["tokens"].as_object().into_iter().flatten();
        for (class, price) in classes.map(|(class, price)| (class.as_str(), price)).chain(training) {
            if let (Some(million), Some(thousand)) =
                (price["per_1m_usd"].as_str(), price["per_1k_usd"].as_str())
            {
                let _ = write!(all, "\n  {class:<14}{million:>12} per 1M {thousand:>14} per 1K");
            }
        }
        for (key, hours) in period["hours"].as_object().into_iter().flatten() {
            if let Some(price) = hours.as_str() {
                let _ = write!(all, "\n  {key} {price}");
            }
        }
    }
    all
}

fn run_import(file: &Path, out: Option<&Path>) -> anyhow::Result<()> {
    let list = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let imported = import(&list, &name)?;
    if imported.taken.is_empty() {
        bail!("nothing in {} could be taken:\n{}", file.display(), report(&imported));
    }
    let prices = price_file(&name, &imported);
    parse(&prices).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(line).collect();
        anyhow!("the file that was made does not load:\n{}", lines.join("\n"))
    })?;
    match out {
        Some(path) => fs::write(path, prices).with_context(|| format!("can't write {}", path.display()))?,
        None => say(prices.trim_end()),
    }
    warn(&report(&imported));
    Ok(())
}

fn price_file(name: &str, imported: &Import) -> String {
    format!(
        "# Made by `tunegate prices import` from {name}: prices of today, without history, training, or Azure's fine-tuned\n\
         # models. A deployment uses it by `prices.file`; what config/prices.toml has besides must be added by hand.\n\n\
         version = {name:?}\n{}",
        imported.rows
    )
}

fn report(imported: &Import) -> String {
    let elsewhere: usize = imported.elsewhere.values().sum();
    let mut text = format!(
        "taken: {}; refused: {}; of {} other providers: {elsewhere}",
        imported.taken.len(),
        imported.refused.len(),
        imported.elsewhere.len()
    );
    for (title, list) in [("left out in part", &imported.doubted), ("refused", &imported.refused)] {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (model, reason) in list {
            by_reason.entry(reason).or_default().push(model);
        }
        for (reason, models) in by_reason {
            let _ = write!(text, "\n{title}: {reason} ({}): {}", models.len(), models.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prices_in_a_table_and_with_their_history() {
        let per = |million: &str, thousand: &str| json!({"per_1m_usd": million, "per_1k_usd": thousand});
        let row = json!({"provider": "openai", "model": "m", "origin": "file", "version": "v", "periods": [
            {"from": "2024-01-01", "until": null, "source": "s", "verified": false,
             "tokens": {"input": per("2.50", "0.0025"), "output": per("10.00", "0.01")}, "training": null,
             "hours": {"hosting_per_hour_usd": "1.70"}}]});
        assert_eq!(
            history(&row),
            "openai m (file), version v\nfrom 2024-01-01 until today; source: s (not verified)\n\
             \x20 input                 2.50 per 1M         0.0025 per 1K\n\
             \x20 output               10.00 per 1M           0.01 per 1K\n\
             \x20 hosting_per_hour_usd 1.70"
        );
        let listed = table(&json!({"version": "v", "data": [row]}));
        let line = listed.lines().nth(1).expect("a row");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["openai", "m", "2.50", "10.00", "file", "2024-01-01", "not", "verified"]);
        assert!(listed.ends_with("\nversion v"), "{listed}");
    }

    #[test]
    fn an_import_makes_a_file_that_loads() {
        let list = r#"{"gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2e-06,
            "output_cost_per_token": 8e-06}, "gpt-y": {"litellm_provider": "openai"}}"#;
        let imported = import(list, "some \"list\"").expect("a list");
        let file = price_file("some \"list\"", &imported);
        let (sheets, _) = parse(&file).unwrap_or_else(|problems| panic!("{problems:?}\n{file}"));
        assert_eq!((&*sheets.version, sheets.rows.len()), ("some \"list\"", 1));
        let said = report(&imported);
        assert!(
            said.starts_with("taken: 1; refused: 1;") && said.contains("another unit (1): gpt-y"),
            "{said}"
        );
    }
}
