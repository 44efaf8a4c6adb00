//! How long an upstream wants us to wait, and how much of its quota it says is left.
//!
//! Source: openai-python 3.3.1 (`retry-after-ms` wins over `retry-after`; seconds may have a fraction, or be a date),
//! RFC 9110 section 10.2.3, OpenAI's guide "Rate limits" (durations as Go writes them), Azure OpenAI (bare seconds, and
//! -1 where nothing is known), all read in November 2026.

use std::time::{Duration, SystemTime};

/// The longest wait that is taken for one: Azure names a day where the quota is 0.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// The longest time until a quota is full again, ms: more is a date, no stretch of time.
const LONGEST_RESET_MS: u64 = 31 * 86_400 * 1_000;

/// How long an upstream wants us to wait, by its headers `retry-after-ms` and `retry-after`; at most a day, never zero.
/// What can't be read, or lies in the past, asks for nothing. `now_ms` is ms since 1970 UTC.
pub fn wait_asked(retry_after_ms: Option<&str>, retry_after: Option<&str>, now_ms: i64) -> Option<Duration> {
    let in_ms = retry_after_ms.and_then(|text| stretch(text, 1_000.0));
    in_ms.or_else(|| stretch(retry_after?, 1.0)).or_else(|| until(retry_after?, now_ms))
}

/// A number of the `per_second`-th parts of a second.
fn stretch(text: &str, per_second: f64) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    let is_wait = number.is_finite() && number > 0.0;
    let seconds = (number / per_second).min(LONGEST_WAIT.as_secs_f64());
    is_wait.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten().filter(|wait| !wait.is_zero())
}

/// From now until an HTTP date.
fn until(date: &str, now_ms: i64) -> Option<Duration> {
    let then = httpdate::parse_http_date(date.trim()).ok()?;
    let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(now_ms).ok()?))?;
    let wait = then.duration_since(now).ok()?;
    (!wait.is_zero()).then(|| wait.min(LONGEST_WAIT))
}

/// What an upstream's `x-ratelimit-*` headers say of its own quota. What is missing or negative is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaSeen {
    /// Requests that may be made in a minute.
    pub limit_requests: Option<u64>,
    /// How many of them are left.
    pub remaining_requests: Option<u64>,
    /// When all of them are there again, ms from now.
    pub reset_requests_ms: Option<u64>,
    /// Tokens that may be used in a minute.
    pub limit_tokens: Option<u64>,
    /// How many of them are left.
    pub remaining_tokens: Option<u64>,
    /// When all of them are there again, ms from now.
    pub reset_tokens_ms: Option<u64>,
}

impl QuotaSeen {
    /// Reads an answer's headers; `header` finds one by its name in small letters.
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Self {
        let number = |name| header(name)?.trim().parse().ok();
        let reset = |name| reset_ms(header(name)?.trim());
        Self {
            limit_requests: number("x-ratelimit-limit-requests"),
            remaining_requests: number("x-ratelimit-remaining-requests"),
            reset_requests_ms: reset("x-ratelimit-reset-requests"),
            limit_tokens: number("x-ratelimit-limit-tokens"),
            remaining_tokens: number("x-ratelimit-remaining-tokens"),
            reset_tokens_ms: reset("x-ratelimit-reset-tokens"),
        }
    }
}

/// A duration as Go writes it (`6m0s`, `1h2m3.5s`, `12ms`) or bare seconds; ms, rounded up.
fn reset_ms(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let ms = match text.ends_with(|c: char| c.is_ascii_digit()) {
        true => decimal(text)? * 1_000.0,
        false => go_ms(text)?,
    };
    // a decimal fraction is seldom exact in binary: 59.56 s are 59,560 ms
    let ms = (ms - 1e-6).ceil().max(0.0);
    (ms <= LONGEST_RESET_MS as f64).then_some(ms as u64)
}

/// The sum of a Go duration's parts, ms.
fn go_ms(text: &str) -> Option<f64> {
    let mut ms = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        ms += decimal(number)? * ms_of(unit)?;
        rest = tail;
    }
    Some(ms)
}

fn ms_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3_600_000.0,
        "m" => 60_000.0,
        "s" => 1_000.0,
        "ms" => 1.0,
        "us" | "µs" | "μs" => 1e-3,
        "ns" => 1e-6,
        _ => return None,
    })
}

/// Digits and at most one point; no sign, exponent or word.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T08:00:00Z.
    const NOW_MS: i64 = 1_795_334_400_000;

    #[test]
    fn the_wait_is_read_as_clients_read_it() {
        let ms = Duration::from_millis;
        let table = [
            (None, None, None),
            (Some("174"), Some("20"), Some(ms(174))),
            (Some("0.5"), None, Some(Duration::from_micros(500))),
            (None, Some("20"), Some(ms(20_000))),
            (None, Some(" 1.5 "), Some(ms(1_500))),
            // what is no wait falls back on the other header, and then on nothing
            (Some("-5"), Some("2"), Some(ms(2_000))),
            (Some("0"), Some("2"), Some(ms(2_000))),
            (Some("NaN"), Some("inf"), None),
            (Some("soon"), Some("-1"), None),
            (None, Some("0"), None),
            (None, Some(""), None),
            // a day at most
            (None, Some("86400"), Some(LONGEST_WAIT)),
            (None, Some("1e300"), Some(LONGEST_WAIT)),
            (Some("1e300"), None, Some(LONGEST_WAIT)),
            // dates in all three forms, of the past and beyond
            (None, Some("Sun, 22 Nov 2026 08:00:30 GMT"), Some(ms(30_000))),
            (None, Some("Sunday, 22-Nov-26 08:00:30 GMT"), Some(ms(30_000))),
            (None, Some("Sun Nov 22 08:00:30 2026"), Some(ms(30_000))),
            (None, Some("Sun, 22 Nov 2026 08:00:00 GMT"), None),
            (None, Some("Sun, 22 Nov 2026 07:59:59 GMT"), None),
            (None, Some("Tue, 22 Nov 2033 08:00:00 GMT"), Some(LONGEST_WAIT)),
        ];
        for (in_ms, after, want) in table {
            assert_eq!(wait_asked(in_ms, after, NOW_MS), want, "{in_ms:?} {after:?}");
        }
        assert_eq!(wait_asked(None, Some("Sun, 22 Nov 2026 08:00:30 GMT"), -1), None, "no such clock");
    }

    #[test]
    fn resets_are_go_durations_or_bare_seconds() {
        for (text, want) in [
            ("6m0s", Some(360_000)),
            ("12ms", Some(12)),
            ("1s", Some(1_000)),
            ("8h24m0s", Some(30_240_000)),
            ("2m59.56s", Some(179_560)),
            ("1.5ms", Some(2)),
            ("250µs", Some(1)),
            ("250us", Some(1)),
            ("7ns", Some(1)),
            ("0s", Some(0)),
            ("10", Some(10_000)),
            ("300", Some(300_000)),
            ("0.25", Some(250)),
            ("0", Some(0)),
            ("-1", None),
            ("-5s", None),
            ("1d", None),
            ("s", None),
            ("5m s", None),
            (".", None),
            ("1.2.3s", None),
            ("1e3", None),
            ("inf", None),
            ("", None),
            ("2026-11-22T08:00:00Z", None),
            ("1795334400", None),
        ] {
            assert_eq!(reset_ms(text), want, "{text}");
        }
    }

    #[test]
    fn a_quota_is_what_the_headers_tell() {
        let openai = [
            ("x-ratelimit-limit-requests", "5000"),
            ("x-ratelimit-remaining-requests", "4999"),
            ("x-ratelimit-reset-requests", "12ms"),
            ("x-ratelimit-limit-tokens", "160000"),
            ("x-ratelimit-remaining-tokens", "159976"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        let seen = |headers: &[(&str, &'static str)]| {
            QuotaSeen::read(|asked| headers.iter().find(|(name, _)| *name == asked).map(|(_, value)| *value))
        };
        let all = QuotaSeen {
            limit_requests: Some(5_000),
            remaining_requests: Some(4_999),
            reset_requests_ms: Some(12),
            limit_tokens: Some(160_000),
            remaining_tokens: Some(159_976),
            reset_tokens_ms: Some(360_000),
        };
        assert_eq!(seen(&openai), all);
        // Azure's Responses API may say -1 and 0
        let azure = [("x-ratelimit-limit-tokens", "-1"), ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(seen(&azure), QuotaSeen { remaining_tokens: Some(0), ..QuotaSeen::default() });
        assert_eq!(seen(&[]), QuotaSeen::default());
    }
}
