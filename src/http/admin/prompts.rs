//! `/admin/v1/prompts`: versions and labels of stored prompts, what changed, what would be sent, and what it costs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use http::header;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::{Name, read};
use super::query::{Asked, Given};
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::prompts::{CostQuery, CostReport, Listed, PromptsError, Put, Rendered};
use crate::domain::prompt::cost::Traffic;
use crate::domain::prompt::{MAX_VERSIONS, Pick, PromptVersion};
use crate::domain::spend::recent::day_of;
use crate::store::prompts::Move;

/// Days that are told of unasked.
const DAYS: i64 = 30;
const DAY_S: i64 = 86_400;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/prompts", get(list).post(create).put(put_all))
        .route("/admin/v1/prompts/{name}", get(show).delete(archive))
        .route("/admin/v1/prompts/{name}/versions/{version}", get(version))
        .route("/admin/v1/prompts/{name}/labels/{label}", put(move_label).delete(remove_label))
        .route("/admin/v1/prompts/{name}/diff", get(diff))
        .route("/admin/v1/prompts/{name}/history", get(history))
        .route("/admin/v1/prompts/{name}/render", post(render))
        .route("/admin/v1/prompts/{name}/cost", get(cost))
}

/// The two names in a path; what is no UTF-8 names nothing.
struct Names(String, String);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let names = Path::<(String, String)>::from_request_parts(parts, state).await;
        Ok(names
            .map(|Path((first, second))| Self(first, second))
            .unwrap_or_else(|_| Self(String::new(), String::new())))
    }
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    match admin.prompts.list().await {
        Ok(prompts) => {
            let data: Vec<Value> = prompts.iter().map(summary).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn create(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let body = match read(&body) {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let put = match admin.prompts.create(&body, clock::unix_ms()).await {
        Ok(put) => put,
        Err(why) => return failed(&why),
    };
    let status = if put.made { StatusCode::CREATED } else { StatusCode::OK };
    match one_version(&admin, &put.name, &Pick::Version(put.number)).await {
        Ok(mut object) => {
            object["made"] = put.made.into();
            (status, Json(object)).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn put_all(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    let put = match read(&body) {
        Ok(body) => admin.prompts.put_all(&body, clock::unix_ms()).await,
        Err(refused) => return *refused,
    };
    match put {
        Ok(put) => {
            let object = |Put { name, number, made }: &Put| json!({"prompt": &**name, "version": number, "made": made});
            let data: Vec<Value> = put.iter().map(object).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    answered(admin.prompts.get(&name).await)
}

async fn archive(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    let live = admin.gateway.catalog.load();
    match admin.prompts.archive(&name, &live.catalog, clock::unix_ms()).await {
        Ok(()) => Json(json!({"object": "prompt", "name": name, "archived": true})).into_response(),
        Err(why) => failed(&why),
    }
}

async fn version(State(admin): State<Arc<Admin>>, Names(name, meant): Names) -> Response {
    let pick = match meant.parse() {
        Ok(number) => Pick::Version(number),
        Err(_) => Pick::Label(meant.into()),
    };
    one_version(&admin, &name, &pick)
        .await
        .map_or_else(|why| failed(&why), |object| Json(object).into_response())
}

async fn one_version(admin: &Admin, name: &str, pick: &Pick) -> Result<Value, PromptsError> {
    let listed = admin.prompts.get(name).await?;
    let version = listed.find(pick).ok_or_else(|| {
        let meant = match pick {
            Pick::Version(number) => number.to_string(),
            Pick::Label(label) => label.to_string(),
        };
        PromptsError::NoVersion(format!("{name}@{meant}"))
    })?;
    let mut object = version_object(version, &listed);
    object["text"] = (*version.text).into();
    object["variables"] = json!(version.variables);
    Ok(object)
}

async fn move_label(State(admin): State<Arc<Admin>>, Names(name, label): Names, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => answered(admin.prompts.move_label(&name, &label, &body, clock::unix_ms()).await),
        Err(refused) => *refused,
    }
}

async fn remove_label(State(admin): State<Arc<Admin>>, Names(name, label): Names) -> Response {
    let live = admin.gateway.catalog.load();
    answered(admin.prompts.remove_label(&name, &label, &live.catalog, clock::unix_ms()).await)
}

async fn diff(State(admin): State<Arc<Admin>>, Name(name): Name, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let (from, to) = (asked.text("from"), asked.text("to"));
    if let Err(refused) = asked.end() {
        return *refused;
    }
    let (Some(from), Some(to)) = (from, to) else {
        let message = "give both `from` and `to`: numbers of versions, or labels";
        return error(StatusCode::BAD_REQUEST, message, "invalid_query");
    };
    match admin.prompts.diff(&name, &from, &to).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        Err(why) => failed(&why),
    }
}

async fn history(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    let found = async {
        let listed = admin.prompts.get(&name).await?;
        Ok((listed, admin.prompts.moves(&name).await?))
    };
    match found.await {
        Ok((listed, moves)) => {
            let versions: Vec<Value> = listed
                .prompt
                .versions
                .values()
                .rev()
                .map(|version| version_object(version, &listed))
                .collect();
            let moves: Vec<Value> = moves.iter().map(move_object).collect();
            Json(json!({"object": "prompt_history", "prompt": name, "versions": versions, "moves": moves}))
                .into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn render(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    let live = admin.gateway.catalog.load();
    let rendered = match read(&body) {
        Ok(body) => admin.prompts.render(&name, &body, &live.catalog).await,
        Err(refused) => return *refused,
    };
    match rendered {
        Ok(Rendered { number, words, tokens }) => Json(json!({
            "object": "rendered_prompt",
            "prompt": name,
            "version": number,
            "text": &*words,
            "tokens": tokens.iter().map(|(name, tokens)| (name.to_string(), *tokens)).collect::<BTreeMap<_, _>>(),
        }))
        .into_response(),
        Err(why) => failed(&why),
    }
}

async fn cost(State(admin): State<Arc<Admin>>, Name(name): Name, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let (from_ms, to_ms) = (asked.time("from"), asked.time("to"));
    let compare = asked.number("compare", i64::from(MAX_VERSIONS));
    if let Err(refused) = asked.end() {
        return *refused;
    }
    let to_day = day_of(to_ms.unwrap_or_else(clock::unix_ms));
    let query = CostQuery {
        from_day: from_ms.map_or(to_day - DAYS + 1, day_of),
        to_day,
        compare: compare.and_then(|number| u32::try_from(number).ok()),
    };
    let live = admin.gateway.catalog.load();
    match admin.prompts.cost(&name, query, &live.catalog).await {
        Ok(report) => Json(cost_object(&report, query)).into_response(),
        Err(why) => failed(&why),
    }
}

fn answered(listed: Result<Listed, PromptsError>) -> Response {
    match listed {
        Ok(listed) => {
            let mut object = summary(&listed);
            let versions = listed.prompt.versions.values().rev();
            object["versions"] = versions.map(|version| version_object(version, &listed)).collect();
            Json(object).into_response()
        }
        Err(why) => failed(&why),
    }
}

const fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}

fn summary(listed: &Listed) -> Value {
    let labels = listed.labels.iter().map(|(name, row)| {
        let label = json!({
            "version": row.version,
            "moved_at": seconds(row.moved_at_ms),
            "author": row.author,
            "file": listed.files.get(name),
        });
        (name.to_string(), label)
    });
    json!({
        "object": "prompt",
        "name": listed.row.name,
        "created_at": seconds(listed.row.created_at_ms),
        "last_version": listed.prompt.versions.keys().next_back(),
        "labels": labels.collect::<serde_json::Map<_, _>>(),
    })
}

/// A version without its words.
fn version_object(version: &PromptVersion, listed: &Listed) -> Value {
    let labels = listed.prompt.labels.iter().filter(|(_, at)| **at == version.number);
    let labels: Vec<&str> = labels.map(|(label, _)| &**label).collect();
    json!({
        "object": "prompt_version",
        "prompt": &*version.prompt,
        "version": version.number,
        "labels": labels,
        "sha256": &*version.sha256,
        "author": &*version.author,
        "note": &*version.note,
        "created_at": seconds(version.created_at_ms),
    })
}

fn move_object(moved: &Move) -> Value {
    json!({
        "label": moved.label,
        "from": moved.from,
        "to": moved.to,
        "at": seconds(moved.at_ms),
        "author": moved.author,
        "note": moved.note,
    })
}

fn cost_object(report: &CostReport, query: CostQuery) -> Value {
    let with = |mut object: Value, sums: &Traffic| {
        object["requests"] = sums.requests.into();
        object["tokens"] = sums.tokens.into();
        object["cost_usd"] = json!(sums.cost);
        object
    };
    let days = report.days.iter().map(|day| {
        let place = &day.place;
        let on = json!({"day": date(place.day), "version": place.version, "model": place.model,
            "deployment": place.deployment, "provider": place.provider});
        with(on, &day.sums)
    });
    let versions = report
        .versions
        .iter()
        .map(|one| with(json!({"version": one.version, "instead": one.instead}), &one.sums));
    let object = json!({
        "object": "prompt_cost",
        "prompt": &*report.prompt,
        "from": date(query.from_day),
        "to": date(query.to_day),
        "days": days.collect::<Vec<_>>(),
        "versions": versions.collect::<Vec<_>>(),
    });
    with(object, &report.sums)
}

/// A day such as `2026-11-22`.
fn date(day: i64) -> String {
    let moment = day.checked_mul(DAY_S).and_then(|seconds| Timestamp::from_second(seconds).ok());
    moment.map(|moment| moment.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

fn failed(why: &PromptsError) -> Response {
    let (status, code) = match why {
        PromptsError::Invalid(problems) => return invalid(&why.to_string(), problems),
        PromptsError::Unknown(_) => (StatusCode::NOT_FOUND, "prompt_not_found"),
        PromptsError::NoVersion(_) => (StatusCode::NOT_FOUND, "prompt_version_not_found"),
        PromptsError::NoLabel(_) => (StatusCode::NOT_FOUND, "prompt_label_not_found"),
        PromptsError::Moved { .. } => (StatusCode::CONFLICT, "label_moved"),
        PromptsError::InFile { .. } => (StatusCode::CONFLICT, "declared_in_file"),
        PromptsError::InUse { .. } => (StatusCode::CONFLICT, "prompt_in_use"),
        PromptsError::Full(_) => (StatusCode::CONFLICT, "too_many_versions"),
        PromptsError::Contended => (StatusCode::CONFLICT, "changed_meanwhile"),
        PromptsError::Random(_) | PromptsError::Store(_) => return store_failed(why),
    };
    error(status, &why.to_string(), code)
}
