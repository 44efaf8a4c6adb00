//! Answers of fine-tuning APIs, read with patience: members may be missing, null, of another year's form, or of a kind
//! that nobody told us about. What we don't know is left alone; only what we can't do without must be there.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{OUR_JOB, azure};
use crate::domain::catalog::ProviderKind;
use crate::domain::tuning::{
    COMPUTE_SECONDS, Checkpoint, JobError, JobStatus, ProviderFile, ProviderFileStatus, ProviderJob,
    TrainingEvent,
};

/// Longest id that we keep; no provider's is longer.
const MAX_ID_BYTES: usize = 512;
/// How every result file begins.
const FIRST_COLUMN: &str = "step,";
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is on it, in the provider's order.
    pub items: Vec<T>,
    /// What the next page is asked for with; none behind the last one.
    pub next: Option<String>,
}

/// A job; none where it is none.
pub fn job(kind: ProviderKind, body: &[u8]) -> Option<ProviderJob> {
    one_job(kind, serde_json::from_slice(body).ok()?)
}

/// A page of jobs.
pub fn jobs(kind: ProviderKind, body: &[u8]) -> Option<Page<ProviderJob>> {
    page(body, |value| one_job(kind, value))
}

/// A file.
pub fn file(kind: ProviderKind, body: &[u8]) -> Option<ProviderFile> {
    one_file(kind, &serde_json::from_slice(body).ok()?)
}

/// A page of files.
pub fn files(kind: ProviderKind, body: &[u8]) -> Option<Page<ProviderFile>> {
    page(body, |value| one_file(kind, &value))
}

/// A page of events, in the provider's order: see [`in_order`].
pub fn events(body: &[u8]) -> Option<Page<TrainingEvent>> {
    page(body, |value| one_event(&value))
}

/// A page of checkpoints, in the provider's order.
pub fn checkpoints(body: &[u8]) -> Option<Page<Checkpoint>> {
    page(body, |value| one_checkpoint(&value))
}

/// Which of the texts were flagged, in their order; none where the answer is not about so many.
pub fn flagged(body: &[u8], texts: usize) -> Option<Vec<bool>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let results = answer.get("results")?.as_array()?;
    let flagged: Option<Vec<bool>> = results.iter().map(|one| one.get("flagged")?.as_bool()).collect();
    flagged.filter(|flagged| flagged.len() == texts)
}

/// Whether an answer says that something was deleted.
pub fn is_deleted(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    // Azure's dated versions answer 204 with no words
    body.is_empty() || answer.get("deleted").and_then(Value::as_bool) == Some(true)
}

/// Whether a list is told from its newest event. Azure's documents show the oldest first, OpenAI's list is the other
/// way round; where the moments are all alike, the provider decides.
pub fn listed_newest_first(kind: ProviderKind, events: &[TrainingEvent]) -> bool {
    let (first, last) = (events.first(), events.last());
    match (first.map(|event| event.created_at), last.map(|event| event.created_at)) {
        (Some(first), Some(last)) if first != last => first > last,
        _ => kind != ProviderKind::Azure,
    }
}

/// All events of a list, the oldest first.
pub fn in_order(kind: ProviderKind, mut events: Vec<TrainingEvent>) -> Vec<TrainingEvent> {
    if listed_newest_first(kind, &events) {
        events.reverse();
    }
    events.sort_by_key(|event| event.created_at);
    events
}

/// A result file as OpenAI's was before it was sent: plain text, with OpenAI's names for the columns. What is none is
/// left as it is.
///
/// Source: OpenAI's cookbook decodes base64, Azure's documents show plain text.
pub fn result_file(content: Bytes) -> Bytes {
    let is_table =
        |bytes: &[u8]| bytes.strip_prefix(BOM).unwrap_or(bytes).starts_with(FIRST_COLUMN.as_bytes());
    let plain = if is_table(&content) {
        content
    } else {
        let text: Vec<u8> = content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        match STANDARD.decode(&text) {
            Ok(decoded) if is_table(&decoded) => decoded.into(),
            _ => return content,
        }
    };
    let plain = match plain.strip_prefix(BOM) {
        Some(rest) => plain.slice_ref(rest),
        None => plain,
    };
    let end = plain.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(plain.len());
    let Ok(first) = std::str::from_utf8(&plain[..end]) else { return plain };
    let renamed = azure::header(first);
    if renamed == first {
        return plain;
    }
    let mut out = renamed.into_bytes();
    out.extend_from_slice(&plain[end..]);
    out.into()
}

/// The items of a list. One that can't be read keeps nobody from reading the others; that the list goes on is known by
/// the last id whatever it is of.
fn page<T>(body: &[u8], one: impl Fn(Value) -> Option<T>) -> Option<Page<T>> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let data = match answer.get_mut("data")?.take() {
        Value::Array(data) => data,
        _ => return None,
    };
    let more = answer.get("has_more").and_then(Value::as_bool) == Some(true);
    let last = text(&answer, "last_id").or_else(|| text(data.last()?, "id"));
    let next = last.filter(|id| more && is_id(id));
    Some(Page { items: data.into_iter().filter_map(one).collect(), next })
}

fn one_job(kind: ProviderKind, raw: Value) -> Option<ProviderJob> {
    let method = raw.get("method").filter(|method| method.is_object());
    let told = method.and_then(|method| method.get(method.get("type")?.as_str()?)?.get("hyperparameters"));
    let told = told.filter(|told| told.is_object());
    let top = raw.get("hyperparameters").filter(|told| told.is_object());
    let number = |name: &str| {
        let count = |told: &Value| whole(told.get(name)?).filter(|count| *count > 0);
        told.and_then(count).or_else(|| top.and_then(count)).and_then(|count| u64::try_from(count).ok())
    };
    let error = raw.get("error").and_then(job_error);
    Some(ProviderJob {
        id: id_of(raw.get("id")?)?,
        status: JobStatus::read(raw.get("status")?.as_str()?),
        ours: raw.get("metadata").and_then(|metadata| id_of(metadata.get(OUR_JOB)?)),
        training_file: raw.get("training_file").and_then(id_of),
        created_at: seconds(&raw, "created_at"),
        finished_at: seconds(&raw, "finished_at"),
        estimated_finish: seconds(&raw, "estimated_finish"),
        model: text(&raw, "fine_tuned_model").map(Arc::from),
        trained_tokens: raw.get("trained_tokens").and_then(whole).and_then(|count| u64::try_from(count).ok()),
        compute_seconds: computed(kind, &raw),
        epochs: number("n_epochs"),
        batch_size: number("batch_size"),
        seed: raw.get("seed").and_then(whole),
        hyperparameters: top.or(told).map(in_words),
        method: method.cloned(),
        result_files: raw
            .get("result_files")
            .and_then(Value::as_array)
            .map(|files| files.iter().filter_map(id_of).collect())
            .unwrap_or_default(),
        error,
        raw,
    })
}

/// How long a worker of ours has computed for a job; nobody else is believed that.
fn computed(kind: ProviderKind, raw: &Value) -> Option<u64> {
    let told = raw.get("usage_metrics")?.get(COMPUTE_SECONDS)?;
    u64::try_from(whole(told)?).ok().filter(|_| kind == ProviderKind::Candle)
}

/// Hyperparameters in OpenAI's form: what the service chooses is `auto`, where Azure says -1 or nothing.
fn in_words(told: &Value) -> Value {
    let mut words = told.as_object().cloned().unwrap_or_else(Map::new);
    for (name, value) in &mut words {
        let chosen_there = value.is_null() || whole(value) == Some(-1);
        if chosen_there && matches!(name.as_str(), "n_epochs" | "batch_size" | "learning_rate_multiplier") {
            *value = json!("auto");
        }
    }
    words.into()
}

/// What went wrong; an object whose members are all null or empty is nothing.
fn job_error(error: &Value) -> Option<JobError> {
    let member = |name: &str| match error.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let said = JobError {
        code: member("code"),
        message: member("message"),
        param: member("param").or_else(|| member("target")),
    };
    (said.code.is_some() || said.message.is_some()).then_some(said)
}

fn one_file(kind: ProviderKind, raw: &Value) -> Option<ProviderFile> {
    let status = match raw.get("status").and_then(Value::as_str) {
        Some("error" | "deleting" | "deleted") => ProviderFileStatus::Broken,
        Some("pending" | "running") => ProviderFileStatus::Pending,
        // OpenAI's needs no wait, Azure's does
        Some("uploaded") if kind == ProviderKind::Azure => ProviderFileStatus::Pending,
        _ => ProviderFileStatus::Ready,
    };
    let why = match raw.get("status_details") {
        Some(Value::String(words)) => Some(words.clone()).filter(|words| !words.is_empty()),
        Some(details @ Value::Object(_)) => {
            Some(text(details, "message").unwrap_or_else(|| details.to_string()))
        }
        _ => raw.get("error").and_then(|error| text(error, "message")),
    };
    Some(ProviderFile {
        id: id_of(raw.get("id")?)?,
        filename: text(raw, "filename").unwrap_or_default().into(),
        status,
        why: why.filter(|_| status == ProviderFileStatus::Broken),
    })
}

fn one_event(raw: &Value) -> Option<TrainingEvent> {
    let level = match raw.get("level").and_then(Value::as_str) {
        Some("warn" | "warning") => "warn",
        Some("error") => "error",
        _ => "info",
    };
    let mut data = raw.get("data").cloned().filter(Value::is_object).unwrap_or(Value::Null);
    azure::figures(&mut data);
    Some(TrainingEvent {
        id: id_of(raw.get("id")?)?,
        created_at: seconds(raw, "created_at").unwrap_or_default(),
        level: level.into(),
        kind: text(raw, "type").unwrap_or_else(|| "message".to_owned()).into(),
        message: text(raw, "message").unwrap_or_default(),
        data,
    })
}

fn one_checkpoint(raw: &Value) -> Option<Checkpoint> {
    let mut metrics = raw.get("metrics").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    azure::figures(&mut metrics);
    let step = raw.get("step_number").and_then(whole).or_else(|| metrics.get("step").and_then(whole))?;
    Some(Checkpoint {
        id: id_of(raw.get("id")?)?,
        created_at: seconds(raw, "created_at").unwrap_or_default(),
        step: u64::try_from(step).ok()?,
        model: text(raw, "fine_tuned_model_checkpoint")?.into(),
        metrics,
    })
}

/// An id, or the id of an object: files were objects until September 2023.
fn id_of(value: &Value) -> Option<Arc<str>> {
    let id = match value {
        Value::String(id) => id,
        Value::Object(object) => object.get("id")?.as_str()?,
        _ => return None,
    };
    is_id(id).then(|| id.into())
}

/// Whether a text can be an id, and stand in a path without leading out of it.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !matches!(text, "." | "..")
}

fn text(value: &Value, member: &str) -> Option<String> {
    value.get(member)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A moment in seconds; 0 is none.
fn seconds(value: &Value, member: &str) -> Option<i64> {
    whole(value.get(member)?).filter(|seconds| *seconds > 0)
}

/// A whole number, also where it is written with a point.
fn whole(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9.0e15)?;
    // whole and far below what an i64 holds
    format!("{number:.0}").parse().ok()
}
