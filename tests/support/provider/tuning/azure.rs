//! How Azure shows the same, where it differs.

use serde_json::{Value, json};

use super::files::{FileState, StoredFile};
use super::jobs::{Job, Status, Tuned};
use super::{Asked, Dialect, Served, openai};

/// 201 and where the new thing is.
pub(super) fn created(asked: &Asked<'_>, kind: &str, id: &str, shown: &Value) -> Served {
    let (version, host) = (asked.parameter("api-version"), asked.request.header("host"));
    let location = format!(
        "http://{}/openai/{kind}/{id}?api-version={}",
        host.unwrap_or_default(),
        version.unwrap_or_default()
    );
    Served::json(201, shown).with_header("location", &location)
}

pub(super) fn file(file: &StoredFile) -> Value {
    let status = match file.state {
        FileState::Pending => "pending",
        FileState::Running => "running",
        FileState::Processed => "processed",
        FileState::Error(_) => "error",
    };
    let mut shown = json!({"id": file.id, "object": "file", "bytes": file.bytes.len(), "purpose": file.purpose,
        "filename": file.filename, "created_at": file.created_s, "status": status});
    match &file.state {
        // not counted before it is imported
        FileState::Pending => shown["bytes"] = Value::Null,
        FileState::Error(reason) => shown["status_details"] = reason.as_str().into(),
        FileState::Running | FileState::Processed => {}
    }
    shown
}

/// A job of the classic API: plain numbers, −1 for what the service has yet to choose, and no nulls.
pub(super) fn job(job: &Job) -> Value {
    let status = match job.status {
        Status::Validating => "pending",
        Status::Queued => "notRunning",
        Status::Running | Status::Pausing | Status::Paused => "running",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    };
    let chosen = |name: &str| {
        let value = job.hyperparameters.get(name).filter(|value| value.is_number());
        value.cloned().unwrap_or_else(|| json!(-1))
    };
    let mut shown = json!({"object": "fine_tuning.job", "id": job.id, "model": job.base,
        "created_at": job.created_s, "status": status, "training_file": job.training_file,
        "organisation_id": "acme", "seed": job.seed, "result_files": job.result_files,
        "hyperparameters": {"n_epochs": chosen("n_epochs"), "batch_size": chosen("batch_size"),
            "learning_rate_multiplier": chosen("learning_rate_multiplier")}});
    let more = [
        ("suffix", json!(job.suffix())),
        ("validation_file", json!(job.validation_file)),
        ("finished_at", json!(job.finished_s)),
        ("estimated_finish", json!(job.estimated_finish_s)),
        ("fine_tuned_model", json!(job.fine_tuned_model)),
        ("trained_tokens", json!(job.trained_tokens())),
        ("trainingType", job.order["trainingType"].clone()),
        (
            "error",
            job.error
                .as_ref()
                .map_or(Value::Null, |error| json!({"code": error.code, "message": error.message})),
        ),
    ];
    for (name, value) in more.into_iter().filter(|(_, value)| !value.is_null()) {
        shown[name] = value;
    }
    shown
}

/// A job of the v1 API: OpenAI's form, with Azure's own members.
pub(super) fn job_v1(job: &Job) -> Value {
    let mut shown = openai::job(job, Dialect::Today, None);
    shown["trainingType"] = job.order["trainingType"].clone();
    if let Some(members) = shown.as_object_mut() {
        let organisation = members.remove("organization_id");
        members.insert("organisation_id".to_owned(), organisation.unwrap_or_default());
    }
    shown
}

pub(super) fn model(model: &Tuned) -> Value {
    json!({"id": model.name, "object": "model", "status": "succeeded", "created_at": model.created_s,
        "model": model.base, "fine_tune": model.job,
        "capabilities": {"fine_tune": true, "inference": true, "completion": false, "chat_completion": true,
            "embeddings": false},
        "lifecycle_status": "generally-available", "deprecation": {"inference": 1_803_859_200}})
}
