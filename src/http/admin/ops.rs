//! `/metrics`, `/admin/v1/reload`, `/admin/v1/requests`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header;
use serde::Deserialize;
use serde_json::json;

use super::{Admin, error, store_failed};
use crate::clock;
use crate::telemetry::metrics::with_worker;

/// How many recent requests are listed unasked.
const SHOWN: usize = 100;

pub(super) fn open_routes() -> Router<Arc<Admin>> {
    Router::new().route("/metrics", get(metrics))
}

pub(super) fn guarded_routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/reload", post(reload)).route("/admin/v1/requests", get(requests))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let text = match &admin.worker {
        None => own_metrics(&admin).await,
        Some(worker) => {
            // our own while the worker is asked
            let (answer, own) = tokio::join!(worker.text(), own_metrics(&admin));
            with_worker(own, answer.as_deref())
        }
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn own_metrics(admin: &Admin) -> Vec<u8> {
    let budgets = admin.standings.watch(clock::unix_ms()).await;
    // the admin address has one thread, and nothing waits between here and the text: no other scrape sees it half said
    let metrics = admin.book.metrics();
    metrics.budgets_stand(&budgets);
    admin.standings.publish(metrics, clock::monotonic());
    let live = admin.gateway.catalog.load();
    let teams = admin.teams.aliases();
    metrics.born(&live.catalog, teams.iter().map(|alias| &**alias));
    admin.gateway.board.publish(clock::monotonic());
    admin.gateway.retirements.publish(&live.catalog, metrics);
    // what has expired goes now, also where nobody asks
    admin.gateway.answers.standing();
    metrics.text()
}

async fn reload(State(admin): State<Arc<Admin>>) -> Response {
    match (admin.reload)().await {
        Ok(reloaded) => {
            // what other processes have changed, too
            if let Err(why) = admin.keys.refresh().await {
                return store_failed(&why);
            }
            if let Err(why) = admin.prices.refresh().await {
                return store_failed(&why);
            }
            if let Err(why) = admin.budgets.refresh().await {
                return store_failed(&why);
            }
            // the prompts have changed with the configuration
            Json(reloaded).into_response()
        }
        Err(problems) => {
            let message = format!("nothing was changed:\n{}", problems.join("\n"));
            error(StatusCode::BAD_REQUEST, &message, "invalid_configuration")
        }
    }
}

#[derive(Deserialize)]
struct Shown {
    limit: Option<usize>,
}

async fn requests(State(admin): State<Arc<Admin>>, shown: Result<Query<Shown>, QueryRejection>) -> Response {
    let Ok(Query(shown)) = shown else {
        return error(StatusCode::BAD_REQUEST, "`limit` is a number, given once at most", "invalid_limit");
    };
    // first: a request that ends between the two is listed, not lost
    let in_flight = admin.book.in_flight();
    let data = admin.book.recent(shown.limit.unwrap_or(SHOWN));
    Json(json!({"object": "list", "in_flight": in_flight, "data": data})).into_response()
}
