//! `GET /admin/v1/spend`: what was spent, by whatever is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::csv::{self, Line};
use super::ledger::{Format, format};
use super::query::{Asked, Given};
use super::{Admin, store_failed};
use crate::domain::spend::Sums;
use crate::store::spend::{Dimension, SpendQuery, SpendRow};

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/spend", get(spend))
}

/// One line as JSON.
#[derive(Serialize)]
struct Object {
    #[serde(flatten)]
    names: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    sums: Sums,
}

/// All of them.
#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Object>,
}

async fn spend(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let mut by = Vec::new();
    for dimension in asked.words("by", &Dimension::ALL, Dimension::name) {
        if !by.contains(&dimension) {
            by.push(dimension);
        }
    }
    let question = SpendQuery { by, from_ms: asked.time("from"), until_ms: asked.time("until") };
    let format = format(&mut asked);
    if let Err(refused) = asked.end() {
        return *refused;
    }
    match admin.reports.spend(&question).await {
        Ok(lines) if format == Format::Csv => as_csv(&question.by, &lines),
        Ok(lines) => {
            let object = |line: SpendRow| Object {
                names: question.by.iter().map(|dimension| dimension.name()).zip(line.names).collect(),
                sums: line.sums,
            };
            let data = lines.into_iter().map(object).collect();
            Json(List { object: "list", data }).into_response()
        }
        Err(why) => store_failed(&why),
    }
}

fn as_csv(by: &[Dimension], lines: &[SpendRow]) -> Response {
    let mut head: Vec<&str> = by.iter().map(|dimension| dimension.name()).collect();
    head.extend([
        "cost_usd",
        "saved_usd",
        "requests",
        "cache_hits",
        "reported",
        "estimated",
        "unconfirmed",
        "prompt_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "compute_us",
    ]);
    let line = |line: &SpendRow| {
        let Sums { tokens, .. } = line.sums;
        line.names
            .iter()
            .fold(Line::default(), |written, name| written.text(name))
            .value(&line.sums.cost)
            .value(&line.sums.saved)
            .value(&line.sums.requests)
            .value(&line.sums.cache_hits)
            .value(&line.sums.reported)
            .value(&line.sums.estimated)
            .value(&line.sums.unconfirmed)
            .value(&tokens.prompt)
            .value(&tokens.cached)
            .value(&tokens.cache_write)
            .value(&tokens.completion)
            .value(&tokens.reasoning)
            .value(&tokens.compute_us)
    };
    csv::answer(&head, lines.iter().map(line))
}
