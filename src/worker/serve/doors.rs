//! Paths to answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};

use super::{Embedding, GRACE, Worker, reply};
use crate::clock;
use crate::telemetry::metrics::Occupancy;
use crate::worker::embedding;
use crate::worker::model::Model;
use crate::worker::prepare::{self, Prepared};
use crate::worker::wire::{ModelList, ModelObject, Refusal, embeddings_json};

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
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/health", get(health))
        .route("/readyz", get(health))
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/metrics", get(metrics))
        .route("/internal/supervise", get(supervise))
        .route("/internal/stop", post(stop))
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

type Prepare = fn(&Model, &[u8]) -> Result<Prepared, Refusal>;

async fn generate(worker: Arc<Worker>, body: Body, prepare: Prepare) -> Result<Response, Refusal> {
    let body = read(body).await?;
    let arrived = clock::monotonic();
    let preparing = Arc::clone(&worker);
    let prepared = beside(move || prepare(&preparing.model, &body)).await??;
    reply::answer(&worker, prepared, arrived).await
}

async fn embeddings(State(worker): State<Arc<Worker>>, body: Body) -> Result<Response, Refusal> {
    let Embedding { model, desk } = worker.embedding.as_ref().ok_or_else(Refusal::no_embeddings)?;
    let body = read(body).await?;
    let arrived = clock::monotonic();
    let preparing = Arc::clone(model);
    let prepared = beside(move || preparing.prepare(&body)).await??;
    let embedding::Prepared { texts, form, tokens } = prepared;
    let answer = desk.submit(texts, arrived, arrived + worker.request_limit).map_err(reply::denied)?;
    // Whoever leaves drops this future, and with it the receiver: that cancels what is not computed yet.
    let vectors = answer.await.map_err(|_| Refusal::failed())?.map_err(reply::refusal)?;
    let name = model.name.clone();
    let json = beside(move || embeddings_json(&name, &vectors, form, tokens)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Does what takes a while, such as to tokenise a long text, while other sockets are served.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request could not be prepared");
        Refusal::failed()
    })
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(BODY_LIMIT)),
        Err(_) => Err(Refusal::unreadable()),
    }
}

fn described(worker: &Worker, name: &str) -> ModelObject {
    ModelObject::new(name.to_owned(), worker.started)
}

async fn models(State(worker): State<Arc<Worker>>) -> Json<ModelList> {
    let vectors = worker.embedding.as_ref().map(|embedding| &embedding.model.name);
    let names = std::iter::once(&worker.model.name).chain(vectors);
    Json(ModelList::new(names.map(|name| described(&worker, name)).collect()))
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
        _ => Err(Refusal::unknown_model(&id)),
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
