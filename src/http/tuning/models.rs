//! `DELETE /v1/models/{model}`: the only way to a fine-tuned model's end.

use serde_json::json;

use super::{Answer, TuningDesk};
use crate::domain::tuning::Caller;
use crate::tuning::TuningError;

/// Deletes a model of the caller's.
pub(super) async fn delete(desk: &TuningDesk, caller: &Caller, name: &str) -> Result<Answer, TuningError> {
    desk.registry.delete(caller, name).await?;
    Ok(Answer::Json(json!({"id": name, "object": "model", "deleted": true})))
}
