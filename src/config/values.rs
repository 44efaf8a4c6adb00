//! Checks of single values: names, numbers, times, secrets, files.

use std::fmt::Display;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::domain::secret::Secret;

use super::file::SecretSource;
use super::problem::{Checker, Place, Secrets};

/// Longest time anywhere, ms: a day. More is a mistake in the unit, and clocks would overflow.
pub(super) const MAX_MS: u64 = 86_400_000;
/// The rule of [`name_is_good`], in words.
pub(super) const NAME_RULE: &str = "a name has 1 to 64 of A-Z a-z 0-9 . _ -";

/// Whether a text can name a provider or a deployment: it goes into metric labels, logs and paths.
pub(super) fn name_is_good(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A number that has bounds.
pub(super) fn in_range<T: PartialOrd + Copy + Display>(
    place: &Place,
    value: Option<T>,
    default: T,
    range: RangeInclusive<T>,
    checker: &mut Checker<'_>,
) -> T {
    match value {
        Some(value) if !range.contains(&value) => {
            checker.wrong(place, format!("{value} is out of bounds: {} to {}", range.start(), range.end()));
            default
        }
        Some(value) => value,
        None => default,
    }
}

/// A time of 1 ms to a day.
pub(super) fn duration(
    place: &Place,
    ms: Option<u64>,
    default: Duration,
    checker: &mut Checker<'_>,
) -> Duration {
    if ms == Some(0) {
        checker.wrong(place, "0 ms leaves no time at all: leave the key out for the default");
        return default;
    }
    duration_up_to(place, ms, default, MAX_MS, checker)
}

/// A time of 0 ms to a bound.
pub(super) fn duration_up_to(
    place: &Place,
    ms: Option<u64>,
    default: Duration,
    max_ms: u64,
    checker: &mut Checker<'_>,
) -> Duration {
    match ms {
        Some(ms) => Duration::from_millis(in_range(place, Some(ms), 0, 0..=max_ms, checker)),
        None => default,
    }
}

/// What stands where a secret was left alone: long enough for those that must not be guessed.
const NOT_READ: &str = "a-secret-that-was-left-alone-and-never-read";

/// A secret from where the operator keeps it, without white space around it.
pub(super) fn secret(place: &Place, source: &SecretSource, checker: &mut Checker<'_>) -> Option<Secret> {
    secret_of(place, source, |byte| byte.is_ascii_graphic(), checker)
}

/// A secret that is a header's whole value, such as `Bearer …`: spaces may stand in it.
pub(super) fn secret_value(
    place: &Place,
    source: &SecretSource,
    checker: &mut Checker<'_>,
) -> Option<Secret> {
    secret_of(place, source, |byte| byte.is_ascii_graphic() || byte == b' ', checker)
}

fn secret_of(
    place: &Place,
    source: &SecretSource,
    fits: fn(u8) -> bool,
    checker: &mut Checker<'_>,
) -> Option<Secret> {
    let (place, text) = match (&source.env, &source.file) {
        (Some(_), Some(_)) => {
            checker.wrong(place, "env and file contradict: keep one");
            return None;
        }
        (None, None) => {
            checker.wrong(
                place,
                "says not where the secret is: write { env = \"NAME\" } or { file = \"PATH\" }",
            );
            return None;
        }
        _ if checker.secrets == Secrets::LeftAlone => return Some(Secret::new(NOT_READ)),
        (Some(name), None) => (place.key("env"), variable(&place.key("env"), name, checker)?),
        (None, Some(path)) => (place.key("file"), text_of(&place.key("file"), path, checker)?),
    };
    if !text.trim().bytes().all(fits) {
        checker.wrong(&place, "holds white space or characters that no HTTP header can carry");
        return None;
    }
    Some(Secret::new(text.trim()))
}

fn variable(place: &Place, name: &str, checker: &mut Checker<'_>) -> Option<String> {
    let value = checker.environment.get(name);
    let problem = match value.as_deref().map(str::trim) {
        Some("") => "is empty",
        Some(_) => return value,
        None => "is not set",
    };
    checker.wrong(place, format!("the environment variable {name} {problem}"));
    None
}

fn text_of(place: &Place, path: &Path, checker: &mut Checker<'_>) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            checker.wrong(place, format!("{} is empty", path.display()));
            None
        }
        Ok(text) => Some(text),
        Err(error) => {
            checker.wrong(place, format!("can't read {}: {error}", path.display()));
            None
        }
    }
}

/// Notes when a PEM file can't be read, or holds nothing of the kind wanted.
pub(super) fn readable_pem(place: &Place, path: &Path, label: &str, checker: &mut Checker<'_>) {
    let Some(text) = text_of(place, path, checker) else { return };
    let found = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
    if !found {
        checker.wrong(place, format!("{} holds no {label} in PEM", path.display()));
    }
}

/// A text that must be there.
pub(super) fn required(
    place: &Place,
    value: Option<&String>,
    example: &str,
    checker: &mut Checker<'_>,
) -> Option<String> {
    let text = value.map(|text| text.trim()).filter(|text| !text.is_empty());
    if text.is_none() {
        checker.wrong(place, format!("missing: write {example}"));
    }
    text.map(str::to_owned)
}

/// A text that may be left out but goes into a header or a query when it is there.
pub(super) fn header_text(
    place: &Place,
    value: Option<&String>,
    checker: &mut Checker<'_>,
) -> Option<String> {
    let text = value?.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        checker.wrong(
            place,
            "empty, or holds characters that no HTTP header can carry: leave it out or correct it",
        );
        return None;
    }
    Some(text.to_owned())
}

/// The names that there are, in words.
pub(super) fn known(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<String> = names.map(|name| name.as_ref().to_owned()).collect();
    match names.as_slice() {
        [] => "there are none".to_owned(),
        some => format!("there is {}", some.join(", ")),
    }
}

/// A number from 0 to 1 with at most three decimals, in thousandths; none where it is another.
pub(super) fn per_mille(number: f64) -> Option<u16> {
    // text to binary and back is off by far less
    const SAME: f64 = 1e-9;
    (0..=1_000_u16).find(|thousandths| (f64::from(*thousandths) / 1_000.0 - number).abs() < SAME)
}

/// The members of a closed set that are named in a list, each once.
pub(super) fn named<T: Copy + PartialEq>(
    place: &Place,
    names: &[String],
    all: &[T],
    name_of: fn(T) -> &'static str,
    kind: &str,
    checker: &mut Checker<'_>,
) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match all.iter().copied().find(|one| name_of(*one) == name) {
            None => {
                let all = known(all.iter().map(|one| name_of(*one)));
                checker.wrong(&place.index(index), format!("{name:?} is no {kind}: {all}"));
            }
            Some(one) if found.contains(&one) => {
                checker.wrong(&place.index(index), format!("{name} is listed twice"));
            }
            Some(one) => found.push(one),
        }
    }
    found
}
