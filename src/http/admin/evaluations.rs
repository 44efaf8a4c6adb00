//! `/admin/v1/evaluations`: models asked what is known, and what was found.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::body::{Name, read};
use super::query::{Asked, Given};
use super::{Admin, error, invalid, store_failed, tuning_refused};
use crate::domain::evaluation::markdown::markdown;
use crate::domain::evaluation::{Part, Report};
use crate::store::evaluations::{AnswerFilter, AnswerRow, EvaluationRow};
use crate::tuning::evaluations::{EvaluationError, MOST_LISTED, answer_json, evaluation_json};

/// How many are listed unless somebody says otherwise.
const USUAL: i64 = 20;
/// Answers of one page.
const MOST_ANSWERS: i64 = 1_000;

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Markdown,
}

impl Form {
    const ALL: [Self; 2] = [Self::Json, Self::Markdown];

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Markdown => "markdown",
        }
    }

    /// What a client takes: JSON unless it names Markdown.
    fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        match accepted.into_iter().any(|value| value.contains("text/markdown")) {
            true => Self::Markdown,
            false => Self::Json,
        }
    }
}

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/evaluations", get(list).post(create))
        .route("/admin/v1/evaluations/{id}", get(show))
        .route("/admin/v1/evaluations/{id}/cancel", post(cancel))
        .route("/admin/v1/evaluations/{id}/report", get(report))
        .route("/admin/v1/evaluations/{id}/answers", get(answers))
}

async fn create(State(admin): State<Arc<Admin>>, body: Bytes) -> Response {
    match read(&body) {
        Ok(body) => told(StatusCode::CREATED, admin.evaluations.create(&body).await),
        Err(refused) => *refused,
    }
}

async fn list(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let (after, limit) = (asked.text("after"), asked.number("limit", MOST_LISTED).unwrap_or(USUAL));
    if let Err(refused) = asked.end() {
        return *refused;
    }
    match admin.evaluations.list(after.as_deref(), limit).await {
        Ok(rows) => {
            let data: Vec<Value> = rows.iter().map(evaluation_json).collect();
            Json(json!({"object": "list", "data": data})).into_response()
        }
        Err(why) => failed(&why),
    }
}

async fn show(State(admin): State<Arc<Admin>>, Name(id): Name) -> Response {
    told(StatusCode::OK, admin.evaluations.get(&id).await)
}

async fn cancel(State(admin): State<Arc<Admin>>, Name(id): Name) -> Response {
    told(StatusCode::OK, admin.evaluations.cancel(&id).await)
}

async fn report(
    State(admin): State<Arc<Admin>>,
    Name(id): Name,
    headers: HeaderMap,
    query: Given,
) -> Response {
    let mut asked = Asked::new(query);
    let form = asked.word("format", &Form::ALL, Form::name);
    if let Err(refused) = asked.end() {
        return *refused;
    }
    match admin.evaluations.report(&id).await {
        Ok(report) => written(&report, form.unwrap_or_else(|| Form::of(&headers))),
        Err(why) => failed(&why),
    }
}

fn written(report: &Report, form: Form) -> Response {
    match form {
        Form::Json => {
            let mut object = json!(report);
            object["object"] = "evaluation.report".into();
            Json(object).into_response()
        }
        Form::Markdown => {
            ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], markdown(report)).into_response()
        }
    }
}

/// A page of answers, those of one part or one model where these are named. `next` is what `after` has to be for the next.
async fn answers(State(admin): State<Arc<Admin>>, Name(id): Name, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let part = asked.word("part", &Part::ALL, Part::name);
    let model = asked.read("model", |text| text.parse::<usize>().ok(), "no number of a model, from 0");
    let from =
        asked.read("from", |text| text.parse::<u32>().ok(), "no number of a question, from 0").unwrap_or(0);
    let after = asked.read("after", place, "no `next` of a page before");
    let limit = asked.number("limit", MOST_ANSWERS).unwrap_or(MOST_ANSWERS);
    if let Err(refused) = asked.end() {
        return *refused;
    }
    // one more than is shown says whether there is more
    let which = AnswerFilter { part, model, from, after, limit: limit + 1 };
    match admin.evaluations.answers(&id, &which).await {
        Ok(mut rows) => {
            let shown = usize::try_from(limit).unwrap_or(usize::MAX);
            let has_more = rows.len() > shown;
            rows.truncate(shown);
            let next = rows.last().filter(|_| has_more).map(place_of);
            let data: Vec<Value> = rows.iter().map(answer_json).collect();
            Json(json!({"object": "list", "data": data, "has_more": has_more, "next": next})).into_response()
        }
        Err(why) => failed(&why),
    }
}

/// An answer's place among all, such as `held_out.12.0`.
fn place_of(answer: &AnswerRow) -> String {
    let kept = &answer.kept;
    format!("{}.{}.{}", kept.part.name(), kept.row, kept.model)
}

/// Reads what [`place_of`] wrote.
fn place(text: &str) -> Option<(Part, u32, usize)> {
    let mut parts = text.split('.');
    let place = (Part::from_name(parts.next()?)?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(place)
}

fn told(status: StatusCode, answer: Result<EvaluationRow, EvaluationError>) -> Response {
    match answer {
        Ok(row) => (status, Json(evaluation_json(&row))).into_response(),
        Err(why) => failed(&why),
    }
}

fn failed(why: &EvaluationError) -> Response {
    let (status, code) = match why {
        EvaluationError::Invalid(problems) => return invalid(&why.to_string(), problems),
        EvaluationError::Unknown(_) => (StatusCode::NOT_FOUND, "evaluation_not_found"),
        EvaluationError::Ended(_) => (StatusCode::CONFLICT, "evaluation_ended"),
        EvaluationError::NoReport { .. } => (StatusCode::CONFLICT, "no_report"),
        EvaluationError::File(why) => return tuning_refused(why),
        EvaluationError::Team(_) | EvaluationError::Random(_) | EvaluationError::Store(_) => {
            return store_failed(why);
        }
    };
    error(status, &why.to_string(), code)
}
