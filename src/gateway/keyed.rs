//! What a request's answer is kept under, and how a kept answer is told in the way that a request asks for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::answers::{Kept, KeptBody};
use super::inference::Gateway;
use super::prepare::Prepared;
use crate::clock;
use crate::domain::cache::key::{CacheKey, KeyedOn, Tenant, cache_key};
use crate::domain::cache::{Bypass, Policy, Scope, eligible, replay};
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::money::Usd;
use crate::domain::request::InferenceRequest;
use crate::domain::stream::StreamReader;

static BETA: HeaderName = HeaderName::from_static("openai-beta");

/// A request that the cache may serve.
#[derive(Clone)]
pub(super) struct Keyed {
    pub(super) key: CacheKey,
    pub(super) policy: Arc<Policy>,
    /// Whether no kept answer will do.
    pub(super) fresh: bool,
    /// Whether its answer is kept.
    pub(super) keeps: bool,
    /// Whether it asked for that, and not its key's terms.
    pub(super) no_store: bool,
    pub(super) max_age: Option<Duration>,
    pub(super) ttl: Duration,
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    pub(super) usage_asked: bool,
    pub(super) model: Arc<str>,
}

impl Gateway {
    /// What a request's answer is kept under; or why the cache leaves it alone.
    pub(super) fn keyed(&self, prepared: &Prepared) -> Result<Keyed, Bypass> {
        let policy = prepared.resolved.route.cache.as_ref();
        let (request, wish) = (prepared.forms.asked(), &prepared.wish);
        let used = prepared.admitted.key.terms.cache;
        let access = eligible::check(request, policy.map(AsRef::as_ref), used, wish)?;
        let (Some(policy), Some(first)) = (policy, prepared.order.first()) else { return Err(Bypass::Off) };
        let Some(key) = self.key_on(prepared, &first.deployment) else { return Err(Bypass::Off) };
        Ok(Keyed {
            key,
            policy: Arc::clone(policy),
            fresh: !access.find,
            keeps: access.keep,
            no_store: wish.no_store,
            max_age: wish.max_age,
            ttl: wish.ttl.map_or(policy.ttl, |ttl| ttl.min(policy.ttl)),
            endpoint: request.endpoint,
            stream: request.stream,
            usage_asked: request.usage_asked,
            model: Arc::clone(&prepared.attribution.model),
        })
    }

    /// What the answer of a deployment is kept under.
    pub(super) fn key_on(&self, prepared: &Prepared, deployment: &Arc<Deployment>) -> Option<CacheKey> {
        self.on(prepared, deployment, cache_key)
    }

    /// What is found out about a request and all that its answer by a deployment depends on.
    pub(super) fn on<T>(
        &self,
        prepared: &Prepared,
        deployment: &Arc<Deployment>,
        find: impl FnOnce(&InferenceRequest, &KeyedOn<'_>) -> T,
    ) -> Option<T> {
        let policy = prepared.resolved.route.cache.as_ref()?;
        let form = prepared.forms.of(deployment).ok()?;
        let upstream_model = prepared.resolved.upstream_model(deployment);
        let wanted = prepared.wanted(&form, deployment, &upstream_model);
        let on = KeyedOn {
            asked: prepared.forms.asked(),
            tenant: tenant(policy.scope, prepared),
            namespace: prepared.wish.namespace.as_deref(),
            deployment,
            upstream_model: &upstream_model,
            prompt: form.put.as_ref().map(|put| &**put.words.prompt()),
            default_cap: self.money.default_cap(wanted, clock::unix_ms()),
            beta: prepared.headers.iter().find(|(name, _)| *name == BETA).map(|(_, value)| value.as_bytes()),
            model: &prepared.attribution.model,
        };
        Some(find(&form.request, &on))
    }
}

impl Keyed {
    /// How old a kept answer may be: as the request says, and as the model says now.
    pub(super) fn oldest(&self) -> Option<Duration> {
        Some(self.max_age.map_or(self.policy.ttl, |asked| asked.min(self.policy.ttl)))
    }

    /// Whether the usage chunk of its stream is only ours.
    pub(super) const fn withholds_usage(&self) -> bool {
        self.stream && !self.usage_asked && self.endpoint.usage_on_request()
    }
}

/// A kept answer in the way that a request asks for: whole or as a stream, and its kind of content.
pub(super) fn body_for(keyed: &Keyed, kept: &Kept, cost: Usd) -> Option<(Bytes, HeaderValue)> {
    if !keyed.stream {
        let whole = match &kept.body {
            KeptBody::Whole(whole) => whole.clone(),
            KeptBody::Stream(events) => replay::whole_of(keyed.endpoint, events)?,
        };
        return Some((whole, HeaderValue::from_static("application/json")));
    }
    let events = match &kept.body {
        KeptBody::Stream(events) => events.clone(),
        KeptBody::Whole(whole) => replay::stream_of(keyed.endpoint, whole)?,
    };
    let mut reader = StreamReader::new(keyed.endpoint, keyed.withholds_usage()).paid(cost);
    let (events, rest) = (reader.push(events), reader.finish());
    let events = if rest.is_empty() { events } else { [events, rest].concat().into() };
    Some((events, HeaderValue::from_static("text/event-stream; charset=utf-8")))
}

/// Whether a whole answer can be told as a stream, or a stream as a whole answer.
pub(super) fn can_be_told_otherwise(endpoint: Endpoint, kept: &Kept) -> bool {
    match &kept.body {
        KeptBody::Whole(whole) => replay::stream_of(endpoint, whole).is_some(),
        KeptBody::Stream(events) => replay::whole_of(endpoint, events).is_some(),
    }
}

fn tenant(scope: Scope, prepared: &Prepared) -> Tenant<'_> {
    match (scope, &prepared.admitted.team) {
        (Scope::Shared, _) => Tenant::Shared,
        (Scope::Team, Some(team)) => Tenant::Team(&team.id),
        // nobody else is of its team
        (Scope::Key | Scope::Team, _) => Tenant::Key(&prepared.admitted.key.id),
    }
}
