//! `[budgets.NAME]`, `[ledger]` and `[alerts]`.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::domain::budget::{Budget, draft};
use crate::domain::secret::Secret;
use crate::domain::window::LONGEST_ROLLING_SECONDS;
use crate::gateway::ledger;
use crate::upstream::webhook;

use super::address::BaseUrl;
use super::file;
use super::problem::{Checker, Place};
use super::values::{self, known, secret};

/// Shortest and longest lease, ms.
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
/// A year and a month: last year's month can be compared.
const KEEP_DAYS: u64 = 400;
/// A hundred years.
const MAX_KEEP_DAYS: u64 = 36_500;
/// Longest wait of a hold, ms: clients and the proxies before us wait no longer.
const MAX_HOLD_WAIT_MS: u64 = 60_000;
/// What a request may be told that no budget has the money for. 401 and 404 would say something else.
const EXCEEDED_STATUSES: [StatusCode; 3] =
    [StatusCode::PAYMENT_REQUIRED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
/// How far a rolling window looks back, days: its entries must still be there.
const LONGEST_ROLLING_DAYS: u64 = LONGEST_ROLLING_SECONDS.unsigned_abs() / 86_400;
/// Shortest secret of a webhook that we take from an operator, characters.
const MIN_WEBHOOK_SECRET_LEN: usize = 16;

/// Checks all budgets, each for itself, against the catalog and against the others.
pub(super) fn check(file: &file::File, checker: &mut Checker<'_>) -> Vec<Budget> {
    let all = Place::top("budgets");
    let mut budgets: Vec<Budget> = Vec::new();
    for (name, written) in &file.budgets {
        let place = all.key(name);
        if let Err(rule) = draft::check_name(name) {
            checker.wrong(&place, rule);
        }
        check_names(&place.key("scope"), written, file, checker);
        let mut complain = |path: &str, what: &dyn Display| {
            checker.wrong(&path.split('.').fold(place.clone(), |place, key| place.key(key)), what);
        };
        let Some(budget) = written.check(name, true, &mut complain) else { continue };
        for words in budgets.iter().filter_map(|other| budget.against(other)) {
            checker.wrong(&place, words);
        }
        budgets.push(budget);
    }
    budgets
}

/// Notes the names of a scope that nothing has: such a budget would never count anything.
fn check_names(place: &Place, written: &draft::Draft, file: &file::File, checker: &mut Checker<'_>) {
    let mut check = |member: &str, name: &Option<Arc<str>>, names: Vec<&String>| {
        let Some(name) = name else { return };
        if !names.iter().any(|known| **known == **name) {
            let known = known(names.into_iter());
            checker.wrong(&place.key(member), format!("there is no [{member}s.{name}]: {known}"));
        }
    };
    let scope = &written.scope;
    check("model", &scope.model, file.models.keys().collect());
    check("deployment", &scope.deployment, file.deployments.keys().collect());
    check("provider", &scope.provider, file.providers.keys().collect());
}

/// Checks `[ledger]`: what the ledger needs to know, and the status of a request that has no money left.
pub(super) fn ledger(section: &file::Ledger, checker: &mut Checker<'_>) -> (ledger::Config, StatusCode) {
    let place = Place::top("ledger");
    let default = ledger::Config::default();
    let lease_ms = section
        .lease_ms
        .map(|ms| values::in_range(&place.key("lease_ms"), Some(ms), *LEASE_MS.start(), LEASE_MS, checker));
    let hold_wait = values::duration_up_to(
        &place.key("hold_wait_ms"),
        section.hold_wait_ms,
        default.hold_wait,
        MAX_HOLD_WAIT_MS,
        checker,
    );
    let written = section.budget_exceeded_status.unwrap_or(StatusCode::TOO_MANY_REQUESTS.as_u16());
    let status = EXCEEDED_STATUSES.into_iter().find(|status| status.as_u16() == written);
    if status.is_none() {
        checker.wrong(
            &place.key("budget_exceeded_status"),
            format!("{written} is none of 402, 403 and 429: clients would take it for another failure"),
        );
    }
    let config = ledger::Config { lease: lease_ms.map_or(default.lease, Duration::from_millis), hold_wait };
    (config, status.unwrap_or(StatusCode::TOO_MANY_REQUESTS))
}

/// How long the ledger's entries are kept; nothing for ever.
pub(super) fn kept(section: &file::Ledger, checker: &mut Checker<'_>) -> Option<Duration> {
    let place = Place::top("ledger").key("keep_days");
    let days = values::in_range(&place, section.keep_days, KEEP_DAYS, 0..=MAX_KEEP_DAYS, checker);
    if (1..=LONGEST_ROLLING_DAYS).contains(&days) {
        let what = format!(
            "budgets over rolling windows look back {LONGEST_ROLLING_DAYS} days: keep entries for at least {}, or 0 for ever",
            LONGEST_ROLLING_DAYS + 1
        );
        checker.wrong(&place, what);
    }
    (days > 0).then(|| Duration::from_secs(days * 86_400))
}

/// Checks `[alerts]`; nothing where nobody is to be told.
pub(super) fn alerts(section: &file::Alerts, checker: &mut Checker<'_>) -> Option<webhook::Config> {
    let place = Place::top("alerts");
    let signed = section.webhook_secret.as_ref();
    let secret = signed.and_then(|source| secret(&place.key("webhook_secret"), source, checker));
    if secret.as_ref().is_some_and(|secret| secret.expose().len() < MIN_WEBHOOK_SECRET_LEN) {
        let what = format!("too easy to guess: at least {MIN_WEBHOOK_SECRET_LEN} characters");
        checker.wrong(&place.key("webhook_secret"), what);
    }
    let place = place.key("webhook_url");
    let Some(text) = section.webhook_url.as_deref().map(str::trim) else {
        if signed.is_some() {
            checker.wrong(&place, "missing: webhook_secret signs what is sent there");
        }
        return None;
    };
    // a token may stand in the query
    match BaseUrl::parse(text.split('?').next().unwrap_or_default()) {
        Ok(base) => {
            if base.crosses_a_network_in_clear() {
                checker.notice(&place, "alerts cross the network in clear text: write https://");
            }
            Some(webhook::Config { url: Secret::new(text), authority: base.authority, secret })
        }
        Err(reason) => {
            checker.wrong(&place, reason);
            None
        }
    }
}
