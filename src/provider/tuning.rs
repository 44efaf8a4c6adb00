//! The fine-tuning API of each dialect: how it is asked, and what its answers mean in OpenAI's form.
//!
//! Source: OpenAI's specification 2.3.0 (2026-08-21), `/files` and `/fine_tuning`; Azure's authoring API 2024-10-21 and
//! its v1 API, both read in November 2026. What older servers say is in tests beside what reads it.

mod azure;
mod openai;
mod read;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};

use super::{Outgoing, asks, segment};
use crate::domain::catalog::{Dialect, Provider, ProviderKind};
use crate::domain::tuning::JobOrder;

pub use read::{
    Page, checkpoints, events, file, files, flagged, in_order, is_deleted, job, jobs, listed_newest_first,
    result_file,
};

/// The member of `metadata` that holds our own id of a job, at providers that keep it.
pub const OUR_JOB: &str = "tunegate_job";
/// Jobs, events and checkpoints on one page: as many as OpenAI gives.
const PAGE: usize = 100;
/// Files on one page: as many as OpenAI gives.
const FILES_PAGE: usize = 10_000;
/// Which model judges texts.
const MODERATION_MODEL: &str = "omni-moderation-latest";

/// What is done to a job that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It ends.
    Cancel,
    /// It stops until it is resumed.
    Pause,
    /// It goes on.
    Resume,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// What a dialect has no words for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotTaken {
    /// The parameter at fault.
    pub param: &'static str,
    /// Why, and what to do.
    pub message: String,
}

/// A file on its way, but for the file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The request without its body.
    pub outgoing: Outgoing,
    /// What goes before the file.
    pub front: Bytes,
    /// What goes behind it.
    pub back: Bytes,
}

/// A file for a purpose. Nothing in the file may look like the boundary, so it is random.
pub fn upload(provider: &Provider, filename: &str, purpose: &str, boundary: &str) -> Upload {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '_' };
    let filename: String = filename.chars().map(plain).collect();
    let front = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n\
         --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    );
    let mut outgoing = request(provider, Method::POST, "files", None);
    let content_type = format!("multipart/form-data; boundary={boundary}");
    // a boundary of letters and digits is a header's value
    outgoing.headers.extend(HeaderValue::from_str(&content_type).ok().map(|it| (header::CONTENT_TYPE, it)));
    Upload { outgoing, front: front.into(), back: format!("\r\n--{boundary}--\r\n").into() }
}

/// The list of training files, from the start or behind an id.
pub fn list_files(provider: &Provider, after: Option<&str>) -> Outgoing {
    let mut tail = "files?purpose=fine-tune".to_owned();
    // Azure's has no pages
    if provider.dialect.kind() != ProviderKind::Azure {
        tail.push_str(&format!("&limit={FILES_PAGE}"));
    }
    get(provider, &paged(tail, after))
}

/// One file.
pub fn get_file(provider: &Provider, id: &str) -> Outgoing {
    get(provider, &format!("files/{}", segment(id)))
}

/// A file's content.
pub fn get_content(provider: &Provider, id: &str) -> Outgoing {
    get(provider, &format!("files/{}/content", segment(id)))
}

/// A file's end.
pub fn delete_file(provider: &Provider, id: &str) -> Outgoing {
    request(provider, Method::DELETE, &format!("files/{}", segment(id)), None)
}

/// A model.
pub fn get_model(provider: &Provider, name: &str) -> Outgoing {
    get(provider, &format!("models/{}", segment(name)))
}

/// A fine-tuned model's end.
pub fn delete_model(provider: &Provider, name: &str) -> Outgoing {
    request(provider, Method::DELETE, &format!("models/{}", segment(name)), None)
}

/// A new job.
///
/// # Errors
///
/// When the order holds something that the dialect has no words for.
pub fn create(provider: &Provider, order: &JobOrder) -> Result<Outgoing, NotTaken> {
    let said = order.training_type.as_deref().or(training_type(provider));
    let body = match &provider.dialect {
        Dialect::OpenAi(_) | Dialect::Candle => openai::order(order),
        Dialect::AzureV1(_) => azure::order_v1(order, said),
        Dialect::AzureClassic(_) => azure::order_classic(order, said)?,
    };
    Ok(request(provider, Method::POST, "fine_tuning/jobs", Some(&body)))
}

/// The list of jobs, from the start or behind an id.
pub fn list_jobs(provider: &Provider, after: Option<&str>) -> Outgoing {
    get(provider, &paged(format!("fine_tuning/jobs?limit={PAGE}"), after))
}

/// One job.
pub fn get_job(provider: &Provider, id: &str) -> Outgoing {
    get(provider, &format!("fine_tuning/jobs/{}", segment(id)))
}

/// Something done to a job.
pub fn act(provider: &Provider, id: &str, action: Action) -> Outgoing {
    let tail = format!("fine_tuning/jobs/{}/{}", segment(id), action.name());
    request(provider, Method::POST, &tail, None)
}

/// A job's events, from the start or behind an id.
pub fn list_events(provider: &Provider, id: &str, after: Option<&str>) -> Outgoing {
    let tail = format!("fine_tuning/jobs/{}/events?limit={PAGE}", segment(id));
    get(provider, &paged(tail, after))
}

/// A job's checkpoints, from the start or behind an id.
pub fn list_checkpoints(provider: &Provider, id: &str, after: Option<&str>) -> Outgoing {
    let tail = format!("fine_tuning/jobs/{}/checkpoints?limit={PAGE}", segment(id));
    get(provider, &paged(tail, after))
}

/// Texts to be judged.
pub fn moderate(provider: &Provider, texts: &[&str]) -> Outgoing {
    let body = json!({ "model": MODERATION_MODEL, "input": texts });
    request(provider, Method::POST, "moderations", Some(&body))
}

fn training_type(provider: &Provider) -> Option<&'static str> {
    let training = provider.training.as_ref()?;
    training.training_type.map(|training_type| training_type.name())
}

fn get(provider: &Provider, tail: &str) -> Outgoing {
    request(provider, Method::GET, tail, None)
}

fn paged(mut tail: String, after: Option<&str>) -> String {
    if let Some(after) = after {
        tail.push_str(&format!("&after={}", segment(after)));
    }
    tail
}

/// A request of the account: no deployment is named in it.
fn request(provider: &Provider, method: Method, tail: &str, body: Option<&Value>) -> Outgoing {
    let dialect = asks(&provider.dialect);
    let mut headers = dialect.headers();
    headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    let body = match body {
        Some(body) => {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
            Some(Bytes::from(body.to_string()))
        }
        // without a length some servers wait for a body that does not come
        None if method == Method::POST => Some(Bytes::new()),
        None => None,
    };
    Outgoing {
        path: dialect.stored_path(&provider.base_path, tail),
        method,
        headers,
        body,
        usage_injected: false,
    }
}
