//! A budget as an operator writes it, in the configuration's file or to the admin API, and the rules it must keep. All
//! that is wrong is said at once.

use std::fmt::Display;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Action, Budget, Each, MAX_NAME_BYTES, Raise, Scope};
use crate::domain::catalog::Catalog;
use crate::domain::label::{TAG_RULE, TAKEN_RULE, is_taken_by_metrics, tag_is_good};
use crate::domain::money::Usd;
use crate::domain::window::{Window, WindowError};

/// Alerts where none are named, percent of the limit.
pub const USUAL_ALERTS: [u8; 3] = [50, 80, 100];
/// Longest name in a scope, bytes.
const MAX_SCOPED_BYTES: usize = 256;
/// The largest limit, a raise included, USD: sums stay far below where they would saturate.
const MAX_LIMIT: Usd = Usd::dollars(1_000_000_000);

/// What is written. Every member may be missing, so that all that is wrong can be said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Draft {
    /// The limit, USD.
    pub limit_usd: Option<String>,
    /// As [`Window::parse`] reads it.
    pub window: Option<String>,
    /// For the calendar's windows.
    pub time_zone: Option<String>,
    /// Which money it is for.
    pub scope: Scope,
    /// Percentages of the limit.
    pub alert_at_percent: Option<Vec<u64>>,
    /// What happens where it has no money left.
    pub action: Action,
    /// More for a while.
    pub raise: Option<DraftRaise>,
}

/// A raise as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DraftRaise {
    /// How much more, USD.
    pub by_usd: Option<String>,
    /// Until when, as RFC 3339 writes it.
    pub until: Option<String>,
}

/// Told what is wrong: the member's path, such as `scope.team`, and the words.
pub type Complain<'a> = &'a mut dyn FnMut(&str, &dyn Display);

/// Checks the name of a budget that is made or declared.
///
/// # Errors
///
/// The rule, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    if is_taken_by_metrics(name) {
        return Err(TAKEN_RULE.to_owned());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("a budget's name has 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ -"))
}

impl Draft {
    /// The budget, if nothing is wrong with it; else `complain` has heard all that is.
    pub fn check(&self, name: &str, declared: bool, complain: Complain<'_>) -> Option<Budget> {
        let mut good = true;
        let mut wrong = |path: &str, what: &dyn Display| {
            good = false;
            complain(path, what);
        };
        let limit = amount("limit_usd", self.limit_usd.as_deref(), "\"500.00\"", &mut wrong);
        let window = self.window(&mut wrong);
        check_scope(&self.scope, &mut wrong);
        let alert_at = alerts(self.alert_at_percent.as_deref(), &mut wrong);
        let raise = self.raise.as_ref().and_then(|raise| raise.check("raise.", limit, &mut wrong));
        let (limit, window) = (limit?, window?);
        good.then(|| Budget {
            name: name.into(),
            scope: self.scope.clone(),
            limit,
            window,
            alert_at,
            action: self.action,
            raise,
            declared,
        })
    }

    fn window(&self, wrong: Complain<'_>) -> Option<Window> {
        let Some(text) = self.window.as_deref() else {
            wrong("window", &format!("missing: {}", WindowError::Unknown));
            return None;
        };
        match Window::parse(text, self.time_zone.as_deref()) {
            Ok(window) => Some(window),
            Err(error @ WindowError::Unknown) => {
                wrong("window", &error);
                // the zone may be wrong, too: any calendar window tells
                if let Err(error) = Window::parse("day", self.time_zone.as_deref()) {
                    wrong("time_zone", &error);
                }
                None
            }
            Err(error @ (WindowError::Zone(_) | WindowError::NeedlessZone)) => {
                wrong("time_zone", &error);
                None
            }
        }
    }
}

impl DraftRaise {
    /// Checks a limit together with its raise.
    ///
    /// # Errors
    ///
    /// Where the sum is too large, in words.
    pub fn fits(limit: Usd, by: Usd) -> Result<(), String> {
        match limit + by <= MAX_LIMIT {
            true => Ok(()),
            false => Err(format!("limit and raise together are more than {MAX_LIMIT} USD: write less")),
        }
    }

    /// The raise of a limit, if nothing is wrong with it. `at` stands before the members' names in what is said.
    pub fn check(&self, at: &str, limit: Option<Usd>, complain: Complain<'_>) -> Option<Raise> {
        let by_path = format!("{at}by_usd");
        let by = amount(&by_path, self.by_usd.as_deref(), "\"100.00\"", complain);
        let by = by.filter(|by| {
            let fits = Self::fits(limit.unwrap_or_default(), *by);
            match &fits {
                Err(words) => complain(&by_path, words),
                Ok(()) if !by.is_some() => {
                    complain(&by_path, &"a raise by nothing: write how much more may be spent");
                }
                Ok(()) => {}
            }
            fits.is_ok() && by.is_some()
        });
        let until = self.until.as_deref().map(str::parse::<Timestamp>);
        let until_ms = match until {
            Some(Ok(until)) => Some(until.as_millisecond()),
            None | Some(Err(_)) => {
                let given = if until.is_none() { "missing" } else { "no time" };
                let what = format!("{given}: write a moment with its zone, such as \"2026-12-01T00:00:00Z\"");
                complain(&format!("{at}until"), &what);
                None
            }
        };
        Some(Raise { by: by?, until_ms: until_ms? })
    }
}

fn amount(path: &str, text: Option<&str>, example: &str, wrong: Complain<'_>) -> Option<Usd> {
    let Some(text) = text else {
        wrong(path, &format!("missing: write an amount in USD, such as {example}"));
        return None;
    };
    Usd::parse(text.trim()).map_err(|error| wrong(path, &error)).ok()
}

fn alerts(written: Option<&[u64]>, wrong: Complain<'_>) -> Vec<u8> {
    let Some(written) = written else { return USUAL_ALERTS.to_vec() };
    let percent = |level: &u64| u8::try_from(*level).ok().filter(|level| (1..=100).contains(level));
    let mut levels: Vec<u8> = written.iter().filter_map(percent).collect();
    if levels.len() < written.len() {
        wrong("alert_at_percent", &"each is a whole number of 1 to 100, percent of the limit");
    }
    levels.sort_unstable();
    levels.dedup();
    if levels.len() < written.iter().filter_map(percent).count() {
        wrong("alert_at_percent", &"one is listed twice");
    }
    levels
}

fn check_scope(scope: &Scope, wrong: Complain<'_>) {
    let named = [
        ("team", &scope.team, Some(Each::Team)),
        ("key", &scope.key, Some(Each::Key)),
        ("end_user", &scope.end_user, Some(Each::EndUser)),
        ("tag", &scope.tag, None),
        ("model", &scope.model, Some(Each::Model)),
        ("deployment", &scope.deployment, None),
        ("provider", &scope.provider, None),
    ];
    for (member, name, each) in named {
        let Some(name) = name.as_deref() else { continue };
        let path = format!("scope.{member}");
        if name.is_empty() || name.len() > MAX_SCOPED_BYTES || name.chars().any(char::is_control) {
            let rule = format!("a name has 1 to {MAX_SCOPED_BYTES} bytes and no control characters");
            wrong(&path, &rule);
        } else if member == "tag" && !tag_is_good(name) {
            wrong(&path, &TAG_RULE);
        }
        if each.is_some() && scope.each == each {
            let what = format!(
                "contradicts {path}: of one {} there is one counter; leave out either",
                spoken(member)
            );
            wrong("scope.each", &what);
        }
    }
}

fn spoken(member: &str) -> String {
    member.replace('_', " ")
}

/// What a scope names that a catalog does not have: the member, and words.
pub fn unknown_names(scope: &Scope, catalog: &Catalog) -> Vec<(&'static str, String)> {
    let is_known = |member: &str, name: &str| match member {
        "model" => catalog.models().any(|model| model.name.as_str() == name),
        "deployment" => catalog.deployments.contains_key(name),
        _ => catalog.providers.contains_key(name),
    };
    let named = [("model", &scope.model), ("deployment", &scope.deployment), ("provider", &scope.provider)];
    let unknown = named.into_iter().filter_map(|(member, name)| {
        let name = name.as_deref().filter(|name| !is_known(member, name))?;
        Some((member, format!("there is no {member} {name} in the catalog: nothing would ever be counted")))
    });
    unknown.collect()
}

impl Budget {
    /// Why two budgets can't stand beside each other, in words; nothing where they can.
    pub fn against(&self, other: &Self) -> Option<String> {
        self.counts_like(other).then(|| {
            format!(
                "counts the same money in the same windows as the budget {} (limit {} USD; this one {} USD): only the \
                 lower limit would ever apply; keep one of them",
                other.name, other.limit, self.limit
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(toml: &serde_json::Value) -> Vec<String> {
        let draft: Draft = serde_json::from_value(toml.clone()).expect("a draft");
        let mut said = Vec::new();
        let budget = draft.check("b", true, &mut |path, what| said.push(format!("{path}: {what}")));
        assert_eq!(budget.is_none(), !said.is_empty(), "{toml}");
        said
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let draft: Draft = serde_json::from_value(serde_json::json!({"limit_usd": "5", "window": "total"}))
            .expect("a draft");
        let budget = draft.check("b", false, &mut |path, what| panic!("{path}: {what}")).expect("a budget");
        assert_eq!(budget.alert_at, USUAL_ALERTS);
        assert_eq!((budget.action, budget.scope, budget.raise), (Action::Refuse, Scope::default(), None));
        assert_eq!((budget.limit, budget.window), (Usd::dollars(5), Window::Total));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let body = serde_json::json!({
            "limit_usd": "-5", "window": "day", "time_zone": "Mars/Base",
            "scope": {"team": "", "tag": "a b", "key": "k", "each": "key"},
            "alert_at_percent": [0, 80, 80], "raise": {"by_usd": "0", "until": "tomorrow"},
        });
        let said = problems(&body);
        let starts = [
            "limit_usd: an amount is written as digits",
            "time_zone: there is no time zone \"Mars/Base\"",
            "scope.team: a name has 1 to 256 bytes",
            "scope.each: contradicts scope.key: of one key there is one counter",
            "scope.tag: a tag has",
            "alert_at_percent: each is a whole number of 1 to 100",
            "alert_at_percent: one is listed twice",
            "raise.by_usd: a raise by nothing",
            "raise.until: no time",
        ];
        for start in starts {
            assert!(said.iter().any(|line| line.starts_with(start)), "{start}: {said:#?}");
        }
        assert_eq!(said.len(), starts.len(), "{said:#?}");
    }

    #[test]
    fn each_mistake_has_its_words() {
        for (body, start) in [
            (serde_json::json!({"window": "day"}), "limit_usd: missing"),
            (serde_json::json!({"limit_usd": "1"}), "window: missing: a window is \"total\""),
            (serde_json::json!({"limit_usd": "1", "window": "year"}), "window: a window is"),
            (
                serde_json::json!({"limit_usd": "1", "window": "total", "time_zone": "UTC"}),
                "time_zone: a time zone is for calendar",
            ),
            (serde_json::json!({"limit_usd": "1e300", "window": "day"}), "limit_usd: an amount is"),
            (
                serde_json::json!({"limit_usd": "1000000001", "window": "day"}),
                "limit_usd: an amount is at most",
            ),
            (
                serde_json::json!({"limit_usd": "1000000000", "window": "day",
                                   "raise": {"by_usd": "1", "until": "2026-12-01T00:00:00Z"}}),
                "raise.by_usd: limit and raise together are more than 1000000000.00 USD",
            ),
            (
                serde_json::json!({"limit_usd": "1", "window": "day", "raise": {"by_usd": "1"}}),
                "raise.until: missing",
            ),
            (
                serde_json::json!({"limit_usd": "1", "window": "day", "alert_at_percent": [101]}),
                "alert_at_percent: each",
            ),
        ] {
            let said = problems(&body);
            assert!(said.len() == 1 && said[0].starts_with(start), "{body}: {said:?}");
        }
    }

    #[test]
    fn a_wrong_window_does_not_hide_a_wrong_zone() {
        let body = serde_json::json!({"limit_usd": "1", "window": "fortnight", "time_zone": "Mars/Base"});
        let said = problems(&body);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].starts_with("time_zone: there is no time zone"), "{said:?}");
    }

    #[test]
    fn names_are_short_and_plain() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        for (name, good) in [
            ("a", true),
            ("team.acme_1-x", true),
            (&*longest, true),
            ("", false),
            ("a b", false),
            ("a/b", false),
            ("other", false),
            ("none", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert!(check_name(&format!("{longest}x")).is_err());
    }

    #[test]
    fn one_counter_has_one_limit() {
        let budget = |name: &str, limit: &str, window: &str, zone: Option<&str>| {
            let draft = Draft {
                limit_usd: Some(limit.to_owned()),
                window: Some(window.to_owned()),
                time_zone: zone.map(str::to_owned),
                ..Draft::default()
            };
            draft.check(name, true, &mut |path, what| panic!("{path}: {what}")).expect("a budget")
        };
        let month = budget("a", "5", "month", None);
        assert!(
            month
                .against(&budget("b", "6", "month", Some("UTC")))
                .is_some_and(|words| words.contains("budget b"))
        );
        assert_eq!(month.against(&budget("b", "5", "day", None)), None);
        assert_eq!(month.against(&budget("b", "5", "month", Some("Europe/Zurich"))), None);
    }
}
