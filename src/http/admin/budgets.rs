//! `/admin/v1/budgets`: make, list, replace, raise and delete budgets, and see how they stand.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::body::{Name, read};
use super::{Admin, error, invalid, store_failed};
use crate::clock;
use crate::control::budgets::{BudgetsError, View};
use crate::domain::budget::{Budget, Overview, Standing};
use crate::domain::money::Usd;

/// How many counters of a budget are listed unasked, and how many at most.
const SHOWN: usize = 100;
const MOST_SHOWN: usize = 1_000;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/budgets", post(create).get(list))
        .route("/admin/v1/budgets/{name}", get(show).put(replace).delete(remove))
        .route("/admin/v1/budgets/{name}/standings", get(standings))
        .route("/admin/v1/budgets/{name}/raise", post(raise).delete(end_raise))
}

async fn create(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => {
            answered(&admin, StatusCode::CREATED, admin.budgets.create(&body, clock::unix_ms()).await)
        }
        Err(refused) => *refused,
    }
}

async fn list(State(admin): State<Arc<Admin>>) -> Response {
    let overview = overview(&admin);
    let known = admin.budgets.list();
    let data = known.iter().map(|budget| object(budget, overview.get(&budget.name))).collect();
    Json(List { object: "list", data, has_more: None }).into_response()
}

async fn show(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    answered(&admin, StatusCode::OK, admin.budgets.get(&name))
}

async fn replace(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => {
            answered(&admin, StatusCode::OK, admin.budgets.replace(&name, &body, clock::unix_ms()).await)
        }
        Err(refused) => *refused,
    }
}

async fn remove(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    match admin.budgets.delete(&name, clock::unix_ms()).await {
        Ok(budget) => Json(serde_json::json!({"object": "budget", "name": &*budget.name, "deleted": true}))
            .into_response(),
        Err(why) => failed(&why),
    }
}

async fn raise(State(admin): State<Arc<Admin>>, Name(name): Name, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => {
            answered(&admin, StatusCode::OK, admin.budgets.raise(&name, &body, clock::unix_ms()).await)
        }
        Err(refused) => *refused,
    }
}

async fn end_raise(State(admin): State<Arc<Admin>>, Name(name): Name) -> Response {
    answered(&admin, StatusCode::OK, admin.budgets.end_raise(&name, clock::unix_ms()).await)
}

/// Which counters of a budget are shown.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

async fn standings(
    State(admin): State<Arc<Admin>>,
    Name(name): Name,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let Some(Query(Page { after, limit })) =
        page.ok().filter(|page| page.limit.is_none_or(|limit| (1..=MOST_SHOWN).contains(&limit)))
    else {
        let message =
            format!("`after` is a subject, `limit` a number of 1 to {MOST_SHOWN}; each once at most");
        return error(StatusCode::BAD_REQUEST, &message, "invalid_page");
    };
    if let Err(why) = admin.budgets.get(&name) {
        return failed(&why);
    }
    let found = admin.standings.page(&name, after.as_deref(), limit.unwrap_or(SHOWN), clock::unix_ms());
    let (standings, more) = found.unwrap_or_default();
    let data = standings.iter().map(StandingView::from).collect();
    Json(List { object: "list", data, has_more: Some(more) }).into_response()
}

fn overview(admin: &Admin) -> HashMap<Arc<str>, Overview> {
    let all = admin.standings.overview(clock::unix_ms()).into_iter();
    all.map(|overview| (Arc::clone(&overview.budget.name), overview)).collect()
}

fn answered(admin: &Admin, status: StatusCode, budget: Result<Arc<Budget>, BudgetsError>) -> Response {
    match budget {
        Ok(budget) => (status, Json(object(&budget, overview(admin).get(&budget.name)))).into_response(),
        Err(why) => failed(&why),
    }
}

/// A list.
#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    has_more: Option<bool>,
}

/// A budget and how it stands.
#[derive(Serialize)]
struct BudgetObject<'a> {
    object: &'static str,
    #[serde(flatten)]
    view: View<'a>,
    /// Whether holds are decided by it, as it is shown here.
    in_force: bool,
    /// How many counters something was booked on.
    counters: usize,
    /// How it stands; none where each subject has a counter of its own.
    standing: Option<StandingView<'a>>,
}

fn object<'a>(budget: &'a Budget, overview: Option<&'a Overview>) -> BudgetObject<'a> {
    let overview = overview.filter(|overview| *overview.budget == *budget);
    BudgetObject {
        object: "budget",
        view: View::from(budget),
        in_force: overview.is_some(),
        counters: overview.map_or(0, |overview| overview.counters),
        standing: overview.and_then(|overview| overview.standing.as_ref()).map(StandingView::from),
    }
}

/// How a counter stands; times are seconds since 1970 UTC.
#[derive(Serialize)]
struct StandingView<'a> {
    subject: &'a str,
    limit_usd: Usd,
    spent_usd: Usd,
    reserved_usd: Usd,
    left_usd: Usd,
    resets_at: Option<i64>,
}

impl<'a> From<&'a Standing> for StandingView<'a> {
    fn from(standing: &'a Standing) -> Self {
        Self {
            subject: &standing.subject,
            limit_usd: standing.limit,
            spent_usd: standing.spent,
            reserved_usd: standing.reserved,
            left_usd: standing.left,
            // not before it has come back
            resets_at: standing.resets_at_ms.map(|ms| -(-ms).div_euclid(1_000)),
        }
    }
}

fn failed(why: &BudgetsError) -> Response {
    let (status, code) = match why {
        BudgetsError::Invalid(problems) => return invalid(&why.to_string(), problems),
        BudgetsError::NameTaken(_) => (StatusCode::CONFLICT, "name_taken"),
        BudgetsError::Declared(_) => (StatusCode::CONFLICT, "declared_in_configuration"),
        BudgetsError::NotRaised(_) => (StatusCode::CONFLICT, "not_raised"),
        BudgetsError::Raced(_) => (StatusCode::CONFLICT, "changed_meanwhile"),
        BudgetsError::Unknown(_) => (StatusCode::NOT_FOUND, "budget_not_found"),
        BudgetsError::NotInForce(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_in_force"),
        BudgetsError::Random(_) | BudgetsError::Store(_) => return store_failed(why),
    };
    error(status, &why.to_string(), code)
}
