//! `[deployments.NAME]`: one concrete served model each.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::breaker;
use crate::domain::capability::Capability;
use crate::domain::catalog::{DEFAULT_OUTPUT_TOKENS, Deployment, Hosted, Queue};
use crate::domain::deployment::{usual_capabilities, usual_endpoints};
use crate::domain::endpoint::Endpoint;
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::ids::ModelName;
use crate::domain::model_name;
use crate::domain::price::read::{moment, moment_text};

use super::file;
use super::injections;
use super::limits;
use super::plans::NO_MOMENT;
use super::prices::{self, Known};
use super::problem::{Checker, Place};
use super::providers::Served;
use super::values::{
    NAME_RULE, duration, duration_up_to, header_text, in_range, known, name_is_good, named, per_mille,
    required,
};

/// Most tokens a deployment's cap may say; far beyond any model.
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;
/// Most tokens of a context window; far beyond any model.
const MAX_CONTEXT_TOKENS: u64 = 1_000_000_000;
/// Most requests in a queue: each holds its body.
const MAX_QUEUE: u32 = 100_000;
/// Longest wait in a queue, ms: ten minutes.
const MAX_QUEUE_WAIT_MS: u64 = 600_000;
/// Shortest time between two health checks, ms.
const MIN_HEALTH_CHECK_MS: u64 = 1_000;
/// Members that the gateway itself needs or writes: no deployment goes without.
const NEEDED_MEMBERS: [&str; 8] = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
];
/// Longest name of a member, bytes.
const MAX_MEMBER_BYTES: usize = 64;
const COUNT: RangeInclusive<u32> = 1..=10_000;
const PERCENT: RangeInclusive<u8> = 1..=100;

/// Checks all deployments.
pub(super) fn check(
    file: &file::File,
    served: &BTreeMap<Arc<str>, Served>,
    prices: &Known,
    now_ms: i64,
    checker: &mut Checker<'_>,
) -> BTreeMap<Arc<str>, Arc<Deployment>> {
    let place = Place::top("routing").key("breaker");
    let usual = breaker_policy(&place, &file.routing.breaker, breaker::Policy::default(), checker);
    let mut deployments = BTreeMap::new();
    for (name, written) in &file.deployments {
        if let Some(deployment) = deployment(name, written, file, served, prices, usual, checker) {
            note_retired(&deployment, now_ms, checker);
            deployments.insert(Arc::from(name.as_str()), Arc::new(deployment));
        }
    }
    deployments
}

fn deployment(
    name: &str,
    written: &file::Deployment,
    file: &file::File,
    served: &BTreeMap<Arc<str>, Served>,
    prices: &Known,
    usual: breaker::Policy,
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
    let prompt = injections::injection(&place.key("prompt"), written.prompt.as_ref(), checker);
    let trained = place.key("trained_with");
    let trained_with = injections::trained_with(&trained, written.trained_with.as_ref(), checker);
    let version = place.key("model_version");
    let model_version = injections::model_version(&version, written.model_version.as_deref(), checker);
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
    let direct = direct(&place, written, checker);
    let context_window = written.context_window.map(|tokens| {
        in_range(&place.key("context_window"), Some(tokens), tokens, 1..=MAX_CONTEXT_TOKENS, checker)
    });
    let capabilities = written.capabilities.as_deref().map(|names| {
        let place = place.key("capabilities");
        named(&place, names, &Capability::ALL, Capability::name, "capability", checker)
    });
    let quality = quality(&place, written, checker);
    let retires_at_ms = retires(&place, written, checker);
    let limits = limits::rate_limits(&place.key("limits"), &written.limits, checker);
    let queue = queue(&place, written, checker);
    let unsupported = unsupported(&place, written, checker);
    let breaker = breaker_policy(&place.key("breaker"), &written.breaker, usual, checker);
    let health_check_every = health_check(&place, written, checker);
    let hosted = hosted(&place, written, checker);
    let (served, upstream_model) = (served?, upstream_model?);
    let base_model = written.base_model.clone().filter(|base| !base.trim().is_empty());
    let identity = base_model.as_deref().unwrap_or(&upstream_model);
    let deployment = Deployment {
        name: name.into(),
        provider: Arc::clone(&served.provider),
        reasoning: written.reasoning.unwrap_or_else(|| model_name::makes_unseen_tokens(identity)),
        upstream_model: upstream_model.into(),
        base_model,
        endpoints: written_endpoints.unwrap_or_else(|| usual_endpoints(&served.provider.dialect)),
        max_output_tokens,
        default_output_tokens,
        timeouts: manners.timeouts,
        on_client_gone: manners.on_client_gone,
        drain: manners.drain,
        pricing,
        on_unpriced,
        direct,
        context_window,
        capabilities: capabilities.or_else(|| usual_capabilities(&served.provider.dialect)),
        quality,
        retires_at_ms,
        limits,
        queue,
        unsupported,
        on_unsupported: written.on_unsupported.unwrap_or_default(),
        breaker,
        health_check_every,
        prompt,
        trained_with,
        model_version,
        hosted,
    };
    if deployment.prompt.is_some() && deployment.drops_instructions() {
        checker.wrong(&place.key("prompt"), injections::DROPPED);
    }
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
    named(&place, names, &Endpoint::ALL, Endpoint::name, "endpoint", checker)
}

/// Whether clients may ask for it by its provider's name: unless it is said, for a fine-tuned model, whose name nobody
/// else has.
fn direct(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> bool {
    let model = written.model.as_deref().unwrap_or_default().trim();
    if written.direct == Some(true) && model.contains('*') {
        checker.wrong(&place.key("direct"), "behind a `*` there is no one name to ask for");
        return false;
    }
    let is_one = !model.contains('*') && FineTunedName::parse(model).is_some();
    written.direct.unwrap_or(is_one)
}

fn quality(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Option<u16> {
    let score = per_mille(written.quality?);
    if score.is_none() {
        checker.wrong(&place.key("quality"), "a number from 0 to 1 stands here, with at most three decimals");
    }
    score
}

/// What a deployment costs by standing there goes by.
fn hosted(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Hosted {
    let mut at = |key: &str, text: Option<&String>| {
        let at_ms = moment(text?.trim());
        if at_ms.is_none() {
            checker.wrong(&place.key(key), NO_MOMENT);
        }
        at_ms
    };
    let from_ms = at("hosted_from", written.hosted_from.as_ref());
    let until_ms = at("hosted_until", written.hosted_until.as_ref());
    let sku = header_text(&place.key("sku"), written.sku.as_ref(), checker).map(Arc::from);
    match (from_ms, until_ms) {
        (None, Some(_)) if written.hosted_from.is_none() => {
            checker.wrong(&place.key("hosted_from"), "missing: hosted_until says only when it ended");
        }
        (Some(from), Some(until)) if until <= from => {
            checker.wrong(&place.key("hosted_until"), "not behind hosted_from");
        }
        _ => {}
    }
    let model = written.model.as_deref().unwrap_or_default();
    if written.hosted_from.is_some() && model.contains('*') {
        checker.wrong(&place.key("hosted_from"), "behind a `*` there is no one deployment that stands");
    }
    Hosted { sku, from_ms, until_ms }
}

fn retires(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Option<i64> {
    let at_ms = moment(written.retires.as_deref()?.trim());
    if at_ms.is_none() {
        checker.wrong(&place.key("retires"), NO_MOMENT);
    }
    at_ms
}

fn note_retired(deployment: &Deployment, now_ms: i64, checker: &mut Checker<'_>) {
    if let Some(at_ms) = deployment.retires_at_ms.filter(|at_ms| *at_ms <= now_ms) {
        let place = Place::top("deployments").key(&deployment.name).key("retires");
        checker.notice(&place, format!("it ended on {}: no request is sent there", moment_text(at_ms)));
    }
}

fn queue(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Queue {
    let (place, queue, default) = (place.key("queue"), written.queue, Queue::default());
    if queue != file::Queue::default() && written.limits.concurrent.is_none() {
        checker.wrong(&place, "means nothing without limits.concurrent: nobody waits there");
    }
    let wait_ms = place.key("wait_ms");
    Queue {
        places: in_range(&place.key("places"), queue.places, default.places, 0..=MAX_QUEUE, checker),
        wait: duration_up_to(&wait_ms, queue.wait_ms, default.wait, MAX_QUEUE_WAIT_MS, checker),
    }
}

fn unsupported(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Vec<Box<str>> {
    if written.on_unsupported.is_some() && written.unsupported.is_empty() {
        checker.wrong(&place.key("on_unsupported"), "means nothing without `unsupported`");
    }
    let place = place.key("unsupported");
    let mut found: Vec<Box<str>> = Vec::new();
    for (index, member) in written.unsupported.iter().enumerate() {
        let place = place.index(index);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=MAX_MEMBER_BYTES).contains(&member.len()) || !member.bytes().all(fits) {
            checker.wrong(&place, "a top-level member of requests stands here, such as \"logit_bias\"");
        } else if NEEDED_MEMBERS.contains(&member.as_str()) {
            checker.wrong(&place, format!("{member} can't be left out: no request goes without"));
        } else if found.iter().any(|known| **known == **member) {
            checker.wrong(&place, format!("{member} is listed twice"));
        } else {
            found.push(member.as_str().into());
        }
    }
    found
}

/// The breaker's policy: what is not written is as `default` says.
fn breaker_policy(
    place: &Place,
    written: &file::Breaker,
    default: breaker::Policy,
    checker: &mut Checker<'_>,
) -> breaker::Policy {
    let consecutive = place.key("consecutive_failures");
    let consecutive =
        in_range(&consecutive, written.consecutive_failures, default.consecutive, COUNT, checker);
    let percent = place.key("failure_percent");
    let ratio_percent = in_range(&percent, written.failure_percent, default.ratio_percent, PERCENT, checker);
    let least = in_range(&place.key("least_requests"), written.least_requests, default.least, COUNT, checker);
    let probes = in_range(&place.key("probes"), written.probes, default.probes, COUNT, checker);
    let mut time = |key: &str, ms: Option<u64>, default| duration(&place.key(key), ms, default, checker);
    let window = time("window_ms", written.window_ms, default.window);
    let longest_cooldown = time("longest_cooldown_ms", written.longest_cooldown_ms, default.longest_cooldown);
    let cooldown = time("cooldown_ms", written.cooldown_ms, default.cooldown.min(longest_cooldown));
    let quota_cooldown = time("quota_cooldown_ms", written.quota_cooldown_ms, default.quota_cooldown);
    if cooldown > longest_cooldown {
        let what = format!("more than longest_cooldown_ms, {}", longest_cooldown.as_millis());
        checker.wrong(&place.key("cooldown_ms"), what);
    }
    breaker::Policy {
        consecutive,
        ratio_percent,
        least,
        window,
        cooldown,
        longest_cooldown,
        probes,
        quota_cooldown,
    }
}

fn health_check(place: &Place, written: &file::Deployment, checker: &mut Checker<'_>) -> Option<Duration> {
    let place = place.key("health_check_ms");
    let ms = written.health_check_ms?;
    let default = Duration::from_millis(MIN_HEALTH_CHECK_MS);
    if ms < MIN_HEALTH_CHECK_MS {
        checker.wrong(
            &place,
            format!("{ms} is too often: at least {MIN_HEALTH_CHECK_MS}, or leave it out for none"),
        );
        return None;
    }
    Some(duration(&place, Some(ms), default, checker))
}
