//! From the scheduler's events to an answer, whole or streamed.

use std::convert::Infallible;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::Receiver;

use super::Worker;
use crate::clock;
use crate::telemetry::metrics::{WorkerDenial, WorkerOperation};
use crate::worker::prepare::Prepared;
use crate::worker::scheduler::{Event, Failure, Job};
use crate::worker::wire::{Answer, Endpoint, Refusal, Usage};

pub(super) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
/// What the prompt came to, known before the first byte of the answer.
const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-tunegate-prompt-tokens");

/// Hands a request that has `arrived` to the scheduler and answers. The head is sent once the prompt was read: until then a failure
/// still has a status of its own. Dropping the answer cancels the request.
pub(super) async fn answer(
    worker: &Worker,
    prepared: Prepared,
    arrived: Instant,
) -> Result<Response, Refusal> {
    let Prepared { endpoint, prompt, most, generation } = prepared;
    let prompt_tokens = prompt.len();
    let answer = Answer {
        endpoint,
        id: id(endpoint),
        created: clock::unix_ms() / 1000,
        model: worker.model.name.clone(),
        fingerprint: worker.model.fingerprint.clone(),
        stream_usage: generation.stream_usage,
    };
    let (sampling, stops) = (generation.sampling, generation.stops);
    let deadline = clock::monotonic() + worker.request_limit;
    let operation = match endpoint {
        Endpoint::Chat => WorkerOperation::Chat,
        Endpoint::Completion => WorkerOperation::TextCompletion,
    };
    let job = Job { operation, arrived, prompt, most, sampling, stops, deadline };
    let mut events = worker.scheduler.submit(job).map_err(denied)?;
    match events.recv().await {
        Some(Event::Started) => {}
        Some(Event::Failed(failure)) => return Err(refusal(failure)),
        _ => return Err(Refusal::failed()),
    }
    let mut response = if generation.stream {
        streamed(answer, prompt_tokens, events)
    } else {
        whole(&answer, prompt_tokens, events).await?
    };
    response.headers_mut().insert(PROMPT_TOKENS, HeaderValue::from(prompt_tokens));
    Ok(response)
}

fn id(endpoint: Endpoint) -> String {
    let kind = match endpoint {
        Endpoint::Chat => "chatcmpl",
        Endpoint::Completion => "cmpl",
    };
    format!("{kind}-{:032x}", rand::random::<u128>())
}

/// Says no to a request that was not accepted.
pub(super) fn denied(denial: WorkerDenial) -> Refusal {
    match denial {
        WorkerDenial::Full => Refusal::busy(),
        WorkerDenial::Stopping => Refusal::stopping(),
    }
}

/// Says no to a request that was accepted.
pub(super) fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Engine => Refusal::failed(),
        Failure::TooSlow => Refusal::too_slow(),
        Failure::Stopping => Refusal::stopping(),
    }
}

async fn whole(
    answer: &Answer,
    prompt_tokens: usize,
    mut events: Receiver<Event>,
) -> Result<Response, Refusal> {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Started => {}
            Event::Text(piece) => text += &piece,
            Event::Finished { reason, tokens } => {
                let json = answer.whole(&text, reason, Usage::new(prompt_tokens, tokens));
                return Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response());
            }
            Event::Failed(failure) => return Err(refusal(failure)),
        }
    }
    Err(Refusal::failed())
}

fn streamed(answer: Answer, prompt_tokens: usize, events: Receiver<Event>) -> Response {
    let opening = answer.opening();
    let stream = stream::unfold(Some((answer, events, opening)), move |state| async move {
        let (answer, mut events, opening) = state?;
        if let Some(opening) = opening {
            return Some((frame(opening), Some((answer, events, None))));
        }
        loop {
            return Some(match events.recv().await {
                Some(Event::Started) => continue,
                Some(Event::Text(text)) => (frame(answer.piece(&text)), Some((answer, events, None))),
                Some(Event::Finished { reason, tokens }) => {
                    (frame(answer.closing(reason, Usage::new(prompt_tokens, tokens))), None)
                }
                Some(Event::Failed(failure)) => (frame(error(&refusal(failure))), None),
                None => (frame(error(&Refusal::failed())), None),
            });
        }
    });
    let headers = [(header::CONTENT_TYPE, EVENT_STREAM), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream)).into_response()
}

/// The status is spent, so the error comes as an event, and no `[DONE]` after it.
fn error(refusal: &Refusal) -> String {
    format!("data: {}\n\n", refusal.to_json())
}

fn frame(text: String) -> Result<Bytes, Infallible> {
    Ok(Bytes::from(text))
}
