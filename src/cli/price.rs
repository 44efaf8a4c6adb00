//! `tunegate price`: what something would cost, computed offline and shown line by line.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{ConfigOption, say};
use crate::clock;
use crate::config::{self, ProcessEnvironment, prices};
use crate::domain::catalog::ProviderKind;
use crate::domain::money::{PerToken, Usd};
use crate::domain::price::book::{Found, PriceBook};
use crate::domain::price::read::{moment, moment_text};
use crate::domain::service_tier::ServiceTier;
use crate::domain::usage::TokenCounts;

/// Whose prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Provider {
    /// OpenAI
    Openai,
    /// Azure OpenAI
    Azure,
    /// A local worker
    Candle,
}

impl Provider {
    pub(super) const fn kind(self) -> ProviderKind {
        match self {
            Self::Openai => ProviderKind::OpenAi,
            Self::Azure => ProviderKind::Azure,
            Self::Candle => ProviderKind::Candle,
        }
    }
}

/// In which service tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Within a day
    Batch,
    /// When there is room
    Flex,
    /// As usual
    Default,
    /// Before others
    Priority,
}

impl Tier {
    const fn tier(self) -> ServiceTier {
        match self {
            Self::Batch => ServiceTier::Batch,
            Self::Flex => ServiceTier::Flex,
            Self::Default => ServiceTier::Default,
            Self::Priority => ServiceTier::Priority,
        }
    }
}

/// Options of `tunegate price`.
#[derive(Args)]
pub(super) struct Options {
    /// The model's name, such as ft:gpt-4.1-mini-2025-04-14:acme::id or gpt-4.1-2025-04-14.ft-0a1b
    model: String,

    /// Tokens of input, cached ones included
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    input: u64,
    /// Tokens of output, unseen ones included
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    output: u64,
    /// Of the input: read from the provider's prompt cache
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cached: u64,
    /// Of the input: written into that cache
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cache_write: u64,
    /// Tokens of a training file
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    training: u64,
    /// How often it is trained on
    #[arg(long, value_name = "EPOCHS", default_value_t = 1)]
    epochs: u64,
    /// Hours of training, where that is billed by the hour, such as 1.5
    #[arg(long, value_name = "HOURS")]
    training_hours: Option<String>,
    /// Seconds that a worker of ours computes, where that is billed by the hour, such as 2.5
    #[arg(long, value_name = "SECONDS")]
    compute_seconds: Option<String>,
    /// Hours that a deployment stands, such as 720
    #[arg(long, value_name = "HOURS")]
    hours: Option<String>,
    /// The kind of deployment for those hours, such as Standard or DeveloperTier
    #[arg(long, value_name = "SKU")]
    sku: Option<String>,
    /// Whose prices [default: azure for BASE.ft-… names, else openai]
    #[arg(long)]
    provider: Option<Provider>,
    /// The base model, where the name does not say it
    #[arg(long, value_name = "MODEL")]
    base_model: Option<String>,
    /// A day or moment, UTC, such as 2023-09-01 [default: now]
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// The service tier
    #[arg(long, default_value = "default")]
    tier: Tier,
    /// As JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigOption,
}

/// One line of the computation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    what: String,
    amount: String,
    prices: [String; 2],
    cost: Usd,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let path = options.config.path();
    let sheets = config::load_prices(path.as_deref(), &ProcessEnvironment)?;
    let book = PriceBook::new(&sheets, &[], 0)
        .map_err(|problems| anyhow!(problems.iter().map(prices::line).collect::<Vec<_>>().join("\n")))?;
    say(&computed(options, &book, clock::unix_ms())?);
    Ok(())
}

fn computed(options: &Options, book: &PriceBook, now_ms: i64) -> anyhow::Result<String> {
    let at_ms = match &options.at {
        Some(text) => {
            moment(text).with_context(|| format!("{text:?} is no day: write one such as 2023-09-01"))?
        }
        None => now_ms,
    };
    let provider = match options.provider {
        Some(provider) => provider.kind(),
        None if options.model.contains(".ft-") => ProviderKind::Azure,
        None => ProviderKind::OpenAi,
    };
    let found = book.find(provider, &options.model, options.base_model.as_deref(), at_ms)?;
    let (lines, total) = lines(options, &found, at_ms)?;
    if options.json {
        return Ok(as_json(options, provider, &found, at_ms, &lines, total));
    }
    let mut text = format!("{} at {} ({})\n", options.model, moment_text(at_ms), provider.name());
    text.push_str(&table(&lines, total));
    for note in notes(&found, options) {
        let _ = write!(text, "\n{note}");
    }
    Ok(text)
}

fn lines(options: &Options, found: &Found, at_ms: i64) -> anyhow::Result<(Vec<Line>, Usd)> {
    let price = &found.price;
    if options.cached.saturating_add(options.cache_write) > options.input {
        bail!("--cached and --cache-write are parts of --input: together at most as many");
    }
    let counts = TokenCounts {
        prompt: options.input,
        cached: options.cached,
        cache_write: options.cache_write,
        completion: options.output,
        compute_us: options.compute_seconds.as_deref().map_or(Ok(0), micros)?,
        ..TokenCounts::default()
    };
    let tier = options.tier.tier();
    let mut all: Vec<Line> = Vec::new();
    for line in price.breakdown(&counts, tier) {
        let what = line.class.name().replace('_', " ");
        all.push(by_token(what, grouped(line.tokens), line.price, line.cost));
    }
    if let Some(seconds) = &options.compute_seconds {
        let per_hour = price.terms.compute_hour.context(
            "our own machine's time has no price here at that time: give it one with `tunegate prices set MODEL \
             --provider candle --compute-per-hour USD`",
        )?;
        let cost = price.computing(counts.compute_us).round_up();
        let prices = [format!("{per_hour}/h"), String::new()];
        all.push(Line { what: "computing".to_owned(), amount: format!("{seconds} s"), prices, cost });
    }
    // the lines are rounded up each, the sum once
    let mut total = price.cost(&counts, tier);
    if options.training > 0 {
        let tokens = options.training.saturating_mul(options.epochs);
        let (cost, each) = price.training_cost(tokens, at_ms, 0).zip(price.terms.training).context(
            "training of this model is not priced by the token at that time: try --training-hours",
        )?;
        let amount = format!("{} x {}", grouped(options.training), options.epochs);
        all.push(by_token("training".to_owned(), amount, each, cost));
        total += cost;
    }
    if let Some(hours) = &options.training_hours {
        let cost = price
            .training_time_cost(seconds(hours)?)
            .context("training of this model is not priced by the hour at that time: try --training")?;
        all.push(by_hour("training", hours, price.training_time_cost(3_600), cost));
        total += cost;
    }
    if let Some(hours) = &options.hours {
        let sku = options.sku.as_deref();
        let cost = price.hosting_cost(seconds(hours)?, sku).context(
            "no price by the hour is known for such a deployment at that time (--sku says which kind it is)",
        )?;
        all.push(by_hour("hosting", hours, price.hosting_cost(3_600, sku), cost));
        total += cost;
    }
    if all.is_empty() {
        bail!("nothing to compute: say how much, such as --input 1000 --output 1000, --training or --hours");
    }
    Ok((all, total))
}

fn by_token(what: String, amount: String, price: PerToken, cost: Usd) -> Line {
    Line { what, amount, prices: [price.per_million(), price.per_thousand()], cost }
}

fn by_hour(what: &str, hours: &str, per_hour: Option<Usd>, cost: Usd) -> Line {
    let price = per_hour.map(|price| format!("{price}/h")).unwrap_or_default();
    Line { what: what.to_owned(), amount: format!("{hours} h"), prices: [price, String::new()], cost }
}

/// Hours with a fraction, in whole seconds, rounded up.
fn seconds(hours: &str) -> anyhow::Result<u64> {
    let billionths = Usd::parse(hours)
        .ok()
        .with_context(|| format!("{hours:?} are no hours: write a number such as 1.5"))?;
    let seconds = i128::from(billionths.nanos()) * 3_600;
    let rounded = seconds / 1_000_000_000 + i128::from(seconds % 1_000_000_000 > 0);
    Ok(u64::try_from(rounded)?)
}

/// Seconds with a fraction, in whole microseconds, rounded up.
fn micros(seconds: &str) -> anyhow::Result<u64> {
    let billionths = Usd::parse(seconds)
        .ok()
        .with_context(|| format!("{seconds:?} are no seconds: write a number such as 2.5"))?;
    Ok(u64::try_from(billionths.nanos())?.div_ceil(1_000))
}

fn table(lines: &[Line], total: Usd) -> String {
    let mut text = row(["", "AMOUNT", "USD PER 1M", "USD PER 1K", "USD"]);
    for line in lines {
        let cost = line.cost.to_string();
        text.push_str(&row([&line.what, &line.amount, &line.prices[0], &line.prices[1], &cost]));
    }
    text.push_str(&row(["total", "", "", "", &format!("${total}")]));
    text.pop();
    text
}

fn row([what, amount, million, thousand, cost]: [&str; 5]) -> String {
    format!("{what:<14}{amount:>16}{million:>14}{thousand:>14}{cost:>16}\n")
}

/// Digits in groups of three: `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What stands below the table: where the figures come from, and what is doubtful.
fn notes(found: &Found, options: &Options) -> Vec<String> {
    let tier = options.tier.tier();
    let (price, terms) = (&found.price, &found.price.terms);
    let from =
        if terms.from_ms == i64::MIN { "the beginning".to_owned() } else { moment_text(terms.from_ms) };
    let until = if terms.until_ms == i64::MAX { "today".to_owned() } else { moment_text(terms.until_ms) };
    let mut notes =
        vec![format!("price: {}, version {}, from {from} until {until}", found.row, found.version)];
    let trust =
        if terms.verified { "" } else { " (NOT VERIFIED: from memory, check it before you bill by it)" };
    notes.push(format!("source: {}{trust}", terms.source));
    if let Some(base) = &terms.tokens_of {
        notes.push(format!("tokens are billed like those of {base}"));
    }
    if let Some(long) = price.tokens.long_context.filter(|long| options.input > long.above_tokens) {
        let above = grouped(long.above_tokens);
        notes
            .push(format!("input of more than {above} tokens: the long-context price counts for all tokens"));
    }
    if tier != ServiceTier::Default && price.tokens.tiers.of(tier) == price.tokens.standard() {
        notes.push(format!("no price of the tier {} is listed: the usual one is shown", tier.name()));
    }
    if let Some(free) = terms.free_training {
        let until = moment_text(free.until_ms);
        notes.push(format!(
            "{} trained tokens a day and account were free until {until}",
            grouped(free.tokens_per_day)
        ));
    }
    notes.extend(terms.note.iter().map(|note| format!("note: {note}")));
    notes.extend(found.warning.iter().map(|warning| format!("WARNING: {warning}")));
    notes
}

fn as_json(
    options: &Options,
    provider: ProviderKind,
    found: &Found,
    at_ms: i64,
    lines: &[Line],
    total: Usd,
) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({"what": line.what, "amount": line.amount, "per_1m_usd": line.prices[0],
                "per_1k_usd": line.prices[1], "usd": line.cost.to_string()})
        })
        .collect();
    let terms = &found.price.terms;
    json!({
        "model": options.model,
        "provider": provider.name(),
        "at": moment_text(at_ms),
        "lines": lines,
        "total_usd": total.to_string(),
        "price": &*found.row,
        "version": &*found.version,
        "source": &*terms.source,
        "verified": terms.verified,
        "warning": found.warning.map(|warning| warning.to_string()),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::read::over;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn said(arguments: &str) -> String {
        let line = Line::try_parse_from(["price"].into_iter().chain(arguments.split(' ')));
        let options = line.unwrap_or_else(|error| panic!("{error}")).options;
        let (_, book) = prices::built_in().unwrap_or_else(|problems| panic!("{problems:?}"));
        let now_ms = moment("2026-11-22").expect("a day");
        computed(&options, &book, now_ms).unwrap_or_else(|error| format!("error: {error:#}"))
    }

    fn total(arguments: &str) -> String {
        let text = said(arguments);
        let line = text.lines().find(|line| line.starts_with("total"));
        line.unwrap_or_else(|| panic!("{text}")).split_whitespace().nth(1).expect("an amount").to_owned()
    }

    #[test]
    fn the_seeds_of_truth() {
        for (arguments, want) in [
            ("ft:gpt-3.5-turbo-0613:acme::x --input 1000 --output 1000 --at 2023-09-01", "$0.028"),
            ("ft:gpt-3.5-turbo-0613:acme::x --input 1000 --output 1000 --at 2023-12-01", "$0.009"),
            ("ft:gpt-3.5-turbo-0613 --training 100000 --epochs 3 --at 2023-09-01", "$2.40"),
            ("ft:gpt-4o-mini-2024-07-18:a::x --input 1000000 --output 1000000 --training 1000000", "$4.50"),
            ("gpt-35-turbo-0613.ft-0a1b --training 45000 --epochs 3 --at 2024-07-01", "$1.08"),
            ("gpt-35-turbo-0613.ft-0a1b --training-hours 1.5 --at 2024-03-01", "$67.50"),
            ("gpt-4.1-2025-04-14.ft-0a1b --hours 720", "$1224.00"),
            ("gpt-5 --input 1000000 --cached 900000 --tier priority", "$0.475"),
            ("gpt-5.4 --input 272001 --output 1000", "$1.382505"),
        ] {
            assert_eq!(total(arguments), want, "{arguments}");
        }
    }

    #[test]
    fn the_computation_is_shown() {
        assert_eq!(
            said("ft:gpt-3.5-turbo-0613:acme::x --input 1000 --output 1000 --at 2023-09-01"),
            "ft:gpt-3.5-turbo-0613:acme::x at 2023-09-01 (openai)\n\
             \x20                       AMOUNT    USD PER 1M    USD PER 1K             USD\n\
             input                    1,000         12.00         0.012           0.012\n\
             output                   1,000         16.00         0.016           0.016\n\
             total                                                               $0.028\n\
             price: ft:gpt-3.5-turbo, version 2026-11-21, from 2023-08-22 until 2023-11-06\n\
             source: blog2308 (NOT VERIFIED: from memory, check it before you bill by it)\n\
             note: date and figures widely quoted; the stored copy of the post was cut before the price lines"
        );
        let gone = said("ft:gpt-3.5-turbo-0613:acme::x --input 1000");
        assert!(gone.contains("WARNING: its last period ended"), "{gone}");
        let json: serde_json::Value =
            serde_json::from_str(&said("gpt-4o --input 1000 --json")).expect("JSON");
        assert_eq!((&json["total_usd"], &json["version"]), (&"0.0025".into(), &"2026-11-21".into()));
    }

    #[test]
    fn our_own_machine_costs_its_seconds() {
        let body = json!({"compute_per_hour_usd": "0.36", "input_per_1m_usd": "1", "output_per_1m_usd": "1"});
        let row = over(ProviderKind::Candle, "own", &body).expect("sound");
        let (sheets, _) = prices::built_in().unwrap_or_else(|problems| panic!("{problems:?}"));
        let book = PriceBook::new(&sheets, &[row], 1).expect("sound");
        let said = |arguments: &str| {
            let line = Line::try_parse_from(["price"].into_iter().chain(arguments.split(' ')));
            let options = line.unwrap_or_else(|error| panic!("{error}")).options;
            computed(&options, &book, 0).unwrap_or_else(|error| format!("error: {error:#}"))
        };
        let text = said("own --provider candle --compute-seconds 2.5 --input 1");
        let row = text.lines().find(|line| line.starts_with("computing")).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["computing", "2.5", "s", "0.36/h", "0.00025"], "{text}");
        assert!(text.contains("$0.000251\n"), "{text}");
        let hour = said("own --provider candle --training-hours 1");
        assert!(hour.contains("$0.36\n"), "the same machine trains: {hour}");
        let wrong = said("own --provider candle --compute-seconds soon");
        assert!(wrong.contains("are no seconds"), "{wrong}");
        let unpriced = said("gpt-4o --compute-seconds 1 --at 2026-11-22");
        assert!(unpriced.contains("error: our own machine's time has no price here"), "{unpriced}");
    }

    #[test]
    fn what_can_not_be_computed_is_said() {
        for (arguments, want) in [
            ("nobody's --input 1", "error: no price is known for \"nobody's\""),
            ("gpt-4o", "error: nothing to compute"),
            ("gpt-4o --input 1 --cached 2", "error: --cached and --cache-write are parts of --input"),
            ("gpt-4o --training 1", "error: training of this model is not priced by the token"),
            ("gpt-4o --hours 1", "error: no price by the hour is known"),
            ("gpt-4o --input 1 --at yesterday", "error: \"yesterday\" is no day"),
            ("gpt-4o --input 1 --at 2020-01-01", "error: the price of \"gpt-4o\" is known only for later"),
        ] {
            let text = said(arguments);
            assert!(text.starts_with(want), "{arguments}: {text}");
        }
    }
}
