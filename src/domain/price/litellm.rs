//! LiteLLM's price file, read with distrust: what passes becomes rows of a price file of ours, and everything else is
//! reported with its reason. Its figures are USD per single token, as JSON numbers; they are read digit by digit, never
//! as floating point.
//!
//! Source: `model_prices_and_context_window.json` as shipped with litellm 1.109.1 (November 2026).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::read::over;
use crate::domain::catalog::ProviderKind;
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::money::PerToken;

/// Its members for a class of tokens, and ours.
const CLASSES: [(&str, &str); 7] = [
    ("input_cost_per_token", "input"),
    ("cache_read_input_token_cost", "cached_input"),
    ("cache_creation_input_token_cost", "cache_write"),
    ("output_cost_per_token", "output"),
    ("output_cost_per_reasoning_token", "reasoning"),
    ("input_cost_per_audio_token", "audio_input"),
    ("output_cost_per_audio_token", "audio_output"),
];
/// Its suffix for a tier, and ours.
const TIERS: [(&str, &str); 3] = [("_batches", "batch"), ("_flex", "flex"), ("_priority", "priority")];
/// What it calls the kinds of models that we serve.
const MODES: [&str; 5] = ["chat", "completion", "embedding", "responses", "moderation"];

/// What became of a file.
#[derive(Debug, Default)]
pub struct Import {
    /// The rows, as text of a price file without its head.
    pub rows: String,
    /// Which models were taken, in order.
    pub taken: Vec<String>,
    /// Models that were taken without a figure that can't be right, and why.
    pub doubted: Vec<(String, String)>,
    /// Models that were not taken, and why.
    pub refused: Vec<(String, String)>,
    /// How many entries belong to providers that we do not speak to, by provider.
    pub elsewhere: BTreeMap<String, usize>,
}

/// Why a text is no such file.
#[derive(Debug, thiserror::Error)]
#[error("no file of LiteLLM's form: one JSON object with an object for each model is expected ({0})")]
pub struct NotLitellm(#[from] serde_json::Error);

/// An entry's members, each as its own text.
type Entry = BTreeMap<String, Box<RawValue>>;
/// What a class costs, in pico-dollars a token.
type Figures = BTreeMap<&'static str, i64>;
/// The usual prices of what was taken so far.
type Bases = BTreeMap<(ProviderKind, String), Figures>;

/// Reads a whole file. `source` is written into each row.
///
/// # Errors
///
/// When it is not of that form; what is wrong with single entries stands in the report.
pub fn import(text: &str, source: &str) -> Result<Import, NotLitellm> {
    let entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text)?;
    let mut report = Import::default();
    let mut bases = Bases::new();
    let mut seen: BTreeMap<(ProviderKind, String), String> = BTreeMap::new();
    // bases first: a fine-tuned model's price is compared with its base's
    let (tuned, plain): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(key, _)| FineTunedName::parse(key).is_some());
    for (key, raw) in plain.into_iter().chain(tuned) {
        let entry: Entry = serde_json::from_str(raw.get()).unwrap_or_default();
        let Some(provider) = text_of(&entry, "litellm_provider").filter(|_| key != "sample_spec") else {
            report.refused.push((key.clone(), "not a model: it names no provider".to_owned()));
            continue;
        };
        let Some((kind, model)) = ours(&provider, key) else {
            *report.elsewhere.entry(provider).or_default() += 1;
            continue;
        };
        match row(kind, &model, &entry, &bases, source) {
            Err(reason) => report.refused.push((key.clone(), reason)),
            Ok(row) => {
                if let Some(first) = seen.insert((kind, model.clone()), key.clone()) {
                    report
                        .refused
                        .push((key.clone(), format!("{first} says the same model's price already")));
                    continue;
                }
                report.doubted.extend(row.doubts.into_iter().map(|doubt| (key.clone(), doubt)));
                report.rows.push_str(&written(kind, &model, &row.body));
                report.taken.push(key.clone());
                bases.insert((kind, model), row.figures);
            }
        }
    }
    Ok(report)
}

/// Which of our kinds of providers and models an entry is about.
fn ours(provider: &str, key: &str) -> Option<(ProviderKind, String)> {
    match provider {
        "openai" | "text-completion-openai" => {
            Some((ProviderKind::OpenAi, key.strip_prefix("openai/").unwrap_or(key).to_owned()))
        }
        "azure" | "azure_text" => {
            Some((ProviderKind::Azure, key.strip_prefix("azure/").unwrap_or(key).to_owned()))
        }
        _ => None,
    }
}

/// What became of an entry.
struct Row {
    body: Value,
    figures: Figures,
    doubts: Vec<String>,
}

fn row(kind: ProviderKind, model: &str, entry: &Entry, bases: &Bases, source: &str) -> Result<Row, String> {
    let mode = text_of(entry, "mode").unwrap_or_else(|| "chat".to_owned());
    if !MODES.contains(&mode.as_str()) {
        return Err(format!("its mode is {mode}, which is not served here"));
    }
    if model.contains('/') {
        return Err("a price for one region or kind of deployment: write it into that deployment".to_owned());
    }
    let mut doubts = Vec::new();
    let mut usual = figures(entry, "", &mut doubts);
    if !usual.contains_key("input") {
        return Err("no price per token of input: it is sold in another unit".to_owned());
    }
    if mode == "embedding" || mode == "moderation" {
        usual.entry("output").or_insert(0);
    }
    if !usual.contains_key("output") {
        return Err("no price per token of output".to_owned());
    }
    if let Some(base) = FineTunedName::parse(model).and_then(|tuned| base_of(kind, tuned.base, bases))
        && ["input", "output"].iter().all(|class| base.get(class) == usual.get(class))
    {
        return Err("a fine-tuned model at just its base's price: most likely not its own".to_owned());
    }
    doubt_cache(&mut usual, &mut doubts);
    let mut body = members(&usual);
    for (suffix, tier) in TIERS {
        let apart = tier_figures(entry, suffix, tier, &usual, &mut doubts);
        if !apart.is_empty() {
            body[tier] = members(&apart);
        }
    }
    add_long_context(&mut body, entry, &mut doubts);
    if let Some(day) = text_of(entry, "deprecation_date") {
        body["shutdown"] = day.into();
    }
    body["source"] = source.into();
    let problems = match over(kind, model, &body) {
        Ok(_) => return Ok(Row { body, figures: usual, doubts }),
        Err(problems) => problems,
    };
    let said = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message));
    Err(said.collect::<Vec<_>>().join("; "))
}

/// A base's figures, by its name, or by it without its date.
fn base_of<'a>(kind: ProviderKind, base: &str, bases: &'a Bases) -> Option<&'a Figures> {
    let undated = base.len().checked_sub("-2025-04-14".len()).and_then(|end| base.get(..end));
    let family = base.strip_suffix("-0613");
    [Some(base), undated, family].into_iter().flatten().find_map(|name| bases.get(&(kind, name.to_owned())))
}

fn figures(entry: &Entry, suffix: &str, doubts: &mut Vec<String>) -> Figures {
    let mut found = Figures::new();
    for (member, class) in CLASSES {
        let Some(raw) = entry.get(&format!("{member}{suffix}")).filter(|raw| raw.get() != "null") else {
            continue;
        };
        match picos(raw.get()) {
            Some(picos) => drop(found.insert(class, picos)),
            None => doubts.push(format!("{member}{suffix} is no price: {}", raw.get())),
        }
    }
    found
}

/// Takes out what can only be a slip: a discount that stands where a surcharge belongs, or the other way round.
fn doubt_cache(usual: &mut Figures, doubts: &mut Vec<String>) {
    let input = usual.get("input").copied().unwrap_or_default();
    if usual.get("cached_input").is_some_and(|cached| *cached > input) {
        usual.remove("cached_input");
        doubts.push("cached input is dearer than fresh input: left out".to_owned());
    }
    if usual.get("cache_write").is_some_and(|write| *write < input) {
        usual.remove("cache_write");
        doubts.push(
            "a cache write is cheaper than fresh input, as if it were a cached read: left out".to_owned(),
        );
    }
}

/// A tier's figures. Batch is half the price: where input or output say something else, none of the tier is taken.
fn tier_figures(
    entry: &Entry,
    suffix: &str,
    tier: &str,
    usual: &Figures,
    doubts: &mut Vec<String>,
) -> Figures {
    let mut apart = figures(entry, suffix, doubts);
    let odd = |class: &str| match (apart.get(class), usual.get(class)) {
        (Some(apart), Some(usual)) => tier == "batch" && apart * 2 != *usual,
        (None, _) => false,
        (Some(_), None) => true,
    };
    if odd("input") || odd("output") {
        doubts.push(format!("{tier} is not half the price: left out, the usual price counts"));
        return Figures::new();
    }
    if !apart.contains_key("input") {
        return Figures::new();
    }
    if tier != "priority" {
        // a slip upwards does no harm, one downwards would
        apart.retain(|class, picos| usual.get(class).is_none_or(|usual| *picos * 4 >= *usual));
    }
    apart
}

/// Finds `…_above_272k_tokens` and the like. Of several thresholds the lowest counts, with its own prices.
fn add_long_context(body: &mut Value, entry: &Entry, doubts: &mut Vec<String>) {
    let threshold = |member: &String| {
        let thousands = member.strip_prefix("input_cost_per_token_above_")?.strip_suffix("k_tokens")?;
        thousands.parse::<u64>().ok()
    };
    let mut thresholds: Vec<u64> = entry.keys().filter_map(threshold).collect();
    thresholds.sort_unstable();
    let Some(thousands) = thresholds.first() else { return };
    if thresholds.len() > 1 {
        doubts.push("more than one threshold for long inputs: only the lowest is taken".to_owned());
    }
    let suffix = format!("_above_{thousands}k_tokens");
    let usual = figures(entry, &suffix, doubts);
    let mut long = members(&usual);
    long["above_tokens"] = (thousands * 1_000).into();
    for (tier_suffix, tier) in TIERS {
        let apart = figures(entry, &format!("{suffix}{tier_suffix}"), doubts);
        if apart.contains_key("input") && apart.contains_key("output") {
            long[tier] = members(&apart);
        }
    }
    body["long_context"] = long;
}

fn members(figures: &Figures) -> Value {
    let mut members = json!({});
    for (class, picos) in figures {
        let price = PerToken::from_picos(*picos).unwrap_or_default();
        members[format!("{class}_per_1m_usd")] = price.per_million().into();
    }
    members
}

/// A row as text.
fn written(kind: ProviderKind, model: &str, body: &Value) -> String {
    let mut text = String::new();
    let _ =
        write!(text, "\n[[models]]\nprovider = \"{}\"\nmodel = {model:?}\n[[models.periods]]\n", kind.name());
    for (key, value) in body.as_object().into_iter().flatten() {
        let _ = writeln!(text, "{key} = {}", inline(value));
    }
    text
}

/// A value as TOML on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", members.join(", "))
        }
        other => other.to_string(),
    }
}

fn text_of(entry: &Entry, member: &str) -> Option<String> {
    serde_json::from_str(entry.get(member)?.get()).ok()
}

/// A JSON number of USD per token in pico-dollars, to the nearest: what is finer is noise of a float that was written.
fn picos(number: &str) -> Option<i64> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() && !mantissa.is_empty() {
        return Some(0);
    }
    if digits.len() > 30 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(12)?;
    let power = 10_i128.checked_pow(scale.unsigned_abs());
    let exact = match (power, scale >= 0) {
        (Some(power), true) => value.checked_mul(power)?,
        (Some(power), false) => (value + power / 2) / power,
        (None, true) => return None,
        (None, false) => 0,
    };
    i64::try_from(exact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_digit_by_digit() {
        for (number, want) in [
            ("2e-06", Some(2_000_000)),
            ("1.5000000000000002e-06", Some(1_500_000)),
            ("0.0000025", Some(2_500_000)),
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("0e-10", Some(0)),
            ("1.25e-7", Some(125_000)),
            ("6e-13", Some(1)),
            ("1e-40", Some(0)),
            ("1", Some(1_000_000_000_000)),
            ("1e40", None),
            ("-1e-6", None),
            ("\"2e-06\"", None),
            ("{}", None),
        ] {
            assert_eq!(picos(number), want, "{number}");
        }
    }

    #[test]
    fn what_can_not_be_right_is_refused_or_left_out() {
        let file = r#"{
            "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 0},
            "fallback_generalizations": {"x": []},
            "claude": {"litellm_provider": "anthropic", "input_cost_per_token": 3e-06},
            "azure/gpt-4.1": {"litellm_provider": "azure", "mode": "chat",
                "input_cost_per_token": 2e-06, "output_cost_per_token": 8e-06},
            "azure/eu/gpt-4.1": {"litellm_provider": "azure", "mode": "chat",
                "input_cost_per_token": 2.2e-06, "output_cost_per_token": 8.8e-06},
            "dall-e-3": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_pixel": 1e-08},
            "ft:gpt-4-0613": {"litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": 3e-05, "output_cost_per_token": 6e-05},
            "gpt-4": {"litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": 3e-05, "output_cost_per_token": 6e-05},
            "ft:gpt-4o-2024-11-20": {"litellm_provider": "openai", "mode": "chat",
                "cache_creation_input_token_cost": 1.875e-06,
                "input_cost_per_token": 3.75e-06, "output_cost_per_token": 1.5e-05},
            "gpt-3.5-turbo-1106": {"litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": 1e-06, "input_cost_per_token_batches": 1e-06,
                "output_cost_per_token": 2e-06, "output_cost_per_token_batches": 2e-06},
            "gpt-5.4": {"litellm_provider": "openai", "mode": "responses", "deprecation_date": "2027-04-01",
                "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1.5e-05,
                "input_cost_per_token_batches": 1.25e-06, "output_cost_per_token_batches": 7.5e-06,
                "input_cost_per_token_priority": 5e-06, "output_cost_per_token_priority": 3e-05,
                "input_cost_per_token_above_272k_tokens": 5e-06,
                "output_cost_per_token_above_272k_tokens": 2.25e-05},
            "per-million": {"litellm_provider": "openai", "mode": "chat",
                "input_cost_per_token": 2.5, "output_cost_per_token": 10}
        }"#;
        let report = import(file, "litellm").expect("a file");
        assert_eq!(
            report.taken,
            ["azure/gpt-4.1", "gpt-3.5-turbo-1106", "gpt-4", "gpt-5.4", "ft:gpt-4o-2024-11-20"]
        );
        let reason = |list: &[(String, String)], key: &str| {
            list.iter().find(|(found, _)| found == key).map(|(_, reason)| reason.clone()).unwrap_or_default()
        };
        for (key, part) in [
            ("sample_spec", "not a model"),
            ("fallback_generalizations", "not a model"),
            ("azure/eu/gpt-4.1", "one region"),
            ("dall-e-3", "its mode is image_generation"),
            ("ft:gpt-4-0613", "just its base's price"),
            ("per-million", "beyond belief"),
        ] {
            assert!(reason(&report.refused, key).contains(part), "{key}: {:?}", report.refused);
        }
        for (key, part) in [
            ("ft:gpt-4o-2024-11-20", "a cache write is cheaper"),
            ("gpt-3.5-turbo-1106", "batch is not half the price"),
        ] {
            assert!(reason(&report.doubted, key).contains(part), "{key}: {:?}", report.doubted);
        }
        assert_eq!(report.elsewhere, BTreeMap::from([("anthropic".to_owned(), 1)]));
        for part in [
            "model = \"gpt-5.4\"",
            "long_context = { above_tokens = 272000, input_per_1m_usd = \"5.00\", output_per_1m_usd = \"22.50\" }",
            "priority = { input_per_1m_usd = \"5.00\", output_per_1m_usd = \"30.00\" }",
            "shutdown = \"2027-04-01\"",
        ] {
            assert!(report.rows.contains(part), "{part}\n{}", report.rows);
        }
        assert!(import("[]", "litellm").is_err());
    }
}
