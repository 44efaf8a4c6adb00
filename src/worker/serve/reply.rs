//! From the scheduler's events to an answer, whole or streamed.

use std::convert::Infallible;
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc::Receiver;
use tunegate_engine::Sampling;

use super::Worker;
use crate::clock;
use crate::domain::usage::COMPUTE_COMMENT;
use crate::telemetry::metrics::{WorkerDenial, WorkerOperation};
use crate::worker::prepare::{Known, Prepared};
use crate::worker::scheduler::{Event, Failure, Job};
use crate::worker::wire::{Answer, Endpoint, Refusal, Score, Usage};

pub(super) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
/// What the prompt came to, known before the first byte of the answer.
const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-tunegate-prompt-tokens");
/// Of a request that makes no token.
const NOTHING_DRAWN: Sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };

/// How long was computed for a request when its head was sent, microseconds: all of a whole answer, of a stream what reading
/// its prompt took.
pub(super) const COMPUTE: HeaderName = HeaderName::from_static("x-tunegate-compute-us");

/// Hands a request that has `arrived` to the scheduler and answers. The head is sent once the prompt was read: until then a failure
/// still has a status of its own. Dropping the answer cancels the request.
pub(super) async fn answer(
    worker: &Worker,
    prepared: Prepared,
    arrived: Instant,
) -> Result<Response, Refusal> {
    let Prepared { endpoint, model, adapter, prompt, most, generation } = prepared;
    let prompt_tokens = prompt.len();
    let answer = Answer {
        endpoint,
        id: id(endpoint),
        created: clock::unix_ms() / 1000,
        model,
        fingerprint: worker.model.fingerprint.clone(),
        stream_usage: generation.stream_usage,
    };
    let (sampling, stops) = (generation.sampling, generation.stops);
    let deadline = arrived + worker.request_limit;
    let operation = match endpoint {
        Endpoint::Chat => WorkerOperation::Chat,
        Endpoint::Completion => WorkerOperation::TextCompletion,
    };
    let job = Job { operation, arrived, prompt, most, known: None, sampling, stops, deadline, adapter };
    let mut events = worker.scheduler.submit(job).map_err(denied)?;
    let begun_us = match events.recv().await {
        Some(Event::Started { compute_us }) => compute_us,
        Some(Event::Failed(failure)) => return Err(refusal(failure)),
        _ => return Err(Refusal::failed()),
    };
    let (mut response, compute_us) = if generation.stream {
        (streamed(answer, prompt_tokens, events), begun_us)
    } else {
        whole(&answer, prompt_tokens, events).await?
    };
    response.headers_mut().insert(PROMPT_TOKENS, HeaderValue::from(prompt_tokens));
    response.headers_mut().insert(COMPUTE, HeaderValue::from(compute_us));
    Ok(response)
}

/// Hands a known answer that has `arrived` to the scheduler, among all others, and says how likely it is. Dropping this
/// cancels the request.
pub(super) async fn score(worker: &Worker, known: Known, arrived: Instant) -> Result<Response, Refusal> {
    let Known { model, adapter, read: prompt, next } = known;
    let (read, tokens) = (prompt.len(), next.iter().flatten().count());
    let deadline = arrived + worker.request_limit;
    let job = Job {
        operation: WorkerOperation::Score,
        arrived,
        prompt,
        most: 0,
        known: Some(next),
        sampling: NOTHING_DRAWN,
        stops: Vec::new(),
        deadline,
        adapter,
    };
    let mut events = worker.scheduler.submit(job).map_err(denied)?;
    let (loss_sum, compute_us) = match events.recv().await {
        Some(Event::Scored { loss_sum, compute_us }) if loss_sum.is_finite() => (loss_sum, compute_us),
        Some(Event::Failed(failure)) => return Err(refusal(failure)),
        _ => return Err(Refusal::failed()),
    };
    let usage = Usage::new(read, 0, compute_us);
    let score = Score::new((&model, &worker.model.fingerprint), (tokens, loss_sum), usage);
    Ok(([(COMPUTE, HeaderValue::from(compute_us))], Json(score)).into_response())
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
) -> Result<(Response, u64), Refusal> {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Started { .. } => {}
            Event::Text { text: piece, .. } => text += &piece,
            Event::Finished { reason, tokens, compute_us } => {
                let json = answer.whole(&text, reason, Usage::new(prompt_tokens, tokens, compute_us));
                let response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
                return Ok((response, compute_us));
            }
            Event::Failed(failure) => return Err(refusal(failure)),
            // of known answers only
            Event::Scored { .. } => break,
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
                Some(Event::Started { .. }) => continue,
                Some(Event::Text { text, compute_us }) => {
                    let piece = format!("{COMPUTE_COMMENT}{compute_us}\n{}", answer.piece(&text));
                    (frame(piece), Some((answer, events, None)))
                }
                Some(Event::Finished { reason, tokens, compute_us }) => {
                    let usage = Usage::new(prompt_tokens, tokens, compute_us);
                    (frame(answer.closing(reason, usage)), None)
                }
                Some(Event::Failed(failure)) => (frame(error(&refusal(failure))), None),
                Some(Event::Scored { .. }) | None => (frame(error(&Refusal::failed())), None),
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
