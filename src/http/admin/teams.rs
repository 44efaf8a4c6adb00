//! `/admin/v1/teams`: make, list, change and archive teams.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::body::{Name, read};
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::teams::{ListedTeam, TeamsError, terms_json};
use crate::domain::team::Origin;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/teams", post(create).get(list))
        .route("/admin/v1/teams/{name}", get(show).patch(update).delete(archive))
}

async fn create(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => answered(StatusCode::CREATED, admin.teams.create(&body, clock::unix_ms()).await),
        Err(refused) => *refused,
    }
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.teams.list().await {
        Ok(teams) => {
            let data: Vec<Value> = teams.iter().map(object).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    answered(StatusCode::OK, admin.teams.get(&name).await)
}

async fn update(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => answered(StatusCode::OK, admin.teams.update(&name, &body, clock::unix_ms()).await),
        Err(refused) => *refused,
    }
}

async fn archive(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    answered(StatusCode::OK, admin.teams.archive(&name, clock::unix_ms()).await)
}

fn answered(status: StatusCode, team: Result<ListedTeam, TeamsError>) -> Response {
    team.map_or_else(|why| failed(&why), |team| (status, Json(object(&team))).into_response())
}

fn object(listed: &ListedTeam) -> Value {
    let ListedTeam { team, live_keys } = listed;
    let seconds = |ms: i64| ms.div_euclid(1_000);
    let declared = team.origin == Origin::Declared;
    let mut object = json!({
        "object": "team",
        "id": &*team.id,
        "declared": declared,
        "live_keys": live_keys,
        "created_at": (!declared).then(|| seconds(team.created_at_ms)),
        "archived_at": team.archived_at_ms.map(seconds),
    });
    if let (Value::Object(all), Value::Object(terms)) = (&mut object, terms_json(team)) {
        all.extend(terms);
    }
    object
}

fn failed(why: &TeamsError) -> Response {
    let (status, code) = match why {
        TeamsError::Invalid(problems) => return invalid(&why.to_string(), problems),
        TeamsError::AliasTaken(_) => (StatusCode::CONFLICT, "alias_taken"),
        TeamsError::Declared(_) => (StatusCode::CONFLICT, "declared_in_configuration"),
        TeamsError::Archived(_) => (StatusCode::CONFLICT, "team_archived"),
        TeamsError::OwnsKeys { .. } => (StatusCode::CONFLICT, "team_owns_keys"),
        TeamsError::Raced(_) => (StatusCode::CONFLICT, "changed_meanwhile"),
        TeamsError::Unknown(_) => (StatusCode::NOT_FOUND, "team_not_found"),
        TeamsError::Random(_) | TeamsError::Directory(_) | TeamsError::Store(_) => return store_failed(why),
    };
    error(status, &why.to_string(), code)
}
