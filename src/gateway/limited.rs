//! What a limit says to a client: a refusal in OpenAI's words, and how much is left in the headers that its clients read.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::domain::limit::Standing;

/// Whom or what a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A virtual key.
    Key,
    /// All keys of a team.
    Team,
    /// All who ask for a model.
    Model,
}

impl Scope {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::Model => "model",
        }
    }
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Requests in a minute.
    Requests,
    /// Tokens in a minute.
    Tokens,
    /// Requests at once.
    Concurrent,
}

impl Limit {
    /// OpenAI's `type` of an error about it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Requests | Self::Concurrent => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// A limit that stands against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Whose limit.
    pub scope: Scope,
    /// The key's or team's alias, or the model's name.
    pub name: Arc<str>,
    /// Which one.
    pub limit: Limit,
    /// How much it is.
    pub most: u64,
    /// How much of it is taken.
    pub used: u64,
    /// How much was asked for.
    pub requested: u64,
    /// When to come again; none for a request that will never fit.
    pub retry_after_ms: Option<u64>,
    /// What is left of the tightest limits.
    pub standings: Standings,
}

/// In OpenAI's words, which its clients read.
impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, most, used, requested, .. } = self;
        let what = match self.limit {
            Limit::Requests => "requests per min (RPM)",
            Limit::Tokens => "tokens per min (TPM)",
            Limit::Concurrent => "requests at once",
        };
        let scope = self.scope.name();
        match self.retry_after_ms {
            None => write!(
                f,
                "Request too large for {scope} `{name}` on {what}: Limit {most}, Requested {requested}. The input must \
                 be made smaller in order to run successfully."
            ),
            Some(ms) => write!(
                f,
                "Rate limit reached for {scope} `{name}` on {what}: Limit {most}, Used {used}, Requested {requested}. \
                 Please try again in {}.",
                go_duration(ms)
            ),
        }
    }
}

/// What is left of the tightest limits of a request's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standings {
    /// Of requests in a minute.
    pub requests: Option<Standing>,
    /// Of tokens in a minute.
    pub tokens: Option<Standing>,
}

/// How a door writes times in `x-ratelimit-reset-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateHeaders {
    /// OpenAI's: `6m0s`, `1s`, `12ms`.
    OpenAi,
    /// Azure's: whole seconds.
    Azure,
}

impl Standings {
    pub(super) fn note(&mut self, limit: Limit, standing: Standing) {
        let slot = match limit {
            Limit::Requests => &mut self.requests,
            Limit::Tokens => &mut self.tokens,
            Limit::Concurrent => return,
        };
        let tightness = |standing: &Standing| (standing.remaining, u64::MAX - standing.reset_ms);
        if slot.as_ref().is_none_or(|noted| tightness(&standing) < tightness(noted)) {
            *slot = Some(standing);
        }
    }

    /// The headers that OpenAI's clients read; none where nothing is limited.
    pub fn headers(&self, style: RateHeaders) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let names = [
            (
                self.requests,
                [
                    "x-ratelimit-limit-requests",
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-reset-requests",
                ],
            ),
            (
                self.tokens,
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
            ),
        ];
        for (standing, [limit, remaining, reset]) in names {
            let Some(standing) = standing else { continue };
            headers.push((HeaderName::from_static(limit), standing.limit.into()));
            headers.push((HeaderName::from_static(remaining), standing.remaining.into()));
            let time = match style {
                RateHeaders::OpenAi => go_duration(standing.reset_ms),
                RateHeaders::Azure => standing.reset_ms.div_ceil(1_000).to_string(),
            };
            if let Ok(time) = HeaderValue::from_str(&time) {
                headers.push((HeaderName::from_static(reset), time));
            }
        }
        headers
    }
}

/// Puts a limited key's headers in the place of the upstream's, which tell of another account's limits.
pub fn replace_upstreams(headers: &mut Vec<(HeaderName, HeaderValue)>, ours: &[(HeaderName, HeaderValue)]) {
    if !ours.is_empty() {
        headers.retain(|(name, _)| !name.as_str().starts_with("x-ratelimit-"));
        headers.extend_from_slice(ours);
    }
}

/// A time as Go writes it, to the millisecond: `1h0m0s`, `6m0s`, `1.5s`, `12ms`, `0s`.
pub(super) fn go_duration(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let fraction = format!(".{:03}", ms % 1_000);
    let seconds = format!("{}{}s", ms / 1_000 % 60, fraction.trim_end_matches('0').trim_end_matches('.'));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_each_door_writes_them() {
        for (ms, go, azure) in [
            (0, "0s", "0"),
            (12, "12ms", "1"),
            (999, "999ms", "1"),
            (1_000, "1s", "1"),
            (1_500, "1.5s", "2"),
            (20_123, "20.123s", "21"),
            (60_000, "1m0s", "60"),
            (360_000, "6m0s", "360"),
            (61_050, "1m1.05s", "62"),
            (3_600_000, "1h0m0s", "3600"),
        ] {
            let standing = Standing { limit: 3, remaining: 2, reset_ms: ms };
            let standings = Standings { requests: None, tokens: Some(standing) };
            for (style, want) in [(RateHeaders::OpenAi, go), (RateHeaders::Azure, azure)] {
                let headers = standings.headers(style);
                let told: Vec<_> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
                    .collect();
                let want = [
                    ("x-ratelimit-limit-tokens", "3"),
                    ("x-ratelimit-remaining-tokens", "2"),
                    ("x-ratelimit-reset-tokens", want),
                ];
                assert_eq!(told, want);
            }
        }
    }

    #[test]
    fn our_headers_replace_the_upstreams() {
        let header = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let upstreams = vec![header("x-ratelimit-limit-requests", "9"), header("openai-version", "1")];
        let mut headers = upstreams.clone();
        replace_upstreams(&mut headers, &[]);
        assert_eq!(headers, upstreams, "nothing is limited");
        replace_upstreams(&mut headers, &[header("x-ratelimit-limit-tokens", "3")]);
        assert_eq!(headers, [header("openai-version", "1"), header("x-ratelimit-limit-tokens", "3")]);
    }
}
