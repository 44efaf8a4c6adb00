//! Jobs, events and checkpoints as OpenAI shows them. What only we know stands in a member of its own, which typed clients
//! skip.

use serde_json::{Map, Value, json};

use crate::domain::tuning::lifecycle::Stage;
use crate::domain::tuning::request::{Epochs, JobRequest, MethodKind};
use crate::domain::tuning::{COMPUTE_SECONDS, JobError};
use crate::store::jobs::{CheckpointRow, EventRow, JobRow};

/// Whose jobs these are, to a client: one organization stands behind a gateway.
const ORGANIZATION: &str = "org-tunegate";

/// A job.
pub fn job_json(job: &JobRow) -> Value {
    let course = &job.course;
    let seen = course.seen.as_ref();
    let status = course.status(job.wish);
    let outcome = course.outcome.as_ref().filter(|_| status.is_final());
    let asked: Map<String, Value> = serde_json::from_str(&job.request).unwrap_or_default();
    let said = |name: &str| asked.get(name).filter(|value| !value.is_null());
    let kind =
        JobRequest::parse(job.request.as_bytes()).map_or(MethodKind::Supervised, |request| request.kind);
    let hyperparameters = hyperparameters(job, kind, &asked);
    let method = seen.and_then(|seen| seen.method.clone()).or_else(|| said("method").cloned());
    let method = method
        .unwrap_or_else(|| json!({"type": kind.name(), kind.name(): {"hyperparameters": hyperparameters}}));
    let error = outcome.and_then(|outcome| outcome.error.as_ref());
    json!({
        "object": "fine_tuning.job",
        "id": job.id,
        "model": said("model").cloned().unwrap_or_else(|| job.base.as_str().into()),
        "created_at": seconds(job.created_at_ms),
        "finished_at": outcome.map(|outcome| seconds(outcome.at_ms)),
        "fine_tuned_model": outcome.and(seen).and_then(|seen| seen.model.clone()),
        "organization_id": ORGANIZATION,
        "status": status.name(),
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": job.result_files,
        "trained_tokens": outcome.and(seen).and_then(|seen| seen.trained_tokens),
        "estimated_finish": seen.and_then(|seen| seen.estimated_finish).filter(|_| !status.is_final()),
        "seed": seen.and_then(|seen| seen.seed).unwrap_or(job.seed),
        "hyperparameters": hyperparameters,
        "method": method,
        "integrations": said("integrations").cloned().unwrap_or_else(|| json!([])),
        "metadata": said("metadata"),
        "error": error_json(error),
        "user_provided_suffix": said("suffix"),
        // OpenAI's member, which it leaves null
        "usage_metrics": seen.and_then(|seen| seen.compute_seconds).map(|told| json!({COMPUTE_SECONDS: told})),
        "shared_with_openai": false,
        "eval_id": null,
        "tunegate": ours(job),
    })
}

/// What was asked for, until the provider has chosen.
fn hyperparameters(job: &JobRow, kind: MethodKind, asked: &Map<String, Value>) -> Value {
    if let Some(told) = job.course.seen.as_ref().and_then(|seen| seen.hyperparameters.clone()) {
        return told;
    }
    let inner = asked.get("method").and_then(|method| method.get(kind.name())?.get("hyperparameters"));
    let top = asked.get("hyperparameters").filter(|value| value.is_object());
    let mut shown = json!({"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"});
    for (name, value) in inner.or(top).and_then(Value::as_object).into_iter().flatten() {
        if !value.is_null() {
            shown[name] = value.clone();
        }
    }
    shown
}

/// What only we know.
fn ours(job: &JobRow) -> Value {
    let course = &job.course;
    let epochs = JobRequest::parse(job.request.as_bytes()).map(|request| request.epochs);
    let quote = course.quote.as_ref().map(|quote| {
        json!({
            "tokens_per_epoch": quote.tokens,
            "epochs": quote.epochs,
            "epochs_are_certain": !quote.auto || matches!(epochs, Ok(Epochs::Of(_))),
            "cost_usd": quote.amount(),
            "price": quote.price.row,
            "price_version": quote.price.version,
        })
    });
    let bill = course.bill.filter(|_| course.stage >= Stage::Closing);
    json!({
        "provider": job.provider,
        "base": job.base,
        "provider_job": course.seen.as_ref().map(|seen| &seen.id),
        "stage": course.stage.name(),
        "wish": job.wish,
        "step": course.progress.step,
        "total_steps": course.progress.total,
        "quote": quote,
        "held_usd": course.held(),
        "cost_usd": bill.map(|bill| bill.cost()),
        "billed_tokens": bill.map(|bill| bill.tokens),
        "billed_seconds": bill.map(|bill| bill.seconds),
        "source": bill.map(|bill| bill.source),
        "raw": job.raw,
    })
}

fn error_json(error: Option<&JobError>) -> Value {
    let JobError { code, message, param } = error.cloned().unwrap_or_default();
    json!({"code": code, "message": message, "param": param})
}

/// An event of a job.
pub fn event_json(event: &EventRow) -> Value {
    json!({
        "object": "fine_tuning.job.event",
        "id": event.id,
        "created_at": event.created_at,
        "level": event.level,
        "type": event.kind,
        "message": event.message,
        "data": event.figures,
    })
}

/// A checkpoint of a job.
pub fn checkpoint_json(job_id: &str, checkpoint: &CheckpointRow) -> Value {
    json!({
        "object": "fine_tuning.job.checkpoint",
        "id": checkpoint.id,
        "created_at": checkpoint.created_at,
        "fine_tuning_job_id": job_id,
        "step_number": checkpoint.step,
        "fine_tuned_model_checkpoint": checkpoint.model,
        "metrics": checkpoint.metrics,
    })
}

const fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}
