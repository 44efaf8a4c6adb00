//! What the response cache does, and what it leaves alone.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::buckets;
use super::declare::metrics;
use crate::domain::cache::keep::NotKept;
use crate::domain::cache::{Bypass, CacheResult};
use crate::domain::catalog::Model;

/// Why a kept answer goes.
const EVICTED: [&str; 4] = ["size", "expired", "purged", "replaced"];
/// What comes of looking for a question that means the same.
const LOOKED: [&str; 5] = ["served", "shadow", "below", "empty", "failed"];
/// The codes of embeddings that fail (`upstream::embedder::EmbedError::code`).
const EMBED_FAILURES: [&str; 5] = ["away", "late", "busy", "too_long", "refused"];

metrics! {
    /// Answers that are kept, and requests that share one.
    pub struct Cache {
        /// Requests by what the response cache did for them.
        requests: IntCounterVec = "tunegate_cache_requests_total" ["model", "result"];
        /// Requests that the cache was left alone for, by the reason.
        bypasses: IntCounterVec = "tunegate_cache_bypasses_total" ["model", "reason"];
        /// Bytes of all kept answers.
        bytes: IntGauge = "tunegate_cache_bytes";
        /// The bound of those bytes.
        limit: IntGauge = "tunegate_cache_limit_bytes";
        /// Answers that are kept.
        entries: IntGauge = "tunegate_cache_entries";
        /// Kept answers that went, by the cause.
        evictions: IntCounterVec = "tunegate_cache_evictions_total" ["cause"];
        /// Answers that might be kept, by whether they were, and why not.
        stores: IntCounterVec = "tunegate_cache_stores_total" ["result"];
        /// Age of answers when they were served from the cache, seconds.
        age: Histogram = "tunegate_cache_age_seconds" in buckets::AGE_SECONDS;
        /// Upstream calls under way that equal requests may share.
        pub flights: IntGauge = "tunegate_cache_flights";
        /// Requests that wait for such a call of another, or follow its answer.
        pub followers: IntGauge = "tunegate_cache_followers";
        /// Such calls that failed before their first byte.
        flights_failed: IntCounter = "tunegate_cache_flights_failed_total";
        /// Searches for a kept answer to a question that means the same, by what came of them.
        lookups: IntCounterVec = "tunegate_semantic_lookups_total" ["model", "result"];
        /// Similarity (cosine) of the nearest kept question, of searches that found one.
        similarity: HistogramVec = "tunegate_semantic_similarity" ["model"] in buckets::SIMILARITY;
        /// Seconds until the worker had made a vector of a question.
        embedding: Histogram = "tunegate_semantic_embed_duration_seconds" in buckets::EMBED_SECONDS;
        /// Questions that no vector was made of in time, by the code of the error.
        embed_failures: IntCounterVec = "tunegate_semantic_failures_total" ["code"];
        /// Questions that are kept to be compared with.
        questions: IntGauge = "tunegate_semantic_entries";
    }
}

impl Cache {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let cache = Self::declared(registry)?;
        for cause in EVICTED {
            cache.evictions.with_label_values(&[cause]);
        }
        for result in std::iter::once("kept").chain(NotKept::ALL.map(NotKept::name)) {
            cache.stores.with_label_values(&[result]);
        }
        for code in EMBED_FAILURES {
            cache.embed_failures.with_label_values(&[code]);
        }
        Ok(cache)
    }

    /// Lets the series of a model begin at 0: all where one of its routes keeps answers, else only that it keeps none.
    pub(super) fn born(&self, model: &Model) {
        let name = model.name.as_str();
        let mut policies = model.routes().filter_map(|route| route.cache.as_deref()).peekable();
        if policies.peek().is_none() {
            self.requests.with_label_values(&[name, CacheResult::Bypass(Bypass::Off).name()]);
            self.bypasses.with_label_values(&[name, Bypass::Off.name()]);
            return;
        }
        for result in CacheResult::NAMES {
            self.requests.with_label_values(&[name, result]);
        }
        for reason in Bypass::ALL.map(Bypass::name) {
            self.bypasses.with_label_values(&[name, reason]);
        }
        if policies.any(|policy| policy.semantic.is_some()) {
            for result in LOOKED {
                self.lookups.with_label_values(&[name, result]);
            }
            self.similarity.with_label_values(&[name]);
        }
    }

    /// Counts a request by what the cache did for it; `model` is the catalog's.
    pub fn answered(&self, model: &str, result: CacheResult) {
        self.requests.with_label_values(&[model, result.name()]).inc();
        if let CacheResult::Bypass(reason) = result {
            self.bypasses.with_label_values(&[model, reason.name()]).inc();
        }
    }

    /// Observes how old an answer was that was served from the cache.
    pub fn served_at_age(&self, age: Duration) {
        self.age.observe(age.as_secs_f64());
    }

    /// Counts an answer that might be kept: `kept`, or why it was not.
    pub fn stored(&self, result: &'static str) {
        self.stores.with_label_values(&[result]).inc();
    }

    /// Counts a kept answer that went.
    pub fn evicted(&self, cause: &'static str) {
        self.evictions.with_label_values(&[cause]).inc();
    }

    /// Says how much is kept.
    pub fn holds(&self, bytes: u64, entries: u64) {
        self.bytes.set(gauge_of(bytes));
        self.entries.set(gauge_of(entries));
    }

    /// Says how many bytes may be kept.
    pub fn limit(&self, bytes: u64) {
        self.limit.set(gauge_of(bytes));
    }

    /// Counts a shared call that failed before its first byte.
    pub fn flight_failed(&self) {
        self.flights_failed.inc();
    }

    /// Counts a search for a question that means the same, and how near the nearest was, if there was one.
    pub fn looked(&self, model: &str, result: &'static str, similarity: Option<f32>) {
        self.lookups.with_label_values(&[model, result]).inc();
        if let Some(similarity) = similarity {
            // a cosine may round to a hair above 1
            self.similarity.with_label_values(&[model]).observe(f64::from(similarity.min(1.0)));
        }
    }

    /// Observes how long an embedding took.
    pub fn embedded(&self, took: Duration) {
        self.embedding.observe(took.as_secs_f64());
    }

    /// Counts an embedding that failed or came too late.
    pub fn embed_failed(&self, code: &'static str) {
        self.embed_failures.with_label_values(&[code]).inc();
    }

    /// Says how many questions are kept to be compared with.
    pub fn semantic_entries(&self, entries: u64) {
        self.questions.set(gauge_of(entries));
    }
}

fn gauge_of(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::cache::{Joiners, Policy, Scope, Semantic};
    use crate::domain::catalog::tests::deployment;
    use crate::domain::ids::ModelName;
    use crate::domain::route::{Plan, Route};

    fn route(policy: Option<Policy>) -> Arc<Route> {
        let plain = Route::new(Plan::To(deployment("d", "gpt-4.1")));
        Arc::new(Route { cache: policy.map(Arc::new), ..plain })
    }

    fn model(cache: Option<Policy>, of_candidate: Option<Policy>) -> Model {
        let name = ModelName::parse("bot").expect("a name");
        let plain = Model::plain(name, Plan::To(deployment("d", "gpt-4.1")));
        let labels = BTreeMap::from([(Arc::from("candidate"), route(of_candidate))]);
        Model { route: route(cache), labels, ..plain }
    }

    #[test]
    fn a_model_has_the_series_that_its_routes_can_feed() {
        let plain = Policy {
            ttl: Duration::from_secs(60),
            scope: Scope::Team,
            any_temperature: false,
            tool_calls: false,
            joiners: Joiners::Free,
            semantic: None,
        };
        let semantic =
            Policy { semantic: Some(Semantic { threshold_per_mille: 920, shadow: true }), ..plain };
        let series = |cache, of_candidate| {
            let registry = Registry::new();
            Cache::new(&registry).expect("declared").born(&model(cache, of_candidate));
            let of = |name: &str| {
                let families = registry.gather();
                let family = families.iter().find(|family| family.name() == name);
                family.map_or(0, |family| family.get_metric().len())
            };
            [
                of("tunegate_cache_requests_total"),
                of("tunegate_cache_bypasses_total"),
                of("tunegate_semantic_lookups_total"),
                of("tunegate_semantic_similarity"),
            ]
        };
        assert_eq!(series(None, None), [1, 1, 0, 0]);
        assert_eq!(series(Some(plain.clone()), None), [5, 9, 0, 0]);
        assert_eq!(series(None, Some(plain.clone())), [5, 9, 0, 0]);
        assert_eq!(series(Some(plain), Some(semantic)), [5, 9, 5, 1]);
    }
}
