//! How OpenAI shows its files, jobs and models, today and in August 2023.

use base64::Engine as _;
use serde_json::{Value, json};

use super::files::{FileState, StoredFile, Upload, UploadState};
use super::jobs::{Checkpoint, Event, Job, Status, Tuned};
use super::{Account, Dialect};

const ORGANISATION_ID: &str = "org-acme";

pub(super) fn file(file: &StoredFile) -> Value {
    let (status, details) = match &file.state {
        FileState::Pending => ("pending", None),
        FileState::Running => ("running", None),
        FileState::Processed => ("processed", None),
        FileState::Error(reason) => ("error", Some(reason.as_str())),
    };
    json!({"id": file.id, "object": "file", "bytes": file.bytes.len(), "created_at": file.created_s,
        "expires_at": null, "filename": file.filename, "purpose": file.purpose, "status": status,
        "status_details": details})
}

pub(super) fn deleted(id: &str, object: &str) -> Value {
    json!({"id": id, "object": object, "deleted": true})
}

pub(super) fn upload(upload: &Upload, completed: Option<&StoredFile>) -> Value {
    let status = match upload.state {
        UploadState::Pending => "pending",
        UploadState::Completed => "completed",
        UploadState::Cancelled => "cancelled",
    };
    json!({"id": upload.id, "object": "upload", "bytes": upload.bytes, "created_at": upload.created_s,
        "expires_at": upload.expires_s, "filename": upload.filename, "purpose": upload.purpose,
        "status": status, "file": completed.map(file)})
}

pub(super) fn part(id: &str, upload: &str, now_s: i64) -> Value {
    json!({"id": id, "object": "upload.part", "created_at": now_s, "upload_id": upload})
}

/// A result file's content: OpenAI encodes it in base64.
pub(super) fn result_content(csv: &[u8]) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.encode(csv).into_bytes()
}

const fn status(status: Status, dialect: Dialect) -> &'static str {
    match (status, dialect) {
        (Status::Validating, Dialect::August2023) => "created",
        (Status::Queued, Dialect::August2023) => "pending",
        (Status::Validating, Dialect::Today) => "validating_files",
        (Status::Queued, Dialect::Today) => "queued",
        (Status::Running, _) => "running",
        (Status::Pausing, _) => "pausing",
        (Status::Paused, _) => "paused",
        (Status::Succeeded, _) => "succeeded",
        (Status::Failed, _) => "failed",
        (Status::Cancelled, _) => "cancelled",
    }
}

pub(super) fn job(job: &Job, dialect: Dialect, result: Option<&StoredFile>) -> Value {
    if dialect == Dialect::August2023 {
        return job_of_2023(job, result);
    }
    let mut hyperparameters = job.hyperparameters.clone();
    for name in ["n_epochs", "batch_size", "learning_rate_multiplier"] {
        hyperparameters.entry(name).or_insert_with(|| json!("auto"));
    }
    // no error is an object of nulls
    let error = match &job.error {
        Some(error) => json!({"code": error.code, "message": error.message, "param": error.param}),
        None => json!({"code": null, "message": null, "param": null}),
    };
    let at_top = if job.method == "supervised" { json!(hyperparameters) } else { Value::Null };
    let integrations = job.order.get("integrations").filter(|value| value.is_array());
    json!({"object": "fine_tuning.job", "id": job.id, "model": job.base, "created_at": job.created_s,
        "finished_at": job.finished_s, "fine_tuned_model": job.fine_tuned_model,
        "organization_id": ORGANISATION_ID, "status": status(job.status, dialect),
        "training_file": job.training_file, "validation_file": job.validation_file,
        "result_files": job.result_files, "trained_tokens": job.trained_tokens(),
        "estimated_finish": job.estimated_finish_s, "seed": job.seed, "hyperparameters": at_top,
        "method": {"type": job.method, &job.method: {"hyperparameters": hyperparameters}},
        "integrations": integrations.cloned().unwrap_or_else(|| json!([])), "metadata": job.metadata,
        "error": error, "user_provided_suffix": job.suffix(), "usage_metrics": job.compute_seconds.map(|seconds| json!({"compute_seconds": seconds})),
        "shared_with_openai": false, "eval_id": null})
}

fn job_of_2023(job: &Job, result: Option<&StoredFile>) -> Value {
    let epochs = job.hyperparameters.get("n_epochs").cloned().unwrap_or_else(|| json!("auto"));
    json!({"object": "fine_tuning.job", "id": job.id, "model": job.base, "created_at": job.created_s,
        "finished_at": job.finished_s, "fine_tuned_model": job.fine_tuned_model,
        "organization_id": ORGANISATION_ID, "status": status(job.status, Dialect::August2023),
        "training_file": job.training_file, "validation_file": job.validation_file,
        "result_files": result.into_iter().map(file).collect::<Vec<_>>(),
        "trained_tokens": job.trained_tokens(), "hyperparameters": {"n_epochs": epochs}})
}

pub(super) fn event(event: &Event, account: Account) -> Value {
    let level = match (event.is_warning, account) {
        (false, _) => "info",
        (true, Account::OpenAi) => "warn",
        (true, Account::Azure) => "warning",
    };
    json!({"object": "fine_tuning.job.event", "id": event.id, "created_at": event.created_s, "level": level,
        "message": event.message, "type": event.kind, "data": event.data})
}

pub(super) fn checkpoint(checkpoint: &Checkpoint, job: &str) -> Value {
    json!({"object": "fine_tuning.job.checkpoint", "id": checkpoint.id, "created_at": checkpoint.created_s,
        "fine_tuning_job_id": job, "fine_tuned_model_checkpoint": checkpoint.name,
        "step_number": checkpoint.step, "metrics": checkpoint.metrics})
}

pub(super) fn model(model: &Tuned) -> Value {
    json!({"id": model.name, "object": "model", "created": model.created_s, "owned_by": ORGANISATION_ID})
}
