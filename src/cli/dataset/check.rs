//! `tunegate dataset check`: the report, for people or as JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tunegate_dataset::figures::Distribution;
use tunegate_dataset::report::Report;
use tunegate_dataset::{Problem, Warning};

use super::{Progress, counted, grouped, open};
use crate::cli::{ConfigOption, say};
use crate::clock;
use crate::config::{self, ProcessEnvironment, prices};
use crate::domain::catalog::ProviderKind;
use crate::domain::dataset::{counter_for, options_for};
use crate::domain::model_name::base_of;
use crate::domain::price::book::PriceBook;

/// Errors that a person is shown; JSON has more.
const SHOWN_ERRORS: usize = 20;
/// Lines that stand behind a warning.
const SHOWN_LINES: usize = 8;

/// How the report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Options of `tunegate dataset check`.
#[derive(Args)]
pub(super) struct Options {
    /// The training file: JSON lines.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The base model that is to be trained: its tokens, limits and prices count.
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// How often the file is trained on [default: what OpenAI's cookbook expects]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// How the report is written
    #[arg(long, default_value = "text")]
    format: Form,
    /// A validation file: checked, too, and searched for rows of the training file.
    #[arg(long, value_name = "FILE")]
    validation: Option<PathBuf>,
    /// Only the format and the cookbook's figures
    #[arg(long)]
    fast: bool,

    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let source = open(&options.file)?;
    let validation = options.validation.as_deref().map(open).transpose()?;
    let held_against = tunegate_dataset::Options {
        epochs: options.epochs,
        fast: options.fast,
        ..options_for(&options.model)
    };
    let mut report = {
        let others = validation.as_ref().map(|file| file.metadata().map(|of| of.len())).transpose()?;
        let progress = Progress::new(source.metadata()?.len() + others.unwrap_or_default());
        let counter = counter_for(&options.model);
        tunegate_dataset::check(source, validation, &held_against, &counter, &mut |bytes| {
            progress.tell(bytes);
        })?
    };
    let sheets = config::load_prices(options.config.path().as_deref(), &ProcessEnvironment)?;
    let book = PriceBook::new(&sheets, &[], 0)
        .map_err(|problems| anyhow!(problems.iter().map(prices::line).collect::<Vec<_>>().join("\n")))?;
    report.cost_usd_by_target = costs(&options.model, report.total_billed_tokens, &book, clock::unix_ms());
    match options.format {
        Form::Json => say(&serde_json::to_string(&report)?),
        Form::Text => say(&told(options, &report)),
    }
    if !report.is_trainable() {
        bail!("{}: a provider would refuse the file", counted(report.errors_total(), "error", "errors"));
    }
    Ok(())
}

/// What training costs at each provider that may have the model; free daily tokens are not counted on.
fn costs(
    model: &str,
    tokens: u64,
    book: &PriceBook,
    at_ms: i64,
) -> std::collections::BTreeMap<String, Value> {
    let base = base_of(model);
    let targets = match model.split_once('/') {
        Some(("azure", _)) => vec![(ProviderKind::Azure, format!("{base}.ft-x"))],
        Some(("local", _)) => vec![(ProviderKind::Candle, base.to_owned())],
        _ => {
            vec![(ProviderKind::OpenAi, format!("ft:{base}")), (ProviderKind::Azure, format!("{base}.ft-x"))]
        }
    };
    let mut costs = std::collections::BTreeMap::new();
    for (provider, name) in targets {
        // a fine-tuned model's price at Azure goes by its base
        let row = match provider {
            ProviderKind::Azure => format!("{base}.ft-*"),
            ProviderKind::OpenAi | ProviderKind::Candle => name.clone(),
        };
        let remedy = format!(
            "set it with `tunegate prices set {row} --provider {} --training USD --input USD --output USD`",
            provider.name()
        );
        let found = book.find(provider, &name, None, at_ms);
        let cost = found.as_ref().ok().and_then(|found| found.price.training_cost(tokens, at_ms, u64::MAX));
        let value = match (found, cost) {
            (Ok(found), Some(cost)) => json!({
                "usd": cost.to_string(),
                "price": &*found.row,
                "verified": found.price.terms.verified,
                "warning": found.warning.map(|warning| warning.to_string()),
            }),
            (Ok(_), None) => json!({
                "usd": null,
                "why": format!("unknown: {row} has no price by the trained token: {remedy}"),
            }),
            (Err(_), _) => json!({
                "usd": null,
                "why": format!("unknown: {remedy}"),
            }),
        };
        costs.insert(provider.name().to_owned(), value);
    }
    costs
}

/// The report in words.
fn told(options: &Options, report: &Report) -> String {
    let kind = report.format.map_or("", |format| format.name());
    let mut text = format!(
        "{}: {} of {} as {} is trained with them",
        options.file.display(),
        counted(report.examples, "example", "examples"),
        counted(report.rows, format!("{kind} row").trim(), format!("{kind} rows").trim()),
        options.model
    );
    if report.examples > 0 {
        text.push_str("\n\n");
        text.push_str(&figures(report));
    }
    text.push_str(&format!("\n{}", counted(report.error_count, "error", "errors")));
    for problem in report.errors.iter().take(SHOWN_ERRORS) {
        let _ = write!(text, "\n  {}", Problem::words(problem));
    }
    if report.error_count > SHOWN_ERRORS as u64 {
        let _ = write!(text, "\n  … --format json has more of them");
    }
    let _ = write!(text, "\n{}", counted(report.warnings.len() as u64, "warning", "warnings"));
    for warning in &report.warnings {
        let _ = write!(text, "\n  {}", warned(warning));
    }
    if report.findings.is_empty() && report.rows > 0 {
        text.push_str(
            "\nduplicates, leaks, contradictions, personal data and languages were not looked for (--fast)",
        );
    }
    text
}

fn warned(warning: &Warning) -> String {
    let lines: Vec<String> = warning.lines.iter().take(SHOWN_LINES).map(u64::to_string).collect();
    let more = if warning.lines.len() > SHOWN_LINES { ", …" } else { "" };
    match lines.is_empty() {
        true => format!("{}: {}", warning.kind, warning.message),
        false => format!("{}: {} (line {}{more})", warning.kind, warning.message, lines.join(", ")),
    }
}

fn figures(report: &Report) -> String {
    let row = |cells: [&str; 8]| {
        let [name, numbers @ ..] = cells;
        let numbers: String = numbers.iter().map(|cell| format!("{cell:>12}")).collect();
        format!("{name:<18}{numbers}\n")
    };
    let of = |name: &str, figures: &Distribution| {
        let [total, min, max] = [figures.total, figures.min, figures.max].map(grouped);
        let [mean, median, p10, p90] =
            [figures.mean, figures.median, figures.p10, figures.p90].map(|figure| format!("{figure:.1}"));
        row([name, &total, &min, &max, &mean, &median, &p10, &p90])
    };
    let mut text = row(["", "TOTAL", "MIN", "MAX", "MEAN", "MEDIAN", "P10", "P90"]);
    text.push_str(&of("tokens", &report.tokens));
    text.push_str(&of("assistant tokens", &report.assistant_tokens));
    text.push_str(&of("messages", &report.messages));
    let _ = writeln!(
        text,
        "\nbilled: {} tokens x {} = {}",
        grouped(report.billed_tokens),
        counted(u64::from(report.epochs), "epoch", "epochs"),
        grouped(report.total_billed_tokens)
    );
    for (target, cost) in &report.cost_usd_by_target {
        let _ = match (cost["usd"].as_str(), cost["why"].as_str()) {
            (Some(usd), _) => {
                writeln!(text, "cost at {target}: ${usd} (price: {})", cost["price"].as_str().unwrap_or("-"))
            }
            (None, why) => writeln!(text, "cost at {target}: {}", why.unwrap_or("unknown")),
        };
    }
    let _ = writeln!(
        text,
        "longer than {} tokens: {}; without a system message: {}; without a user message: {}",
        grouped(report.row_limit),
        counted(report.over_limit, "row", "rows"),
        grouped(report.missing_system),
        grouped(report.missing_user)
    );
    if let Some(prompt) = &report.system_prompt {
        let _ = writeln!(
            text,
            "system prompt: {} with SHA-256 {}; {} in all",
            counted(prompt.rows, "row", "rows"),
            prompt.sha256,
            counted(prompt.distinct, "prompt", "prompts")
        );
    }
    if !report.languages.is_empty() {
        let languages: Vec<String> =
            report.languages.iter().map(|of| format!("{} {}", of.language, grouped(of.rows))).collect();
        let _ = writeln!(text, "languages of the answers: {}", languages.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::read::moment;

    #[test]
    fn costs_by_target() {
        let (_, book) = prices::built_in().unwrap_or_else(|problems| panic!("{problems:?}"));
        let costs = |model: &str, at: &str| costs(model, 300_000, &book, moment(at).expect("a day"));
        let at_openai = costs("gpt-3.5-turbo", "2023-09-01");
        assert_eq!(at_openai["openai"]["usd"], "2.40", "100,000 tokens and three epochs");
        let both: Vec<String> = costs("gpt-4o-mini-2024-07-18", "2025-01-01").into_keys().collect();
        assert_eq!(both, ["azure", "openai"]);
        let local = costs("local/smollm2-135m", "2025-01-01");
        assert!(
            local["candle"]["why"].as_str().is_some_and(|why| why.starts_with("unknown: set")),
            "{local:?}"
        );
        let at_azure = costs("azure/gpt-9", "2025-01-01")["azure"]["why"].clone();
        let remedy =
            "`tunegate prices set gpt-9.ft-* --provider azure --training USD --input USD --output USD`";
        assert_eq!(at_azure, format!("unknown: set it with {remedy}"));
        // never less because of tokens that somebody else may have used up
        assert_eq!(costs("gpt-4o-mini-2024-07-18", "2024-09-01")["openai"]["usd"], "0.90");
    }
}
