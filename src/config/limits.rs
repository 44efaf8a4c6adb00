//! `[limits]`, `[teams.NAME]`, and the `limits` of teams and models.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::domain::label::{
    self, MAX_TAGS, TAG_RULE, TAKEN_RULE, alias_is_good, is_taken_by_metrics, tag_is_good,
};
use crate::domain::limit::{MAX_QUOTA, RateLimits};
use crate::domain::team::{TEAM_ID_PREFIX, Team};
use crate::gateway::limits::Config;

use super::file;
use super::problem::{Checker, Place};
use super::values::{NAME_RULE, in_range};

const IN_FLIGHT: RangeInclusive<u64> = 1..=1_000_000;
const BODY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const QUOTA: RangeInclusive<u64> = 1..=MAX_QUOTA;

/// Checks `[limits]`. One body must find room in what all may take.
pub(super) fn global(section: &file::Limits, max_body_bytes: usize, checker: &mut Checker<'_>) -> Config {
    let place = Place::top("limits");
    let default = Config::default();
    let bytes = place.key("max_body_bytes_in_flight");
    let all_bodies =
        in_range(&bytes, section.max_body_bytes_in_flight, default.max_body_bytes, BODY_BYTES, checker);
    if all_bodies < max_body_bytes as u64 {
        checker.wrong(&bytes, format!("less than server.max_body_bytes ({max_body_bytes}): raise it"));
    }
    Config {
        max_in_flight: in_range(
            &place.key("max_in_flight"),
            section.max_in_flight,
            default.max_in_flight,
            IN_FLIGHT,
            checker,
        ),
        max_body_bytes: all_bodies,
    }
}

/// Checks the `limits` of a team or a model.
pub(super) fn rate_limits(
    place: &Place,
    written: &file::RateLimits,
    checker: &mut Checker<'_>,
) -> RateLimits {
    let mut quota = |key: &str, value: Option<u64>| {
        value.map(|value| in_range(&place.key(key), Some(value), value, QUOTA, checker))
    };
    RateLimits {
        requests_per_minute: quota("requests_per_minute", written.requests_per_minute),
        tokens_per_minute: quota("tokens_per_minute", written.tokens_per_minute),
        concurrent: quota("concurrent", written.concurrent),
    }
}

/// Checks `[teams.NAME]`.
pub(super) fn teams(written: &BTreeMap<String, file::Team>, checker: &mut Checker<'_>) -> Vec<Team> {
    let team = |(name, written): (&String, &file::Team)| {
        let place = Place::top("teams").key(name);
        if !alias_is_good(name, TEAM_ID_PREFIX) {
            checker.wrong(&place, format!("{NAME_RULE}, and does not start with {TEAM_ID_PREFIX}"));
        }
        if is_taken_by_metrics(name) {
            checker.wrong(&place, TAKEN_RULE);
        }
        let limits = rate_limits(&place.key("limits"), &written.limits, checker);
        let tags = place.key("tags");
        if written.tags.len() > MAX_TAGS {
            checker.wrong(&tags, format!("more than {MAX_TAGS}"));
        }
        for (index, _) in written.tags.iter().enumerate().filter(|(_, tag)| !tag_is_good(tag)) {
            checker.wrong(&tags.index(index), TAG_RULE);
        }
        Team::declared(name, limits, label::in_order(&written.tags))
    };
    written.iter().map(team).collect()
}
