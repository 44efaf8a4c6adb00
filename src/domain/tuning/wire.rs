//! What passes between us and a provider, in one form for all of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::status::JobStatus;

/// The member of `usage_metrics` in which a worker of ours says how long it has computed for a job, seconds, rounded up.
pub const COMPUTE_SECONDS: &str = "compute_seconds";

/// A job as a provider is asked for it. What the client said and we don't act on travels as it came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobOrder {
    /// Our own id of the job: how it is found again.
    pub job_id: Arc<str>,
    /// The provider's own name of the base model, or of the fine-tuned one that is trained on.
    pub model: Arc<str>,
    /// The provider's id of the training file.
    pub training_file: Arc<str>,
    /// The provider's id of the validation file.
    pub validation_file: Option<Arc<str>>,
    /// What the model's name shall hold.
    pub suffix: Option<Arc<str>>,
    /// For a run that can be repeated.
    pub seed: Option<i64>,
    /// `method`, as the client wrote it.
    pub method: Option<Value>,
    /// Top-level `hyperparameters`, as the client wrote them.
    pub hyperparameters: Option<Value>,
    /// `integrations`, as the client wrote them.
    pub integrations: Option<Value>,
    /// `metadata`, without ours.
    pub metadata: Map<String, Value>,
    /// Azure's `trainingType`, where the client says it; else the provider's configuration does.
    pub training_type: Option<Arc<str>>,
}

/// What became of a job in a provider's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Such as `invalid_training_file`.
    pub code: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// The parameter at fault.
    pub param: Option<String>,
}

/// A job as a provider tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderJob {
    /// The provider's id.
    pub id: Arc<str>,
    /// How it stands.
    pub status: JobStatus,
    /// Our own id of it, where it was sent along.
    pub ours: Option<Arc<str>>,
    /// The provider's id of the training file.
    pub training_file: Option<Arc<str>>,
    /// When it was made, seconds since 1970 UTC.
    pub created_at: Option<i64>,
    /// When it ended, seconds since 1970 UTC.
    pub finished_at: Option<i64>,
    /// When it is thought to end, seconds since 1970 UTC.
    pub estimated_finish: Option<i64>,
    /// The name of what it made.
    pub model: Option<Arc<str>>,
    /// Billed tokens, over all epochs; none until they are known.
    pub trained_tokens: Option<u64>,
    /// How long a worker of ours has computed for it, seconds, by [`COMPUTE_SECONDS`]; none of anybody else's machine.
    pub compute_seconds: Option<u64>,
    /// Epochs, once they are a number: `auto` and -1 are none.
    pub epochs: Option<u64>,
    /// The batch size, once it is a number.
    pub batch_size: Option<u64>,
    /// The seed.
    pub seed: Option<i64>,
    /// `hyperparameters` as told, in OpenAI's form.
    pub hyperparameters: Option<Value>,
    /// `method` as told.
    pub method: Option<Value>,
    /// The provider's ids of result files.
    pub result_files: Vec<Arc<str>>,
    /// What went wrong; an object whose members are all null is nothing.
    pub error: Option<JobError>,
    /// All of it, as it came.
    pub raw: Value,
}

/// How far a provider is with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderFileStatus {
    /// It is still being taken in.
    Pending,
    /// It can be used.
    Ready,
    /// It can't.
    Broken,
}

/// A file as a provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFile {
    /// The provider's id.
    pub id: Arc<str>,
    /// The name that we gave it.
    pub filename: Arc<str>,
    /// How far it is.
    pub status: ProviderFileStatus,
    /// Why it can't be used, in the provider's words.
    pub why: Option<String>,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingEvent {
    /// The provider's id of it.
    pub id: Arc<str>,
    /// When, seconds since 1970 UTC.
    pub created_at: i64,
    /// `info`, `warn` or `error`.
    pub level: Arc<str>,
    /// `message` or `metrics`.
    pub kind: Arc<str>,
    /// For people.
    pub message: String,
    /// Figures of a step, or null.
    pub data: Value,
}

/// A model of the middle of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The provider's id of it.
    pub id: Arc<str>,
    /// When it was made, seconds since 1970 UTC.
    pub created_at: i64,
    /// Behind which step.
    pub step: u64,
    /// The model's name.
    pub model: Arc<str>,
    /// Figures, in OpenAI's form.
    pub metrics: Value,
}
