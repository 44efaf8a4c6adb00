//! Reads the answer as it passes and settles it at its end, however it ends (`settle` says at what).

mod stream;
mod whole;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(super) use stream::Metered;
pub use stream::Next;

use super::capture::Capturing;
use super::pins::Pins;
use super::presence::{Client, Presence};
use super::record::Record;
use super::settle::Facts;
use super::visit::Visit;
use crate::clock;
use crate::domain::catalog::Deployment;
use crate::domain::fault::Fault;
use crate::domain::outcome::Ending;
use crate::domain::request::{InferenceRequest, OutputCap};
use crate::domain::translate::Echo;
use crate::provider::{COMPUTE_HEADER, PROMPT_TOKENS_HEADER};
use crate::upstream::UpstreamError;
use crate::upstream::http::Exchange;

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
    /// The cap on its output that we wrote into its request, tokens.
    pub(super) output_cap: Option<u64>,
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

pub(super) static COST: HeaderName = HeaderName::from_static("x-tunegate-cost-usd");
pub(super) static BUDGET_LEFT: HeaderName = HeaderName::from_static("x-tunegate-budget-left-usd");
static OUTPUT_CAP: HeaderName = HeaderName::from_static("x-tunegate-output-cap");
static PROMPT: HeaderName = HeaderName::from_static("x-tunegate-prompt");
static ATTEMPTS: HeaderName = HeaderName::from_static("x-tunegate-attempts");

/// What an answer cost, and the least that is left of a budget.
fn money(record: &Record) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let (cost, left) = record.cost(clock::unix_ms()).unzip();
    let told = [(&COST, cost), (&BUDGET_LEFT, left.flatten())];
    told.into_iter()
        .filter_map(|(name, amount)| Some((name.clone(), HeaderValue::from_str(&amount?.to_string()).ok()?)))
}

/// What a client hears of attempts that all failed: how many there were, where it was more than one, and what they cost
/// all the same.
pub(super) fn failed(record: &Record) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let attempts = record.failed_attempts();
    let attempts = (attempts > 1).then(|| (ATTEMPTS.clone(), HeaderValue::from(attempts)));
    let cost = record.spent().and_then(|spent| HeaderValue::from_str(&spent.to_string()).ok());
    attempts.into_iter().chain(cost.map(|cost| (COST.clone(), cost)))
}

/// An answer that has begun, and all that following it takes.
pub(super) struct Following<'a> {
    pub(super) facts: Facts,
    pub(super) exchange: Box<Exchange>,
    /// Whether its usage chunk was asked for by us alone.
    pub(super) usage_injected: bool,
    /// Whether several may share it: then it passes as it came, and each of them has it made their own.
    pub(super) shared: bool,
    /// When everything must be over.
    pub(super) deadline: Instant,
    pub(super) visit: Visit,
    pub(super) pins: &'a Arc<Pins>,
    /// What it must become, where the client asked for a response of a deployment that speaks chat.
    pub(super) response: Option<Response>,
    /// The cap on the output that we wrote into the request.
    pub(super) output_cap: Option<OutputCap>,
    /// What its clients should know of the deployment.
    pub(super) notices: Vec<(HeaderName, HeaderValue)>,
    /// Listens to it, where it may become a row of a data set.
    pub(super) capturing: Option<Capturing>,
}

/// The response that a chat completion becomes.
pub(super) struct Response {
    echo: Echo,
    id: String,
    created_at_s: i64,
}

impl Response {
    /// Of a Responses request.
    pub(super) fn of(asked: &InferenceRequest, record: &Record) -> Self {
        let request_id = record.request_id();
        let id = format!("resp_{}", request_id.strip_prefix("req_").unwrap_or(&request_id));
        Self { echo: Echo::of(asked.body()), id, created_at_s: clock::unix_ms().div_euclid(1_000) }
    }
}

/// How following went, up to the first byte for the client.
pub(super) enum Followed {
    /// There is an answer; a stream settles itself from here on.
    Answer(Box<Answer>),
    /// The client has left; the attempt is settled.
    ClientGone(Box<Record>),
    /// It broke off, or can't be read; the attempt is settled, and nothing has gone to the client.
    Broke(UpstreamError, Box<Record>),
    /// It turned out to be a refusal; the attempt is settled, and nothing has gone to the client.
    Fault(Fault, String, Box<Record>),
}

/// Follows an answer to the client: a whole one to its end, a stream to its first event.
pub(super) async fn follow<C: Client>(
    following: Following<'_>,
    presence: &mut Presence<'_, C>,
    record: Box<Record>,
) -> Followed {
    let text = |name: HeaderName| {
        let value = following.exchange.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (kind, encoding) = (text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    let prompt_tokens = text(HeaderName::from_static(PROMPT_TOKENS_HEADER)).parse().ok();
    let computing = following.facts.computing;
    let computing = match text(HeaderName::from_static(COMPUTE_HEADER)).parse() {
        Ok(told_us) => computing.told(told_us, clock::monotonic()),
        Err(_) => computing,
    };
    let facts = Facts { prompt_tokens, computing, ..following.facts };
    let mut following = Following { facts, ..following };
    let notices = std::mem::take(&mut following.notices);
    let (output_cap, attempts) = (following.output_cap, record.failed_attempts() + 1);
    let prompt = record.prompt().and_then(|prompt| HeaderValue::from_str(prompt).ok());
    let mut followed = match is_event_stream(&kind) && is_plain(&encoding) {
        true => stream::begin(following, presence, record).await,
        false => whole::read(following, &kind, &encoding, presence, record).await,
    };
    if let Followed::Answer(answer) = &mut followed {
        answer.output_cap = output_cap.map(|cap| cap.tokens);
        answer.headers.extend(notices);
        answer.headers.extend(prompt.map(|prompt| (PROMPT.clone(), prompt)));
        if let Some(cap) = output_cap {
            answer.headers.push((OUTPUT_CAP.clone(), HeaderValue::from(cap.tokens)));
        }
        if attempts > 1 {
            answer.headers.push((ATTEMPTS.clone(), HeaderValue::from(attempts)));
        }
    }
    followed
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

fn is_plain(encoding: &str) -> bool {
    encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")
}

/// An answer's headers as the client gets them.
pub(super) fn passed(
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
