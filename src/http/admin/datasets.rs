//! `POST /admin/v1/datasets/check`: a training file held against a model, as `tunegate dataset check` does it offline.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::Value;

use super::{Admin, body, invalid, tuning_refused};
use crate::control::form::{Form, Problem};
use crate::domain::tuning::Caller;
use crate::tuning::files::Asked;

/// More than any provider trains for.
const MOST_EPOCHS: u64 = 50;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/datasets/check", post(check))
}

async fn check(State(admin): State<Arc<Admin>>, bytes: Bytes) -> Response {
    let asked = match body::read(&bytes) {
        Ok(body) => read(&body),
        Err(refused) => return *refused,
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(problems) => return invalid("nothing was checked", &problems),
    };
    match admin.files.check_for(&Caller::Operator { team: None }, &asked).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => tuning_refused(&error),
    }
}

fn read(body: &Value) -> Result<Asked, Vec<Problem>> {
    let form = Form::new(body);
    let text = |name: &str| form.text(name).flatten().map(ToOwned::to_owned);
    let must = |name: &str| {
        if !form.has(name) {
            form.wrong(name, "missing: which one?");
        }
        text(name).unwrap_or_default()
    };
    let (file, model) = (must("file"), must("model"));
    let validation_file = text("validation_file");
    let epochs =
        form.number("epochs", 1..=MOST_EPOCHS).flatten().and_then(|epochs| u32::try_from(epochs).ok());
    form.finish(Asked { file, model, validation_file, epochs })
}
