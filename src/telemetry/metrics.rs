//! Every metric, declared once. Labels come from closed enums or from the catalog, never from a client's text.

use prometheus::{Encoder, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{Ending, Outcome};

/// The metrics of this process.
pub struct Metrics {
    registry: Registry,
    /// Requests by endpoint and by how they ended.
    requests: IntCounterVec,
    /// Tokens by deployment, class (prompt, cached, completion, reasoning) and source.
    tokens: IntCounterVec,
    /// Requests to deployments whose price nobody knows.
    unpriced: IntCounterVec,
    /// Refusals by code.
    refusals: IntCounterVec,
    /// Errors of upstreams by deployment and kind.
    upstream_errors: IntCounterVec,
    /// Requests being served now.
    pub in_flight: IntGauge,
    /// Starts of the local worker.
    pub worker_starts: IntGauge,
}

impl Metrics {
    /// All metrics, registered, with the series of closed labels born at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let requests = counter(
            "tunegate_requests_total",
            "Requests by endpoint and by how they ended.",
            &["endpoint", "ending"],
        )?;
        let tokens = counter(
            "tunegate_tokens_total",
            "Tokens by deployment, class (cached is part of prompt, reasoning of completion) and source.",
            &["deployment", "class", "source"],
        )?;
        let unpriced = counter(
            "tunegate_unpriced_requests_total",
            "Requests for deployments whose price is not known, whatever became of them.",
            &["deployment"],
        )?;
        let refusals = counter(
            "tunegate_refusals_total",
            "Requests that got an error of ours, by its code.",
            &["code"],
        )?;
        let upstream_errors = counter(
            "tunegate_upstream_errors_total",
            "Errors of upstreams by deployment and kind.",
            &["deployment", "kind"],
        )?;
        let in_flight = gauge("tunegate_in_flight_requests", "Requests being served now.")?;
        let worker_starts =
            gauge("tunegate_worker_starts", "Starts of the local worker since this process began.")?;
        let build = IntCounterVec::new(
            Opts::new("tunegate_build_info", "1, with the version as a label."),
            &["version"],
        )?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).inc();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        for endpoint in Endpoint::ALL {
            for ending in Ending::ALL {
                requests.with_label_values(&[endpoint.name(), ending.name()]);
            }
        }
        Ok(Self { registry, requests, tokens, unpriced, refusals, upstream_errors, in_flight, worker_starts })
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: &Outcome) {
        let endpoint = if outcome.endpoint.is_empty() { "other" } else { outcome.endpoint };
        self.requests.with_label_values(&[endpoint, outcome.ending.name()]).inc();
        if let Some(code) = outcome.code {
            self.refusals.with_label_values(&[code]).inc();
        }
        if let (Some(deployment), Some(usage)) = (&outcome.deployment, &outcome.usage) {
            let source = usage.source.name();
            let tokens = usage.tokens;
            for (class, count) in [
                ("prompt", tokens.prompt),
                ("cached", tokens.cached),
                ("completion", tokens.completion),
                ("reasoning", tokens.reasoning),
            ] {
                if count > 0 {
                    self.tokens.with_label_values(&[&**deployment, class, source]).inc_by(count);
                }
            }
        }
    }

    /// Counts a request for a deployment whose price is not known.
    pub fn unpriced(&self, deployment: &str) {
        self.unpriced.with_label_values(&[deployment]).inc();
    }

    /// Counts an upstream's error.
    pub fn upstream_failed(&self, deployment: &str, kind: &'static str) {
        self.upstream_errors.with_label_values(&[deployment, kind]).inc();
    }

    /// The text that Prometheus reads, version 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // writing into memory fails only where a metric is malformed, which registering has ruled out
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}
