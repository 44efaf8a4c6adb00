//! Prices as people write them, in the price file, in a deployment of the configuration and in the admin API: one
//! reader, which says everything that is wrong at once, with its place.
//!
//! The unit stands in each key's name, amounts are text, and what is off by a factor of a thousand is refused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;
use serde_json::{Map, Value};

use super::rates::{Class, Listed, LongContext, Rates, Tiers, TokenPrices};
use super::{FreeTraining, Hosting, Hourly, Terms};
use crate::domain::catalog::ProviderKind;
use crate::domain::hosting::Billing;
use crate::domain::money::{MoneyError, PerToken, Usd};
use crate::domain::service_tier::ServiceTier;

/// Another name for a row: whose, the name, the row's name.
pub type Alias = (ProviderKind, Arc<str>, Arc<str>);

/// What a book is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheets {
    /// The version of the file.
    pub version: Arc<str>,
    /// The file's rows.
    pub rows: Vec<RowDraft>,
    /// Names that are priced like another one.
    pub aliases: Vec<Alias>,
}

/// The dearest and the cheapest token that is believed, USD per 1M, in pico-dollars a token. Source: prices.toml holds
/// 0.005 to 180; a factor of a thousand leads out of it nearly everywhere.
const TOKEN_BAND: [i64; 2] = [1_000, 2_000_000_000];
/// The cheapest and the dearest hour that is believed.
const HOUR_BAND: [Usd; 2] = [Usd::from_nanos(10_000_000), Usd::dollars(10_000)];
/// The same of an hour of our own machine: a small one costs its electricity.
const COMPUTE_BAND: [Usd; 2] = [Usd::from_nanos(100_000), Usd::dollars(10_000)];
/// Output that costs this many times the input is taken for a mistake in the unit.
const MOST_OUTPUT_RATIO: i128 = 1_000;
const MOST_PERIODS: usize = 1_000;
const MOST_NAME_BYTES: usize = 256;
const TRAINING_INCREMENT_SECONDS: u64 = 1;
/// The key of what an hour of our own machine costs.
pub const COMPUTE_KEY: &str = "compute_per_hour_usd";
/// Why that means nothing at other providers.
pub const NOT_OURS: &str =
    "only for candle: nobody else is believed how long a machine computed; write what tokens cost there";

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where, such as `models[3].periods[0].input_per_1m_usd`; empty for the whole.
    pub path: String,
    /// What is wrong there and what to write instead.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: &str, message: &str) -> Self {
        Self { path: path.to_owned(), message: message.to_owned() }
    }
}

/// One period as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What tokens cost; none where only a base model's price says it.
    pub tokens: Option<TokenPrices>,
    /// All the rest.
    pub terms: Terms,
}

/// One row as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDraft {
    /// Whose price it is.
    pub provider: ProviderKind,
    /// The model's name, or a family's.
    pub model: Arc<str>,
    /// The model it was trained from.
    pub base: Option<Arc<str>>,
    /// What else should be known.
    pub note: Option<Arc<str>>,
    /// In order of time; they do not overlap.
    pub periods: Vec<Draft>,
}

/// Reads a whole price file.
///
/// # Errors
///
/// Everything that is wrong in it.
pub fn sheets(file: &Value) -> Result<Sheets, Vec<Problem>> {
    let problems = Problems::default();
    let read = problems.table("", file).map(|mut file| {
        let version = file.required_text("version");
        let sources = file.take("sources");
        let aliases = file.child("aliases").map(aliases).unwrap_or_default();
        let rows: Vec<Option<RowDraft>> = file.children("models").into_iter().map(file_row).collect();
        no_twins(&rows, &problems);
        if let Some(sources) = sources.and_then(|(path, value)| problems.table(&path, value)) {
            sources.each(|table, name| {
                let _ = table.text(name);
            });
        }
        file.finish();
        Sheets { version: version.unwrap_or_default(), rows: rows.into_iter().flatten().collect(), aliases }
    });
    problems.finish(read.unwrap_or_default())
}

/// Reads what the admin API puts over a model's row: one period, or several as `periods`.
///
/// # Errors
///
/// Everything that is wrong in it.
pub fn over(provider: ProviderKind, model: &str, body: &Value) -> Result<RowDraft, Vec<Problem>> {
    let problems = Problems::default();
    let row = problems.table("", body).map(|mut body| {
        check_name(&body, "model", model);
        let base = body.text("base").map(Arc::from);
        if body.has("periods") {
            let note = body.text("note").map(Arc::from);
            let periods = periods(&mut body, Some(provider));
            body.finish();
            return RowDraft { provider, model: model.into(), base, note, periods };
        }
        let periods = period(body, Some(provider)).into_iter().collect();
        RowDraft { provider, model: model.into(), base, note: None, periods }
    });
    let empty = RowDraft { provider, model: model.into(), base: None, note: None, periods: Vec::new() };
    problems.finish(row.unwrap_or(empty))
}

/// Reads a price that stands alone: it must say what input and output cost.
///
/// # Errors
///
/// Everything that is wrong in it.
pub fn alone(price: &Value) -> Result<super::Price, Vec<Problem>> {
    let problems = Problems::default();
    let draft = problems.table("", price).and_then(|table| period(table, None));
    if let Some(Draft { tokens: None, .. }) = draft {
        problems.add("input_per_1m_usd", "missing: write what input and output cost, \"0\" if it is nothing");
    }
    let price = draft.and_then(|draft| Some(super::Price { tokens: draft.tokens?, terms: draft.terms }));
    problems.finish(price.unwrap_or_else(|| super::Price::free("")))
}

/// Reads a day, `2026-11-21` (its UTC midnight), or a moment, `2026-11-21T12:00:00Z`; ms since 1970 UTC.
pub fn moment(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let day: Date = text.parse().ok().filter(|_| text.len() == "2026-11-21".len())?;
    let midnight: Zoned = day.to_zoned(TimeZone::UTC).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

/// A moment as [`moment`] reads it: the day where it is a midnight.
pub fn moment_text(at_ms: i64) -> String {
    let Ok(moment) = Timestamp::from_millisecond(at_ms) else { return String::new() };
    match at_ms.rem_euclid(86_400_000) {
        0 => moment.to_zoned(TimeZone::UTC).date().to_string(),
        _ => moment.to_string(),
    }
}

fn aliases(table: Table<'_>) -> Vec<Alias> {
    let mut all = Vec::new();
    table.each(|providers, provider| {
        let kind = ProviderKind::from_name(provider);
        if kind.is_none() {
            providers.wrong(provider, "no kind of provider: write openai, azure or candle");
        }
        let (Some(kind), Some(names)) = (kind, providers.child(provider)) else { return };
        names.each(|names, name| {
            if let Some(row) = names.text(name) {
                all.push((kind, Arc::from(name), Arc::from(row)));
            }
        });
    });
    all
}

fn file_row(mut table: Table<'_>) -> Option<RowDraft> {
    let provider = table.required_text("provider");
    let kind = provider.as_deref().and_then(ProviderKind::from_name);
    if provider.is_some() && kind.is_none() {
        table.wrong("provider", "no kind of provider: write openai, azure or candle");
    }
    let model = table.required_text("model");
    if let Some(model) = &model {
        check_name(&table, "model", model);
    }
    let (base, note) = (table.text("base").map(Arc::from), table.text("note").map(Arc::from));
    let periods = periods(&mut table, kind);
    table.finish();
    Some(RowDraft { provider: kind?, model: model?, base, note, periods })
}

fn check_name(table: &Table<'_>, key: &str, name: &str) {
    if name.is_empty() || name.len() > MOST_NAME_BYTES || name.chars().any(char::is_control) {
        table.wrong(key, "a model's name has 1 to 256 bytes and no control characters");
    }
}

fn no_twins(rows: &[Option<RowDraft>], problems: &Problems) {
    let mut seen = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        if let Some(first) = seen.insert((row.provider, &row.model), index) {
            problems.add(
                &format!("models[{index}].model"),
                &format!("{} is models[{first}] already: put the periods into one row", row.model),
            );
        }
    }
}

fn periods(table: &mut Table<'_>, whose: Option<ProviderKind>) -> Vec<Draft> {
    let written = table.children("periods");
    match written.len() {
        0 => table.wrong("periods", "missing: at least one period says what it costs"),
        1..=MOST_PERIODS => {}
        _ => table.wrong("periods", "more than 1000 periods"),
    }
    let mut read: Vec<(String, Draft)> = Vec::new();
    for period_table in written {
        let path = period_table.path.clone();
        read.extend(period(period_table, whose).map(|period| (path, period)));
    }
    read.sort_by_key(|(_, period)| period.terms.from_ms);
    for (path, [before, after]) in read.iter().zip(read.iter().skip(1)).map(|(a, b)| (&b.0, [&a.1, &b.1])) {
        if before.terms.until_ms > after.terms.from_ms {
            table.problems.add(path, "overlaps the period before it: one moment has one price");
        }
    }
    read.into_iter().map(|(_, period)| period).collect()
}

fn period(mut table: Table<'_>, whose: Option<ProviderKind>) -> Option<Draft> {
    let from_ms = table.moment("from").unwrap_or(i64::MIN);
    let until_ms = table.moment("until").unwrap_or(i64::MAX);
    if from_ms >= until_ms {
        table.wrong("until", "is not after `from`: no moment is in this period");
    }
    let tokens = token_prices(&mut table);
    if table.has(COMPUTE_KEY) && whose.is_some_and(|kind| kind != ProviderKind::Candle) {
        table.wrong(COMPUTE_KEY, NOT_OURS);
    }
    // a machine that is paid for by its time costs nothing by the token, unless that is written, too
    let tokens = tokens.or(table.has(COMPUTE_KEY).then(TokenPrices::default));
    let training = table.per_token("training");
    let mut training_by_type = BTreeMap::new();
    if let Some(types) = table.child("training_per_1m_usd_by_type") {
        types.each(|types, kind| {
            if let Some(price) = types.per_million(kind) {
                training_by_type.insert(Arc::from(kind), price);
            }
        });
    }
    let terms = Terms {
        from_ms,
        until_ms,
        shutdown_ms: table.moment("shutdown"),
        training,
        training_by_type,
        free_training: table.child("free_training").and_then(free_training),
        training_hour: training_hour(&mut table),
        hosting: hosting(&mut table),
        compute_hour: table.per_hour(COMPUTE_KEY, COMPUTE_BAND),
        source: table.text("source").unwrap_or("written by the operator").into(),
        verified: table.flag("verified").unwrap_or(true),
        note: table.text("note").map(Arc::from),
        tokens_of: None,
    };
    if !table.members.keys().any(|key| key.contains("_per_")) {
        table.wrong("input_per_1m_usd", "missing: this period says no price at all");
    }
    table.finish();
    Some(Draft { tokens, terms })
}

fn free_training(mut table: Table<'_>) -> Option<FreeTraining> {
    let tokens_per_day = table.required_count("tokens_per_day");
    let until_ms = table.moment("until").unwrap_or(i64::MAX);
    table.finish();
    Some(FreeTraining { tokens_per_day: tokens_per_day?, until_ms })
}

fn training_hour(table: &mut Table<'_>) -> Option<Hourly> {
    let per_hour = table.per_hour("training_per_hour_usd", HOUR_BAND);
    let increment = table.seconds("training_increment_seconds");
    if increment.is_some() && per_hour.is_none() {
        table.wrong("training_increment_seconds", "means nothing without training_per_hour_usd");
    }
    Some(Hourly { per_hour: per_hour?, increment_seconds: increment.unwrap_or(TRAINING_INCREMENT_SECONDS) })
}

fn hosting(table: &mut Table<'_>) -> Option<Hosting> {
    let any = table.per_hour("hosting_per_hour_usd", HOUR_BAND);
    let billing = table.billing("hosting_billing");
    let mut by_sku = BTreeMap::new();
    if let Some(skus) = table.child("hosting_per_hour_usd_by_sku") {
        skus.each(|skus, sku| {
            if let Some(price) = skus.per_hour(sku, HOUR_BAND) {
                by_sku.insert(Arc::from(sku), price);
            }
        });
    }
    if any.is_none() && by_sku.is_empty() {
        if billing.is_some() {
            table.wrong("hosting_billing", "means nothing without hosting_per_hour_usd");
        }
        return None;
    }
    Some(Hosting { any, by_sku, billing })
}

fn token_prices(table: &mut Table<'_>) -> Option<TokenPrices> {
    let listed = classes(table);
    let standard = Rates::standard(&listed);
    let tiers = ["batch", "flex", "priority"].map(|name| table.child(name));
    let long = table.child("long_context");
    let Some(standard) = standard else {
        incomplete(table, &listed, tiers.iter().any(Option::is_some) || long.is_some());
        return None;
    };
    check_ratios(table, &standard);
    let usual = tiered(standard, tiers);
    let long_context = long.and_then(|long| long_context(long, &usual));
    Some(TokenPrices { tiers: usual, long_context })
}

fn incomplete(table: &Table<'_>, listed: &Listed, tiers: bool) {
    let any = listed.iter().any(Option::is_some) || tiers;
    for class in [Class::Input, Class::Output] {
        let key = format!("{}_per_1m_usd", class.name());
        let unread = table.has(&key) || table.has(&format!("{}_per_1k_usd", class.name()));
        if any && listed[class as usize].is_none() && !unread {
            table.wrong(&key, "missing: input and output are written together, \"0\" for what costs nothing");
        }
    }
}

/// Refuses what a slip of the unit in one of two figures looks like.
fn check_ratios(table: &Table<'_>, rates: &Rates) {
    let picos = |class: Class| i128::from(rates.of(class).picos());
    let (input, output) = (picos(Class::Input), picos(Class::Output));
    if input > 0 && output >= input * MOST_OUTPUT_RATIO {
        table.wrong(
            "output_per_1m_usd",
            "1000 times the input's price or more: one of the two seems to be in another unit",
        );
    }
    if input > 0 && output > 0 && input >= output * MOST_OUTPUT_RATIO {
        table.wrong(
            "input_per_1m_usd",
            "1000 times the output's price or more: one of the two seems to be in another unit",
        );
    }
    if rates.of(Class::CachedInput) > rates.of(Class::Input) {
        table.wrong("cached_input_per_1m_usd", "dearer than fresh input: is it the price of a cache write?");
    }
}

fn tiered(standard: Rates, written: [Option<Table<'_>>; 3]) -> Tiers {
    let tiers = [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority];
    tiers.into_iter().zip(written).fold(Tiers::new(standard), |all, (tier, written)| match written {
        Some(table) => all.with(tier, tier_rates(table, &standard)),
        None => all,
    })
}

/// A tier's prices: classes, or a factor on all of them.
fn tier_rates(mut table: Table<'_>, standard: &Rates) -> Rates {
    let listed = classes(&mut table);
    let rates = match table.factor("factor") {
        Some(_) if listed.iter().any(Option::is_some) => {
            table.wrong("factor", "contradicts the prices beside it: keep one");
            *standard
        }
        Some(thousandths) => standard.times_thousandths(thousandths),
        None => standard.beside(&listed),
    };
    table.finish();
    rates
}

fn long_context(mut table: Table<'_>, usual: &Tiers) -> Option<LongContext> {
    let above_tokens = table.required_count("above_tokens");
    let standard = usual.of(ServiceTier::Default).beside(&classes(&mut table));
    let tiers = [ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority];
    let long = tiers.into_iter().fold(Tiers::new(standard), |all, tier| {
        let rates = match table.child(tier.name()) {
            Some(written) => tier_rates(written, &standard),
            // no discount is taken for granted, and no surcharge is forgotten
            None => standard.dearer(usual.of(tier)),
        };
        all.with(tier, rates)
    });
    table.finish();
    Some(LongContext { above_tokens: above_tokens?, tiers: long })
}

fn classes(table: &mut Table<'_>) -> Listed {
    Class::ALL.map(|class| table.per_token(class.name()))
}

/// What is wrong, gathered.
#[derive(Debug, Default)]
struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    fn add(&self, path: &str, message: &str) {
        self.0.borrow_mut().push(Problem::new(path, message));
    }

    fn table<'a>(&'a self, path: &str, value: &'a Value) -> Option<Table<'a>> {
        match value {
            Value::Object(members) => {
                Some(Table { path: path.to_owned(), members, taken: Vec::new(), problems: self })
            }
            _ => {
                self.add(path, "a table of keys and values stands here");
                None
            }
        }
    }

    fn finish<T>(self, read: T) -> Result<T, Vec<Problem>> {
        let mut problems = self.0.into_inner();
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(read) } else { Err(problems) }
    }
}

/// A table that notes which of its keys were asked for.
struct Table<'a> {
    path: String,
    members: &'a Map<String, Value>,
    taken: Vec<String>,
    problems: &'a Problems,
}

impl<'a> Table<'a> {
    fn place(&self, key: &str) -> String {
        let bare =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if bare { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, key: &str, message: &str) {
        self.problems.add(&self.place(key), message);
    }

    fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// The value of a key; none where it is not there, or null.
    fn take(&mut self, key: &str) -> Option<(String, &'a Value)> {
        self.taken.push(key.to_owned());
        let value = self.members.get(key).filter(|value| !value.is_null())?;
        Some((self.place(key), value))
    }

    fn text(&mut self, key: &str) -> Option<&'a str> {
        let (path, value) = self.take(key)?;
        let text = value.as_str().map(str::trim).filter(|text| !text.is_empty());
        if text.is_none() {
            self.problems.add(&path, "a text stands here, and not an empty one");
        }
        text
    }

    fn required_text(&mut self, key: &str) -> Option<Arc<str>> {
        if !self.has(key) {
            self.taken.push(key.to_owned());
            self.wrong(key, "missing: write a text");
        }
        self.text(key).map(Arc::from)
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let (path, value) = self.take(key)?;
        if value.as_bool().is_none() {
            self.problems.add(&path, "true or false stands here");
        }
        value.as_bool()
    }

    fn count(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (path, value) = self.take(key)?;
        let count = value.as_u64().filter(|count| range.contains(count));
        if count.is_none() {
            let message = format!("a whole number from {} to {} stands here", range.start(), range.end());
            self.problems.add(&path, &message);
        }
        count
    }

    fn required_count(&mut self, key: &str) -> Option<u64> {
        if !self.has(key) {
            self.taken.push(key.to_owned());
            self.wrong(key, "missing: write a number of tokens");
        }
        self.count(key, 1..=1_000_000_000_000)
    }

    fn billing(&mut self, key: &str) -> Option<Billing> {
        let billing = Billing::from_name(self.text(key)?);
        if billing.is_none() {
            self.wrong(key, "write started_hours, clock_hours, quarter_hours or minutes");
        }
        billing
    }

    fn seconds(&mut self, key: &str) -> Option<u64> {
        self.count(key, 1..=86_400)
    }

    fn moment(&mut self, key: &str) -> Option<i64> {
        let text = self.text(key)?;
        let read = moment(text);
        if read.is_none() {
            self.wrong(key, "no day: write one such as \"2026-11-21\", or \"2026-11-21T12:00:00Z\"");
        }
        read
    }

    /// An amount as it is written: text, or a whole number.
    fn amount(&mut self, key: &str) -> Option<String> {
        let (path, value) = self.take(key)?;
        match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) if number.is_u64() => Some(number.to_string()),
            _ => {
                self.problems.add(&path, "an amount is written as text, exact: \"2.50\"");
                None
            }
        }
    }

    /// A token's price under either of its keys, `…_per_1m_usd` or `…_per_1k_usd`.
    fn per_token(&mut self, class: &str) -> Option<PerToken> {
        let keys = [format!("{class}_per_1m_usd"), format!("{class}_per_1k_usd")];
        let [million, thousand] = keys.each_ref().map(|key| self.amount(key));
        let (key, unit, text, price) = match (million, thousand) {
            (Some(_), Some(_)) => {
                self.wrong(&keys[1], &format!("{} says it too: keep one of the two", keys[0]));
                return None;
            }
            (Some(text), None) => {
                let price = PerToken::parse_per_million(&text);
                (&keys[0], "per 1,000,000", text, price)
            }
            (None, Some(text)) => {
                let price = PerToken::parse_per_thousand(&text);
                (&keys[1], "per 1,000", text, price)
            }
            (None, None) => return None,
        };
        self.believed(key, unit, &text, price)
    }

    /// A token's price under a key that does not say the unit: per 1,000,000.
    fn per_million(&mut self, key: &str) -> Option<PerToken> {
        let text = self.amount(key)?;
        self.believed(key, "per 1,000,000", &text, PerToken::parse_per_million(&text))
    }

    /// A token's price that may be one.
    fn believed(
        &self,
        key: &str,
        unit: &str,
        text: &str,
        price: Result<PerToken, MoneyError>,
    ) -> Option<PerToken> {
        match price {
            Ok(price) if price == PerToken::FREE => return Some(price),
            Ok(price) if price.picos() > TOKEN_BAND[1] => self.wrong(
                key,
                &format!(
                    "{text} USD {unit} tokens is beyond belief (more than 2000 USD per 1M): the key's name says the \
                     unit, and the figure seems to be off by 1000 or more"
                ),
            ),
            Ok(price) if price.picos() >= TOKEN_BAND[0] => return Some(price),
            Ok(_) | Err(MoneyError::TooFine) => self.wrong(
                key,
                &format!(
                    "{text} USD {unit} tokens is beyond belief (less than 0.001 USD per 1M): the key's name says the \
                     unit, and the figure seems to be off by 1000 or more, or to be a price per token; \"0\" is free"
                ),
            ),
            Err(error) => self.wrong(key, &error.to_string()),
        }
        None
    }

    fn per_hour(&mut self, key: &str, [least, most]: [Usd; 2]) -> Option<Usd> {
        let text = self.amount(key)?;
        match Usd::parse(&text) {
            Ok(Usd::ZERO) => return Some(Usd::ZERO),
            Ok(price) if (least..=most).contains(&price) => return Some(price),
            Ok(_) => self.wrong(
                key,
                &format!(
                    "{text} USD an hour is beyond belief ({least} to {most}, or \"0\"): is it in another unit?"
                ),
            ),
            Err(error) => self.wrong(key, &error.to_string()),
        }
        None
    }

    /// A factor in thousandths, 0.001 to 100.
    fn factor(&mut self, key: &str) -> Option<u32> {
        let text = self.amount(key)?;
        let nanos = Usd::parse(&text).map(Usd::nanos).unwrap_or(-1);
        let thousandths =
            u32::try_from(nanos / 1_000_000).ok().filter(|factor| (1..=100_000).contains(factor));
        let exact = thousandths.filter(|_| nanos % 1_000_000 == 0);
        if exact.is_none() {
            self.wrong(
                key,
                "a factor is 0.001 to 100 with at most three digits behind the point, such as \"1.75\"",
            );
        }
        exact
    }

    fn child(&mut self, key: &str) -> Option<Table<'a>> {
        let (path, value) = self.take(key)?;
        self.problems.table(&path, value)
    }

    fn children(&mut self, key: &str) -> Vec<Table<'a>> {
        let Some((path, value)) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.problems.add(&path, "a list of tables stands here");
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items.filter_map(|(index, item)| self.problems.table(&format!("{path}[{index}]"), item)).collect()
    }

    /// Visits each key of a table whose keys are names.
    fn each(mut self, mut visit: impl FnMut(&mut Self, &'a str)) {
        for key in self.members.keys() {
            visit(&mut self, key);
        }
    }

    /// Says which keys nobody asked for.
    fn finish(self) {
        for key in self.members.keys().filter(|key| !self.taken.contains(key)) {
            self.wrong(key, "unknown key: correct it or take it out");
        }
    }
}
