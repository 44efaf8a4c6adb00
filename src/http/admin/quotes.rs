//! `POST /admin/v1/tuning/quote`: what a data set costs to train, and to serve, on every target.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;

use super::{Admin, body, error, invalid, store_failed, tuning_refused};
use crate::clock;
use crate::control::form::Problem;
use crate::domain::catalog::Catalog;
use crate::domain::ids::ModelName;
use crate::domain::tuning::Caller;
use crate::domain::tuning::target::Target;
use crate::tuning::quote::{Ask, Book, Data, Market, Studied, Traffic, quote, targets};

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
    let input = input(admin, &ask).await?;
    let at_ms = ask.at_ms.unwrap_or(now_ms);
    let trained = admin.jobs.trained_on(at_ms).await.map_err(|why| Box::new(tuning_refused(&why)))?;
    let paces = admin.jobs.paces().await.map_err(|why| Box::new(tuning_refused(&why)))?;
    let book = admin.prices.load();
    // a large file is counted for seconds
    let quoting = tokio::task::spawn_blocking(move || {
        let (trained, paces) = (Some(&trained), Some(&paces));
        let market = Market { catalog: &live.catalog, book: &book, at_ms, trained, paces };
        let mut counted = input.opened(ask.epochs)?;
        Ok::<_, io::Error>(quote(&targets, &market, traffic, ask.terms, &mut |target| counted.study(target)))
    });
    match quoting.await {
        Ok(Ok(quote)) => Ok(Json(quote).into_response()),
        Ok(Err(why)) => Err(Box::new(store_failed(&why))),
        Err(why) => Err(Box::new(store_failed(&why))),
    }
}

/// Where the data set's figures come from.
enum Input {
    /// The content of a stored file.
    File(PathBuf),
    /// Whoever asks has counted.
    Figures(Studied),
}

/// The same, ready to be counted.
enum Counted {
    File(Book),
    Figures(Studied),
}

impl Input {
    fn opened(self, epochs: Option<u32>) -> io::Result<Counted> {
        Ok(match self {
            Self::File(path) => Counted::File(Book::open(&path, epochs)?),
            Self::Figures(figures) => Counted::Figures(figures.with_epochs(epochs)),
        })
    }
}

impl Counted {
    fn study(&mut self, target: &Target) -> Result<Studied, String> {
        match self {
            Self::File(book) => book.study(target),
            Self::Figures(figures) => Ok(*figures),
        }
    }
}

async fn input(admin: &Admin, ask: &Ask) -> Result<Input, Box<Response>> {
    let id = match &ask.data {
        Data::Figures(figures) => return Ok(Input::Figures(*figures)),
        Data::File(id) => id,
    };
    let found = match admin.files.find(&Caller::Operator { team: None }, id).await {
        Ok(file) => admin.files.path(&file).await,
        Err(why) => Err(why),
    };
    found.map(Input::File).map_err(|why| Box::new(tuning_refused(&why)))
}

async fn traffic(admin: &Admin, catalog: &Catalog, ask: &Ask, now_ms: i64) -> Result<Traffic, Box<Response>> {
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
