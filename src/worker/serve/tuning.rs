//! Training over HTTP, in OpenAI's shapes: `/v1/files`, `/v1/fine_tuning/jobs`, and the models that come of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use multer::{Field, Multipart};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Worker;
use super::doors::{on_disk, read};
use crate::clock;
use crate::domain::tuning::{Id, filename};
use crate::worker::tuning::desk::{Page, TuningDesk, broken};
use crate::worker::tuning::folder;
use crate::worker::tuning::record::{Epoch, Record};
use crate::worker::tuning::shelf::{MAX_BYTES, Stored};
use crate::worker::wire::Refusal;

/// Items of a list where the client does not say how many.
const LIMIT: usize = 20;
/// The most items of a list.
const MOST: usize = 1000;
/// The longest value of a form that is no file, bytes.
const MOST_VALUE_BYTES: usize = 4 << 10;
/// How many bytes of a file are read or written at once.
const PIECE_BYTES: usize = 256 << 10;

type Doors = Arc<Worker>;

/// Returns the paths.
pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/v1/files", get(files).post(upload))
        .route("/v1/files/{id}", get(file).delete(delete_file))
        .route("/v1/files/{id}/content", get(content))
        .route("/v1/fine_tuning/jobs", get(jobs).post(create))
        .route("/v1/fine_tuning/jobs/{id}", get(job))
        .route("/v1/fine_tuning/jobs/{id}/events", get(events))
        .route("/v1/fine_tuning/jobs/{id}/checkpoints", get(checkpoints))
        .route("/v1/fine_tuning/jobs/{id}/cancel", post(cancel))
        .route("/v1/fine_tuning/jobs/{id}/pause", post(pause))
        .route("/v1/fine_tuning/jobs/{id}/resume", post(resume))
}

/// The desk, or why there is none.
fn desk(worker: &Worker) -> Result<&TuningDesk, Refusal> {
    worker.local.as_ref().map(|local| &local.desk).ok_or_else(Refusal::no_tuning)
}

/// Looks at jobs, which may read files. Where nothing is trained now, nobody hears that there is no job: the next start
/// may have it again, and whoever follows it would give it up.
async fn at_jobs<T: Send + 'static>(
    worker: Arc<Worker>,
    work: impl FnOnce(&TuningDesk) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    desk(&worker).map_err(|_| Refusal::no_tuning_now())?;
    at_desk(worker, work).await
}

/// Does something at the desk that may read or write files.
async fn at_desk<T: Send + 'static>(
    worker: Arc<Worker>,
    work: impl FnOnce(&TuningDesk) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let at = Arc::clone(&worker);
    on_disk(&worker, move || work(desk(&at)?)).await?
}

#[derive(Deserialize)]
struct Paging {
    after: Option<String>,
    limit: Option<usize>,
}

impl Paging {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT).clamp(1, MOST)
    }
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

fn paging(asked: Asked<Paging>) -> Result<Paging, Refusal> {
    asked.map(|Query(paging)| paging).map_err(|_| Refusal::invalid("limit", "expected a whole number"))
}

fn list(page: &Page<Value>) -> Json<Value> {
    let id = |value: Option<&Value>| value.and_then(|value| value.get("id")).cloned().unwrap_or_default();
    let (first, last) = (id(page.items.first()), id(page.items.last()));
    Json(json!({
        "object": "list",
        "data": page.items,
        "has_more": page.has_more,
        "first_id": first,
        "last_id": last,
    }))
}

async fn files(State(worker): State<Doors>, asked: Asked<Paging>) -> Result<Json<Value>, Refusal> {
    let paging = paging(asked)?;
    let page = at_desk(worker, move |desk| {
        let all = desk.shelf().all().map_err(|error| broken(&error))?;
        Ok(Page::of(all, paging.after.as_deref(), paging.limit(), |file| &file.id))
    })
    .await?;
    Ok(list(&Page { items: page.items.iter().map(Stored::told).collect(), has_more: page.has_more }))
}

async fn upload(State(worker): State<Doors>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Refusal> {
    let shelf = desk(&worker)?.shelf().clone();
    let room = shelf.clone();
    if !on_disk(&worker, move || room.has_room()).await?.map_err(|error| broken(&error))? {
        return Err(Refusal::too_many_files());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok()).ok_or_else(|| {
        Refusal::malformed(
            "the body has to be a form: send Content-Type: multipart/form-data with its boundary",
        )
    })?;
    let mut form = Multipart::new(body.into_data_stream(), boundary);
    let (mut purpose, mut stored) = (None, None);
    let mut unfinished = Unfinished(None);
    while let Some(mut field) = form.next_field().await.map_err(|error| wrong_form(&error))? {
        match field.name() {
            Some("purpose") => purpose = Some(text(field).await?),
            Some("file") if stored.is_none() => {
                let name = filename(field.file_name().unwrap_or("file.jsonl"))
                    .map_err(|why| Refusal::invalid("file", &why))?;
                let id = Id::File.mint(rand::random());
                let path = shelf.content(&id);
                unfinished.0 = Some(path.clone());
                let bytes = write(&worker, &mut field, path).await?;
                stored = Some((id, name, bytes));
            }
            _ => {
                text(field).await?;
            }
        }
    }
    let (id, filename, bytes) = stored.ok_or_else(|| Refusal::missing("file"))?;
    match purpose.as_deref() {
        Some("fine-tune" | "fine_tune") => {}
        Some(_) => return Err(Refusal::invalid("purpose", "only `fine-tune` is known here")),
        None => return Err(Refusal::missing("purpose")),
    }
    let created_at = clock::unix_ms() / 1000;
    let file = Stored { id, bytes, created_at, filename, purpose: "fine-tune".to_owned() };
    let told = file.told();
    on_disk(&worker, move || shelf.keep(&file)).await?.map_err(|error| broken(&error))?;
    unfinished.0 = None;
    Ok(Json(told))
}

/// Bytes that belong to no file yet; removed when dropped.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // what stays behind is swept at the next start
            let _ = folder::remove(path);
        }
    }
}

async fn text(mut field: Field<'_>) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| wrong_form(&error))? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MOST_VALUE_BYTES {
            return Err(Refusal::malformed("a member of the form that is no file is longer than 4 KiB"));
        }
    }
    String::from_utf8(bytes).map_err(|_| Refusal::malformed("a member of the form is not UTF-8"))
}

/// Writes a file piece by piece, and has it on the disk; between two pieces others have their turn at it.
async fn write(worker: &Worker, field: &mut Field<'_>, path: PathBuf) -> Result<u64, Refusal> {
    let created = on_disk(worker, move || File::create(path)).await?;
    let mut file = created.map_err(|error| broken(&error))?;
    let (mut piece, mut bytes) = (Vec::with_capacity(PIECE_BYTES), 0);
    loop {
        let chunk = field.chunk().await.map_err(|error| wrong_form(&error))?;
        let is_last = chunk.is_none();
        if let Some(chunk) = chunk {
            bytes += chunk.len() as u64;
            if bytes > MAX_BYTES {
                return Err(Refusal::too_large(usize::try_from(MAX_BYTES).unwrap_or(usize::MAX)));
            }
            piece.extend_from_slice(&chunk);
        }
        if is_last || piece.len() >= PIECE_BYTES {
            let written = on_disk(worker, move || write_piece(file, piece, is_last)).await?;
            (file, piece) = match written {
                Ok(next) => next,
                Err(error) => {
                    // read to its end: who still sends would not hear why it is refused
                    while bytes <= MAX_BYTES
                        && let Ok(Some(chunk)) = field.chunk().await
                    {
                        bytes += chunk.len() as u64;
                    }
                    return Err(broken(&error));
                }
            };
        }
        if is_last {
            return Ok(bytes);
        }
    }
}

fn write_piece(mut file: File, mut piece: Vec<u8>, is_last: bool) -> io::Result<(File, Vec<u8>)> {
    file.write_all(&piece)?;
    piece.clear();
    if is_last {
        file.sync_all()?;
    }
    Ok((file, piece))
}

fn open(path: PathBuf) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Reads the next piece of a file; an empty one at its end.
fn read_piece(file: File) -> io::Result<(File, Bytes)> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    (&file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((file, piece.into()))
}

async fn find_file(worker: Doors, id: String) -> Result<Stored, Refusal> {
    at_desk(worker, move |desk| {
        let found = desk.shelf().find(&id).map_err(|error| broken(&error))?;
        found.ok_or_else(|| Refusal::unknown_file("id", &id))
    })
    .await
}

async fn file(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(find_file(worker, id).await?.told()))
}

async fn delete_file(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let file = find_file(Arc::clone(&worker), id).await?;
    let id = file.id.clone();
    at_desk(worker, move |desk| desk.delete_file(&id)).await?;
    Ok(Json(json!({"object": "file", "id": file.id, "deleted": true})))
}

async fn content(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let path = desk(&worker)?.shelf().content(&find_file(Arc::clone(&worker), id).await?.id);
    let opened = on_disk(&worker, move || open(path)).await?;
    let (file, length) = opened.map_err(|error| broken(&error))?;
    let pieces = futures_util::stream::try_unfold((worker, file), async |(worker, file)| {
        let read = on_disk(&worker, move || read_piece(file)).await;
        let (file, piece) = read.map_err(|refusal| io::Error::other(refusal.to_json()))??;
        Ok::<_, io::Error>((!piece.is_empty()).then_some((piece, (worker, file))))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

async fn create(State(worker): State<Doors>, body: Body) -> Result<Json<Value>, Refusal> {
    let body = read(body).await?;
    let place = worker.for_disk.take()?;
    at_desk(worker, move |desk| {
        let created = desk.create(&body).map(|record| Json(told(desk, &record)));
        drop((body, place));
        created
    })
    .await
}

async fn jobs(State(worker): State<Doors>, asked: Asked<Paging>) -> Result<Json<Value>, Refusal> {
    let paging = paging(asked)?;
    let page = at_jobs(worker, move |desk| {
        let page = Page::of(desk.all()?, paging.after.as_deref(), paging.limit(), |job| &job.id);
        Ok(Page { items: page.items.iter().map(|job| told(desk, job)).collect(), has_more: page.has_more })
    })
    .await?;
    Ok(list(&page))
}

async fn job(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    with_job(worker, id, |desk, record| Ok(Json(told(desk, record)))).await
}

async fn events(
    State(worker): State<Doors>,
    Path(id): Path<String>,
    asked: Asked<Paging>,
) -> Result<Json<Value>, Refusal> {
    let paging = paging(asked)?;
    let page = with_job(worker, id, move |desk, record| {
        let page = desk.events(&record.id, paging.after.as_deref(), paging.limit())?;
        Ok(Page { items: page.items.iter().map(|event| event.told()).collect(), has_more: page.has_more })
    })
    .await?;
    Ok(list(&page))
}

async fn checkpoints(
    State(worker): State<Doors>,
    Path(id): Path<String>,
    asked: Asked<Paging>,
) -> Result<Json<Value>, Refusal> {
    let paging = paging(asked)?;
    let page = with_job(worker, id, move |desk, record| {
        let all: Vec<Value> =
            desk.checkpoints(record).iter().map(|(name, epoch)| checkpoint(record, name, epoch)).collect();
        Ok(Page::of(all, paging.after.as_deref(), paging.limit(), |value| {
            value.get("id").and_then(Value::as_str).unwrap_or_default()
        }))
    })
    .await?;
    Ok(list(&page))
}

async fn cancel(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    at_desk(worker, move |desk| desk.cancel(&id).map(|record| Json(told(desk, &record)))).await
}

async fn pause(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    at_desk(worker, move |desk| desk.pause(&id).map(|record| Json(told(desk, &record)))).await
}

async fn resume(State(worker): State<Doors>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    at_desk(worker, move |desk| desk.resume(&id).map(|record| Json(told(desk, &record)))).await
}

async fn with_job<T: Send + 'static>(
    worker: Doors,
    id: String,
    work: impl FnOnce(&TuningDesk, &Record) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    at_jobs(worker, move |desk| {
        let record = desk.find(&id)?;
        work(desk, &record)
    })
    .await
}

fn told(desk: &TuningDesk, record: &Record) -> Value {
    record.told(&desk.run_of(&record.id), desk.organization(), clock::unix_ms() / 1000)
}

fn checkpoint(record: &Record, name: &str, epoch: &Epoch) -> Value {
    json!({
        "object": "fine_tuning.job.checkpoint",
        "id": format!("ftckpt_{}s{}", record.short(), epoch.step),
        "created_at": epoch.created_at,
        "fine_tuned_model_checkpoint": name,
        "fine_tuning_job_id": record.id,
        "step_number": epoch.step,
        "metrics": {
            "step": epoch.step,
            "train_loss": epoch.train_loss,
            "train_mean_token_accuracy": epoch.train_accuracy,
            "full_valid_loss": epoch.valid_loss,
            "full_valid_mean_token_accuracy": epoch.valid_accuracy,
        },
    })
}

/// `DELETE /v1/models/{id}`
pub(super) async fn delete_model(
    State(worker): State<Doors>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    if worker.model.is_called(&id) {
        return Err(Refusal::base_model_stays(&id));
    }
    let asked = id.clone();
    let at = Arc::clone(&worker);
    let deleted = on_disk(&worker, move || {
        let Some(local) = &at.local else { return Ok(false) };
        let name = local.adapters.find(&asked).map(|card| card.name);
        name.map_or(Ok(false), |name| local.adapters.delete_model(&name))
    })
    .await?;
    match deleted {
        Ok(true) => Ok(Json(json!({"object": "model", "id": id, "deleted": true}))),
        Ok(false) => Err(Refusal::unknown_model(&id)),
        Err(error) => {
            tracing::error!(%error, "an adapter can't be removed");
            Err(Refusal::failed())
        }
    }
}

fn wrong_form(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::StreamReadFailed(_) => Refusal::unreadable(),
        other => Refusal::malformed(&other.to_string()),
    }
}
