//! Inference through the door: the key first, then the body, then the line, then the answer as it comes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::time::sleep;

use super::credential;
use crate::clock;
use crate::domain::endpoint::Endpoint;
use crate::domain::label::{MAX_TAGS, tag_is_good};
use crate::domain::outcome::Ending;
use crate::domain::trace::{TRACEPARENT, TRACESTATE};
use crate::gateway::admit::Admitted;
use crate::gateway::limited::RateHeaders;
use crate::gateway::limits::Place;
use crate::gateway::record::Record;
use crate::gateway::{Arrival, Asker, Body, Client, Gateway, Next, NoAnswer, Refusal, Reply, Streamed};
use crate::http::config::Limits;
use crate::http::exchange::{Done, Exchange, Unwritten};
use crate::http::respond;

static TAGS: HeaderName = HeaderName::from_static("x-tunegate-tags");
static PROMPT: HeaderName = HeaderName::from_static("x-tunegate-prompt");
static VARIABLES: HeaderName = HeaderName::from_static("x-tunegate-variables");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers of the client's that mean something to a provider; no other travels, the client's key least of all.
static TRAVELLING: [HeaderName; 3] = [
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static(TRACEPARENT),
    HeaderName::from_static(TRACESTATE),
];

const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Serves one inference request.
pub(in crate::http) async fn serve(
    gateway: &Arc<Gateway>,
    limits: &Limits,
    exchange: &mut Exchange,
    endpoint: Endpoint,
    model_in_path: Option<String>,
    mut record: Box<Record>,
) -> Done {
    record.endpoint(endpoint);
    let (admitted, mut place) = match arrive(gateway, exchange, &mut record) {
        Ok(arrived) => arrived,
        Err(refusal) => return refuse(exchange, &refusal, record).await,
    };
    record.waits();
    let read = exchange.body(limits, limits.max_body_bytes, Some(&mut place)).await;
    record.goes_on();
    let body = match read {
        Ok(body) => body,
        Err(refusal) => return refuse(exchange, &refusal, record).await,
    };
    record.placed(place);
    let arrival = Arrival {
        endpoint,
        model_in_path,
        body,
        rate_headers: match exchange.uri().path().starts_with("/openai/") {
            true => RateHeaders::Azure,
            false => RateHeaders::OpenAi,
        },
        headers: travelling(exchange.headers(), &admitted.key.id),
        route_headers: route_headers(exchange.headers(), &gateway.catalog.load().catalog.headers),
        tags: tags(exchange.headers()),
        cache_control: cache_control(exchange.headers()),
        prompt: text(exchange.headers(), &PROMPT),
        variables: text(exchange.headers(), &VARIABLES),
        only: None,
        asker: Asker::Application,
    };
    match gateway.infer(admitted, arrival, record, exchange).await {
        Ok(reply) => write(exchange, reply, limits.sse_keepalive).await,
        Err(NoAnswer::Refused(refused)) => refuse(exchange, &refused.refusal, refused.record).await,
        Err(NoAnswer::Gone) => Done::Close,
    }
}

fn arrive(gateway: &Gateway, exchange: &Exchange, record: &mut Record) -> Result<(Admitted, Place), Refusal> {
    let admitted = gateway.admit(credential(exchange.headers()), clock::unix_ms())?;
    record.admitted(&admitted);
    match exchange.method() {
        &http::Method::POST => Ok((admitted, gateway.limits.place()?)),
        other => Err(Refusal::MethodNotAllowed { method: other.to_string(), allowed: "POST" }),
    }
}

/// The headers that travel on. Many keys share one account upstream: an idempotency key is made its owner's own, so that
/// nobody gets another's answer by it.
fn travelling(headers: &HeaderMap, key_id: &str) -> Vec<(HeaderName, HeaderValue)> {
    let found = TRAVELLING.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    let mut found: Vec<_> = found.collect();
    if let Some(value) = headers.get(&IDEMPOTENCY_KEY)
        && let Ok(own) = HeaderValue::from_bytes(&[key_id.as_bytes(), b"-", value.as_bytes()].concat())
    {
        found.push((IDEMPOTENCY_KEY.clone(), own));
    }
    found
}

/// The headers that the catalog's routes look at; of one that is there twice, the first.
fn route_headers(headers: &HeaderMap, looked_at: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
    let text = |name: &Arc<str>| Some((Arc::clone(name), headers.get(&**name)?.to_str().ok()?.to_owned()));
    looked_at.iter().filter_map(text).collect()
}

/// A header's text, the first where there are several. What is no text is kept so that nobody takes it for nothing.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(std::str::from_utf8(value.as_bytes()).map_or_else(|_| "\u{fffd}".to_owned(), ToOwned::to_owned))
}

/// What `Cache-Control` says, each time that it is there.
fn cache_control(headers: &HeaderMap) -> Vec<Vec<u8>> {
    headers.get_all(header::CACHE_CONTROL).iter().map(|value| value.as_bytes().to_vec()).collect()
}

/// The tags of `x-tunegate-tags`, a list with commas: the first few that are good.
fn tags(headers: &HeaderMap) -> Vec<Arc<str>> {
    let listed = headers.get_all(&TAGS).iter().filter_map(|value| value.to_str().ok());
    let tags = listed.flat_map(|list| list.split(',')).map(str::trim).filter(|tag| tag_is_good(tag));
    tags.take(MAX_TAGS).map(Arc::from).collect()
}

/// Says no, and writes the outcome with the status that was sent.
pub(in crate::http) async fn refuse(
    exchange: &mut Exchange,
    refusal: &Refusal,
    mut record: Box<Record>,
) -> Done {
    record.waits();
    let done = match refusal {
        Refusal::ClientGone => Done::Close,
        _ => exchange.refuse_with(refusal, record.rate_headers()).await,
    };
    record.refused(refusal, respond::status(refusal).as_u16());
    done
}

async fn write(exchange: &mut Exchange, reply: Reply, keepalive: Option<Duration>) -> Done {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    match reply.body {
        Body::Whole { body, mut record, ending } => {
            record.waits();
            match exchange.whole(status, reply.headers, body).await {
                Ok(()) => {
                    record.ended(ending, status.as_u16());
                    if ending == Ending::ClientGone { Done::Close } else { Done::Reuse }
                }
                Err(Unwritten) => {
                    record.ended(Ending::ClientGone, status.as_u16());
                    Done::Close
                }
            }
        }
        Body::Stream(mut streamed) => {
            streamed.waits();
            match exchange.begin_stream(status, reply.headers).await {
                Ok(()) => {
                    streamed.goes_on();
                    stream(exchange, streamed, status.as_u16(), keepalive).await
                }
                Err(Unwritten) => {
                    streamed.client_left(status.as_u16()).await;
                    Done::Close
                }
            }
        }
    }
}

/// What one turn of a stream's loop brought.
enum Turn {
    Next(Next),
    Left,
}

async fn stream(
    exchange: &mut Exchange,
    mut streamed: Streamed,
    status: u16,
    keepalive: Option<Duration>,
) -> Done {
    loop {
        let turn = turn(exchange, &mut streamed, keepalive).await;
        let left = match turn {
            Turn::Left => true,
            Turn::Next(Next::Bytes(bytes)) => {
                streamed.waits();
                let written = exchange.write(bytes).await;
                streamed.goes_on();
                written.is_err()
            }
            Turn::Next(Next::End) => {
                streamed.waits();
                return match exchange.end_stream().await {
                    Ok(()) => {
                        streamed.served(status);
                        Done::Reuse
                    }
                    Err(Unwritten) => {
                        streamed.client_left(status).await;
                        Done::Close
                    }
                };
            }
            Turn::Next(Next::Broke(event)) => {
                // the client sees the error, and then an end that is no end
                let _ = exchange.write(event).await;
                streamed.broken(status);
                return Done::Close;
            }
        };
        if left {
            streamed.client_left(status).await;
            return Done::Close;
        }
    }
}

/// Waits for the next of the stream, or for the client to leave; a silence is filled with comments where asked.
async fn turn(exchange: &mut Exchange, streamed: &mut Streamed, keepalive: Option<Duration>) -> Turn {
    let mut next = pin!(streamed.next());
    loop {
        let silence = async {
            match keepalive {
                Some(silence) => sleep(silence).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            next = &mut next => return Turn::Next(next),
            () = exchange.left() => return Turn::Left,
            () = silence => {}
        }
        if exchange.write(KEEP_ALIVE).await.is_err() {
            return Turn::Left;
        }
    }
}
