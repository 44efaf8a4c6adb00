//! The query of a GET for operators: every parameter is known, given once and sound, or each that is not is told.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::error;

/// How a handler takes it.
pub(super) type Given = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The parameters that are still to be read, and what is wrong with the others.
pub(super) struct Asked {
    given: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Asked {
    pub(super) fn new(query: Given) -> Self {
        let mut asked = Self { given: BTreeMap::new(), problems: Vec::new() };
        match query {
            Ok(Query(pairs)) => {
                for (name, value) in pairs {
                    if asked.given.insert(name.clone(), value).is_some() {
                        asked.problems.push(format!("{name}: given more than once"));
                    }
                }
            }
            Err(_) => asked.problems.push("the query can't be read".to_owned()),
        }
        asked
    }

    /// A text; an empty one is none.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name).filter(|text| !text.is_empty())
    }

    /// A text that narrows what is destroyed: an empty one would widen it, and is refused.
    pub(super) fn narrowing(&mut self, name: &str) -> Option<String> {
        let text = self.given.remove(name)?;
        let said = (!text.is_empty()).then_some(text);
        self.or_wrong(said, || format!("{name}: given, and empty"))
    }

    /// A number from 1 to a bound.
    pub(super) fn number(&mut self, name: &str, most: i64) -> Option<i64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        self.or_wrong(number, || format!("{name}: {text:?} is no number of 1 to {most}"))
    }

    /// A text that means something; `rule` says what it has to be.
    pub(super) fn read<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>, rule: &str) -> Option<T> {
        let text = self.text(name)?;
        self.or_wrong(read(&text), || format!("{name}: {text:?} is {rule}"))
    }

    /// A day (its beginning, UTC) or a moment, as ms since 1970 UTC.
    pub(super) fn time(&mut self, name: &str) -> Option<i64> {
        let text = self.text(name)?;
        self.or_wrong(moment(&text), || {
            format!("{name}: {text:?} is no time: write 2026-11-22 or 2026-11-22T13:45:00Z")
        })
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &str,
        known: &[T],
        spelled: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let text = self.text(name)?;
        self.one_of(name, &text, known, spelled)
    }

    /// Some of some words, with commas between.
    pub(super) fn words<T: Copy>(
        &mut self,
        name: &str,
        known: &[T],
        spelled: impl Fn(T) -> &'static str,
    ) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.filter_map(|word| self.one_of(name, word, known, &spelled)).collect()
    }

    fn one_of<T: Copy>(
        &mut self,
        name: &str,
        word: &str,
        known: &[T],
        spelled: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        let found = known.iter().copied().find(|value| spelled(*value) == word);
        self.or_wrong(found, || {
            let all: Vec<_> = known.iter().map(|value| spelled(*value)).collect();
            format!("{name}: {word:?} is none of {}", all.join(", "))
        })
    }

    fn or_wrong<T>(&mut self, value: Option<T>, words: impl Fn() -> String) -> Option<T> {
        if value.is_none() {
            self.problems.push(words());
        }
        value
    }

    /// Refuses what was not read, together with all that was wrong.
    pub(super) fn end(mut self) -> Result<(), Box<Response>> {
        let unknown = self.given.keys().map(|name| format!("{name}: there is no such parameter here"));
        self.problems.extend(unknown);
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Box::new(error(StatusCode::BAD_REQUEST, &self.problems.join("\n"), "invalid_query")))
    }
}

/// A day (its beginning, UTC) or a moment, as ms since 1970 UTC.
pub(super) fn moment(text: &str) -> Option<i64> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let at = match text.len() {
        10 => day(),
        _ => text.parse::<Timestamp>().ok(),
    };
    at.map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Asked {
        Asked::new(Ok(Query(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect())))
    }

    #[test]
    fn times_are_days_or_moments() {
        for (text, ms) in [
            ("1970-01-02", Some(86_400_000)),
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:01+01:00", Some(1_000)),
            ("1970-01-01T00:00:01", None),
            ("yesterday", None),
            ("2026-13-01", None),
        ] {
            let mut asked = asked(&[("from", text)]);
            assert_eq!((asked.time("from"), asked.end().is_ok()), (ms, ms.is_some()), "{text}");
        }
    }

    #[test]
    fn what_narrows_is_not_empty() {
        for (pairs, want, is_sound) in
            [(&[][..], None, true), (&[("user", "u")], Some("u"), true), (&[("user", "")], None, false)]
        {
            let mut asked = asked(pairs);
            assert_eq!(
                (asked.narrowing("user").as_deref(), asked.end().is_ok()),
                (want, is_sound),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn every_problem_is_told() {
        let mut asked = asked(&[("limit", "0"), ("by", "a,c, b"), ("by", "a,x"), ("odd", "1"), ("from", "")]);
        assert_eq!(asked.number("limit", 9), None);
        assert_eq!(asked.words("by", &["a", "b"], |word| word), ["a"]);
        assert_eq!(asked.time("from"), None);
        assert_eq!(
            asked.problems,
            ["by: given more than once", "limit: \"0\" is no number of 1 to 9", "by: \"x\" is none of a, b",]
        );
        assert!(asked.end().is_err());
    }
}
