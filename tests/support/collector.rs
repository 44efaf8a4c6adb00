//! A simulated collector of traces: OTLP over HTTP, on a real socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use async_trait::async_trait;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::server::{After, Handler, Request, Server, Wire};
use super::{eventually, free_port};

/// What it was sent.
#[derive(Default)]
struct Desk {
    /// What it answers; 0 stands for 200.
    status: AtomicU16,
    refused: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// A span, as the collector reads it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where it has none.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) flags: u32,
    pub(crate) name: String,
    pub(crate) is_server: bool,
    pub(crate) has_failed: bool,
    /// Nanoseconds since 1970.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) attributes: Map<String, Value>,
}

/// A collector.
pub(crate) struct Collector {
    desk: Arc<Desk>,
    server: Mutex<Option<Server>>,
    port: u16,
}

impl Collector {
    /// One that takes everything. It has a port that the system hands out to nobody else while it is gone.
    pub(crate) fn start() -> Self {
        let desk = Arc::new(Desk::default());
        let port = free_port();
        let server = Server::start_on(port, Arc::clone(&desk) as Arc<dyn Handler>);
        Self { desk, server: Mutex::new(Some(server)), port }
    }

    /// The section of a gateway that sends its traces here, and more lines of it.
    pub(crate) fn section(&self, lines: &str) -> String {
        format!("\n[tracing]\nendpoint = \"http://127.0.0.1:{}\"\n{lines}\n", self.port)
    }

    /// Answers with this status from now on.
    pub(crate) fn answers(&self, status: u16) {
        self.desk.status.store(status, Ordering::Relaxed);
    }

    /// How often it did not take what it was sent.
    pub(crate) fn refused(&self) -> usize {
        self.desk.refused.load(Ordering::Relaxed)
    }

    /// Nobody listens from now on.
    pub(crate) fn stops(&self) {
        self.server.lock().take();
    }

    /// Listens again.
    pub(crate) fn resumes(&self) {
        let handler = Arc::clone(&self.desk) as Arc<dyn Handler>;
        self.server.lock().replace(Server::start_on(self.port, handler));
    }

    /// What it was sent so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.desk.requests.lock().clone()
    }

    /// All that it was sent, taken apart.
    pub(crate) fn messages(&self) -> Vec<ExportTraceServiceRequest> {
        let requests = self.requests();
        requests
            .iter()
            .map(|request| ExportTraceServiceRequest::decode(&*request.body).expect("a message of OTLP"))
            .collect()
    }

    /// All spans, in the order in which they came.
    pub(crate) fn spans(&self) -> Vec<Seen> {
        let messages = self.messages();
        let scopes = messages.into_iter().flat_map(|it| it.resource_spans).flat_map(|it| it.scope_spans);
        scopes.flat_map(|it| it.spans).map(seen).collect()
    }

    /// The spans of one request, its own first.
    #[track_caller]
    pub(crate) fn spans_of(&self, request_id: &str) -> Vec<Seen> {
        eventually(&format!("the spans of {request_id}"), || {
            let all = self.spans();
            let own = all
                .iter()
                .find(|span| span.attributes.get("tunegate.request_id") == Some(&json!(request_id)))?;
            let children = all.iter().filter(|span| span.parent == own.id);
            Some(std::iter::once(own).chain(children).cloned().collect())
        })
    }
}

#[async_trait]
impl Handler for Desk {
    async fn answer(&self, request: Request, wire: &mut Wire) -> After {
        let status = match self.status.load(Ordering::Relaxed) {
            0 => 200,
            status => status,
        };
        match status {
            200 => self.requests.lock().push(request),
            _ => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        );
        match wire.write(head.as_bytes()).await {
            Ok(()) => After::KeepAlive,
            Err(_) => After::Close,
        }
    }
}

fn seen(span: opentelemetry_proto::tonic::trace::v1::Span) -> Seen {
    let is_server = span.kind == i32::from(SpanKind::Server);
    assert!(is_server || span.kind == i32::from(SpanKind::Client), "{span:?}");
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        flags: span.flags,
        name: span.name,
        is_server,
        has_failed: span.status.is_some_and(|status| status.code == i32::from(StatusCode::Error)),
        from: span.start_time_unix_nano,
        to: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
    }
}

/// Attributes as JSON; each key once.
pub(crate) fn attributes(pairs: Vec<KeyValue>) -> Map<String, Value> {
    let mut found = Map::new();
    for pair in pairs {
        let value = match pair.value.and_then(|value| value.value) {
            Some(AnyValue::StringValue(text)) => json!(text),
            Some(AnyValue::IntValue(number)) => json!(number),
            Some(AnyValue::DoubleValue(number)) => json!(number),
            Some(AnyValue::BoolValue(flag)) => json!(flag),
            other => panic!("{}: {other:?}", pair.key),
        };
        assert!(found.insert(pair.key.clone(), value).is_none(), "{} is there twice", pair.key);
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
