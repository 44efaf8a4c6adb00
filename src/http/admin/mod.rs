//! JSON for operators, one file a noun, behind the admin key. Health and metrics need none: the address is the guard.

mod audit;
mod body;
mod budgets;
mod cache;
mod captures;
mod csv;
mod datasets;
mod evaluations;
mod hosting;
mod keys;
mod ledger;
mod models;
mod openapi;
mod ops;
mod prices;
mod prompts;
mod query;
mod quotes;
mod routes;
mod spend;
mod teams;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq as _;

use super::api::credential;
use super::{Readiness, ops as health, respond};
use crate::control::audit::AuditLog;
use crate::control::budgets::Budgets;
use crate::control::form::Problem;
use crate::control::keys::Keys;
use crate::control::ledger::LedgerRecords;
use crate::control::prices::Prices;
use crate::control::prompts::Prompts;
use crate::control::reports::Reports;
use crate::control::teams::Teams;
use crate::domain::budget::Drift;
use crate::domain::secret::Secret;
use crate::gateway::Gateway;
use crate::gateway::ledger::Ledger;
use crate::gateway::record::Book;
use crate::tuning::TuningError;
use crate::tuning::captures::Captures;
use crate::tuning::evaluations::Evaluations;
use crate::tuning::files::Files;
use crate::tuning::hosting::Hosting;
use crate::tuning::jobs::Jobs;
use crate::tuning::registry::Registry;
use crate::upstream::worker::Scrape;

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reloaded {
    /// Whether the catalog is another one now.
    pub changed: bool,
    /// Keys of the configuration that only a restart applies.
    pub restart_needed: Vec<String>,
}

/// Reads the configuration again: all of it, or nothing and every reason why.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, Vec<String>>> + Send + Sync>;

/// Compares the budgets with the ledger; the counters that differ.
pub type Prove = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<Drift>, String>> + Send + Sync>;

/// What operators may do.
#[derive(Clone)]
pub struct Admin {
    /// The admin key.
    pub key: Secret,
    /// Virtual keys.
    pub keys: Arc<Keys>,
    /// Prices and their overrides.
    pub prices: Arc<Prices>,
    /// Training files.
    pub files: Arc<Files>,
    /// Traffic that is kept to train on.
    pub captures: Arc<Captures>,
    /// Fine-tuning jobs.
    pub jobs: Arc<Jobs>,
    /// Stored prompts.
    pub prompts: Arc<Prompts>,
    /// What fine-tuning jobs have made.
    pub registry: Arc<Registry>,
    /// What models were evaluated at.
    pub evaluations: Arc<Evaluations>,
    /// Budgets.
    pub budgets: Arc<Budgets>,
    /// How they stand.
    pub standings: Arc<Ledger>,
    /// The ledger, for reading.
    pub ledger: LedgerRecords,
    /// The proof that budgets and ledger agree.
    pub prove: Prove,
    /// Held by whoever corrects an entry.
    pub resolving: Arc<tokio::sync::Mutex<()>>,
    /// The data plane, to which corrections go.
    pub gateway: Arc<Gateway>,
    /// What was spent.
    pub reports: Arc<Reports>,
    /// Who owns them.
    pub teams: Arc<Teams>,
    /// The clock of deployments that cost by the hour.
    pub hosting: Arc<Hosting>,
    /// Who changed what.
    pub audit: Arc<AuditLog>,
    /// Recent requests and metrics.
    pub book: Arc<Book>,
    /// The metrics of our own worker, where we run one.
    pub worker: Option<Arc<Scrape>>,
    /// Reload.
    pub reload: Reload,
}

/// The routes of the admin address.
pub fn router(admin: Admin, readiness: &Arc<Readiness>) -> Router {
    let health = health::routes(readiness, &admin.book);
    let admin = Arc::new(admin);
    let guarded = Router::new()
        .merge(keys::routes())
        .merge(ledger::routes())
        .merge(spend::routes())
        .merge(prices::routes())
        .merge(prompts::routes())
        .merge(datasets::routes())
        .merge(captures::routes())
        .merge(models::routes())
        .merge(evaluations::routes())
        .merge(budgets::routes())
        .merge(teams::routes())
        .merge(cache::routes())
        .merge(hosting::routes())
        .merge(audit::routes())
        .merge(routes::routes())
        .merge(quotes::routes())
        .merge(openapi::routes())
        .merge(ops::guarded_routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), guard));
    Router::new()
        .merge(guarded)
        .merge(ops::open_routes())
        .with_state(admin)
        .merge(health)
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such admin endpoint", "unsupported_endpoint") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here", "method_not_allowed")
        })
}

/// What is said to whoever has not the admin key.
pub(super) const NEEDS_KEY: &str = "this needs the admin key, as `Authorization: Bearer …`; it is in the state folder, \
     file admin_key, unless the configuration names another";

/// Whether who sends these headers has the admin key.
pub(super) fn is_known(headers: &HeaderMap, key: &Secret) -> bool {
    let shown = credential(headers).unwrap_or_default();
    shown.as_bytes().ct_eq(key.expose().as_bytes()).into()
}

async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match is_known(request.headers(), &admin.key) {
        true => next.run(request).await,
        false => error(StatusCode::UNAUTHORIZED, NEEDS_KEY, "invalid_admin_key"),
    }
}

/// An error in OpenAI's envelope.
fn error(status: StatusCode, message: &str, code: &str) -> Response {
    let body = respond::envelope(status, message, None, Some(code));
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A body with mistakes: 422, with each of them and its place.
fn invalid(message: &str, problems: &[Problem]) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let mut body = respond::envelope_json(status, message, None, Some("invalid_body"));
    body["errors"] = serde_json::json!(problems);
    (status, axum::Json(body)).into_response()
}

/// What the training plane says no to.
fn tuning_refused(why: &TuningError) -> Response {
    let mut response = (respond::tuning_status(why), respond::tuning_body(why)).into_response();
    for (name, value) in respond::tuning_headers(why) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The machine's fault, not the operator's.
fn store_failed(why: &dyn std::error::Error) -> Response {
    tracing::error!(error = %why, "the store failed an operator");
    error(StatusCode::INTERNAL_SERVER_ERROR, "the store failed; see the log", "store_failed")
}
