//! `POST /admin/v1/tuning/quote`: what a data set costs to train, and to serve, on every target.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;

use super::{Admin, body, error, invalid, store_failed};
use crate::clock;
use crate::control::form::Problem;
use crate::domain::catalog::Catalog;
use crate::domain::ids::ModelName;
use crate::tuning::quote::{Ask, Data, Market, Traffic, quote, targets};

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/tuning/quote", post(quoted))
}

async fn quoted(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match answer(&admin, &body).await {
        Ok(answer) => answer,
        Err(refused) => *refused,
    }
}

async fn answer(admin: &Admin, body: &[u8]) -> Result<Response, Box<Response>> {
    let wrong = |problems: &[Problem]| Box::new(invalid("nothing was quoted", problems));
    let ask = Ask::read(&body::read(body)?).map_err(|problems| wrong(&problems))?;
    let live = admin.gateway.catalog.load();
    let targets = targets(&live.catalog, &ask.targets).map_err(|problems| wrong(&problems))?;
    let now_ms = clock::unix_ms();
    let traffic = traffic(admin, &live.catalog, &ask, now_ms).await?;
    let book = admin.prices.load();
    let market = Market { catalog: &live.catalog, book: &book, at_ms: ask.at_ms.unwrap_or(now_ms) };
    let mut study = study(&ask);
    Ok(Json(quote(&targets, &market, traffic, ask.terms.clone(), &mut study)).into_response())
}

async fn traffic(
    admin: &Admin,
    catalog: &Catalog,
    ask: &Ask,
    now_ms: i64,
) -> Result<Traffic, Box<Response>> {
    if let Some(load) = ask.traffic {
        return Ok(Traffic::given(load));
    }
    let Some(route) = &ask.route else { return Ok(Traffic::unknown("no route and no traffic was named")) };
    let resolved = ModelName::parse(route).ok().and_then(|name| catalog.resolve(&name));
    let Some(resolved) = resolved else {
        let words = format!("no model, alias or pattern of the catalog leads {route:?} anywhere");
        return Err(Box::new(error(StatusCode::NOT_FOUND, &words, "model_not_found")));
    };
    let route = resolved.model.name.as_str();
    Traffic::of_route(&admin.reports, route, now_ms).await.map_err(|why| Box::new(store_failed(&why)))
}
