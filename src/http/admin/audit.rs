//! `GET /admin/v1/audit`: every change, newest first, in pages.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, error, store_failed};
use crate::control::audit::MAX_PAGE;
use crate::store::audit::AuditRow;

/// How many entries are listed unasked.
const SHOWN: u32 = 100;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/audit", get(page))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<u32>,
    /// The last id of the page before.
    before: Option<String>,
}

async fn page(State(admin): State<Arc<Admin>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let wrong = || {
        let message =
            format!("`limit` is a number of 1 to {MAX_PAGE}, `before` an id of an entry; nothing else");
        error(StatusCode::BAD_REQUEST, &message, "invalid_query")
    };
    let Ok(Query(Asked { limit, before })) = asked else { return wrong() };
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=MAX_PAGE).contains(&limit) {
        return wrong();
    }
    // one more than asked, to know whether there are more
    match admin.audit.page(before.as_deref(), limit + 1).await {
        Ok(mut rows) => {
            let has_more = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            let data: Vec<Value> = rows.iter().map(object).collect();
            Json(json!({"object": "list", "has_more": has_more, "data": data})).into_response()
        }
        Err(why) => store_failed(&why),
    }
}

fn object(row: &AuditRow) -> Value {
    json!({
        "object": "audit_entry",
        "id": row.id,
        "at_ms": row.at_ms,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "detail": serde_json::from_str::<Value>(&row.detail).unwrap_or_default(),
    })
}
