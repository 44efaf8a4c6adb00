//! `gate` of a model: what a registered model has to be evaluated at before it gets any of the route's requests.

use std::ops::RangeInclusive;

use crate::domain::evaluation::gate::{MOST_RULES, RouteGate};
use crate::domain::evaluation::{Gate, Rule};

use super::file;
use super::problem::{Checker, Place};
use super::values::in_range;

/// Rows of an evaluation.
const ROWS: RangeInclusive<u64> = 1..=10_000;
/// Rows unless the operator says otherwise: fewer tell hardly anything.
const USUAL_ROWS: u64 = 20;
/// How old an evaluation may be, days.
const DAYS: RangeInclusive<u64> = 1..=3_650;
/// The same unless the operator says otherwise.
const USUAL_DAYS: u64 = 90;
const DAY_MS: i64 = 86_400_000;

/// Checks a gate.
pub(super) fn check(place: &Place, written: &file::ModelGate, checker: &mut Checker<'_>) -> RouteGate {
    let rules = place.key("rules");
    if written.rules.is_empty() || written.rules.len() > MOST_RULES {
        checker.wrong(&rules, format!("1 to {MOST_RULES} rules stand here, such as \"min exact 0.8\""));
    }
    let mut read: Vec<Rule> = Vec::new();
    for (index, rule) in written.rules.iter().enumerate() {
        match rule.parse() {
            Ok(rule) => read.push(rule),
            Err(error) => checker.wrong(&rules.index(index), error),
        }
    }
    let days = in_range(&place.key("max_age_days"), written.max_age_days, USUAL_DAYS, DAYS, checker);
    RouteGate {
        rules: Gate::new(read),
        rows: in_range(&place.key("rows"), written.rows, USUAL_ROWS, ROWS, checker),
        max_age_ms: i64::try_from(days).unwrap_or(i64::MAX).saturating_mul(DAY_MS),
    }
}
