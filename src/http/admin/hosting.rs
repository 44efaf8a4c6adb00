//! `/admin/v1/hosting`: what costs by the hour, who pays for it, and who uses it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::{Admin, store_failed};
use crate::clock;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/hosting", get(list))
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.hosting.report(clock::unix_ms()).await {
        Ok(all) => Json(json!({
            "object": "list",
            "data": all,
            "accounts": admin.hosting.accounts(),
        }))
        .into_response(),
        Err(why) => store_failed(&why),
    }
}
