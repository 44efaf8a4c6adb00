//! Reads the answer as it passes and settles it at its end, however it ends (`settle` says at what).

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::dispatch::{Attempt, Reply};
use super::pins::Pins;
use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::record::Record;
use super::refusal::Refusal;
use super::settle::Facts;
use crate::clock;
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::file_ids::file_ids;
use crate::domain::leaving::{Leaving, leaving};
use crate::domain::outcome::Ending;
use crate::domain::request::OutputCap;
use crate::domain::service_tier::ServiceTier;
use crate::domain::stream::StreamReader;
use crate::domain::usage::{TokenCounts, Usage, UsageSource};
use crate::provider::{self, PROMPT_TOKENS_HEADER};
use crate::sse;
use crate::upstream::UpstreamError;
use crate::upstream::http::Exchange;

/// The largest whole answer we keep.
const WHOLE_BYTES: usize = 64 << 20;

/// Chunks that are still read, without waiting for any, of a stream that is stopped.
const MOST_UNREAD: usize = 64;

/// The upstream's headers that the client gets.
static PASSED_HEADERS: [HeaderName; 14] = [
    HeaderName::from_static("openai-processing-ms"),
    HeaderName::from_static("openai-version"),
    HeaderName::from_static("openai-model"),
    HeaderName::from_static("retry-after"),
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
    HeaderName::from_static("apim-request-id"),
    HeaderName::from_static("x-ms-region"),
];

/// An answer for the client.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, content type included.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: AnswerBody,
}

/// An answer's body.
pub enum AnswerBody {
    /// All of it, settled; the record is ended by whoever writes it.
    Whole {
        /// The bytes.
        body: Bytes,
        /// The outcome, but for its end.
        record: Box<Record>,
        /// How it ends if the client gets all of it.
        ending: Ending,
    },
    /// As it comes.
    Stream(Box<Metered>),
}

/// Whether an answer came from a cache; there is none yet.
static CACHE: HeaderName = HeaderName::from_static("x-tunegate-cache");
static COST: HeaderName = HeaderName::from_static("x-tunegate-cost-usd");
static BUDGET_LEFT: HeaderName = HeaderName::from_static("x-tunegate-budget-left-usd");
static OUTPUT_CAP: HeaderName = HeaderName::from_static("x-tunegate-output-cap");

impl Answer {
    /// Tells the client of a cap that we wrote into its request.
    fn capped(mut self, output_cap: Option<OutputCap>) -> Self {
        if let Some(cap) = output_cap {
            self.headers.push((OUTPUT_CAP.clone(), HeaderValue::from(cap.tokens)));
        }
        self
    }
}

/// What an answer cost, and the least that is left of a budget.
fn money(record: &Record) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let (cost, left) = record.cost(clock::unix_ms()).unzip();
    let told = [(&COST, cost), (&BUDGET_LEFT, left.flatten())];
    told.into_iter()
        .filter_map(|(name, amount)| Some((name.clone(), HeaderValue::from_str(&amount?.to_string()).ok()?)))
}

/// Follows an answer to the client.
///
/// # Errors
///
/// When a whole answer breaks off; the record then knows what it may have cost.
pub(super) async fn follow<C: Client>(
    prepared: Prepared,
    attempt: Attempt,
    presence: &mut Presence<'_, C>,
    mut record: Record,
    pins: &Arc<Pins>,
) -> Result<Answer, (Refusal, Record)> {
    let Attempt { deployment, reply, unseen, deadline, output_cap } = attempt;
    let facts = Facts {
        admitted: prepared.admitted,
        request: prepared.request,
        deployment,
        unseen,
        prompt_tokens: None,
    };
    match reply {
        Reply::Told { status, headers, body } => {
            if provider::bills_refusal(&facts.deployment.provider.dialect, status, &body) {
                // a reader that has read nothing: the input alone
                record.usage(facts.estimated(&mut StreamReader::new(facts.request.endpoint, false)));
            }
            let headers = passed(&headers, &facts.deployment, "application/json");
            record.book().metrics().upstream_failed(&facts.deployment.name, "told");
            let body = AnswerBody::Whole { body, record: Box::new(record), ending: Ending::UpstreamError };
            Ok(Answer { status, headers, body })
        }
        Reply::Answer { exchange, usage_injected } => {
            let text = |name: HeaderName| {
                exchange
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            };
            let kind = text(header::CONTENT_TYPE);
            let encoding = text(header::CONTENT_ENCODING);
            let prompt_tokens = exchange
                .headers()
                .get(PROMPT_TOKENS_HEADER)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let facts = Facts { prompt_tokens, ..facts };
            let answer = if is_event_stream(&kind) && is_plain(&encoding) {
                Ok(stream(facts, exchange, usage_injected, deadline, record, pins))
            } else {
                whole(facts, exchange, usage_injected, &kind, &encoding, deadline, presence, record, pins)
                    .await
            };
            answer.map(|answer| answer.capped(output_cap))
        }
    }
}

fn is_event_stream(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/event-stream")
}

/// Whether the transport tells an answer's end from a break.
fn is_framed(exchange: &Exchange) -> bool {
    exchange.headers().contains_key(header::TRANSFER_ENCODING)
        || exchange.headers().contains_key(header::CONTENT_LENGTH)
        || exchange.is_h2()
}

/// Whether a body that says it is JSON breaks off.
fn is_cut(kind: &str, body: &[u8]) -> bool {
    kind.starts_with("application/json")
        && serde_json::from_slice::<IgnoredAny>(body).is_err_and(|error| error.is_eof())
}

fn is_plain(encoding: &str) -> bool {
    encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")
}

fn passed(
    upstream: &HeaderMap,
    deployment: &Deployment,
    content_type: &str,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(8);
    if let Ok(kind) = HeaderValue::from_str(content_type) {
        headers.push((header::CONTENT_TYPE, kind));
    }
    if let Ok(name) = HeaderValue::from_str(&deployment.name) {
        headers.push((HeaderName::from_static("x-tunegate-deployment"), name));
    }
    headers.push((CACHE.clone(), HeaderValue::from_static("off")));
    for name in &PASSED_HEADERS {
        if let Some(value) = upstream.get(name) {
            headers.push((name.clone(), value.clone()));
        }
    }
    if let Some(id) = upstream.get("x-request-id") {
        headers.push((HeaderName::from_static("x-upstream-request-id"), id.clone()));
    }
    headers
}

/// What we read of a whole answer.
#[derive(Default, Deserialize)]
struct WholeAnswer {
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    service_tier: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "all of an answer's head, taken apart once")]
async fn whole<C: Client>(
    facts: Facts,
    mut exchange: Box<Exchange>,
    usage_injected: bool,
    kind: &str,
    encoding: &str,
    deadline: Instant,
    presence: &mut Presence<'_, C>,
    mut record: Record,
    pins: &Arc<Pins>,
) -> Result<Answer, (Refusal, Record)> {
    let between = facts.deployment.timeouts.between_chunks;
    let wait = record.if_dropped(|| Some(facts.unconfirmed()));
    let read = {
        let mut reading = std::pin::pin!(exchange.whole(WHOLE_BYTES, between, deadline));
        tokio::select! {
            biased;
            read = &mut reading => read,
            // paid for whether we read it or not: only its end says how much
            () = presence.left() => reading.await,
        }
    };
    wait.ends();
    let framed = is_framed(&exchange);
    let read =
        read.and_then(|body| plain(body, encoding)).and_then(|body| match framed || !is_cut(kind, &body) {
            true => Ok(body),
            false => Err(UpstreamError::Broken("the connection was closed".to_owned())),
        });
    let status = exchange.status();
    let mut headers = passed(exchange.headers(), &facts.deployment, kind);
    let body = match read {
        Ok(body) => body,
        Err(error) => {
            record.usage(facts.unconfirmed());
            exchange.abort().await;
            let deployment = Arc::clone(&facts.deployment.name);
            return Err((Refusal::Upstream { deployment, error }, record));
        }
    };
    let (body, mut streamed) = match is_event_stream(kind) {
        true => {
            let priced = record.bill().map(|bill| bill.priced().clone());
            let mut reader = StreamReader::new(facts.request.endpoint, usage_injected).priced(priced);
            let body = [reader.push(body), reader.finish()].concat().into();
            (body, Some(reader))
        }
        false => (body, None),
    };
    let answer: WholeAnswer = serde_json::from_slice(&body).unwrap_or_default();
    let told = streamed.as_ref().and_then(StreamReader::usage);
    let reported = told.or_else(|| answer.usage.as_ref().and_then(TokenCounts::from_json));
    let served = streamed.as_ref().and_then(StreamReader::served);
    let served =
        served.or_else(|| answer.service_tier.as_deref().map(|tier| ServiceTier::served(Some(tier))));
    record.usage(match reported {
        Some(tokens) => Usage { tokens, source: UsageSource::Reported, served },
        // moderations are free and report nothing
        None if facts.request.endpoint == Endpoint::Moderations => {
            Usage::new(TokenCounts::default(), UsageSource::Reported)
        }
        None => facts.unconfirmed(),
    });
    // cut off from here on, it is settled at that
    exchange.release().await;
    if facts.request.endpoint == Endpoint::Responses {
        let streamed = streamed.iter_mut().flat_map(StreamReader::take_ids);
        for id in answer.id.into_iter().chain(streamed).chain(file_ids(&body)) {
            pins.remember(id, &facts.admitted, &facts.deployment.name).await;
        }
    }
    headers.extend(money(&record));
    let ending = if presence.is_gone() { Ending::ClientGone } else { Ending::Served };
    Ok(Answer { status, headers, body: AnswerBody::Whole { body, record: Box::new(record), ending } })
}

/// The bytes of a whole answer. We ask for no compression; a server that compresses all the same is understood.
fn plain(body: Bytes, encoding: &str) -> Result<Bytes, UpstreamError> {
    if is_plain(encoding) {
        return Ok(body);
    }
    let mut out = Vec::new();
    let limit = WHOLE_BYTES as u64 + 1;
    let read = match encoding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(&*body).take(limit).read_to_end(&mut out),
        "deflate" => flate2::read::ZlibDecoder::new(&*body).take(limit).read_to_end(&mut out),
        other => return Err(UpstreamError::Broken(format!("it is compressed with {other}, unasked"))),
    };
    match read {
        Ok(_) if out.len() > WHOLE_BYTES => Err(UpstreamError::TooLarge(WHOLE_BYTES)),
        Ok(_) => Ok(out.into()),
        Err(_) => Err(UpstreamError::Broken("its compression is damaged".to_owned())),
    }
}

fn stream(
    facts: Facts,
    exchange: Box<Exchange>,
    usage_injected: bool,
    deadline: Instant,
    record: Record,
    pins: &Arc<Pins>,
) -> Answer {
    let status = exchange.status();
    let headers = passed(exchange.headers(), &facts.deployment, "text/event-stream; charset=utf-8");
    let framed = is_framed(&exchange);
    let mut record = record;
    let priced = record.bill().map(|bill| bill.priced().clone());
    let reader = StreamReader::new(facts.request.endpoint, usage_injected).priced(priced);
    let metered = Metered {
        facts,
        exchange: Some(exchange),
        reader,
        deadline,
        framed,
        record: Some(record),
        pins: Arc::clone(pins),
    };
    Answer { status, headers, body: AnswerBody::Stream(Box::new(metered)) }
}

/// A stream being metered. It settles itself at its end; dropped on the way, it settles at what was counted.
pub struct Metered {
    facts: Facts,
    /// Nothing once it has ended.
    exchange: Option<Box<Exchange>>,
    reader: StreamReader,
    deadline: Instant,
    /// Whether the transport tells an end from a break.
    framed: bool,
    /// Nothing once it is written.
    record: Option<Record>,
    pins: Arc<Pins>,
}

/// The next of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes for the client: whole events.
    Bytes(Bytes),
    /// The end; it is settled.
    End,
    /// It broke off: an error event for the client, whose connection must then end uncleanly. It is settled.
    Broke(Bytes),
}

impl Metered {
    /// The next bytes. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Next {
        loop {
            let Some(exchange) = &mut self.exchange else { return Next::End };
            match exchange.chunk(self.facts.deployment.timeouts.between_chunks, self.deadline).await {
                Ok(Some(chunk)) => {
                    let out = self.reader.push(chunk);
                    self.remember().await;
                    if !out.is_empty() {
                        return Next::Bytes(out);
                    }
                }
                Ok(None) if self.framed || self.reader.is_finished() => {
                    let rest = self.reader.finish();
                    self.settle_usage();
                    if let Some(exchange) = self.exchange.take() {
                        exchange.release().await;
                    }
                    if rest.is_empty() {
                        return Next::End;
                    }
                    return Next::Bytes(rest);
                }
                Ok(None) => {
                    return self.broke(&UpstreamError::Broken("the connection was closed".to_owned())).await;
                }
                Err(error) => return self.broke(&error).await,
            }
        }
    }

    /// Ends the record after the client got everything; an error event of the upstream's is no good end.
    pub fn served(mut self, status: u16) {
        let Some(mut record) = self.record.take() else { return };
        if self.reader.has_failed() {
            record.book().metrics().upstream_failed(&self.facts.deployment.name, "upstream_broke");
            record.note(|outcome| outcome.code = Some("upstream_broke"));
            return record.ended(Ending::UpstreamBroke, status);
        }
        record.ended(Ending::Served, status);
    }

    /// Ends the record after [`Next::Broke`].
    pub fn broken(mut self, status: u16) {
        if let Some(mut record) = self.record.take() {
            record.note(|outcome| outcome.code = Some("upstream_broke"));
            record.ended(Ending::UpstreamBroke, status);
        }
    }

    /// The client has left: stops the upstream or reads on to its usage, then settles.
    pub async fn client_left(mut self, status: u16) {
        let visible = !self.reader.streamed().text.is_empty();
        if let Some(mut exchange) = self.exchange.take() {
            match leaving(&self.facts.deployment, true, self.facts.unseen && !visible) {
                Leaving::Abort => {
                    self.read_what_has_come(&mut exchange);
                    exchange.abort().await;
                }
                Leaving::ReadOn(limit) => {
                    let deadline = self.deadline.min(clock::monotonic() + limit);
                    let between = self.facts.deployment.timeouts.between_chunks;
                    while let Ok(Some(chunk)) = exchange.chunk(between, deadline).await {
                        drop(self.reader.push(chunk));
                        if self.reader.usage().is_some() {
                            break;
                        }
                    }
                    exchange.discard().await;
                }
            }
        }
        self.settle_usage();
        if let Some(record) = self.record.take() {
            record.ended(Ending::ClientGone, status);
        }
    }

    /// Takes in what has come already and was not read yet: the usage may be in it, and all of it is billed.
    fn read_what_has_come(&mut self, exchange: &mut Exchange) {
        let between = self.facts.deployment.timeouts.between_chunks;
        for _ in 0..MOST_UNREAD {
            match exchange.chunk(between, self.deadline).now_or_never() {
                Some(Ok(Some(chunk))) => drop(self.reader.push(chunk)),
                _ => return,
            }
        }
    }

    async fn broke(&mut self, error: &UpstreamError) -> Next {
        tracing::warn!(deployment = %self.facts.deployment.name, %error, "a stream broke off");
        if let Some(exchange) = self.exchange.take() {
            exchange.abort().await;
        }
        if let Some(record) = &self.record {
            record.book().metrics().upstream_failed(&self.facts.deployment.name, "upstream_broke");
        }
        self.settle_usage();
        let message = format!("deployment `{}` ended in mid-stream: {error}", self.facts.deployment.name);
        let error = serde_json::json!({"error": {
            "message": message, "type": "server_error", "param": null, "code": "upstream_broke",
        }});
        Next::Broke(sse::event(&error.to_string()))
    }

    async fn remember(&mut self) {
        for id in self.reader.take_ids() {
            self.pins.remember(id, &self.facts.admitted, &self.facts.deployment.name).await;
        }
    }

    fn settle_usage(&mut self) {
        let Some(record) = &mut self.record else { return };
        record.usage(match self.reader.usage() {
            Some(tokens) => Usage { tokens, source: UsageSource::Reported, served: self.reader.served() },
            // whatever is visible, the thoughts before it are not, and they are billed
            None if self.facts.unseen => self.facts.unconfirmed(),
            None => self.facts.estimated(&mut self.reader),
        });
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.settle_usage(); // of a record that nobody has ended
    }
}
