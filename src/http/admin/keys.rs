//! `/admin/v1/keys`: make, list, change, rotate and revoke virtual keys.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::body::{Name, read, read_or_empty};
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::keys::{KeysError, Listed, terms_json};
use crate::domain::secret::Secret;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/keys", post(create).get(list))
        .route("/admin/v1/keys/{name}", get(show).patch(update).delete(revoke))
        .route("/admin/v1/keys/{name}/rotate", post(rotate))
}

async fn create(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let now_ms = clock::unix_ms();
    let made = match read(&body) {
        Ok(body) => admin.keys.create(&body, now_ms).await,
        Err(refused) => return *refused,
    };
    made.map_or_else(|why| failed(&why), |(key, secret)| shown(StatusCode::CREATED, &key, &secret, now_ms))
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let now_ms = clock::unix_ms();
    match admin.keys.list(now_ms).await {
        Ok(keys) => {
            let data: Vec<Value> = keys.iter().map(|key| object(key, now_ms)).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    let now_ms = clock::unix_ms();
    answered(admin.keys.get(&name, now_ms).await, now_ms)
}

async fn update(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let now_ms = clock::unix_ms();
    match read(&body) {
        Ok(body) => answered(admin.keys.update(&name, &body, now_ms).await, now_ms),
        Err(refused) => *refused,
    }
}

async fn rotate(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let now_ms = clock::unix_ms();
    let rotated = match read_or_empty(&body) {
        Ok(body) => admin.keys.rotate(&name, &body, now_ms).await,
        Err(refused) => return *refused,
    };
    rotated.map_or_else(|why| failed(&why), |(key, secret)| shown(StatusCode::OK, &key, &secret, now_ms))
}

async fn revoke(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    match admin.keys.revoke(&name, clock::unix_ms()).await {
        Ok(Listed { key, .. }) => {
            Json(json!({"id": &*key.id, "alias": &*key.alias, "revoked": true})).into_response()
        }
        Err(why) => failed(&why),
    }
}

fn answered(key: Result<Listed, KeysError>, now_ms: i64) -> Response {
    key.map_or_else(|why| failed(&why), |key| Json(object(&key, now_ms)).into_response())
}

/// A key with its secret, this once.
fn shown(status: StatusCode, key: &Listed, secret: &Secret, now_ms: i64) -> Response {
    let mut object = object(key, now_ms);
    object["key"] = secret.expose().into();
    (status, Json(object)).into_response()
}

fn object(listed: &Listed, now_ms: i64) -> Value {
    let Listed { key, team, old_secret_until_ms } = listed;
    let seconds = |ms: i64| ms.div_euclid(1_000);
    let state = match (key.revoked_at_ms, key.terms.expires_at_ms) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now_ms => "expired",
        _ => "live",
    };
    let mut object = json!({
        "object": "virtual_key",
        "id": &*key.id,
        "alias": &*key.alias,
        "last_four": key.last_four,
        "state": state,
        "team_id": key.terms.team.as_deref(),
        "created_at": seconds(key.created_at_ms),
        "revoked_at": key.revoked_at_ms.map(seconds),
        "old_secret_until": old_secret_until_ms.map(seconds),
    });
    if let (Value::Object(all), Value::Object(terms)) = (&mut object, terms_json(&key.terms, team.as_deref()))
    {
        all.extend(terms);
    }
    object
}

fn failed(why: &KeysError) -> Response {
    let (status, code) = match why {
        KeysError::Invalid(problems) => return invalid(&why.to_string(), problems),
        KeysError::AliasTaken(_) => (StatusCode::CONFLICT, "alias_taken"),
        KeysError::Revoked(_) => (StatusCode::CONFLICT, "key_revoked"),
        KeysError::Raced(_) => (StatusCode::CONFLICT, "changed_meanwhile"),
        KeysError::Unknown(_) => (StatusCode::NOT_FOUND, "key_not_found"),
        KeysError::Random(_) | KeysError::Directory(_) | KeysError::Store(_) => return store_failed(why),
    };
    error(status, &why.to_string(), code)
}
