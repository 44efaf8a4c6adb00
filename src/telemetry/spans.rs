//! Spans of requests that have ended, as a collector takes them: OTLP 1.11, binary protobuf, and of the names
//! OpenTelemetry's semantic conventions for HTTP (1.41, stable) and GenAI (November 2026, development).
//!
//! All of it is made from the Outcome, in which no word of a prompt or an answer is, and no credential.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use prost::Message as _;

use super::metrics::{operation_name, provider_name};
use super::traces::Config;
use crate::domain::attempt::Attempt;
use crate::domain::catalog::Address;
use crate::domain::outcome::Outcome;
use crate::domain::trace::{SpanId, Trace};

/// What all spans of this process have in common.
pub struct Source {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Source {
    /// As the operator describes it.
    pub fn new(config: &Config) -> Self {
        let mut attributes = Attributes::default();
        attributes.text("service.name", &config.service_name);
        attributes.text("service.version", env!("CARGO_PKG_VERSION"));
        for (key, value) in &config.resource {
            attributes.0.retain(|known| known.key != *key);
            attributes.text(key, value);
        }
        let resource = Resource { attributes: attributes.0, ..Resource::default() };
        let scope = InstrumentationScope {
            name: "tunegate".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        Self { resource, scope }
    }

    /// The message with all spans of these requests.
    pub fn message(&self, outcomes: &[Arc<Outcome>]) -> Vec<u8> {
        let spans = outcomes.iter().flat_map(|outcome| spans(outcome)).collect();
        let scope_spans = ScopeSpans { scope: Some(self.scope.clone()), spans, ..ScopeSpans::default() };
        let all = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec()
    }
}

/// How many spans a request has.
pub fn count(outcome: &Outcome) -> u64 {
    match &outcome.trace {
        Some(_) => 1 + outcome.attempts.len() as u64,
        None => 0,
    }
}

/// How many spans a collector has not taken of those that it was sent, and why.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
    let count = u64::try_from(partial.rejected_spans).ok().filter(|count| *count > 0)?;
    Some((count, partial.error_message))
}

fn spans(outcome: &Outcome) -> Vec<Span> {
    let Some(trace) = &outcome.trace else { return Vec::new() };
    let asked = outcome.attempts.iter().filter_map(|attempt| of_attempt(outcome, trace, attempt));
    std::iter::once(of_request(outcome, trace)).chain(asked).collect()
}

/// The SERVER span.
fn of_request(outcome: &Outcome, trace: &Trace) -> Span {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", trace.method);
    attributes.known("http.route", Some(trace.route).filter(|route| !route.is_empty()));
    if outcome.status > 0 {
        attributes.number("http.response.status_code", outcome.status.into());
    }
    let failure = failure(outcome);
    attributes.known("error.type", failure.as_deref());
    attributes.text("tunegate.request_id", &outcome.request_id);
    attributes.text("tunegate.ending", outcome.ending.name());
    attributes.known("tunegate.endpoint", Some(outcome.endpoint).filter(|endpoint| !endpoint.is_empty()));
    attributes.known("tunegate.key", outcome.key.as_deref());
    attributes.known("tunegate.team", outcome.team.as_deref());
    attributes.known("tunegate.model", outcome.model.as_deref());
    attributes.known("tunegate.deployment", outcome.deployment.as_deref());
    attributes.known("tunegate.code", outcome.code);
    attributes.known("tunegate.cost_usd", outcome.cost.map(|cost| cost.to_string()).as_deref());
    attributes.flag("tunegate.stream", outcome.stream);
    attributes.number("tunegate.attempts", outcome.attempts.len() as u64);
    let name = match trace.route {
        "" => trace.method.to_owned(),
        route => format!("{} {route}", trace.method),
    };
    Span {
        parent_span_id: trace.parent.map_or_else(Vec::new, |parent| parent.bytes().to_vec()),
        flags: flags(trace, trace.parent.is_some()),
        ..span(
            outcome,
            trace,
            trace.span,
            Shape { name, kind: SpanKind::Server, from_us: 0, to_us: outcome.duration_us },
            attributes,
            failure.is_some(),
        )
    }
}

/// Why a request failed that was not its sender's fault, in one word.
fn failure(outcome: &Outcome) -> Option<String> {
    outcome.blamed()?;
    let status = || match outcome.status {
        0 => outcome.ending.name().to_owned(),
        status => status.to_string(),
    };
    Some(outcome.code.map_or_else(status, str::to_owned))
}

/// A CLIENT span; nothing where none was begun.
fn of_attempt(outcome: &Outcome, trace: &Trace, attempt: &Attempt) -> Option<Span> {
    let operation = operation_name(attempt.endpoint);
    let to_us = attempt.ended_us.unwrap_or(outcome.duration_us);
    let mut attributes = Attributes::default();
    attributes.text("gen_ai.operation.name", operation);
    attributes.text("gen_ai.provider.name", provider_name(&attempt.deployment.provider.dialect));
    attributes.text("gen_ai.request.model", &attempt.model);
    attributes.text("tunegate.deployment", &attempt.deployment.name);
    if attempt.stream {
        attributes.flag("gen_ai.request.stream", true);
    }
    if let Some(first_us) = attempt.first_chunk_us {
        attributes.seconds("gen_ai.response.time_to_first_chunk", first_us.saturating_sub(attempt.begun_us));
    }
    if let Some(usage) = &attempt.usage {
        let tokens = usage.tokens;
        attributes.number("gen_ai.usage.input_tokens", tokens.prompt);
        attributes.number("gen_ai.usage.output_tokens", tokens.completion);
        for (key, count) in [
            ("gen_ai.usage.cache_read.input_tokens", tokens.cached),
            ("gen_ai.usage.cache_creation.input_tokens", tokens.cache_write),
            ("gen_ai.usage.reasoning.output_tokens", tokens.reasoning),
        ] {
            if count > 0 {
                attributes.number(key, count);
            }
        }
        attributes.text("tunegate.usage_source", usage.source.name());
    }
    match &attempt.deployment.provider.address {
        Address::Host { host, port, .. } => {
            attributes.text("server.address", host);
            attributes.number("server.port", (*port).into());
        }
        Address::Unix(path) => attributes.text("server.address", &path.to_string_lossy()),
    }
    if let Some(status) = attempt.status {
        attributes.number("http.response.status_code", status.into());
    }
    attributes.known("error.type", attempt.code);
    let name = format!("{operation} {}", attempt.model);
    let shape = Shape { name, kind: SpanKind::Client, from_us: attempt.begun_us, to_us };
    Some(Span {
        parent_span_id: trace.span.bytes().to_vec(),
        flags: flags(trace, false),
        ..span(outcome, trace, attempt.span?, shape, attributes, attempt.code.is_some())
    })
}

/// What a span is called, and when it was: microseconds since the request's first byte.
struct Shape {
    name: String,
    kind: SpanKind,
    from_us: u64,
    to_us: u64,
}

fn span(
    outcome: &Outcome,
    trace: &Trace,
    id: SpanId,
    shape: Shape,
    attributes: Attributes,
    has_failed: bool,
) -> Span {
    let began_us = u64::try_from(outcome.at_ms).unwrap_or(0).saturating_mul(1_000);
    let nanos = |after_us: u64| began_us.saturating_add(after_us).saturating_mul(1_000);
    let code = if has_failed { StatusCode::Error } else { StatusCode::Unset };
    Span {
        trace_id: trace.id.bytes().to_vec(),
        span_id: id.bytes().to_vec(),
        trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
        name: shape.name,
        kind: shape.kind.into(),
        start_time_unix_nano: nanos(shape.from_us),
        end_time_unix_nano: nanos(shape.to_us.max(shape.from_us)),
        attributes: attributes.0,
        status: Some(Status { code: code.into(), message: String::new() }),
        ..Span::default()
    }
}

/// Whether it is kept, and whether its parent is another process's.
fn flags(trace: &Trace, parent_is_remote: bool) -> u32 {
    let remote = if parent_is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    u32::from(trace.sampled) | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

/// Attributes in the making.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() });
    }

    fn text(&mut self, key: &str, text: &str) {
        self.add(key, Value::StringValue(text.to_owned()));
    }

    fn known(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.add(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)));
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.add(key, Value::BoolValue(flag));
    }

    fn seconds(&mut self, key: &str, micros: u64) {
        self.add(key, Value::DoubleValue(std::time::Duration::from_micros(micros).as_secs_f64()));
    }
}
