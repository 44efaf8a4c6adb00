//! Every way the worker says no, in OpenAI's envelope.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::domain::tuning::request::JobRequestError;

/// An error as OpenAI writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// `Some(0)` tells clients not to try again, whatever the status.
    retry_after_s: Option<u32>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl Refusal {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after_s: None }
    }

    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The body is not JSON, or not an object.
    pub(in crate::worker) fn malformed(reason: &str) -> Self {
        let message = format!("We could not parse the JSON body of your request: {reason}");
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, message)
    }

    /// The body ended early, or could not be read.
    pub(in crate::worker) fn unreadable() -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, "The request body could not be read.")
    }

    /// The body is larger than `limit_bytes`.
    pub(in crate::worker) fn too_large(limit_bytes: usize) -> Self {
        let message = format!("The request body is larger than {} MiB.", limit_bytes >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("request_too_large"), message)
    }

    /// No such path.
    pub(in crate::worker) fn unknown_url(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID,
            Some("unknown_url"),
            format!("Invalid URL ({method} {path})"),
        )
    }

    /// The path exists, but not for this method.
    pub(in crate::worker) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("Not allowed to {method} on {path}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_supported"), message)
    }

    /// Another model than ours was asked for.
    pub(in crate::worker) fn unknown_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).about("model")
    }

    /// No model makes vectors here.
    pub(in crate::worker) fn no_embeddings() -> Self {
        let message = "This worker makes no embeddings: it was started without --embedding-model.";
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message).about("model")
    }

    /// Nothing is trained here.
    pub(in crate::worker) fn no_tuning() -> Self {
        let message = "This worker trains nothing: it was started without --tuning-folder.";
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("tuning_not_enabled"), message)
    }

    /// Nothing is trained here now: jobs of another start can't be told of.
    pub(in crate::worker) fn no_tuning_now() -> Self {
        let message = "This worker knows no jobs now: it was started without --tuning-folder.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("tuning_not_enabled"), message)
    }

    /// A request for a job is wrong.
    pub(in crate::worker) fn of_job(error: &JobRequestError) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, INVALID, Some(error.code), error.message.clone());
        match &error.param {
            Some(param) => refusal.about(param),
            None => refusal,
        }
    }

    /// There is no such job.
    pub(in crate::worker) fn unknown_job(id: &str) -> Self {
        let message = format!("Could not find fine tune: {id}");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("fine_tune_not_found"), message).about("fine_tune_id")
    }

    /// There is such a job, and nothing can be said of it.
    pub(in crate::worker) fn unreadable_job(id: &str) -> Self {
        let message = format!("Job {id} is there and can't be read: the worker's log says why.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("job_unreadable"), message)
    }

    /// A job is in a state in which it can't be, such as, `paused`.
    pub(in crate::worker) fn job_is(id: &str, status: &str, done: &str) -> Self {
        let message = format!("Job {id} can't be {done}: it is {status}.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_job_state"), message)
    }

    /// So many jobs have not ended yet.
    pub(in crate::worker) fn too_many_jobs(most: usize) -> Self {
        let message = format!("There are {most} fine-tuning jobs that have not ended: wait, or cancel some.");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut refusal = Self::new(status, "rate_limit_error", Some("rate_limit_exceeded"), message);
        refusal.retry_after_s = Some(60);
        refusal
    }

    /// There is no such file.
    pub(in crate::worker) fn unknown_file(param: &str, id: &str) -> Self {
        let message = format!("No such File object: {id}");
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("file_not_found"), message).about(param)
    }

    /// A job that has not ended learns from the file.
    pub(in crate::worker) fn file_in_use(id: &str, job: &str) -> Self {
        let message = format!("File {id} is needed by {job}: cancel the job first, or wait for its end.");
        Self::new(StatusCode::CONFLICT, INVALID, Some("file_in_use"), message)
    }

    /// No more files are taken.
    pub(in crate::worker) fn too_many_files() -> Self {
        let message = "There are too many files: delete some.";
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("too_many_files"), message)
    }

    /// Nothing more can be written.
    pub(in crate::worker) fn disk_full() -> Self {
        let message = "The worker's disk is full: make room and try again.";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, SERVER, Some("disk_full"), message)
    }

    /// The base model is no adapter.
    pub(in crate::worker) fn base_model_stays(model: &str) -> Self {
        let message =
            format!("The model `{model}` is the worker's own and can't be deleted; fine-tuned models can.");
        Self::new(StatusCode::FORBIDDEN, INVALID, Some("base_model"), message).about("model")
    }

    /// The adapter is there, and can't be used.
    pub(in crate::worker) fn broken_adapter(model: &str, why: &str) -> Self {
        let message = format!("The fine-tuned model `{model}` can't be served: {why}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("adapter_not_served"), message)
            .about("model")
    }

    /// A required parameter is missing.
    pub(in crate::worker) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("missing_required_parameter"), message).about(param)
    }

    /// A parameter has the wrong JSON type.
    pub(in crate::worker) fn wrong_type(param: &str, wanted: &str, found: &str) -> Self {
        let message = format!("Invalid type for '{param}': expected {wanted}, but got {found} instead.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_type"), message).about(param)
    }

    /// A parameter has a value that is never right.
    pub(in crate::worker) fn invalid(param: &str, reason: &str) -> Self {
        let message = format!("Invalid value for '{param}': {reason}.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_value"), message).about(param)
    }

    /// OpenAI knows the parameter, this backend does not do it.
    pub(in crate::worker) fn unsupported(param: &str) -> Self {
        let message = format!("Unsupported parameter: '{param}' is not supported with this model.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("unsupported_parameter"), message).about(param)
    }

    /// OpenAI knows the value, this backend does not do it.
    pub(in crate::worker) fn unsupported_value(param: &str, reason: &str) -> Self {
        let message = format!("Unsupported value: '{param}' {reason}.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("unsupported_value"), message).about(param)
    }

    /// Nobody knows the parameter.
    pub(in crate::worker) fn unknown(param: &str) -> Self {
        let message = format!("Unknown parameter: '{param}'.");
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("unknown_parameter"), message).about(param)
    }

    /// The prompt leaves no room for an answer. `param` is `messages` or `prompt`.
    pub(in crate::worker) fn context_exceeded(context: usize, tokens: usize, param: &str) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, your {param} resulted in {tokens} \
             tokens. Please reduce the length of the {param}."
        );
        Self::new(StatusCode::BAD_REQUEST, INVALID, Some("context_length_exceeded"), message).about(param)
    }

    /// The queue is full.
    pub(in crate::worker) fn busy() -> Self {
        let message = "The model is busy and its queue is full. Please try again in a moment.";
        let mut refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            Some("rate_limit_exceeded"),
            message,
        );
        refusal.retry_after_s = Some(1);
        refusal
    }

    /// The worker is about to end.
    pub(in crate::worker) fn stopping() -> Self {
        let message = "The server is shutting down. Please try again in a moment.";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut refusal = Self::new(status, "service_unavailable_error", Some("server_is_stopping"), message);
        refusal.retry_after_s = Some(1);
        refusal
    }

    /// The engine failed while it computed this answer.
    pub(in crate::worker) fn failed() -> Self {
        let message = "The server had an error while processing your request. Sorry about that!";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, None, message)
    }

    /// The answer took longer than the operator allows; it would again.
    pub(in crate::worker) fn too_slow() -> Self {
        let message = "The answer was not finished within the server's time limit.";
        let mut refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, SERVER, Some("request_timeout"), message);
        refusal.retry_after_s = Some(0);
        refusal
    }

    /// Returns the envelope as JSON, on one line.
    pub(in crate::worker) fn to_json(&self) -> String {
        serde_json::to_string(&self.envelope()).unwrap_or_default()
    }

    fn envelope(&self) -> Envelope<'_> {
        let Self { message, kind, param, code, .. } = self;
        Envelope { error: Body { message, kind, param: param.as_deref(), code: *code } }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope())).into_response();
        match self.retry_after_s {
            None => {}
            Some(0) => {
                response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Some(seconds) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        response
    }
}
