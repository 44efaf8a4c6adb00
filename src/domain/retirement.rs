//! When a provider ends a model, and what follows from that as the day comes near.
//!
//! Three know of it, and the first of them that says something is believed: the operator, the provider's own list of
//! models, and what providers have published. Days are meant as 00:00 UTC. Nothing here knows what time it is.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::catalog::{Address, Deployment, Provider};
use super::fine_tuned_name::{FineTunedName, Form};

/// No provider of language models has ended one before this day: what lies before it is no date but a mistake.
const FIRST_DAY: &str = "2020-01-01";

/// Fine-tunes at OpenAI by their base, without the date in its name where all of a family end together. A base that
/// stands here with its date goes before its family.
///
/// Source: OpenAI's deprecations page and `deprecation_date` in LiteLLM 1.109.1, both read on 2026-11-21. A test holds
/// `config/prices.toml` to the same days.
const OPENAI_FINE_TUNES: [(&str, &str); 11] = [
    ("babbage-002", "2026-10-23"),
    ("davinci-002", "2026-10-23"),
    ("gpt-3.5-turbo", "2026-10-23"),
    ("gpt-4", "2026-10-23"),
    ("gpt-4.1-nano", "2026-10-23"),
    ("gpt-4o-2024-05-13", "2026-10-23"),
    ("o4-mini", "2026-10-23"),
    ("gpt-4.1", "2027-01-14"),
    ("gpt-4.1-mini", "2027-01-14"),
    ("gpt-4o", "2027-01-14"),
    ("gpt-4o-mini", "2027-01-14"),
];
/// From this day on nobody can create a fine-tuning job at OpenAI; what is trained is served on.
///
/// Source: OpenAI's announcement of 2026-05-07, read on 2026-11-21.
const OPENAI_TRAINS_UNTIL: &str = "2027-01-06";
/// Whatever was made with OpenAI's first fine-tuning API. Source: OpenAI's deprecations page, 2023-07-06.
const LEGACY_FINE_TUNES: &str = "2024-01-04";
/// Deployments of fine-tunes at Azure, by the same rule.
///
/// Source: MicrosoftDocs azure-ai-docs, model retirement schedule of 2026-07-07, read on 2026-11-21.
const AZURE_FINE_TUNES: [(&str, &str); 6] = [
    ("gpt-4.1", "2027-10-14"),
    ("gpt-4.1-mini", "2027-10-14"),
    ("gpt-4.1-nano", "2027-10-14"),
    ("gpt-4o", "2027-10-01"),
    ("gpt-4o-mini", "2027-10-01"),
    ("o4-mini", "2027-10-16"),
];

/// How long before its end a deployment that lives for a day is asked last.
const LAST_HOUR: Duration = Duration::from_secs(3_600);
/// How long before it its clients are told.
const LAST_HOURS: Duration = Duration::from_secs(6 * 3_600);

/// Who says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetirementSource {
    /// The operator, in the configuration.
    Operator,
    /// The kind of the deployment: one of Azure's developer tier lives for a day.
    Kind,
    /// The provider's list of models, asked lately.
    Provider,
    /// What the provider had published when this program was made. Such days have been moved before.
    Published,
}

impl RetirementSource {
    /// The name in logs and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Kind => "deployment_kind",
            Self::Provider => "provider",
            Self::Published => "published",
        }
    }
}

/// The end of a deployment's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retirement {
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Who says so.
    pub source: RetirementSource,
}

/// How far a deployment is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its end is far.
    Active,
    /// Clients are told of the day.
    Warned,
    /// It is asked last.
    Leaving,
    /// It is not asked at all.
    Retired,
}

/// When a deployment's model ends, by the first who knows. `told` is what its provider says.
pub fn retirement_of(deployment: &Deployment, upstream_model: &str, told: Option<i64>) -> Option<Retirement> {
    let by = |source| move |at_ms| Retirement { at_ms, source };
    let operator = deployment.retires_at_ms.map(by(RetirementSource::Operator));
    operator
        .or_else(|| told.map(by(RetirementSource::Provider)))
        .or_else(|| published(deployment, upstream_model).map(by(RetirementSource::Published)))
}

impl Retirement {
    /// How far it is: `warn` before the end clients are told, `lead` before it the deployment is asked last.
    ///
    /// A day that was only published never takes a deployment out: the provider may have moved it since, and where
    /// nobody else can answer, asking it costs one refusal.
    ///
    /// What lives for a day is asked as any other until its last hour.
    pub fn stage(&self, now_ms: i64, lead: Duration, warn: Duration) -> Stage {
        let (lead, warn) = match self.source {
            RetirementSource::Kind => (lead.min(LAST_HOUR), warn.min(LAST_HOURS)),
            _ => (lead, warn),
        };
        let within = |time| now_ms >= self.at_ms.saturating_sub(in_ms(time));
        if now_ms >= self.at_ms && self.source != RetirementSource::Published {
            Stage::Retired
        } else if within(lead) {
            Stage::Leaving
        } else if within(warn) {
            Stage::Warned
        } else {
            Stage::Active
        }
    }

    /// The day, as in `2027-01-14`, UTC.
    pub fn day(&self) -> String {
        let at = jiff::Timestamp::from_millisecond(self.at_ms).unwrap_or_default();
        at.to_zoned(TimeZone::UTC).date().to_string()
    }
}

/// The names under which a provider's list may say when a deployment's model ends, the first that is there counts.
///
/// OpenAI's fine-tunes end with their base (deprecations page, 2026-11). At Azure a fine-tune outlives it, and the
/// deployment's own name is not on the list: there its `base_model` counts, where that is the fine-tune's name.
pub fn listed_as<'a>(deployment: &'a Deployment, upstream_model: &'a str) -> impl Iterator<Item = &'a str> {
    let base_model = deployment.base_model.as_deref().filter(|name| FineTunedName::parse(name).is_some());
    let base = FineTunedName::parse(upstream_model).filter(|name| name.form != Form::Azure);
    [Some(upstream_model), base_model, base.map(|name| name.base)].into_iter().flatten()
}

/// 00:00 UTC of a day as in `2027-01-14`, ms since 1970 UTC; none where it is no such day, or none that can be meant.
pub fn day_ms(day: &str) -> Option<i64> {
    let midnight = |day: &str| {
        let date: Date = day.parse().ok()?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
    };
    (day.len() == FIRST_DAY.len())
        .then(|| midnight(day))
        .flatten()
        .filter(|at| Some(*at) >= midnight(FIRST_DAY))
}

/// A moment in seconds since 1970 UTC as ms; none where it can't be meant.
pub fn seconds_ms(seconds: i64) -> Option<i64> {
    let at_ms = seconds.checked_mul(1_000)?;
    let is_moment = jiff::Timestamp::from_second(seconds).is_ok();
    (is_moment && Some(at_ms) >= day_ms(FIRST_DAY)).then_some(at_ms)
}

/// When a provider stops training altogether, where that is published: at OpenAI itself. ms since 1970 UTC.
pub fn training_ends(provider: &Provider) -> Option<i64> {
    match House::of(&provider.address)? {
        House::OpenAi => day_ms(OPENAI_TRAINS_UNTIL),
        House::Azure => None,
    }
}

/// What the provider has published, where it is OpenAI or Azure itself: names mean nothing on other servers.
fn published(deployment: &Deployment, upstream_model: &str) -> Option<i64> {
    let house = House::of(&deployment.provider.address)?;
    let name = FineTunedName::parse(upstream_model)
        .or_else(|| FineTunedName::parse(deployment.base_model.as_deref()?))?;
    match (house, name.form) {
        (House::OpenAi, Form::Legacy) => PUBLISHED.legacy,
        (House::OpenAi, _) => day_of(&PUBLISHED.openai, name.base),
        (House::Azure, _) => day_of(&PUBLISHED.azure, name.base),
    }
}

/// The published days in ms since 1970 UTC: to read one takes longer than all else that is asked of a deployment.
struct Days {
    openai: Vec<(&'static str, i64)>,
    legacy: Option<i64>,
    azure: Vec<(&'static str, i64)>,
}

static PUBLISHED: LazyLock<Days> = LazyLock::new(|| {
    let read = |(base, day): &(&'static str, &str)| Some((*base, day_ms(day)?));
    Days {
        openai: OPENAI_FINE_TUNES.iter().filter_map(read).collect(),
        legacy: day_ms(LEGACY_FINE_TUNES),
        azure: AZURE_FINE_TUNES.iter().filter_map(read).collect(),
    }
});

fn day_of(table: &[(&str, i64)], base: &str) -> Option<i64> {
    let find = |name: &str| table.iter().find(|(known, _)| *known == name).map(|(_, at_ms)| *at_ms);
    find(base).or_else(|| find(family(base)))
}

/// A base without the date at its end: `-2025-04-14`, or `-0613` as in older names.
fn family(base: &str) -> &str {
    let is_date = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    for length in ["-2025-04-14".len(), "-0613".len()] {
        let cut = base.len().checked_sub(length).and_then(|at| base.split_at_checked(at));
        if let Some((family, date)) = cut
            && date.starts_with('-')
            && is_date(date)
        {
            return family;
        }
    }
    base
}

/// Whose servers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum House {
    OpenAi,
    Azure,
}

impl House {
    fn of(address: &Address) -> Option<Self> {
        let Address::Host { host, .. } = address else { return None };
        let is_or_below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let azure = ["openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"];
        let azure_of_states = ["openai.azure.us", "openai.azure.cn", "cognitiveservices.azure.us"];
        match () {
            () if is_or_below("api.openai.com") => Some(Self::OpenAi),
            () if azure.into_iter().chain(azure_of_states).any(is_or_below) => Some(Self::Azure),
            () => None,
        }
    }
}

fn in_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
