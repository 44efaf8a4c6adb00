//! The bridge from an exchange to an axum router, in-process.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::api::route::{Route, route};
use super::api::{credential, health, models};
use super::config::Limits;
use super::exchange::{Done, Exchange};
use super::{Readiness, ops, respond};
use crate::clock;
use crate::gateway::{Gateway, Refusal};

/// The largest body a router's route takes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Our code for a refusal, carried beside the response for the outcome.
#[derive(Debug, Clone, Copy)]
struct Code(&'static str);

/// What stands at the data address beside inference.
pub(super) fn data(gateway: Arc<Gateway>, readiness: &Arc<Readiness>) -> Router {
    let routes = ops::routes(readiness, &gateway.book);
    let beside = move |request: Request| {
        let gateway = Arc::clone(&gateway);
        async move { beside(&gateway, &request).unwrap_or_else(|refusal| refused(&refusal)) }
    };
    routes.fallback(beside).method_not_allowed_fallback(|method: http::Method| async move {
        refused(&Refusal::MethodNotAllowed { method: method.to_string(), allowed: "GET, HEAD" })
    })
}

fn beside(gateway: &Gateway, request: &Request) -> Result<Response, Refusal> {
    let path = request.uri().path();
    let route = route(path);
    if route == Route::Other {
        return Err(Refusal::UnsupportedEndpoint(path.chars().take(200).collect()));
    }
    let admitted = gateway.admit(credential(request.headers()), clock::unix_ms())?;
    if request.method() != http::Method::GET {
        return Err(Refusal::MethodNotAllowed { method: request.method().to_string(), allowed: "GET" });
    }
    let live = gateway.catalog.load();
    match route {
        Route::Health => Ok(json(health::report(gateway, &live.catalog, &admitted.key))),
        Route::Model(name) => {
            let unknown = || Refusal::UnknownModel(name.clone().into_owned());
            let found = models::one(&live.catalog, &gateway.retirements, &admitted.key, &name);
            found.map(json).ok_or_else(unknown)
        }
        _ => Ok(json(models::list(&live.catalog, &gateway.retirements, &admitted.key))),
    }
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// A refusal as a router's response.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let mut response = Response::new(Body::from(respond::body(refusal)));
    *response.status_mut() = respond::status(refusal);
    for (name, value) in respond::headers(refusal) {
        response.headers_mut().insert(name, value);
    }
    response.extensions_mut().insert(Code(refusal.code()));
    response
}

/// Calls a router and writes what it says. Returns the status too, and our code if it was a refusal.
pub(super) async fn call(
    router: &Router,
    exchange: &mut Exchange,
    limits: &Limits,
) -> (Done, u16, Option<&'static str>) {
    let body = match exchange.body(limits, MAX_BODY_BYTES, None).await {
        Ok(body) => body,
        Err(refusal) => {
            let status = respond::status(&refusal).as_u16();
            return (exchange.refuse(&refusal).await, status, Some(refusal.code()));
        }
    };
    let request = Request::from_parts(exchange.parts(), Body::from(body));
    let response = match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (head, body) = response.into_parts();
    let code = head.extensions.get::<Code>().map(|code| code.0);
    // our own handlers answer whole; a body that fails is an empty one
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let headers = head.headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH);
    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    let written = exchange.whole(head.status, headers, body).await;
    let done = if written.is_ok() { Done::Reuse } else { Done::Close };
    (done, head.status.as_u16(), code)
}
