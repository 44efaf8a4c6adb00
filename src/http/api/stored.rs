//! Stored responses: `GET`, `DELETE`, `cancel` and `input_items`.

use http::{HeaderValue, Method, StatusCode, header};

use super::credential;
use crate::clock;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::Ending;
use crate::gateway::record::Record;
use crate::gateway::{Gateway, Refusal, Stored};
use crate::http::api::inference::refuse;
use crate::http::exchange::{Done, Exchange};

/// Serves a request for a stored response.
pub(in crate::http) async fn serve(
    gateway: &Gateway,
    exchange: &mut Exchange,
    id: &str,
    tail: &str,
    mut record: Box<Record>,
) -> Done {
    record.endpoint(Endpoint::Responses);
    let stored = match ask(gateway, exchange, id, tail, &mut record).await {
        Ok(stored) => stored,
        Err(refusal) => return refuse(exchange, &refusal, record).await,
    };
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let kind = HeaderValue::from_str(&stored.content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/json"));
    record.waits();
    let written = exchange.whole(status, vec![(header::CONTENT_TYPE, kind)], stored.body).await;
    let ending = match written {
        Err(_) => Ending::ClientGone,
        Ok(()) if status.is_success() => Ending::Served,
        Ok(()) => Ending::UpstreamError,
    };
    record.ended(ending, stored.status);
    if written.is_ok() { Done::Reuse } else { Done::Close }
}

async fn ask(
    gateway: &Gateway,
    exchange: &Exchange,
    id: &str,
    tail: &str,
    record: &mut Record,
) -> Result<Stored, Refusal> {
    let admitted = gateway.admit(credential(exchange.headers()), clock::unix_ms())?;
    record.admitted(&admitted);
    let method = exchange.method().clone();
    let allowed = match tail.rsplit('/').next() {
        Some("cancel") => "POST",
        Some("input_items") => "GET",
        _ => "GET, DELETE",
    };
    let fits = match method {
        Method::GET | Method::DELETE | Method::POST => allowed.contains(method.as_str()),
        _ => false,
    };
    if !fits {
        return Err(Refusal::MethodNotAllowed { method: method.to_string(), allowed });
    }
    // `api-version` is the client's word to Azure; each dialect puts in its own
    let query = exchange.uri().query().unwrap_or_default();
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("api-version=")).collect();
    let tail = if kept.is_empty() { tail.to_owned() } else { format!("{tail}?{}", kept.join("&")) };
    record.waits();
    let stored = gateway.stored_response(&admitted, id, method, &tail).await;
    record.goes_on();
    stored
}
