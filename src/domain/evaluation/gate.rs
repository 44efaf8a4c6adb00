//! A gate: rules in words that an evaluated model has to keep before it may take another's place.
//!
//! ```text
//! [surely] min MEASURE VALUE                            at least so good
//! [surely] not worse than BASE by more than VALUE MEASURE   at most so much worse than the base, row by row
//! [surely] max loss VALUE                               at most so much: of loss less is better
//! max p50_ms|p95_ms|usd_per_1000|failed VALUE           at most so slow, so dear (a thousand answers), so often without one
//! ```
//!
//! `surely` asks it of the worse end of the 95 % interval instead of the value itself. Beside its rules every gate asks that a
//! model has answered at least nineteen rows of twenty, unless a rule says otherwise about `failed`; a rule about a judge's
//! marks, that as many rows were marked; one about loss, that it was measured on as many, of the base too where they are
//! compared.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::interval::Estimate;
use super::measure::Measure;
use super::report::{ModelReport, NOT_AVAILABLE, Report, Role};
use crate::domain::money::Usd;

/// Most rules of a gate.
pub const MOST_RULES: usize = 32;
/// The part of rows that may go unanswered where no rule says otherwise.
const FAILED: f64 = 0.05;
/// How the base of an evaluation is called in a rule.
pub const BASE: &str = "base";

/// A rule, and the words that it was written in.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    words: Arc<str>,
    asks: Asks,
}

#[derive(Debug, Clone, PartialEq)]
enum Asks {
    /// At least so good; `surely`: at the low end of its interval.
    Least { surely: bool, measure: Measure, value: f64 },
    /// At most so much, of what is better where it is lower; `surely`: at the high end of its interval.
    AtMost { surely: bool, measure: Measure, value: f64 },
    /// Worse than the base by so much at most.
    NotWorse { surely: bool, than: Arc<str>, by: f64, measure: Measure },
    /// At most so much.
    Most(Bound),
}

/// What should be small.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    P50Ms(u64),
    P95Ms(u64),
    UsdPer1000(Usd),
    Failed(f64),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rule: write `min MEASURE VALUE`, `max loss VALUE`, `not worse than base by more than VALUE MEASURE` (all \
     with `surely` in front, if the worse end of the interval counts) or `max p50_ms|p95_ms|usd_per_1000|failed VALUE`; \
     measures are exact, normalised, contains, token_f1, json_valid, tool_calls, general (0 to 1), judge (1 to 5) and \
     loss (nats a token, lower is better, so it has no `min`)"
)]
pub struct NoRule(String);

impl FromStr for Rule {
    type Err = NoRule;

    fn from_str(text: &str) -> Result<Self, NoRule> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (surely, rest) = match words.split_first() {
            Some((&"surely", rest)) => (true, rest),
            _ => (false, &words[..]),
        };
        let asks = match rest {
            ["min", measure, value] => least(surely, measure, value),
            ["not", "worse", "than", than, "by", "more", "than", by, measure] => {
                not_worse(surely, than, by, measure)
            }
            ["max", measure, value] if Measure::from_name(measure).is_some() => {
                at_most(surely, measure, value)
            }
            ["max", what, value] if !surely => bound(what, value).map(Asks::Most),
            _ => None,
        };
        let asks = asks.ok_or_else(|| NoRule(text.chars().take(200).collect()))?;
        Ok(Self { words: words.join(" ").into(), asks })
    }
}

fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

fn least(surely: bool, measure: &str, value: &str) -> Option<Asks> {
    let (measure, value) = (Measure::from_name(measure)?, number(value)?);
    let (worst, best) = measure.range();
    (worst..=best).contains(&value).then_some(Asks::Least { surely, measure, value })
}

fn at_most(surely: bool, measure: &str, value: &str) -> Option<Asks> {
    let measure = Measure::from_name(measure).filter(|measure| measure.is_better_lower())?;
    Some(Asks::AtMost { surely, measure, value: number(value)? })
}

fn not_worse(surely: bool, than: &str, by: &str, measure: &str) -> Option<Asks> {
    let (measure, by) = (Measure::from_name(measure)?, number(by)?);
    let (worst, best) = measure.range();
    (by <= (best - worst).abs()).then(|| Asks::NotWorse { surely, than: than.into(), by, measure })
}

fn bound(what: &str, value: &str) -> Option<Bound> {
    Some(match what {
        "p50_ms" => Bound::P50Ms(value.parse().ok()?),
        "p95_ms" => Bound::P95Ms(value.parse().ok()?),
        "usd_per_1000" => Bound::UsdPer1000(Usd::parse(value).ok()?),
        "failed" => Bound::Failed(number(value).filter(|share| *share <= 1.0)?),
        _ => return None,
    })
}

impl Rule {
    /// Whether it is about a measure.
    pub fn is_about(&self, measure: Measure) -> bool {
        self.measure() == Some(measure)
    }

    /// The measure that it is about, where it is about one.
    const fn measure(&self) -> Option<Measure> {
        match self.asks {
            Asks::Least { measure, .. } | Asks::AtMost { measure, .. } | Asks::NotWorse { measure, .. } => {
                Some(measure)
            }
            Asks::Most(_) => None,
        }
    }

    /// The model that it compares with, where it names one.
    pub fn compares_with(&self) -> Option<&str> {
        match &self.asks {
            Asks::NotWorse { than, .. } if **than != *BASE => Some(than),
            _ => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// How one rule came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The rule.
    pub rule: String,
    /// Whether it is kept.
    pub passed: bool,
    /// The figures behind that.
    pub words: String,
}

/// How a gate came out for a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The model.
    pub model: Arc<str>,
    /// Whether every rule is kept.
    pub passed: bool,
    /// Each rule.
    pub rules: Vec<Judged>,
}

impl Verdict {
    /// The rules that are not kept, in words.
    pub fn complaints(&self) -> String {
        let broken = self.rules.iter().filter(|rule| !rule.passed);
        broken.map(|rule| format!("`{}`: {}", rule.rule, rule.words)).collect::<Vec<_>>().join("; ")
    }
}

/// Rules that all have to be kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gate(Vec<Rule>);

impl Gate {
    /// A gate of rules.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether nothing is asked.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// Whether a rule compares with the base: then it counts which one that was.
    pub fn compares(&self) -> bool {
        self.0.iter().any(|rule| matches!(rule.asks, Asks::NotWorse { .. }))
    }

    /// Holds a model of a report against the rules; none where the report has no such model.
    pub fn judge(&self, report: &Report, model: &str) -> Option<Verdict> {
        let of = report.models.iter().find(|one| *one.model == *model)?;
        let mut rules: Vec<Judged> = self.0.iter().map(|rule| rule.judge(report, of)).collect();
        let says_of_failures = |rule: &Rule| matches!(rule.asks, Asks::Most(Bound::Failed(_)));
        if !self.0.iter().any(says_of_failures) {
            let (passed, words) = Bound::Failed(FAILED).judge(of);
            if !passed {
                rules.push(Judged { rule: format!("max failed {FAILED}"), passed, words });
            }
        }
        let passed = rules.iter().all(|rule| rule.passed);
        Some(Verdict { model: Arc::clone(&of.model), passed, rules })
    }
}

/// What stands before a route: a model that is to get any of its requests has to have passed in an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteGate {
    /// The rules.
    pub rules: Gate,
    /// Rows that the evaluation must have asked, at least, and must have measured by each measure of its rules.
    pub rows: u64,
    /// How old the evaluation may be, ms.
    pub max_age_ms: i64,
}

// a rule's numbers are read from digits: none is a NaN
impl Eq for RouteGate {}

impl RouteGate {
    /// Which measure of a rule was taken on too few rows of a model, in words. One that no row has is for the rule to say.
    pub fn lacks(&self, report: &Report, model: &str) -> Option<String> {
        let of = report.models.iter().find(|one| *one.model == *model)?;
        // the general set is as large as it is
        let asked = self.rules.rules().iter().filter_map(Rule::measure);
        let mut asked = asked.filter(|measure| *measure != Measure::General);
        asked.find_map(|measure| {
            let rows = of.measures.get(&measure)?.rows as u64;
            let words = || {
                format!("has measured {} on {rows} rows, and the gate wants {}", measure.name(), self.rows)
            };
            (rows < self.rows).then(words)
        })
    }
}

impl Rule {
    fn judge(&self, report: &Report, of: &ModelReport) -> Judged {
        if self.is_about(Measure::Judge)
            && let Some(words) = unmarked(report)
        {
            return Judged { rule: self.to_string(), passed: false, words };
        }
        if self.is_about(Measure::Loss)
            && let Some(words) = self.unscored(report, of)
        {
            return Judged { rule: self.to_string(), passed: false, words };
        }
        let (passed, words) = match &self.asks {
            Asks::Least { surely, measure, value } => least_is_met(of, *surely, *measure, *value),
            Asks::AtMost { surely, measure, value } => most_is_met(of, *surely, *measure, *value),
            Asks::NotWorse { surely, than, by, measure } => {
                not_worse_is_met(report, of, *surely, than, *by, *measure)
            }
            Asks::Most(bound) => bound.judge(of),
        };
        Judged { rule: self.to_string(), passed, words }
    }

    /// Why a loss stands for nothing: of the model, or of the base that it is compared with, too few rows have any.
    fn unscored(&self, report: &Report, of: &ModelReport) -> Option<String> {
        let base = report.base().filter(|_| matches!(self.asks, Asks::NotWorse { .. }));
        std::iter::once(of).chain(base).find_map(|one| {
            let measured = one.measures.get(&Measure::Loss).map_or(0, |loss| loss.rows as u64);
            let rows = measured + one.loss.as_ref()?.unmeasured;
            let words = || format!("the loss of {} was measured on {measured} of {rows} rows", one.model);
            is_too_few(measured, rows).then(words)
        })
    }
}

/// Whether more is missing than may be where no rule says otherwise.
fn is_too_few(found: u64, rows: u64) -> bool {
    (rows - found) as f64 > rows as f64 * FAILED
}

/// Why a judge's marks stand for nothing: too few rows have any.
fn unmarked(report: &Report) -> Option<String> {
    let judge = report.judge.as_ref()?;
    let rows = judge.marked + judge.unmarked;
    is_too_few(judge.marked, rows).then(|| format!("the judge has marked {} of {rows} rows", judge.marked))
}

fn least_is_met(of: &ModelReport, surely: bool, measure: Measure, value: f64) -> (bool, String) {
    let Some(found) = of.measures.get(&measure) else { return (false, unmeasured(of, measure)) };
    let asked = if surely { found.low } else { found.value };
    (asked >= value, told(found))
}

fn most_is_met(of: &ModelReport, surely: bool, measure: Measure, value: f64) -> (bool, String) {
    let Some(found) = of.measures.get(&measure) else { return (false, unmeasured(of, measure)) };
    let asked = if surely { found.high } else { found.value };
    (asked <= value, told(found))
}

fn told(found: &Estimate) -> String {
    format!("{} ({} to {}, {} rows)", found.value, found.low, found.high, found.rows)
}

/// Why a model has no figure of a measure.
fn unmeasured(of: &ModelReport, measure: Measure) -> String {
    let elsewhere = measure == Measure::Loss && of.loss.as_ref().is_some_and(|loss| !loss.available);
    match elsewhere {
        true => format!("{} is {NOT_AVAILABLE}", measure.name()),
        false => format!("no row measured {}", measure.name()),
    }
}

fn not_worse_is_met(
    report: &Report,
    of: &ModelReport,
    surely: bool,
    than: &str,
    by: f64,
    measure: Measure,
) -> (bool, String) {
    let Some(base) = report.base() else { return (false, "nothing was evaluated".to_owned()) };
    if than != BASE && *base.model != *than {
        return (false, format!("it was compared with {}, not with {than}", base.model));
    }
    if of.role == Role::Base {
        return (
            false,
            "it is the base itself: name it behind the model that it is compared with".to_owned(),
        );
    }
    let found = report.comparisons.iter().find(|one| one.model == of.model && one.measure == measure);
    let Some(found) = found else {
        let why = match of.measures.contains_key(&measure) {
            true => format!("no row measured {} of both", measure.name()),
            false => unmeasured(of, measure),
        };
        return (false, why);
    };
    let difference = &found.difference;
    let words = format!(
        "{:+} against {} ({:+} to {:+}, {} rows)",
        difference.value, base.model, difference.low, difference.high, difference.rows
    );
    let is_met = match (measure.is_better_lower(), surely) {
        (false, false) => difference.value >= -by,
        (false, true) => difference.low >= -by,
        (true, false) => difference.value <= by,
        (true, true) => difference.high <= by,
    };
    (is_met, words)
}

impl Bound {
    fn judge(self, of: &ModelReport) -> (bool, String) {
        let in_time = |found: Option<u64>, most: u64| match found {
            Some(found) => (found <= most, format!("{found} ms")),
            None => (false, "nothing was answered".to_owned()),
        };
        match self {
            Self::P50Ms(most) => in_time(of.latency.p50_ms, most),
            Self::P95Ms(most) => in_time(of.latency.p95_ms, most),
            Self::UsdPer1000(most) => match of.usd_per_1000 {
                Some(found) => (found <= most, format!("{found} USD")),
                None => (false, "nothing was answered".to_owned()),
            },
            Self::Failed(most) => {
                let share = of.failed as f64 / of.asked.max(1) as f64;
                (of.asked > 0 && share <= most, format!("{} of {} rows went unanswered", of.failed, of.asked))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::JudgeReport;
    use super::super::report::tests::{losses, report};
    use super::*;

    fn gate(rules: &[&str]) -> Gate {
        Gate::new(rules.iter().map(|rule| rule.parse().expect("a rule")).collect())
    }

    #[test]
    fn rules_are_read_in_one_form_only() {
        for good in [
            "min exact 0.8",
            "surely min judge 4",
            "not worse than base by more than 0.02 token_f1",
            "surely  not worse than ft:a::b by more than 0 general",
            "max p95_ms 2000",
            "max usd_per_1000 0.25",
            "max failed 0",
            "max loss 2.5",
            "surely max loss 9",
            "surely not worse than base by more than 12 loss",
        ] {
            let rule: Rule = good.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(rule.compares_with(), good.contains("ft:a::b").then_some("ft:a::b"), "{good}");
            assert_eq!(rule.to_string(), good.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        for bad in [
            "",
            "min exact",
            "min exact 1.1",
            "min exact -1",
            "min judge 0.5",
            "min nothing 0.5",
            "min exact NaN",
            "min exact 1e0",
            "max exact 1",
            "min loss 0",
            "max loss -1",
            "max loss inf",
            "max failed 2",
            "surely max p50_ms 1",
            "not worse than base by more than 2 exact",
            "not worse than base by 0.1 exact",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_verdict_has_the_figures() {
        // ten rows: the base answers 8 exactly, the new one 7, of which it loses 2 and wins 1
        let report = report(8, &[(2, 1)]);
        for (rule, passed, words) in [
            ("min exact 0.7", true, "0.7 (0.396778 to 0.892209, 10 rows)"),
            ("min exact 0.71", false, "0.7 ("),
            ("surely min exact 0.5", false, "0.7 ("),
            ("min token_f1 0.1", false, "no row measured token_f1"),
            ("not worse than base by more than 0.1 exact", true, "-0.1 against old ("),
            ("not worse than old by more than 0.09 exact", false, "-0.1 against old"),
            ("surely not worse than base by more than 0.1 exact", false, "-0.1 against old"),
            ("not worse than other by more than 1 exact", false, "it was compared with old, not with other"),
            ("max p50_ms 20", true, "20 ms"),
            ("max p95_ms 19", false, "20 ms"),
            ("max usd_per_1000 0.01", true, "0.01 USD"),
            ("max usd_per_1000 0.009", false, "0.01 USD"),
            ("max failed 0", true, "0 of 10 rows went unanswered"),
        ] {
            let verdict = gate(&[rule]).judge(&report, "new-0").expect("it was evaluated");
            assert_eq!((verdict.passed, verdict.rules.len()), (passed, 1), "{rule}: {verdict:?}");
            assert!(verdict.rules[0].words.starts_with(words), "{rule}: {}", verdict.rules[0].words);
            assert_eq!(verdict.complaints().is_empty(), passed, "{rule}");
        }
        assert_eq!(gate(&["min exact 0"]).judge(&report, "nobody"), None);
        let base =
            gate(&["not worse than base by more than 1 exact"]).judge(&report, "old").expect("evaluated");
        assert!(!base.passed, "a base is compared with nothing: {base:?}");
    }

    #[test]
    fn of_loss_less_is_better() {
        let report = losses(&[[2.0, 3.0, 1.0], [1.5, 2.0, 1.3]], &[true, true]);
        for (rule, passed) in [
            ("max loss 1.6", true),
            ("max loss 1.5", false),
            ("surely max loss 1.6", false),
            ("surely max loss 2", true),
            ("not worse than base by more than 0 loss", true),
            ("surely not worse than base by more than 0.1 loss", false),
            ("surely not worse than base by more than 0.3 loss", true),
        ] {
            let verdict = gate(&[rule]).judge(&report, "m1").expect("it was evaluated");
            assert_eq!(verdict.passed, passed, "{rule}: {verdict:?}");
        }
        let of_one = losses(&[[2.0, 3.0, 1.0], [0.0; 3]], &[true, false]);
        for rule in ["max loss 9", "not worse than base by more than 9 loss"] {
            let verdict = gate(&[rule]).judge(&of_one, "m1").expect("it was evaluated");
            assert_eq!(verdict.rules[0].words, "loss is not available at this provider");
            assert!(!verdict.passed);
        }
        let loss: Rule = "max loss 1".parse().expect("a rule");
        assert!(loss.is_about(Measure::Loss) && !loss.is_about(Measure::Exact));
    }

    #[test]
    fn a_loss_of_few_rows_passes_nothing() {
        let rules = ["max loss 9", "not worse than base by more than 9 loss"];
        // three rows of each have one; how many of the base and of the model have none
        for (base, own, passed) in [(0, 0, [true, true]), (0, 1, [false, false]), (1, 0, [true, false])] {
            let mut report = losses(&[[2.0, 3.0, 1.0], [1.5, 2.0, 1.3]], &[true, true]);
            for (model, unmeasured) in report.models.iter_mut().zip([base, own]) {
                model.loss.as_mut().expect("asked for").unmeasured = unmeasured;
            }
            let found = rules.map(|rule| gate(&[rule]).judge(&report, "m1").expect("evaluated"));
            assert_eq!(found.each_ref().map(|of| of.passed), passed, "{base} {own}: {found:?}");
            if let Some(broken) = found.iter().find(|of| !of.passed) {
                let whose = if own > 0 { "m1" } else { "m0" };
                let words = format!("the loss of {whose} was measured on 3 of 4 rows");
                assert_eq!(broken.rules[0].words, words);
            }
            assert!(gate(&["min exact 0"]).judge(&report, "m1").is_some_and(|of| of.passed));
        }
    }

    #[test]
    fn a_route_wants_its_rows_of_each_measure() {
        let mut report = losses(&[[2.0, 3.0, 1.0], [1.5, 2.0, 1.3]], &[true, true]);
        let general = Estimate::of_share(&[1.0]).expect("one");
        report.models[1].measures.insert(Measure::General, general);
        for (rules, rows, want) in [
            (&["max loss 9"][..], 3, None),
            (&["max loss 9"], 4, Some("has measured loss on 3 rows, and the gate wants 4")),
            (
                &["max failed 0", "max loss 9", "not worse than base by more than 1 exact"],
                2,
                Some("has measured exact on 1 rows, and the gate wants 2"),
            ),
            (&["min general 0.5", "max p50_ms 9", "min token_f1 0.5"], 4, None),
        ] {
            let route = RouteGate { rules: gate(rules), rows, max_age_ms: 1 };
            assert_eq!(route.lacks(&report, "m1").as_deref(), want, "{rules:?} of {rows}");
        }
    }

    #[test]
    fn a_model_that_did_not_answer_passes_no_gate() {
        let mut report = report(8, &[(0, 0)]);
        let of = report.models.last_mut().expect("two models");
        of.failed = 1;
        let verdict = gate(&["min exact 0"]).judge(&report, "new-0").expect("it was evaluated");
        assert_eq!(verdict.complaints(), "`max failed 0.05`: 1 of 10 rows went unanswered");
        assert!(gate(&["min exact 0", "max failed 0.1"]).judge(&report, "new-0").is_some_and(|of| of.passed));
    }

    #[test]
    fn marks_of_few_rows_pass_nothing() {
        let mut report = report(8, &[(0, 0)]);
        for model in &mut report.models {
            let marks = Estimate::of_mean(&[5.0, 5.0, 5.0], 1).expect("three");
            model.measures.insert(Measure::Judge, marks);
        }
        for (marked, unmarked, passed) in [(20, 0, true), (19, 1, true), (18, 2, false), (3, 197, false)] {
            report.judge =
                Some(JudgeReport { model: "judge".into(), marked, unmarked, cost_usd: Usd::from_nanos(1) });
            let verdict = gate(&["min judge 4"]).judge(&report, "new-0").expect("it was evaluated");
            assert_eq!(verdict.passed, passed, "{marked}: {verdict:?}");
            assert!(gate(&["min exact 0"]).judge(&report, "new-0").is_some_and(|of| of.passed));
        }
        let verdict = gate(&["min judge 4"]).judge(&report, "new-0").expect("it was evaluated");
        assert_eq!(verdict.rules[0].words, "the judge has marked 3 of 200 rows");
    }
}
