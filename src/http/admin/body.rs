//! What operators send: the name in a path, and a body of JSON.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::response::Response;
use http::request::Parts;
use serde_json::{Value, json};

use super::error;

/// The name in the path; what is no UTF-8 names nothing.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(name.map(|Path(name)| name).unwrap_or_default()))
    }
}

/// A body of JSON.
pub(super) fn read(body: &[u8]) -> Result<Value, Box<Response>> {
    serde_json::from_slice(body).map_err(|why| {
        error(StatusCode::BAD_REQUEST, &format!("the body is not JSON: {why}"), "invalid_json").into()
    })
}

/// A body of JSON that may be left out.
pub(super) fn read_or_empty(body: &[u8]) -> Result<Value, Box<Response>> {
    if body.is_empty() { Ok(json!({})) } else { read(body) }
}
