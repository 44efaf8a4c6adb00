//! Every metric, declared once. Labels come from closed enums or from the catalog, never from a client's text.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::domain::endpoint::Endpoint;
use crate::domain::ledger::Entry;
use crate::domain::outcome::{Ending, Outcome};
use crate::domain::usage::{Usage, UsageSource};

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
    /// Entries written into the ledger.
    ledger_entries: IntCounter,
    /// Times that another process had written first.
    pub ledger_conflicts: IntCounter,
    /// Times that the ledger could not be written.
    pub ledger_failures: IntCounter,
    /// Bookings without money that were given up while the database was away.
    pub ledger_dropped: IntCounter,
    /// Alerts that nobody was told of, because too many came.
    pub alerts_dropped: IntCounter,
    /// Alerts that the webhook could not be told of.
    pub webhook_failures: IntCounter,
    /// Thresholds of budgets that were reached, by percent.
    budget_alerts: IntCounterVec,
    /// Money spent, nano-dollars, by deployment, purpose and how the tokens are known.
    spent_nanos: IntCounterVec,
    /// Bills beyond what was held, by deployment.
    overshoots: IntCounterVec,
    /// How far they were beyond it, nano-dollars, by deployment.
    overshoot_nanos: IntCounterVec,
    /// Requests that found a deployment full.
    sheds: IntCounterVec,
    /// Requests that were sent to the same deployment again.
    retries: IntCounterVec,
    /// Steps to another deployment, by the catalog's model.
    fallbacks: IntCounterVec,
    /// How its breaker stands, by deployment.
    breaker_state: IntGaugeVec,
    /// Requests being served, by deployment.
    deployment_in_flight: IntGaugeVec,
    /// Requests in the queue, by deployment.
    deployment_waiting: IntGaugeVec,
    /// When a deployment's model ends, by deployment.
    retirement: IntGaugeVec,
    /// Times that a provider was asked for its list of models, by provider and result.
    upstream_polls: IntCounterVec,
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
        let retries = counter(
            "tunegate_retries_total",
            "Requests that were sent to the same deployment again.",
            &["deployment"],
        )?;
        let fallbacks = counter(
            "tunegate_fallbacks_total",
            "Steps to another deployment of a model's route.",
            &["model"],
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
        let sheds = counter(
            "tunegate_sheds_total",
            "Requests that found a deployment and its queue full, or waited there for too long.",
            &["deployment"],
        )?;
        let by_deployment = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["deployment"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let breaker_state = by_deployment(
            "tunegate_breaker_state",
            "Whether a deployment is asked: 0 yes, 1 half open (one probe at a time), 2 open, 3 cooling down.",
        )?;
        let deployment_in_flight =
            by_deployment("tunegate_deployment_in_flight", "Requests that a deployment serves now.")?;
        let deployment_waiting =
            by_deployment("tunegate_deployment_waiting", "Requests in the queue before a deployment.")?;
        let retirement = by_deployment(
            "tunegate_deployment_retirement_timestamp_seconds",
            "When a deployment's model ends, seconds since 1970 UTC; not there where nobody knows.",
        )?;
        let upstream_polls = counter(
            "tunegate_upstream_polls_total",
            "Times that a provider was asked for its list of models, by what came of it.",
            &["provider", "result"],
        )?;
        let in_flight = gauge("tunegate_in_flight_requests", "Requests being served now.")?;
        let worker_starts =
            gauge("tunegate_worker_starts", "Starts of the local worker since this process began.")?;
        let plain = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let ledger_entries = plain("tunegate_ledger_entries_total", "Entries written into the ledger.")?;
        let ledger_conflicts = plain(
            "tunegate_ledger_conflicts_total",
            "Times that another process had written the ledger first, and all was decided again.",
        )?;
        let ledger_failures =
            plain("tunegate_ledger_failures_total", "Times that the ledger could not be written or read.")?;
        let ledger_dropped = plain(
            "tunegate_ledger_dropped_total",
            "Bookings without money that were given up while the database was away.",
        )?;
        let alerts_dropped =
            plain("tunegate_alerts_dropped_total", "Alerts that nobody was told of, because too many came.")?;
        let webhook_failures = plain(
            "tunegate_webhook_failures_total",
            "Alerts that the webhook could not be told of, however often it was tried.",
        )?;
        let budget_alerts = counter(
            "tunegate_budget_alerts_total",
            "Thresholds that spending has reached, by percent of a budget's limit.",
            &["percent"],
        )?;
        let spent_nanos = counter(
            "tunegate_spent_nanodollars_total",
            "Money spent as the ledger has it, 1e-9 USD; corrections downwards are not in it.",
            &["deployment", "purpose", "source"],
        )?;
        let overshoots = counter(
            "tunegate_overshoots_total",
            "Bills of a provider beyond the upper bound that was held.",
            &["deployment"],
        )?;
        let overshoot_nanos = counter(
            "tunegate_overshoot_nanodollars_total",
            "How far those bills were beyond it, 1e-9 USD.",
            &["deployment"],
        )?;
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
        Ok(Self {
            registry,
            requests,
            tokens,
            unpriced,
            refusals,
            upstream_errors,
            in_flight,
            worker_starts,
            ledger_entries,
            ledger_conflicts,
            ledger_failures,
            ledger_dropped,
            alerts_dropped,
            webhook_failures,
            budget_alerts,
            spent_nanos,
            overshoots,
            overshoot_nanos,
            sheds,
            retries,
            fallbacks,
            breaker_state,
            deployment_in_flight,
            deployment_waiting,
            retirement,
            upstream_polls,
        })
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: &Outcome) {
        let endpoint = if outcome.endpoint.is_empty() { "other" } else { outcome.endpoint };
        self.requests.with_label_values(&[endpoint, outcome.ending.name()]).inc();
        if let Some(code) = outcome.code {
            self.refusals.with_label_values(&[code]).inc();
        }
    }

    /// Counts the tokens of one attempt.
    pub fn used(&self, deployment: &str, usage: &Usage) {
        let (source, tokens) = (usage.source.name(), usage.tokens);
        for (class, count) in [
            ("prompt", tokens.prompt),
            ("cached", tokens.cached),
            ("completion", tokens.completion),
            ("reasoning", tokens.reasoning),
        ] {
            if count > 0 {
                self.tokens.with_label_values(&[deployment, class, source]).inc_by(count);
            }
        }
    }

    /// Counts a retry on the same deployment.
    pub fn retried(&self, deployment: &str) {
        self.retries.with_label_values(&[deployment]).inc();
    }

    /// Counts a step to another deployment of a model's route.
    pub fn fell_back(&self, model: &str) {
        self.fallbacks.with_label_values(&[model]).inc();
    }

    /// Counts a request for a deployment whose price is not known.
    pub fn unpriced(&self, deployment: &str) {
        self.unpriced.with_label_values(&[deployment]).inc();
    }

    /// Counts entries that are durable.
    pub fn ledger_wrote(&self, entries: usize) {
        self.ledger_entries.inc_by(entries as u64);
    }

    /// Counts what an entry spends.
    pub fn booked(&self, entry: &Entry) {
        let on = &entry.attribution;
        let source = entry.source.map_or("other", UsageSource::name);
        let labels = [&*on.deployment, on.purpose.name(), source];
        let spent = u64::try_from(entry.spends().nanos()).unwrap_or(0);
        self.spent_nanos.with_label_values(&labels).inc_by(spent);
    }

    /// Counts a threshold of a budget that was reached.
    pub fn budget_crossed(&self, percent: u8) {
        self.budget_alerts.with_label_values(&[percent.to_string()]).inc();
    }

    /// Counts a bill beyond what was held.
    pub fn overshot(&self, entry: &Entry) {
        let labels = [&*entry.attribution.deployment];
        self.overshoots.with_label_values(&labels).inc();
        let beyond = u64::try_from((entry.cost - entry.held).nanos()).unwrap_or(0);
        self.overshoot_nanos.with_label_values(&labels).inc_by(beyond);
    }

    /// Counts an upstream's error.
    pub fn upstream_failed(&self, deployment: &str, kind: &'static str) {
        self.upstream_errors.with_label_values(&[deployment, kind]).inc();
    }

    /// The counter of requests that found a deployment full.
    pub fn sheds(&self, deployment: &str) -> IntCounter {
        self.sheds.with_label_values(&[deployment])
    }

    /// Says how a deployment stands.
    pub fn deployment_stands(&self, deployment: &str, breaker: i64, in_flight: u32, waiting: u32) {
        self.breaker_state.with_label_values(&[deployment]).set(breaker);
        self.deployment_in_flight.with_label_values(&[deployment]).set(in_flight.into());
        self.deployment_waiting.with_label_values(&[deployment]).set(waiting.into());
    }

    /// Forgets how a deployment stood that left the catalog.
    pub fn deployment_gone(&self, deployment: &str) {
        for gauge in [&self.breaker_state, &self.deployment_in_flight, &self.deployment_waiting] {
            // one that was never set is not there
            let _ = gauge.remove_label_values(&[deployment]);
        }
    }

    /// Says when models end, ms since 1970 UTC, for all deployments of which that is known.
    pub fn deployments_retire<'a>(&self, all: impl Iterator<Item = (&'a str, i64)>) {
        self.retirement.reset();
        for (deployment, at_ms) in all {
            self.retirement.with_label_values(&[deployment]).set(at_ms.div_euclid(1_000));
        }
    }

    /// Counts an answer to the question for a provider's models.
    pub fn upstream_polled(&self, provider: &str, result: &'static str) {
        self.upstream_polls.with_label_values(&[provider, result]).inc();
    }

    /// The text that Prometheus reads, version 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // writing into memory fails only where a metric is malformed, which registering has ruled out
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}
