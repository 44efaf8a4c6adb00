//! `[models.NAME]`: the names that clients ask for, and the routes behind them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::domain::capability::Capability;
use crate::domain::catalog::{Deployment, Model};
use crate::domain::ids::ModelName;
use crate::domain::label::alias_is_good;
use crate::domain::retry;
use crate::domain::route::{Plan, Route};

use super::cache;
use super::capture;
use super::file;
use super::gates;
use super::injections;
use super::limits;
use super::plans::{self, Draft, Id, Root, Routes};
use super::prices::Known;
use super::problem::{Checker, Place};
use super::values::{NAME_RULE, in_range, named};

/// How many times a request may be sent.
const ATTEMPTS: RangeInclusive<u32> = 1..=20;
/// How many times one deployment may be asked again.
const SAME: RangeInclusive<u32> = 0..=10;
/// A wait between two attempts, ms: up to ten minutes, far beyond any client's patience.
const WAIT_MS: RangeInclusive<u64> = 1..=600_000;

/// Checks all models: names, plans, and what they lead to.
pub(super) fn check(
    file: &file::File,
    deployments: &BTreeMap<Arc<str>, Arc<Deployment>>,
    prices: &Known,
    now_ms: i64,
    checker: &mut Checker<'_>,
) -> Vec<Model> {
    let (mut drafts, mut requires) = (BTreeMap::new(), BTreeMap::new());
    for (name, written) in &file.models {
        let place = Place::top("models").key(name);
        let wanted = &written.requires;
        let wanted =
            named(&place.key("requires"), wanted, &Capability::ALL, Capability::name, "capability", checker);
        requires.insert(name.clone(), wanted);
        if let Some(draft) = draft(&place, written, checker) {
            drafts.insert(Id { model: name.clone(), label: None }, draft);
        }
        for (label, plan) in &written.labels {
            let draft = plans::read(&place.key("labels").key(label), plan, checker);
            drafts.insert(Id { model: name.clone(), label: Some(label.clone()) }, draft);
        }
    }
    let mut routes = Routes {
        file,
        deployments,
        prices,
        now_ms,
        drafts: &drafts,
        requires: &requires,
        known: BTreeMap::new(),
        under_way: Vec::new(),
    };
    let place = Place::top("routing").key("retry");
    let usual = retry_policy(&place, &file.routing.retry, retry::Policy::default(), checker);
    let mut models = Vec::new();
    for (name, written) in &file.models {
        models.extend(model(name, written, file, &mut routes, usual, checker));
    }
    models
}

/// The plan of a model, as it is written.
fn draft(place: &Place, written: &file::Model, checker: &mut Checker<'_>) -> Option<Draft> {
    match (&written.deployments, &written.plan) {
        (Some(_), Some(_)) => {
            checker.wrong(&place.key("plan"), "contradicts `deployments`: keep one");
            None
        }
        (None, Some(plan)) => Some(plans::read(&place.key("plan"), plan, checker)),
        (Some(names), None) if !names.is_empty() => {
            Some(plans::listed(&place.key("deployments"), names, checker))
        }
        (_, None) => {
            let what = "missing: name at least one of [deployments], or write a `plan`";
            checker.wrong(&place.key("deployments"), what);
            None
        }
    }
}

fn model(
    name: &str,
    written: &file::Model,
    file: &file::File,
    routes: &mut Routes<'_>,
    usual: retry::Policy,
    checker: &mut Checker<'_>,
) -> Option<Model> {
    let place = Place::top("models").key(name);
    let parsed = check_name(&place, name, written, checker);
    let aliases = aliases(&place, name, written, file, checker);
    check_labels(&place, name, written, file, checker);
    let limits = limits::rate_limits(&place.key("limits"), &written.limits, checker);
    let retry = retry_policy(&place.key("retry"), &written.retry, usual, checker);
    let retry = retry::Policy { on_content_filter: written.content_filtered.is_some(), ..retry };
    let requires = routes.requires.get(name).cloned().unwrap_or_default();
    let plan = routes.named(&Id { model: name.to_owned(), label: None }, checker);
    let labels: Vec<Option<(Arc<str>, Arc<Route>)>> = written
        .labels
        .keys()
        .map(|label| {
            let id = Id { model: name.to_owned(), label: Some(label.clone()) };
            routes.named(&id, checker).map(|plan| (label.as_str().into(), Arc::new(Route::new(plan))))
        })
        .collect();
    let mut aside = |key: &str, value: Option<&Value>| {
        let draft = plans::read(&place.key(key), value?, checker);
        let root = Root { model: name, requires: &requires };
        routes.whole(&draft, &root, &format!("{name}/{key}"), checker)
    };
    let longer = aside("longer_context", written.longer_context.as_ref());
    let filtered = aside("content_filtered", written.content_filtered.as_ref());
    if let (Some(plan), Some(longer)) = (&plan, &longer) {
        check_longer(&place.key("longer_context"), plan, longer, checker);
    }
    let prompts = injections::of_model(&place, written, checker);
    let cached = place.key("cache");
    let policy = written.cache.as_ref().map(|cache| cache::policy(&cached, cache, checker));
    let capture = written.capture.as_ref();
    let capture = capture.map(|capture| capture::policy(&place.key("capture"), capture, file, checker));
    let gate = written.gate.as_ref().map(|gate| Arc::new(gates::check(&place.key("gate"), gate, checker)));
    let mut model = Model {
        gate,
        labels: labels.into_iter().collect::<Option<_>>()?,
        aliases,
        requires,
        longer_context: longer.map(|plan| Arc::new(Route::new(plan))),
        content_filtered: filtered.map(|plan| Arc::new(Route::new(plan))),
        retry,
        limits,
        capture: capture.map(Arc::new),
        ..Model::plain(parsed?, plan?)
    };
    if let Some(policy) = policy {
        cache::keep(&cached, policy, &mut model, checker);
    }
    injections::give(&place, &prompts, &mut model, checker);
    Some(model)
}

fn check_name(
    place: &Place,
    name: &str,
    written: &file::Model,
    checker: &mut Checker<'_>,
) -> Option<ModelName> {
    if name.trim_end_matches('*').contains('*') || name.ends_with("**") {
        checker.wrong(place, "a pattern has one `*`, at its end");
    }
    if name.ends_with('*') {
        for (key, is_there) in
            [("aliases", !written.aliases.is_empty()), ("labels", !written.labels.is_empty())]
        {
            if is_there {
                checker.wrong(&place.key(key), "a pattern has none: only an exact name has");
            }
        }
    }
    match ModelName::parse(name) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            checker.wrong(place, error);
            None
        }
    }
}

/// Who has a name beside the model at hand: another model, an alias or a label.
fn owner(file: &file::File, name: &str) -> Option<String> {
    if file.models.contains_key(name) {
        return Some(format!("the model {name}"));
    }
    if let Some((model, label)) = name.rsplit_once('@')
        && file.models.get(model).is_some_and(|model| model.labels.contains_key(label))
    {
        return Some(format!("the label {label} of {model}"));
    }
    None
}

fn aliases(
    place: &Place,
    name: &str,
    written: &file::Model,
    file: &file::File,
    checker: &mut Checker<'_>,
) -> Vec<ModelName> {
    let mut found = Vec::new();
    for (index, alias) in written.aliases.iter().enumerate() {
        let place = place.key("aliases").index(index);
        if alias.contains('*') {
            checker.wrong(&place, "an alias is an exact name, without `*`");
        }
        let elsewhere = file.models.iter().find(|(other, model)| {
            other.as_str() != name && model.aliases.iter().any(|known| known == alias)
        });
        if let Some(owner) = owner(file, alias) {
            checker.wrong(&place, format!("{alias} is taken: {owner} has that name"));
        } else if let Some((other, _)) = elsewhere {
            checker.wrong(&place, format!("{alias} is taken: it is an alias of {other}, too"));
        }
        match ModelName::parse(alias) {
            Ok(parsed) if found.contains(&parsed) => {
                checker.wrong(&place, format!("{alias} is listed twice"));
            }
            Ok(parsed) => found.push(parsed),
            Err(error) => checker.wrong(&place, error),
        }
    }
    found
}

fn check_labels(
    place: &Place,
    name: &str,
    written: &file::Model,
    file: &file::File,
    checker: &mut Checker<'_>,
) {
    for label in written.labels.keys() {
        let place = place.key("labels").key(label);
        if !alias_is_good(label, "@") {
            checker.wrong(&place, NAME_RULE);
        }
        let asked = format!("{name}@{label}");
        if let Err(error) = ModelName::parse(&asked) {
            checker.wrong(&place, format!("with the model's name before it: {error}"));
        }
        if file.models.contains_key(&asked) {
            checker.wrong(&place, format!("{asked} is taken: the model {asked} has that name"));
        }
    }
}

/// Checks `retry`: what is not written is as `default` says.
fn retry_policy(
    place: &Place,
    retry: &file::Retry,
    default: retry::Policy,
    checker: &mut Checker<'_>,
) -> retry::Policy {
    let attempts = in_range(&place.key("attempts"), retry.attempts, default.attempts, ATTEMPTS, checker);
    let same = in_range(&place.key("same"), retry.same, default.same, SAME, checker);
    let mut wait = |key: &str, ms: Option<u64>, default: Duration| match ms {
        Some(ms) => Duration::from_millis(in_range(&place.key(key), Some(ms), 1, WAIT_MS, checker)),
        None => default,
    };
    let longest_wait = wait("longest_wait_ms", retry.longest_wait_ms, default.longest_wait);
    let first_wait = wait("first_wait_ms", retry.first_wait_ms, default.first_wait.min(longest_wait));
    if first_wait > longest_wait {
        let longest_ms = longest_wait.as_millis();
        checker.wrong(&place.key("first_wait_ms"), format!("more than longest_wait_ms, {longest_ms}"));
    }
    retry::Policy { attempts, same, first_wait, longest_wait, ..default }
}

/// Notes a plan for long requests that takes no longer ones.
fn check_longer(place: &Place, plan: &Plan, longer: &Plan, checker: &mut Checker<'_>) {
    let windows = |plan: &Plan| -> Vec<Option<u64>> {
        plan.deployments().into_iter().map(|deployment| deployment.context_window).collect()
    };
    let Some(most) = windows(plan).into_iter().flatten().max() else { return };
    // one whose window nobody told may have a larger one
    if windows(longer).into_iter().all(|window| window.is_some_and(|window| window <= most)) {
        let what =
            format!("no deployment here has a larger context_window than {most}, the largest of the plan's");
        checker.wrong(place, what);
    }
}
