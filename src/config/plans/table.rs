//! Tables of a plan, read key by key: each says what may stand in it, and all that is wrong is noted with its place.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::config::problem::{Checker, Place};
use crate::config::values::{MAX_MS, per_mille};
use crate::domain::price::read::moment;

/// A table at a place.
pub(super) struct Table<'a> {
    pub(super) place: Place,
    members: &'a Map<String, Value>,
}

impl<'a> Table<'a> {
    /// A value as a table; none, and a complaint, where it is none.
    pub(super) fn of(place: &Place, value: &'a Value, checker: &mut Checker<'_>) -> Option<Self> {
        let members = value.as_object();
        if members.is_none() {
            checker.wrong(place, "a table stands here: { … }");
        }
        Some(Self { place: place.clone(), members: members? })
    }

    /// Notes every key but these.
    pub(super) fn only(&self, known: &[&str], checker: &mut Checker<'_>) {
        for key in self.members.keys().filter(|key| !known.contains(&key.as_str())) {
            checker.wrong(&self.place.key(key), format!("unknown key: here stand {}", known.join(", ")));
        }
    }

    /// Its keys and values.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.members.iter()
    }

    /// The value of a key, and its place.
    pub(super) fn get(&self, key: &str) -> Option<(Place, &'a Value)> {
        self.members.get(key).map(|value| (self.place.key(key), value))
    }

    /// The value of a key that must be there.
    pub(super) fn required(
        &self,
        key: &str,
        example: &str,
        checker: &mut Checker<'_>,
    ) -> Option<(Place, &'a Value)> {
        let found = self.get(key);
        if found.is_none() {
            checker.wrong(&self.place.key(key), format!("missing: write {example}"));
        }
        found
    }

    /// A list.
    pub(super) fn list(&self, key: &str, checker: &mut Checker<'_>) -> Vec<(Place, &'a Value)> {
        let Some((place, value)) = self.get(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            checker.wrong(&place, "a list stands here: [ … ]");
            return Vec::new();
        };
        if items.is_empty() {
            checker.wrong(&place, "an empty list leads nowhere: name at least one");
        }
        items.iter().enumerate().map(|(index, item)| (place.index(index), item)).collect()
    }

    /// A whole number within bounds.
    pub(super) fn count(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
        checker: &mut Checker<'_>,
    ) -> Option<u64> {
        let (place, value) = self.get(key)?;
        let count = value.as_u64().filter(|count| range.contains(count));
        if count.is_none() {
            checker.wrong(
                &place,
                format!("a whole number from {} to {} stands here", range.start(), range.end()),
            );
        }
        count
    }

    /// A time of 1 ms to a day.
    pub(super) fn ms(&self, key: &str, checker: &mut Checker<'_>) -> Option<Duration> {
        self.count(key, 1..=MAX_MS, checker).map(Duration::from_millis)
    }

    /// A number from 0 to 1 with up to three decimals, in thousandths.
    pub(super) fn score(&self, key: &str, checker: &mut Checker<'_>) -> Option<u16> {
        let (place, value) = self.get(key)?;
        let score = value.as_f64().and_then(per_mille);
        if score.is_none() {
            checker.wrong(&place, "a number from 0 to 1 stands here, with at most three decimals");
        }
        score
    }

    /// A number from 0 to 100 with up to one decimal, in tenths.
    pub(super) fn percent(&self, key: &str, checker: &mut Checker<'_>) -> Option<u16> {
        let (place, value) = self.get(key)?;
        let percent = value.as_f64().and_then(|percent| per_mille(percent / 100.0));
        if percent.is_none() {
            checker.wrong(&place, "a number from 0 to 100 stands here, with at most one decimal");
        }
        percent
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, checker: &mut Checker<'_>) -> Option<bool> {
        let (place, value) = self.get(key)?;
        if value.as_bool().is_none() {
            checker.wrong(&place, "true or false stands here");
        }
        value.as_bool()
    }

    /// A day or a moment, ms since 1970 UTC.
    pub(super) fn moment(&self, key: &str, checker: &mut Checker<'_>) -> Option<i64> {
        let (place, value) = self.required(key, "a day such as \"2026-12-01\"", checker)?;
        let read = value.as_str().and_then(moment);
        if read.is_none() {
            checker.wrong(&place, NO_MOMENT);
        }
        read
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&self, key: &str, checker: &mut Checker<'_>) -> Vec<(Place, &'a str)> {
        let Some((place, value)) = self.get(key) else { return Vec::new() };
        texts(&place, value, checker)
    }
}

/// What is said of a text that is no moment.
pub(in crate::config) const NO_MOMENT: &str =
    "no day: write one such as \"2026-12-01\" (0:00 UTC), or \"2026-12-01T12:00:00Z\"";

/// A text, or a list of texts, none of them empty.
pub(super) fn texts<'a>(place: &Place, value: &'a Value, checker: &mut Checker<'_>) -> Vec<(Place, &'a str)> {
    let (items, is_list) = match value.as_array() {
        Some(items) => (items.as_slice(), true),
        None => (std::slice::from_ref(value), false),
    };
    if items.is_empty() {
        checker.wrong(place, "an empty list matches nothing: leave the key out");
    }
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = if is_list { place.index(index) } else { place.clone() };
        match item.as_str().filter(|text| !text.is_empty()) {
            Some(text) => found.push((place, text)),
            None => checker.wrong(&place, "a text stands here, or a list of texts, and none is empty"),
        }
    }
    found
}
