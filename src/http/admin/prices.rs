//! `/admin/v1/prices`: what each model costs, and the overrides over the price file.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Admin, error};
use crate::clock;
use crate::control::prices::PricesError;
use crate::domain::catalog::ProviderKind;
use crate::domain::money::PerToken;
use crate::domain::price::book::{Origin, PriceBook, Row};
use crate::domain::price::rates::{Class, Rates};
use crate::domain::price::read::{Problem, moment_text};
use crate::domain::price::{Price, Terms};
use crate::domain::service_tier::ServiceTier;
use crate::http::respond;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/prices", get(list))
        .route("/admin/v1/prices/{provider}/{model}", get(one).put(set).delete(remove))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    provider: Option<String>,
}

async fn list(State(admin): State<Arc<Admin>>, shown: Result<Query<Shown>, QueryRejection>) -> Response {
    let Ok(Query(shown)) = shown else {
        return error(
            StatusCode::BAD_REQUEST,
            "`provider` is the only parameter, given once",
            "invalid_query",
        );
    };
    let book = admin.prices.load();
    let wanted = |row: &&&Arc<Row>| shown.provider.as_deref().is_none_or(|name| row.provider.name() == name);
    let data: Vec<Value> = book.rows().iter().filter(wanted).map(|row| object(row)).collect();
    Json(json!({"object": "list", "version": &**book.version(), "data": data})).into_response()
}

type Name = Result<Path<(String, String)>, PathRejection>;

/// The kind of provider and the model in a path.
fn named(name: Name) -> Result<(ProviderKind, String), Box<Response>> {
    let unknown = || {
        let message = "write /admin/v1/prices/PROVIDER/MODEL with openai, azure or candle as the provider and the \
                       model's name percent-encoded";
        Box::new(error(StatusCode::NOT_FOUND, message, "price_not_found"))
    };
    let Ok(Path((provider, model))) = name else { return Err(unknown()) };
    Ok((ProviderKind::from_name(&provider).ok_or_else(unknown)?, model))
}

async fn one(State(admin): State<Arc<Admin>>, name: Name) -> Response {
    let (provider, model) = match named(name) {
        Ok(named) => named,
        Err(refused) => return *refused,
    };
    answer(&admin.prices.load(), provider, &model, StatusCode::OK)
}

async fn set(
    State(admin): State<Arc<Admin>>,
    name: Name,
    body: Result<Json<Value>, JsonRejection>,
) -> Response {
    let (provider, model) = match named(name) {
        Ok(named) => named,
        Err(refused) => return *refused,
    };
    let Ok(Json(body)) = body else {
        let message = "send JSON such as {\"input_per_1m_usd\": \"2.50\", \"output_per_1m_usd\": \"10\"}";
        return error(StatusCode::BAD_REQUEST, message, "invalid_json");
    };
    match admin.prices.set(provider, &model, &body, clock::unix_ms()).await {
        Ok(book) => answer(&book, provider, &model, StatusCode::OK),
        Err(why) => failed(&why),
    }
}

async fn remove(State(admin): State<Arc<Admin>>, name: Name) -> Response {
    let (provider, model) = match named(name) {
        Ok(named) => named,
        Err(refused) => return *refused,
    };
    match admin.prices.remove(provider, &model, clock::unix_ms()).await {
        Ok(book) => {
            let now = book.row(provider, &model).map(|row| object(row));
            let removed = json!({"provider": provider.name(), "model": model, "override_removed": true,
                "version": &**book.version(), "now": now});
            Json(removed).into_response()
        }
        Err(why) => failed(&why),
    }
}

fn answer(book: &PriceBook, provider: ProviderKind, model: &str, status: StatusCode) -> Response {
    match book.row(provider, model) {
        Some(row) => {
            let mut object = object(row);
            object["version"] = Value::from(&**book.version());
            (status, Json(object)).into_response()
        }
        None => failed(&PricesError::Unknown(format!("{}/{model}", provider.name()))),
    }
}

fn object(row: &Row) -> Value {
    let periods: Vec<Value> = row.periods.iter().map(|price| period(price)).collect();
    json!({
        "object": "price",
        "provider": row.provider.name(),
        "model": &*row.model,
        "base": row.base.as_deref(),
        "note": row.note.as_deref(),
        "origin": match row.origin {
            Origin::File => "file",
            Origin::Override => "override",
            Origin::Derived => "derived",
        },
        "read_only": row.origin != Origin::Override,
        "periods": periods,
    })
}

/// A period, with each price per 1,000,000 and per 1,000 tokens beside each other. Amounts are text, exact.
fn period(price: &Price) -> Value {
    let terms = &price.terms;
    let tiers = ServiceTier::ALL.into_iter().filter(|tier| *tier != ServiceTier::Default);
    let usual = &price.tokens.tiers;
    let apart = tiers.clone().filter(|tier| usual.of(*tier) != price.tokens.standard());
    let apart: Map<String, Value> =
        apart.map(|tier| (tier.name().to_owned(), rates(usual.of(tier)))).collect();
    let long = price.tokens.long_context.map(|long| {
        let all = ServiceTier::ALL.into_iter();
        let tiers: Map<String, Value> =
            all.map(|tier| (tier.name().to_owned(), rates(long.tiers.of(tier)))).collect();
        json!({"above_tokens": long.above_tokens, "tiers": tiers})
    });
    json!({
        "from": bound(terms.from_ms),
        "until": bound(terms.until_ms),
        "shutdown": terms.shutdown_ms.map(moment_text),
        "tokens": rates(price.tokens.standard()),
        "tiers": apart,
        "long_context": long,
        "training": terms.training.map(per_token),
        "training_by_type": terms.training_by_type.iter().map(|(kind, price)| (kind.to_string(), per_token(*price)))
            .collect::<Map<_, _>>(),
        "free_training_tokens_per_day": terms.free_training.map(|free| free.tokens_per_day),
        "hours": hours(terms),
        "tokens_of": terms.tokens_of.as_deref(),
        "source": &*terms.source,
        "verified": terms.verified,
        "note": terms.note.as_deref(),
    })
}

fn hours(terms: &Terms) -> Value {
    let usd = |amount: crate::domain::money::Usd| amount.to_string();
    json!({
        "training_per_hour_usd": terms.training_hour.map(|hour| usd(hour.per_hour)),
        "training_increment_seconds": terms.training_hour.map(|hour| hour.increment_seconds),
        "compute_per_hour_usd": terms.compute_hour.map(usd),
        "hosting_per_hour_usd": terms.hosting.as_ref().and_then(|hosting| hosting.any).map(usd),
        "hosting_per_hour_usd_by_sku": terms.hosting.as_ref().map(|hosting| {
            hosting.by_sku.iter().map(|(sku, price)| (sku.to_string(), Value::from(usd(*price)))).collect::<Map<_, _>>()
        }),
        "hosting_billing": terms.hosting.as_ref().map(|hosting| hosting.billing.unwrap_or_default().name()),
        "hosting_billing_verified": terms.hosting.as_ref().map(|hosting| hosting.billing.is_some()),
    })
}

fn rates(rates: &Rates) -> Value {
    let shown = |class: &Class| *class == class.parent() || rates.of(*class) != rates.of(class.parent());
    let classes = Class::ALL.into_iter().filter(shown);
    let members: Map<String, Value> =
        classes.map(|class| (class.name().to_owned(), per_token(rates.of(class)))).collect();
    Value::Object(members)
}

fn per_token(price: PerToken) -> Value {
    json!({"per_1m_usd": price.per_million(), "per_1k_usd": price.per_thousand()})
}

fn bound(at_ms: i64) -> Option<String> {
    (at_ms != i64::MIN && at_ms != i64::MAX).then(|| moment_text(at_ms))
}

fn failed(why: &PricesError) -> Response {
    match why {
        PricesError::Wrong(problems) => wrong(problems),
        PricesError::InFile(_) => error(StatusCode::CONFLICT, &why.to_string(), "declared_in_file"),
        PricesError::Unknown(_) => error(StatusCode::NOT_FOUND, &why.to_string(), "price_not_found"),
        PricesError::Contended => error(StatusCode::CONFLICT, &why.to_string(), "changed_meanwhile"),
        PricesError::Random(_) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string(), "no_random_bits")
        }
        PricesError::Store(_) => {
            tracing::error!(error = %why, "the prices can't be changed");
            error(StatusCode::SERVICE_UNAVAILABLE, "the store failed; see the log", "store_failed")
        }
    }
}

/// 422 with every problem and its path.
fn wrong(problems: &[Problem]) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let message = "the price was not taken; nothing was changed";
    let body = respond::envelope(status, message, None, Some("invalid_price"));
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    body["error"]["errors"] = json!(problems);
    (status, Json(body)).into_response()
}
