//! `/admin/v1/keys`: make, list and revoke virtual keys.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, error};
use crate::clock;
use crate::control::keys::KeysError;
use crate::domain::key::VirtualKey;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/keys", post(create).get(list))
        .route("/admin/v1/keys/{name}", delete(revoke))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    alias: String,
}

async fn create(State(admin): State<Arc<Admin>>, body: Result<Json<NewKey>, JsonRejection>) -> Response {
    let Ok(Json(NewKey { alias })) = body else {
        return error(StatusCode::BAD_REQUEST, "send {\"alias\": \"NAME\"} and nothing else", "invalid_json");
    };
    match admin.keys.create(&alias, clock::unix_ms()).await {
        Ok((key, secret)) => {
            let mut object = object(&key);
            object["key"] = secret.expose().into();
            (StatusCode::CREATED, Json(object)).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.keys.list().await {
        Ok(keys) => {
            let data: Vec<Value> = keys.iter().map(object).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn revoke(State(admin): State<Arc<Admin>>, name: Result<Path<String>, PathRejection>) -> Response {
    // what is no UTF-8 names no key
    let name = name.map(|Path(name)| name).unwrap_or_default();
    match admin.keys.revoke(&name, clock::unix_ms()).await {
        Ok(key) => Json(json!({"id": &*key.id, "alias": &*key.alias, "revoked": true})).into_response(),
        Err(why) => failed(&why),
    }
}

fn object(key: &VirtualKey) -> Value {
    let seconds = |ms: i64| ms.div_euclid(1_000);
    json!({
        "object": "virtual_key",
        "id": &*key.id,
        "alias": &*key.alias,
        "last_four": key.last_four,
        "created_at": seconds(key.created_at_ms),
        "revoked_at": key.revoked_at_ms.map(seconds),
    })
}

fn failed(why: &KeysError) -> Response {
    let (status, code) = match why {
        KeysError::Alias => (StatusCode::BAD_REQUEST, "invalid_alias"),
        KeysError::AliasTaken(_) => (StatusCode::CONFLICT, "alias_taken"),
        KeysError::Unknown(_) => (StatusCode::NOT_FOUND, "key_not_found"),
        KeysError::Random(_) | KeysError::Store(_) => {
            tracing::error!(error = %why, "the keys can't be changed or read");
            return error(StatusCode::INTERNAL_SERVER_ERROR, "the store failed; see the log", "store_failed");
        }
    };
    error(status, &why.to_string(), code)
}
