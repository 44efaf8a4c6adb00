//! `/admin/v1/models`: what jobs have made, where it is served, and moves onto routes and back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::body::{Name, read, read_or_empty};
use super::query::{Asked as Query, Given};
use super::{Admin, error, invalid, store_failed};
use crate::domain::evaluation::Report;
use crate::domain::registry::{Hosted, Point, Registered};
use crate::domain::tuning::Caller;
use crate::http::respond;
use crate::store::registry::{HostedRow, MoveRow};
use crate::tuning::TuningError;
use crate::tuning::registry::{Asked, HostingCost, Listed, Moved, OutsideError, RegistryError, Standing};

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/models", get(list))
        .route("/admin/v1/models/{name}", get(show).delete(remove))
        .route("/admin/v1/models/{name}/promote", post(promote))
        .route("/admin/v1/models/{name}/retire", post(retire))
        .route("/admin/v1/models/{name}/deploy", post(deploy))
        .route("/admin/v1/models/{name}/prompt", post(bind).delete(unbind))
        .route("/admin/v1/model-deployments", get(deployments))
        .route("/admin/v1/model-deployments/{name}", delete(undeploy))
        .route("/admin/v1/model-moves", get(moves))
        .route("/admin/v1/model-moves/rollback", post(rollback))
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.registry.list().await {
        Ok(models) => {
            let data: Vec<Value> = models.iter().map(object).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    let found = async {
        let listed = admin.registry.get(&name).await?;
        let curve = admin.registry.curve(&listed.model.name).await?;
        let evaluations = admin.registry.evaluations(&listed.model).await?;
        Ok((listed, curve, evaluations))
    };
    match found.await {
        Ok((listed, curve, evaluations)) => Json(whole(&listed, &curve, &evaluations)).into_response(),
        Err(why) => failed(&why),
    }
}

async fn remove(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    match admin.registry.delete(&Caller::Operator { team: None }, &name).await {
        Ok(()) => Json(json!({"id": name, "object": "model", "deleted": true})).into_response(),
        Err(why) => refused(&why),
    }
}

async fn promote(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => moved(admin.registry.promote(&name, &body).await),
        Err(refused) => *refused,
    }
}

async fn rollback(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => moved(admin.registry.rollback(&body).await),
        Err(refused) => *refused,
    }
}

async fn retire(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read_or_empty(&body) {
        Ok(body) => listed(admin.registry.retire(&name, &body).await),
        Err(refused) => *refused,
    }
}

async fn bind(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read_or_empty(&body) {
        Ok(body) => listed(admin.registry.bind(&name, &body).await),
        Err(refused) => *refused,
    }
}

async fn unbind(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    listed(admin.registry.unbind(&name).await)
}

async fn deploy(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let asked = match read(&body) {
        Ok(body) => admin.registry.deploy(&name, &body).await,
        Err(refused) => return *refused,
    };
    match asked {
        Ok(Asked { row, cost, warning }) => {
            let mut object = deployment(&row, cost);
            object["warning"] = warning.into();
            (StatusCode::ACCEPTED, Json(object)).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn deployments(State(admin): State<Arc<Admin>>) -> Response {
    match admin.registry.deployments().await {
        Ok(rows) => {
            let data: Vec<Value> =
                rows.iter().map(|row| deployment(row, admin.registry.hosting_cost(row))).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn undeploy(State(admin): State<Arc<Admin>>, Name(name): Name, query: Given, body: Bytes) -> Response {
    let mut asked = Query::new(query);
    let force = asked.text("force").is_some_and(|force| force == "true");
    if let Err(refused) = asked.end() {
        return *refused;
    }
    let gone = match read_or_empty(&body) {
        Ok(mut body) => {
            if force && body.is_object() {
                body["force"] = true.into();
            }
            admin.registry.undeploy(&name, &body).await
        }
        Err(refused) => return *refused,
    };
    match gone {
        Ok(row) => {
            (StatusCode::ACCEPTED, Json(deployment(&row, admin.registry.hosting_cost(&row)))).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn moves(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Query::new(query);
    let route = asked.text("route");
    if let Err(refused) = asked.end() {
        return *refused;
    }
    match admin.registry.moves(route.as_deref()).await {
        Ok(rows) => {
            let data: Vec<Value> = rows.iter().map(move_object).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

fn listed(answer: Result<Listed, RegistryError>) -> Response {
    match answer {
        Ok(listed) => Json(object(&listed)).into_response(),
        Err(why) => failed(&why),
    }
}

fn moved(answer: Result<Moved, RegistryError>) -> Response {
    match answer {
        Ok(Moved { row, plan, candidate }) => {
            let mut object = move_object(&row);
            object["plan"] = plan.into();
            object["candidate_is_asked_by"] = candidate.into();
            Json(object).into_response()
        }
        Err(why) => failed(&why),
    }
}

const fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}

fn object(listed: &Listed) -> Value {
    let Listed { model, stage, routes } = listed;
    json!({
        "object": "registered_model",
        "name": &*model.name,
        "stage": stage.name(),
        "owner": model.owner.to_string(),
        "provider": &*model.provider,
        "base": &*model.base,
        "job": &*model.job_id,
        "dataset_sha256": &*model.dataset_sha256,
        "system_prompt_sha256": model.system_prompt.as_ref().map(|prompt| &*prompt.sha256),
        "bound_prompt": model.bound.as_ref().map(|bound| bound.prompt.to_string()),
        "trained_tokens": model.trained_tokens,
        "training_cost_usd": model.cost,
        "price_version": &*model.price_version,
        "created_at": seconds(model.created_at_ms),
        "finished_at": seconds(model.finished_at_ms),
        "retired_at": model.retired_at_ms.map(seconds),
        "routes": routes.iter().map(standing).collect::<Vec<_>>(),
        "checkpoints": model.checkpoints,
        "deployments": model.hosted.iter().map(hosted).collect::<Vec<_>>(),
    })
}

fn whole(listed: &Listed, curve: &[Point], evaluations: &[(i64, Report)]) -> Value {
    let mut object = object(listed);
    object["system_prompt"] = json!(listed.model.system_prompt.as_ref().map(|prompt| &*prompt.text));
    object["curve"] = json!(curve);
    let told = evaluations.iter().flat_map(|(at_ms, report)| evaluated(&listed.model, *at_ms, report));
    object["evaluations"] = told.collect();
    object
}

/// What an evaluation found of a model, by each of the names that it was asked by.
fn evaluated(model: &Registered, at_ms: i64, report: &Report) -> Vec<Value> {
    let hosted = model.hosted.iter().map(|hosted| &hosted.name);
    let is_its = |name: &Arc<str>| model.names().chain(hosted.clone()).any(|own| own == name);
    let of = report.models.iter().filter(|of| is_its(&of.model));
    of.map(|of| {
        let compared: Vec<_> = report.comparisons.iter().filter(|one| one.model == of.model).collect();
        json!({
            "evaluation": report.evaluation,
            "ended_at": seconds(at_ms),
            "file": report.file,
            "against": report.base().filter(|base| base.model != of.model).map(|base| &base.model),
            "found": of,
            "comparisons": compared,
            "gate": report.gate.iter().find(|verdict| verdict.model == of.model),
        })
    })
    .collect()
}

fn standing(standing: &Standing) -> Value {
    json!({
        "route": &*standing.route,
        "model": &*standing.model,
        "stage": standing.stage.name(),
        "percent": standing.percent,
    })
}

fn hosted(hosted: &Hosted) -> Value {
    json!({
        "name": &*hosted.name,
        "model": &*hosted.model,
        "tier": hosted.tier.name(),
        "capacity": hosted.capacity,
        "state": hosted.state.name(),
        "why": hosted.why.as_deref(),
        "asked_at": seconds(hosted.wished_at_ms),
        "ends_at": hosted.ends_at_ms.map(seconds),
    })
}

fn deployment(row: &HostedRow, cost: HostingCost) -> Value {
    let mut object = hosted(&row.hosted);
    object["object"] = "model_deployment".into();
    object["provider"] = (*row.provider).into();
    object["changed_at"] = seconds(row.changed_at_ms).into();
    object["usd_per_hour"] = json!(cost.per_hour);
    object["usd_per_month"] = json!(cost.per_month);
    object
}

fn move_object(row: &MoveRow) -> Value {
    json!({
        "object": "model_move",
        "route": &*row.route,
        "number": row.number,
        "kind": row.kind.name(),
        "model": &*row.model,
        "before": row.before,
        "after": row.after,
        "undoes": row.undoes,
        "at": seconds(row.at_ms),
        "author": &*row.author,
        "note": &*row.note,
    })
}

fn failed(why: &RegistryError) -> Response {
    let (status, code) = match why {
        RegistryError::Invalid(problems) => return invalid(&why.to_string(), problems),
        RegistryError::Unknown(_) => (StatusCode::NOT_FOUND, "model_not_found"),
        RegistryError::NoRoute { .. } => (StatusCode::NOT_FOUND, "route_not_found"),
        RegistryError::NoDeployment(_) => (StatusCode::NOT_FOUND, "deployment_not_found"),
        RegistryError::NoMove(_) => (StatusCode::CONFLICT, "no_move"),
        RegistryError::NothingToUndo(_) => (StatusCode::CONFLICT, "nothing_to_undo"),
        RegistryError::Refused(_) => (StatusCode::CONFLICT, "not_possible"),
        RegistryError::Gate(_) => (StatusCode::CONFLICT, "gate_not_passed"),
        RegistryError::Prompt(_) => (StatusCode::CONFLICT, "prompt_not_stored"),
        RegistryError::Outside(OutsideError::Away { .. }) => {
            (StatusCode::BAD_GATEWAY, "upstream_unreachable")
        }
        RegistryError::Outside(OutsideError::DeletesNone(_)) => (StatusCode::CONFLICT, "not_possible"),
        RegistryError::Outside(OutsideError::Refused { .. }) => (StatusCode::BAD_GATEWAY, "provider_refused"),
        RegistryError::Outside(OutsideError::NoArm(_) | OutsideError::NoProvider(_)) => {
            (StatusCode::CONFLICT, "not_configured")
        }
        RegistryError::Contended => (StatusCode::CONFLICT, "changed_meanwhile"),
        RegistryError::Random(_) | RegistryError::Store(_) => return store_failed(why),
    };
    error(status, &why.to_string(), code)
}

/// What the training plane refuses, as the data address says it.
fn refused(why: &TuningError) -> Response {
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (respond::tuning_status(why), json, respond::tuning_body(why)).into_response()
}
