//! `[cache]`, and `cache` of a model: whose answers are kept, for whom and for how long.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::cache::{Policy, Scope, Semantic};
use crate::domain::catalog::{Deployment, Model};
use crate::domain::endpoint::Endpoint;
use crate::domain::route::Route;
use crate::gateway::answers;
use crate::upstream::worker;

use super::file;
use super::problem::{Checker, Place};
use super::values::{duration_up_to, in_range};

/// All kept answers together, bytes: up to a TiB.
const ALL_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// One answer, bytes: up to what is read of any.
const ANSWER_BYTES: RangeInclusive<u64> = 1 << 10..=64 << 20;
/// How long an answer is kept, s: up to 31 days.
const TTL_S: RangeInclusive<u64> = 1..=31 * 86_400;
/// Below this two questions have little to do with each other.
const THRESHOLD: RangeInclusive<f64> = 0.5..=1.0;
const DEFAULT_TTL_S: u64 = 3_600;
const DEFAULT_THRESHOLD: f64 = 0.92;
const DEFAULT_EMBED_TIMEOUT: Duration = Duration::from_millis(50);
/// Longest wait for an embedding, ms: beyond it, asking the model is nearly as quick.
const MAX_EMBED_MS: u64 = 1_000;

/// Checks `[cache]`: how much is kept, and how long an embedding is waited for.
pub(super) fn check(section: &file::Cache, checker: &mut Checker<'_>) -> (answers::Config, Duration) {
    let place = Place::top("cache");
    let default = answers::Config::default();
    let all = in_range(&place.key("max_bytes"), section.max_bytes, default.max_bytes, ALL_BYTES, checker);
    let answer_place = place.key("max_answer_bytes");
    let usual = default.max_answer_bytes.min(all);
    let answer = in_range(&answer_place, section.max_answer_bytes, usual, ANSWER_BYTES, checker);
    if answer > all {
        checker.wrong(&answer_place, format!("more than max_bytes, {all}"));
    }
    let wait = place.key("embed_timeout_ms");
    let wait = duration_up_to(&wait, section.embed_timeout_ms, DEFAULT_EMBED_TIMEOUT, MAX_EMBED_MS, checker);
    (answers::Config { max_bytes: all, max_answer_bytes: answer }, wait)
}

/// Has all routes of a model keep answers so.
pub(super) fn keep(place: &Place, policy: Policy, model: &mut Model, checker: &mut Checker<'_>) {
    let policy = Arc::new(policy);
    let aside = model.longer_context.iter_mut().chain(&mut model.content_filtered);
    for route in std::iter::once(&mut model.route).chain(model.labels.values_mut()).chain(aside) {
        Arc::make_mut(route).cache = Some(Arc::clone(&policy));
    }
    notice(place, &policy, &model.route, checker);
}

/// Checks `cache` of a model.
pub(super) fn policy(place: &Place, written: &file::ModelCache, checker: &mut Checker<'_>) -> Policy {
    let ttl_s = in_range(&place.key("ttl_s"), written.ttl_s, DEFAULT_TTL_S, TTL_S, checker);
    let semantic = written.semantic.as_ref().map(|semantic| {
        let place = place.key("semantic").key("threshold");
        let threshold = in_range(&place, semantic.threshold, DEFAULT_THRESHOLD, THRESHOLD, checker);
        Semantic { threshold_per_mille: per_mille(threshold), shadow: semantic.shadow.unwrap_or_default() }
    });
    Policy {
        ttl: Duration::from_secs(ttl_s),
        scope: written.scope.unwrap_or_default(),
        any_temperature: written.any_temperature.unwrap_or_default(),
        tool_calls: written.tool_calls.unwrap_or_default(),
        joiners: written.joiners.unwrap_or_default(),
        semantic,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a checked threshold is from 0.5 to 1"
)]
fn per_mille(threshold: f64) -> u16 {
    (threshold * 1_000.0).round() as u16
}

/// Says what an operator may not expect of a cache.
fn notice(place: &Place, policy: &Policy, route: &Route, checker: &mut Checker<'_>) {
    let drawn = |endpoint: &Endpoint| !matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations);
    let deployments = &route.deployments;
    if !policy.any_temperature && deployments.iter().all(|one| one.endpoints.iter().all(drawn)) {
        let refuses = |one: &Deployment| one.unsupported.iter().any(|name| **name == *"temperature");
        let never = deployments.iter().all(|one| one.reasoning || refuses(one));
        checker.notice(
            place,
            match never {
                true => {
                    "it can never hit: only requests with temperature 0 are kept, and its models take none; set \
                     any_temperature = true"
                }
                false => {
                    "only requests with temperature 0 are kept (without one it is 1); set any_temperature = true to \
                     keep all"
                }
            },
        );
    }
    if policy.scope == Scope::Shared {
        checker.notice(&place.key("scope"), "what one team asked is answered to all others");
    }
    if policy.semantic.is_some() {
        let what = "all-MiniLM-L6-v2 knows English only: questions in other languages are compared badly";
        checker.notice(&place.key("semantic"), what);
    }
}

/// Refuses to compare questions where nothing can: the worker makes the vectors.
pub(super) fn check_worker(file: &file::File, worker: Option<&worker::Config>, checker: &mut Checker<'_>) {
    if worker.is_some_and(|worker| worker.embedding.is_some()) {
        return;
    }
    for (name, model) in &file.models {
        if model.cache.as_ref().is_some_and(|cache| cache.semantic.is_some()) {
            let place = Place::top("models").key(name).key("cache").key("semantic");
            checker.wrong(
                &place,
                "needs the local worker and its worker.embedding_model: `make model` fetches it",
            );
        }
    }
}
