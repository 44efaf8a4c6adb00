//! `/admin/v1/datasets/captured` and `/from-traffic`: how much traffic is kept to train on, what must go, and the
//! training files that are made of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::query::{Asked, Given, moment};
use super::{Admin, body, error, invalid, store_failed, tuning_refused};
use crate::clock;
use crate::control::form::{Form, Problem};
use crate::control::teams::TeamsError;
use crate::domain::capture::Wanted;
use crate::domain::ids::ModelName;
use crate::domain::team::Team;
use crate::domain::tuning::{Caller, Owner};
use crate::store::captures::Filter;
use crate::tuning::captures::{Exported, Forget, Order};

/// Rows of one file, unless the operator says otherwise, and at most.
const USUAL_ROWS: u64 = 10_000;
const MOST_ROWS: u64 = 100_000;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/datasets/captured", get(list).delete(forget))
        .route("/admin/v1/datasets/from-traffic", post(export))
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.captures.counts().await {
        Ok(counts) => Json(json!({"object": "list", "data": counts})).into_response(),
        Err(why) => tuning_refused(&why),
    }
}

async fn forget(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let team = asked.narrowing("team");
    let mut what = Forget {
        request_id: asked.narrowing("request_id"),
        user: asked.narrowing("user"),
        owner: None,
        model: asked.narrowing("model"),
    };
    if let Err(refused) = asked.end() {
        return *refused;
    }
    match team_of(&admin, team.as_deref()).await {
        Ok(team) => what.owner = team.map(|team| Owner::Team(Arc::clone(&team.id))),
        Err(refused) => return *refused,
    }
    if what == Forget::default() {
        let words = "say what goes: request_id, user, team or model; all that are given must be true of it";
        return error(StatusCode::BAD_REQUEST, words, "invalid_query");
    }
    what.model = what.model.map(|name| own_name(&admin, name));
    let erased = match admin.captures.forget(&what, clock::unix_ms()).await {
        Ok(erased) => erased,
        Err(why) => return tuning_refused(&why),
    };
    // whom it was about is what had to be forgotten
    let detail = json!({
        "request_id": what.request_id,
        "by_user": what.user.is_some(),
        "owner": what.owner.map(|owner| owner.to_string()),
        "model": what.model,
        "erased": erased,
    });
    note(&admin, "capture.erase", "captures", &detail).await;
    Json(json!({"object": "capture.erasure", "erased": erased})).into_response()
}

async fn export(State(admin): State<Arc<Admin>>, bytes: Bytes) -> Response {
    match exported(&admin, &bytes).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

async fn exported(admin: &Admin, bytes: &[u8]) -> Result<Response, Box<Response>> {
    let (mut order, team) =
        read(&body::read(bytes)?).map_err(|problems| Box::new(invalid("no file was made", &problems)))?;
    order.filter.model = own_name(admin, order.filter.model);
    let team = team_of(admin, team.as_deref()).await?;
    order.filter.owner = team.as_ref().map(|team| Owner::Team(Arc::clone(&team.id)).to_string());
    let caller = Caller::Operator { team };
    let made = admin.captures.export(&admin.files, &caller, &order, clock::unix_ms()).await;
    let made = made.map_err(|why| Box::new(tuning_refused(&why)))?;
    let shown = object(&made);
    let detail = json!({
        "owner": made.file.owner.to_string(),
        "model": order.filter.model,
        "deployment": order.filter.deployment,
        "feedback": order.filter.wanted.name(),
        "preference": order.preference,
        "rows": made.rows,
    });
    note(admin, "capture.export", &made.file.id, &detail).await;
    Ok(Json(shown).into_response())
}

fn object(made: &Exported) -> Value {
    json!({
        "object": "dataset.from_traffic",
        "file": made.file.id,
        "filename": made.file.filename,
        "owner": made.file.owner.to_string(),
        "bytes": made.file.bytes,
        "rows": made.rows,
        "corrected": made.corrected,
        "repeated": made.repeated,
        "unfit": made.unfit,
    })
}

/// The name that a model's traffic is kept by: an alias leads where its model does. What is no longer in the catalog may
/// still be kept.
fn own_name(admin: &Admin, name: String) -> String {
    let resolved =
        ModelName::parse(&name).ok().and_then(|name| admin.gateway.catalog.load().catalog.resolve(&name));
    resolved.map_or(name, |resolved| resolved.model.name.as_str().to_owned())
}

/// What is ordered, and for which team.
fn read(body: &Value) -> Result<(Order, Option<String>), Vec<Problem>> {
    let form = Form::new(body);
    // an empty one would widen what it narrows: all teams' traffic instead of one's
    let text = |name: &str| {
        let rule = |value: &Value| {
            let text = value.as_str().filter(|text| !text.is_empty());
            text.map(ToOwned::to_owned).ok_or("no text, or an empty one: leave it out, or say which")
        };
        form.read(name, rule).flatten()
    };
    let flag = |name: &str| {
        form.read(name, |value| value.as_bool().ok_or("not true or false")).flatten().unwrap_or_default()
    };
    let time = |name: &str| {
        let rule = |value: &Value| {
            value.as_str().and_then(moment).ok_or("no time: write 2026-11-22 or 2026-11-22T13:45:00Z")
        };
        form.read(name, rule).flatten()
    };
    if !form.has("route") {
        form.wrong("route", "missing: which model's traffic?");
    }
    let wanted = form.read("feedback", |value| {
        value.as_str().and_then(Wanted::from_name).ok_or("none of any, up, not-down, corrected")
    });
    let order = Order {
        filter: Filter {
            model: text("route").unwrap_or_default(),
            deployment: text("deployment"),
            owner: None,
            from_ms: time("from").unwrap_or_default(),
            to_ms: time("to").unwrap_or(i64::MAX),
            wanted: wanted.flatten().unwrap_or_default(),
        },
        limit: form.number("limit", 1..=MOST_ROWS).flatten().unwrap_or(USUAL_ROWS),
        dedupe: flag("dedupe"),
        preference: flag("preference"),
    };
    let team = text("team");
    form.finish((order, team))
}

/// The team that is named.
async fn team_of(admin: &Admin, name: Option<&str>) -> Result<Option<Arc<Team>>, Box<Response>> {
    let Some(name) = name else { return Ok(None) };
    match admin.teams.get(name).await {
        Ok(listed) => Ok(Some(listed.team)),
        Err(why @ TeamsError::Unknown(_)) => {
            Err(Box::new(error(StatusCode::NOT_FOUND, &why.to_string(), "team_not_found")))
        }
        Err(why) => Err(Box::new(store_failed(&why))),
    }
}

async fn note(admin: &Admin, action: &str, subject: &str, detail: &Value) {
    if let Err(why) = admin.audit.note(action, subject, detail, clock::unix_ms()).await {
        tracing::error!(error = %why, action, subject, "what an operator did is missing in the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_an_order_is_told() {
        let wrong = json!({
            "from": "yesterday", "feedback": "good", "limit": 0, "dedupe": "yes", "deployment": 1, "rout": "x",
            "team": "",
        });
        let problems = read(&wrong).expect_err("wrong");
        let paths: Vec<&str> = problems.iter().map(|problem| &*problem.path).collect();
        for path in ["route", "from", "feedback", "limit", "dedupe", "deployment", "rout", "team"] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        let (order, team) =
            read(&json!({"route": "bot", "team": "ops", "from": "1970-01-02"})).expect("sound");
        assert_eq!((order.filter.from_ms, order.filter.to_ms), (86_400_000, i64::MAX));
        assert_eq!((order.limit, order.dedupe, order.preference), (USUAL_ROWS, false, false));
        assert_eq!((order.filter.wanted, team.as_deref()), (Wanted::Any, Some("ops")));
    }
}
