//! What the gateway sees of its upstreams, in the words of OpenTelemetry's GenAI conventions where they have one.

use std::collections::HashSet;
use std::time::Duration;

use prometheus::{CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::buckets;
use super::declare::metrics;
use crate::domain::catalog::{Address, Catalog, Deployment, Dialect, Model};
use crate::domain::endpoint::Endpoint;
use crate::domain::fault::Fault;
use crate::domain::usage::{Usage, UsageSource};

/// The codes of attempts that got no answer, or not all of it (`upstream::UpstreamError::code`).
pub const UNANSWERED: [&str; 4] =
    ["upstream_unreachable", "upstream_auth_failed", "upstream_timeout", "upstream_broke"];
/// What became of the question for a provider's models.
const POLLED: [&str; 4] = ["listed", "refused", "no_list", "unreachable"];
/// The kinds of tokens that are counted, as their labels say.
const CLASSES: [&str; 4] = ["prompt", "cached", "completion", "reasoning"];

metrics! {
    /// Deployments, and the attempts at them.
    pub struct Upstreams {
        /// Seconds of one attempt, from sending to its end; error_type is empty where it went well.
        duration: HistogramVec = "gen_ai_client_operation_duration_seconds" [
            "model", "deployment", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
            "server_address", "error_type"
        ] in buckets::SECONDS;
        /// Seconds from sending to the first event of a stream.
        first_chunk: HistogramVec = "gen_ai_client_operation_time_to_first_chunk_seconds" [
            "model", "deployment", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
            "server_address"
        ] in buckets::CHUNK_SECONDS;
        /// Seconds between two chunks of a stream, behind the first.
        between_chunks: HistogramVec = "gen_ai_client_operation_time_per_output_chunk_seconds" [
            "model", "deployment", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
            "server_address"
        ] in buckets::CHUNK_SECONDS;
        /// Tokens of an answer, as its provider reported them.
        usage: HistogramVec = "gen_ai_client_token_usage" [
            "model", "deployment", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
            "server_address", "gen_ai_token_type"
        ] in buckets::TOKENS;
        /// Tokens by class (cached is part of prompt, reasoning of completion) and by how they are known.
        tokens: IntCounterVec = "tunegate_tokens_total" ["model", "deployment", "class", "source"];
        /// Seconds that workers of ours computed for requests, by how they are known.
        compute: CounterVec = "tunegate_compute_seconds_total" ["deployment", "source"];
        /// Attempts that came to nothing, by deployment and kind.
        errors: IntCounterVec = "tunegate_upstream_errors_total" ["deployment", "kind"];
        /// Requests that were sent to the same deployment again.
        retries: IntCounterVec = "tunegate_retries_total" ["deployment"];
        /// Steps to another deployment of a model's route.
        fallbacks: IntCounterVec = "tunegate_fallbacks_total" ["model"];
        /// Requests that found a deployment and its queue full, or waited there for too long.
        sheds: IntCounterVec = "tunegate_sheds_total" ["deployment"];
        /// Whether a deployment is asked: 0 yes, 1 half open (one probe at a time), 2 open, 3 cooling down.
        breaker: IntGaugeVec = "tunegate_breaker_state" ["deployment"];
        /// Requests that a deployment serves now.
        in_flight: IntGaugeVec = "tunegate_deployment_in_flight" ["deployment"];
        /// Requests in the queue before a deployment.
        waiting: IntGaugeVec = "tunegate_deployment_waiting" ["deployment"];
        /// When a deployment's model ends, seconds since 1970 UTC; not there where nobody knows.
        retirement: IntGaugeVec = "tunegate_deployment_retirement_timestamp_seconds" ["deployment"];
        /// Times that a provider was asked for its list of models, by what came of it.
        polls: IntCounterVec = "tunegate_upstream_polls_total" ["provider", "result"];
        /// 1, with what a deployment is; base is equal for a fine-tuned model and the one it was trained from.
        info: IntGaugeVec = "tunegate_deployment_info" [
            "deployment", "provider", "dialect", "upstream_model", "base", "fine_tuned"
        ];
        /// 1 for each deployment that a model's route may lead to.
        route: IntGaugeVec = "tunegate_route_info" ["model", "deployment"];
    }
}

impl Upstreams {
    pub(super) fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        Self::declared(registry)
    }

    /// Says what the catalog has, and lets its series begin at 0. Histograms are long: those of chat alone begin, and
    /// only while `short`.
    pub(super) fn born(&self, catalog: &Catalog, short: bool) {
        self.info.reset();
        self.route.reset();
        for provider in catalog.providers.keys() {
            for result in POLLED {
                self.polls.with_label_values(&[&**provider, result]);
            }
        }
        for deployment in catalog.deployments.values() {
            self.deployment_born(deployment);
        }
        for model in catalog.models() {
            self.fallbacks.with_label_values(&[model.name.as_str()]);
            for deployment in deployments_of(model) {
                self.pair_born(model.name.as_str(), deployment, short);
            }
        }
    }

    fn deployment_born(&self, deployment: &Deployment) {
        let name = &*deployment.name;
        for kind in UNANSWERED.into_iter().chain(Fault::ALL.map(Fault::code)) {
            self.errors.with_label_values(&[name, kind]);
        }
        self.retries.with_label_values(&[name]);
        self.sheds.with_label_values(&[name]);
        if deployment.provider.dialect == Dialect::Candle {
            self.compute.with_label_values(&[name, UsageSource::Reported.name()]);
        }
        let dialect = deployment.provider.dialect.name();
        let lineage = deployment.lineage();
        let fine_tuned = if lineage.fine_tuned { "true" } else { "false" };
        let provider = &*deployment.provider.name;
        let labels = [name, provider, dialect, &*deployment.upstream_model, lineage.base, fine_tuned];
        self.info.with_label_values(&labels).set(1);
    }

    fn pair_born(&self, model: &str, deployment: &Deployment, short: bool) {
        self.route.with_label_values(&[model, &*deployment.name]).set(1);
        for class in CLASSES {
            let reported = UsageSource::Reported.name();
            self.tokens.with_label_values(&[model, &*deployment.name, class, reported]);
        }
        if short && deployment.endpoints.contains(&Endpoint::ChatCompletions) {
            let labels = Labels::of(model, deployment, Endpoint::ChatCompletions);
            self.duration.with_label_values(&labels.and(""));
            self.first_chunk.with_label_values(&labels.0);
            self.between_chunks.with_label_values(&labels.0);
            self.usage.with_label_values(&labels.and("input"));
            self.usage.with_label_values(&labels.and("output"));
        }
    }

    /// What watches one attempt.
    pub fn operation(
        &self,
        model: &str,
        deployment: &Deployment,
        endpoint: Endpoint,
        stream: bool,
    ) -> Operation {
        let labels = Labels::of(model, deployment, endpoint);
        let between_chunks = stream.then(|| self.between_chunks.with_label_values(&labels.0));
        Operation { between_chunks }
    }

    /// Observes an attempt that is over. `error` is why it failed.
    pub fn over(&self, attempt: &AttemptSeen<'_>) {
        let labels = Labels::of(attempt.model, attempt.deployment, attempt.endpoint);
        let error = attempt.error.unwrap_or_default();
        self.duration.with_label_values(&labels.and(error)).observe(attempt.took.as_secs_f64());
        if let Some(first) = attempt.first_chunk_after {
            self.first_chunk.with_label_values(&labels.0).observe(first.as_secs_f64());
        }
        if let Some(usage) = attempt.usage.filter(|usage| usage.source == UsageSource::Reported) {
            for (kind, tokens) in [("input", usage.tokens.prompt), ("output", usage.tokens.completion)] {
                self.usage.with_label_values(&labels.and(kind)).observe(tokens as f64);
            }
        }
    }

    /// Counts the tokens of one attempt.
    pub fn used(&self, model: &str, deployment: &str, usage: &Usage) {
        let (source, tokens) = (usage.source.name(), usage.tokens);
        let counts = [tokens.prompt, tokens.cached, tokens.completion, tokens.reasoning];
        for (class, count) in CLASSES.into_iter().zip(counts) {
            if count > 0 {
                self.tokens.with_label_values(&[model, deployment, class, source]).inc_by(count);
            }
        }
        if tokens.compute_us > 0 {
            let seconds = Duration::from_micros(tokens.compute_us).as_secs_f64();
            self.compute.with_label_values(&[deployment, source]).inc_by(seconds);
        }
    }

    /// Counts an attempt that came to nothing.
    pub fn failed(&self, deployment: &str, kind: &'static str) {
        self.errors.with_label_values(&[deployment, kind]).inc();
    }

    /// Counts a retry on the same deployment.
    pub fn retried(&self, deployment: &str) {
        self.retries.with_label_values(&[deployment]).inc();
    }

    /// Counts a step to another deployment of a model's route.
    pub fn fell_back(&self, model: &str) {
        self.fallbacks.with_label_values(&[model]).inc();
    }

    /// The counter of requests that found a deployment full.
    pub fn sheds(&self, deployment: &str) -> IntCounter {
        self.sheds.with_label_values(&[deployment])
    }

    /// Says how a deployment stands.
    pub fn stands(&self, deployment: &str, breaker: i64, in_flight: u32, waiting: u32) {
        self.breaker.with_label_values(&[deployment]).set(breaker);
        self.in_flight.with_label_values(&[deployment]).set(in_flight.into());
        self.waiting.with_label_values(&[deployment]).set(waiting.into());
    }

    /// Forgets how all stood: those that have left the catalog are not said again.
    pub fn nobody_stands(&self) {
        for gauge in [&self.breaker, &self.in_flight, &self.waiting] {
            gauge.reset();
        }
    }

    /// Says when models end, ms since 1970 UTC, for all deployments of which that is known.
    pub fn retire<'a>(&self, all: impl Iterator<Item = (&'a str, i64)>) {
        self.retirement.reset();
        for (deployment, at_ms) in all {
            self.retirement.with_label_values(&[deployment]).set(at_ms.div_euclid(1_000));
        }
    }

    /// Counts an answer to the question for a provider's models.
    pub fn polled(&self, provider: &str, result: &'static str) {
        self.polls.with_label_values(&[provider, result]).inc();
    }
}

/// Watches the chunks of one attempt: found once, observed often.
#[derive(Default)]
pub struct Operation {
    between_chunks: Option<Histogram>,
}

impl Operation {
    /// Observes a chunk behind the first.
    pub fn chunk(&self, after: Duration) {
        if let Some(histogram) = &self.between_chunks {
            histogram.observe(after.as_secs_f64());
        }
    }
}

/// An attempt that is over.
#[derive(Debug, Clone, Copy)]
pub struct AttemptSeen<'a> {
    /// The catalog's model.
    pub model: &'a str,
    /// Who was asked.
    pub deployment: &'a Deployment,
    /// What for.
    pub endpoint: Endpoint,
    /// From sending to the end.
    pub took: Duration,
    /// From sending to the first event of a stream.
    pub first_chunk_after: Option<Duration>,
    /// Why it failed: a closed set.
    pub error: Option<&'static str>,
    /// What it used.
    pub usage: Option<&'a Usage>,
}

/// The labels that all `gen_ai_client_*` share, in the order of their declarations.
struct Labels<'a>([&'a str; 6]);

impl<'a> Labels<'a> {
    fn of(model: &'a str, deployment: &'a Deployment, endpoint: Endpoint) -> Self {
        let host = match &deployment.provider.address {
            Address::Host { host, .. } => host,
            Address::Unix(_) => "localhost",
        };
        Self([
            model,
            &deployment.name,
            operation_name(endpoint),
            provider_name(&deployment.provider.dialect),
            &deployment.upstream_model,
            host,
        ])
    }

    fn and(&self, last: &'a str) -> [&'a str; 7] {
        let [a, b, c, d, e, f] = self.0;
        [a, b, c, d, e, f, last]
    }
}

/// The value of `gen_ai.operation.name`. The conventions have none for moderations and scores.
pub const fn operation_name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses => "chat",
        Endpoint::Completions => "text_completion",
        Endpoint::Embeddings => "embeddings",
        Endpoint::Moderations => "moderation",
        Endpoint::Score => "score",
    }
}

/// The value of `gen_ai.provider.name`. The conventions have none for our own worker.
pub const fn provider_name(dialect: &Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi(_) => "openai",
        Dialect::AzureV1(_) | Dialect::AzureClassic(_) => "azure.ai.openai",
        Dialect::Candle => "candle",
    }
}

/// The deployments of all routes of a model, each once.
pub(super) fn deployments_of(model: &Model) -> impl Iterator<Item = &Deployment> {
    let mut seen = HashSet::new();
    let all = model.routes().flat_map(|route| route.deployments.iter());
    all.filter(move |deployment| seen.insert(std::sync::Arc::as_ptr(deployment)))
        .map(|deployment| &**deployment)
}
