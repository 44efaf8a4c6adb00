//! Paths to answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};

use super::places::in_time;
use super::{Embedding, GRACE, Worker, reply, tuning};
use crate::clock;
use crate::telemetry::metrics::Occupancy;
use crate::worker::embedding::{self, Embedded};
use crate::worker::prepare::{self, Prepared, Served};
use crate::worker::wire::{self, ModelList, ModelObject, Refusal, embeddings_json};

/// The largest body, in bytes.
const BODY_LIMIT: usize = 32 << 20;
/// How often a supervisor hears that the worker lives.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Returns all paths.
pub(super) fn router(worker: Arc<Worker>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/tunegate/score", post(score))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model).delete(tuning::delete_model))
        .route("/health", get(health))
        .route("/readyz", get(health))
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/metrics", get(metrics))
        .route("/internal/supervise", get(supervise))
        .route("/internal/stop", post(stop))
        .merge(tuning::router())
        .fallback(async |method: Method, uri: Uri| Refusal::unknown_url(method.as_str(), uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Refusal::wrong_method(method.as_str(), uri.path())
        })
        .with_state(worker)
}

async fn chat(State(worker): State<Arc<Worker>>, body: Body) -> Result<Response, Refusal> {
    generate(worker, body, prepare::chat).await
}

async fn completion(State(worker): State<Arc<Worker>>, body: Body) -> Result<Response, Refusal> {
    generate(worker, body, prepare::completion).await
}

type Prepare = fn(Served<'_>, &[u8]) -> Result<Prepared, Refusal>;

async fn generate(worker: Arc<Worker>, body: Body, prepare: Prepare) -> Result<Response, Refusal> {
    let body = read(body).await?;
    let arrived = clock::monotonic();
    let prepared = in_time(worker.request_limit, async {
        warm(&worker, &body).await?;
        let preparing = Arc::clone(&worker);
        worker.for_thread.beside(body, move |body| prepare(preparing.served(), body)).await?
    });
    let prepared = prepared.await?;
    reply::answer(&worker, prepared, arrived).await
}

async fn embeddings(State(worker): State<Arc<Worker>>, body: Body) -> Result<Response, Refusal> {
    let Embedding { model, desk, for_thread } =
        worker.embedding.as_ref().ok_or_else(Refusal::no_embeddings)?;
    let body = read(body).await?;
    let arrived = clock::monotonic();
    let preparing = Arc::clone(model);
    let prepared = in_time(worker.request_limit, async {
        for_thread.beside(body, move |body| preparing.prepare(body)).await?
    });
    let prepared = prepared.await?;
    let embedding::Prepared { texts, form, tokens } = prepared;
    let answer = desk.submit(texts, arrived, arrived + worker.request_limit).map_err(reply::denied)?;
    // Whoever leaves drops this future, and with it the receiver: that cancels what is not computed yet.
    let Embedded { vectors, compute_us } =
        answer.await.map_err(|_| Refusal::failed())?.map_err(reply::refusal)?;
    let name = model.name.clone();
    let json = beside(move || embeddings_json(&name, &vectors, form, tokens, compute_us)).await?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], json).into_response();
    response.headers_mut().insert(reply::COMPUTE, HeaderValue::from(compute_us));
    Ok(response)
}

async fn score(State(worker): State<Arc<Worker>>, body: Body) -> Result<Response, Refusal> {
    let body = read(body).await?;
    let arrived = clock::monotonic();
    let known = in_time(worker.request_limit, async {
        warm(&worker, &body).await?;
        let preparing = Arc::clone(&worker);
        let prepare = move |body: &Bytes| prepare::score(preparing.served(), body);
        worker.for_thread.beside(body, prepare).await?
    });
    let known = known.await?;
    reply::score(&worker, known, arrived).await
}

/// Has the adapter that a request asks for read into memory, so that the request is prepared without a disk, as one of
/// the base model always is. What is wrong with a request is left to its preparation, which says it better.
async fn warm(worker: &Arc<Worker>, body: &Bytes) -> Result<(), Refusal> {
    let Some(local) = &worker.local else { return Ok(()) };
    let asked = worker.for_thread.beside(body.clone(), |body| wire::model_of(body)).await?;
    let Some(asked) = asked else { return Ok(()) };
    if worker.model.is_called(&asked) || local.adapters.resident(&asked).is_some() {
        return Ok(());
    }
    let (place, waiting, reading) = (worker.for_disk.take()?, body.clone(), Arc::clone(worker));
    let read = on_disk(worker, move || {
        let _held = (place, waiting);
        reading.served().find(&asked).map(drop)
    });
    read.await?
}

/// Does what waits for a disk, in a place of its own: [`DISK_THREADS`] at once, the others wait without a thread. So
/// however slow a disk is, [`PREPARING_THREADS`] are left to those who need none: `beside` holds the threads of both, and
/// what is begun stays counted until it ends, also where nobody waits for it any more.
///
/// [`DISK_THREADS`]: crate::worker::DISK_THREADS
/// [`PREPARING_THREADS`]: crate::worker::PREPARING_THREADS
pub(super) async fn on_disk<T: Send + 'static>(
    worker: &Worker,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    // the places are never closed
    let place = Arc::clone(&worker.disk).acquire_owned().await.map_err(|_| Refusal::failed())?;
    beside(move || {
        let done = work();
        drop(place);
        done
    })
    .await
}

/// Does what takes a while, such as to tokenise a long text, while other sockets are served.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request could not be prepared");
        Refusal::failed()
    })
}

pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(BODY_LIMIT)),
        Err(_) => Err(Refusal::unreadable()),
    }
}

fn described(worker: &Worker, name: &str) -> ModelObject {
    ModelObject::new(name.to_owned(), worker.started)
}

async fn models(State(worker): State<Arc<Worker>>) -> Result<Json<ModelList>, Refusal> {
    let vectors = worker.embedding.as_ref().map(|embedding| &embedding.model.name);
    let names = std::iter::once(&worker.model.name).chain(vectors);
    let mut models: Vec<_> = names.map(|name| described(&worker, name)).collect();
    if let Some(local) = &worker.local {
        let adapters = Arc::clone(&local.adapters);
        let cards = on_disk(&worker, move || adapters.all()).await?;
        models.extend(cards.into_iter().map(|card| ModelObject::new(card.name, card.created_at)));
    }
    Ok(Json(ModelList::new(models)))
}

async fn model(
    State(worker): State<Arc<Worker>>,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, Refusal> {
    if worker.model.is_called(&id) {
        return Ok(Json(described(&worker, &worker.model.name)));
    }
    match &worker.embedding {
        Some(Embedding { model, .. }) if model.is_called(&id) => Ok(Json(described(&worker, &model.name))),
        _ => {
            let Some(local) = &worker.local else { return Err(Refusal::unknown_model(&id)) };
            let (adapters, asked) = (Arc::clone(&local.adapters), id.clone());
            let card = on_disk(&worker, move || adapters.find(&asked)).await?;
            let card = card.ok_or_else(|| Refusal::unknown_model(&id))?;
            Ok(Json(ModelObject::new(card.name, card.created_at)))
        }
    }
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    model: &'a str,
    active: usize,
    queued: usize,
}

async fn health(State(worker): State<Arc<Worker>>) -> Response {
    let load = worker.scheduler.load();
    let (code, status) = if worker.scheduler.is_open() && !worker.stop.is_ordered() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    };
    let health = Health { status, model: &worker.model.name, active: load.active, queued: load.queued };
    (code, Json(health)).into_response()
}

/// That it answers is all there is to say: a worker whose engine has stopped ends by itself.
async fn alive() -> Response {
    Json(serde_json::json!({"status": "ok"})).into_response()
}

/// What Prometheus reads, or the gateway for it.
async fn metrics(State(worker): State<Arc<Worker>>) -> Response {
    let load = worker.scheduler.load();
    let text =
        worker.metrics.text(Occupancy { queue: load.queued, active: load.active, kv_tokens: load.tokens });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Streams comment lines until the worker stops; whoever reads them supervises.
async fn supervise(State(worker): State<Arc<Worker>>) -> Response {
    let held = worker.supervisors.hold();
    let stop = worker.stop.clone();
    let beats = stream::unfold((held, true), move |(held, first)| {
        let stop = stop.clone();
        async move {
            let line = || Some((Ok::<_, Infallible>(Bytes::from_static(b": here\n\n")), (held, false)));
            if first {
                return line();
            }
            tokio::select! {
                () = tokio::time::sleep(HEARTBEAT) => line(),
                _ = stop.ordered() => None,
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, reply::EVENT_STREAM), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(beats)).into_response()
}

#[derive(Deserialize)]
struct StopQuery {
    grace_ms: Option<u64>,
}

#[derive(Serialize)]
struct Stopping {
    status: &'static str,
}

async fn stop(
    State(worker): State<Arc<Worker>>,
    query: Result<Query<StopQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<(StatusCode, Json<Stopping>), Refusal> {
    let Query(query) = query.map_err(|_| Refusal::invalid("grace_ms", "expected milliseconds"))?;
    worker.stop.order(query.grace_ms.map_or(GRACE, Duration::from_millis));
    Ok((StatusCode::ACCEPTED, Json(Stopping { status: "stopping" })))
}
