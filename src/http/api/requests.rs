//! `GET /v1/tunegate/requests/{id}`: what one of the key's own requests used and cost. Streams carry no header for it.

use http::{HeaderValue, Method, StatusCode, header};

use super::credential;
use crate::clock;
use crate::domain::outcome::Ending;
use crate::gateway::record::Record;
use crate::gateway::{Gateway, Refusal};
use crate::http::api::inference::refuse;
use crate::http::exchange::{Done, Exchange};

/// Serves a question about a request.
pub(in crate::http) async fn serve(
    gateway: &Gateway,
    exchange: &mut Exchange,
    id: &str,
    mut record: Box<Record>,
) -> Done {
    let body = match ask(gateway, exchange, id, &mut record).await {
        Ok(body) => body,
        Err(refusal) => return refuse(exchange, &refusal, record).await,
    };
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    record.waits();
    match exchange.whole(StatusCode::OK, headers, body.into()).await {
        Ok(()) => {
            record.ended(Ending::Served, StatusCode::OK.as_u16());
            Done::Reuse
        }
        Err(_) => {
            record.ended(Ending::ClientGone, StatusCode::OK.as_u16());
            Done::Close
        }
    }
}

async fn ask(
    gateway: &Gateway,
    exchange: &Exchange,
    id: &str,
    record: &mut Record,
) -> Result<Vec<u8>, Refusal> {
    let admitted = gateway.admit(credential(exchange.headers()), clock::unix_ms())?;
    record.admitted(&admitted);
    if exchange.method() != Method::GET {
        return Err(Refusal::MethodNotAllowed { method: exchange.method().to_string(), allowed: "GET" });
    }
    let report = gateway.request_of(&admitted, id).await?;
    serde_json::to_vec(&report).map_err(|error| Refusal::LedgerAway(error.to_string()))
}
