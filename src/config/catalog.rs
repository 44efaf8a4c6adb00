//! `[deployments.NAME]` and `[models.NAME]`, put together with the providers into a [`Catalog`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::breaker;
use crate::domain::catalog::{
    Catalog, DEFAULT_OUTPUT_TOKENS, Deployment, Dialect, Model, OnUnsupported, Queue,
};
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::ModelName;
use crate::domain::limit::RateLimits;
use crate::domain::model_name;
use crate::domain::route::Plan;

use super::file;
use super::limits;
use super::prices::{self, Known};
use super::problem::{Checker, Place};
use super::providers::Served;
use super::values::{NAME_RULE, in_range, known, name_is_good, required};

/// Most tokens a deployment's cap may say; far beyond any model.
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;
/// What our own worker answers.
const CANDLE_ENDPOINTS: [Endpoint; 2] = [Endpoint::ChatCompletions, Endpoint::Completions];

/// Checks deployments and models, and puts the catalog together.
pub(super) fn check(
    file: &file::File,
    served: &BTreeMap<Arc<str>, Served>,
    prices: &Known,
    checker: &mut Checker<'_>,
) -> Catalog {
    let mut deployments = BTreeMap::new();
    for (name, written) in &file.deployments {
        if let Some(deployment) = deployment(name, written, file, served, prices, checker) {
            deployments.insert(Arc::from(name.as_str()), Arc::new(deployment));
        }
    }
    let models =
        file.models.iter().filter_map(|(name, written)| model(name, written, file, &deployments, checker));
    let models = models.collect();
    note_unused(file, checker);
    let providers = served.iter().map(|(name, served)| (Arc::clone(name), Arc::clone(&served.provider)));
    Catalog::new(providers.collect(), deployments, models)
}

fn deployment(
    name: &str,
    written: &file::Deployment,
    file: &file::File,
    served: &BTreeMap<Arc<str>, Served>,
    prices: &Known,
    checker: &mut Checker<'_>,
) -> Option<Deployment> {
    let place = Place::top("deployments").key(name);
    if !name_is_good(name) {
        checker.wrong(&place, NAME_RULE);
    }
    let upstream_model = upstream_model(&place, written, checker);
    let provider_name = provider_name(&place, written, file, checker);
    let written_endpoints = written.endpoints.as_deref().map(|names| endpoints(&place, names, checker));
    let max_output_tokens = written.max_output_tokens.map(|tokens| {
        in_range(&place.key("max_output_tokens"), Some(tokens), tokens, 1..=MAX_OUTPUT_TOKENS, checker)
    });
    let default_output_tokens = default_output_tokens(&place, written, checker);
    let served = served.get(provider_name?.as_str());
    let manners = served.map(|served| served.manners).unwrap_or_default().overlaid(
        &place,
        &written.timeouts,
        written.on_client_gone,
        written.drain_ms,
        checker,
    );
    let pricing = prices::of_deployment(&place, name, written, checker);
    let on_unpriced = prices.on_unpriced(&place, written, checker);
    let (served, upstream_model) = (served?, upstream_model?);
    let base_model = written.base_model.clone().filter(|base| !base.trim().is_empty());
    let identity = base_model.as_deref().unwrap_or(&upstream_model);
    let deployment = Deployment {
        name: name.into(),
        provider: Arc::clone(&served.provider),
        reasoning: written.reasoning.unwrap_or_else(|| model_name::makes_unseen_tokens(identity)),
        upstream_model: upstream_model.into(),
        base_model,
        endpoints: written_endpoints.unwrap_or_else(|| default_endpoints(&served.provider.dialect)),
        max_output_tokens,
        default_output_tokens,
        timeouts: manners.timeouts,
        on_client_gone: manners.on_client_gone,
        drain: manners.drain,
        pricing,
        on_unpriced,
        direct: false,
        context_window: None,
        capabilities: None,
        quality: None,
        retires_at_ms: None,
        limits: RateLimits::default(),
        queue: Queue::default(),
        unsupported: Vec::new(),
        on_unsupported: OnUnsupported::default(),
        breaker: breaker::Policy::default(),
        health_check_every: None,
    };
    prices.look_at(&place, &deployment, checker);
    Some(deployment)
}

fn default_output_tokens(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> u64 {
    let place = place.key("default_output_tokens");
    let range = 1..=MAX_OUTPUT_TOKENS;
    let tokens = in_range(&place, written.default_output_tokens, DEFAULT_OUTPUT_TOKENS, range, checker);
    match (written.default_output_tokens, written.max_output_tokens) {
        (Some(default), Some(most)) if default > most => {
            checker.wrong(&place, format!("{default} is more than max_output_tokens, {most}"));
        }
        _ => {}
    }
    tokens
}

fn upstream_model(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Option<String> {
    let place = place.key("model");
    let model = required(&place, written.model.as_ref(), "the provider's own name of the model", checker)?;
    if model.matches('*').count() > 1 {
        checker.wrong(&place, "more than one `*`: one stands for what the asked name's pattern matched");
        return None;
    }
    match ModelName::parse(&model) {
        Ok(_) => Some(model),
        Err(error) => {
            checker.wrong(&place, error);
            None
        }
    }
}

/// The provider's name, if there is such a provider, be it right or wrong in itself.
fn provider_name(
    place: &Place,
    written: &file::Deployment,
    file: &file::File,
    checker: &mut Checker<'_>,
) -> Option<String> {
    let place = place.key("provider");
    let name = required(&place, written.provider.as_ref(), "the name of one of [providers]", checker)?;
    if !file.providers.contains_key(&name) {
        checker.wrong(&place, format!("there is no [providers.{name}]: {}", known(file.providers.keys())));
        return None;
    }
    Some(name)
}

fn endpoints(place: &Place, names: &[String], checker: &mut Checker<'_>) -> Vec<Endpoint> {
    let place = place.key("endpoints");
    if names.is_empty() {
        checker.wrong(&place, "an empty list serves nothing: leave the key out for all");
    }
    let mut found: Vec<Endpoint> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name) {
            None => {
                let all = known(Endpoint::ALL.iter().map(|endpoint| endpoint.name()));
                checker.wrong(&place.index(index), format!("{name:?} is no endpoint: {all}"));
            }
            Some(endpoint) if found.contains(&endpoint) => {
                checker.wrong(&place.index(index), format!("{name} is listed twice"));
            }
            Some(endpoint) => found.push(endpoint),
        }
    }
    found
}

fn default_endpoints(dialect: &Dialect) -> Vec<Endpoint> {
    match dialect {
        Dialect::Candle => CANDLE_ENDPOINTS.to_vec(),
        Dialect::OpenAi(_) | Dialect::AzureV1(_) | Dialect::AzureClassic(_) => Endpoint::ALL.to_vec(),
    }
}

fn model(
    name: &str,
    written: &file::Model,
    file: &file::File,
    deployments: &BTreeMap<Arc<str>, Arc<Deployment>>,
    checker: &mut Checker<'_>,
) -> Option<Model> {
    let place = Place::top("models").key(name);
    let parsed = match ModelName::parse(name) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            checker.wrong(&place, error);
            None
        }
    };
    if name.trim_end_matches('*').contains('*') || name.ends_with("**") {
        checker.wrong(&place, "a pattern has one `*`, at its end");
    }
    let place = place.key("deployments");
    if written.deployments.is_empty() {
        checker.wrong(&place, "missing: name at least one of [deployments]");
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (index, deployment) in written.deployments.iter().enumerate() {
        let place = place.index(index);
        let Some(section) = file.deployments.get(deployment) else {
            checker.wrong(
                &place,
                format!("there is no [deployments.{deployment}]: {}", known(file.deployments.keys())),
            );
            continue;
        };
        if !seen.insert(deployment) {
            checker.wrong(&place, format!("{deployment} is listed twice"));
        }
        if section.model.as_ref().is_some_and(|model| model.contains('*')) && !name.ends_with('*') {
            checker.wrong(
                &place,
                format!("{deployment} needs what a pattern's `*` matched, but this model's name has none"),
            );
        }
        found.extend(deployments.get(deployment.as_str()).map(Arc::clone));
    }
    let limits = limits::rate_limits(&Place::top("models").key(name).key("limits"), &written.limits, checker);
    let plan = Plan::Ordered(found.into_iter().map(Plan::To).collect());
    Some(Model { limits, ..Model::plain(parsed?, plan) })
}

fn note_unused(file: &file::File, checker: &mut Checker<'_>) {
    let used: BTreeSet<&String> = file.models.values().flat_map(|model| &model.deployments).collect();
    for name in file.deployments.keys().filter(|name| !used.contains(name)) {
        checker.notice(&Place::top("deployments").key(name), "no model leads here");
    }
}
