//! Health, for both addresses: without a key, so that probes need none.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Readiness;

/// The paths that probes use.
const ALIVE: [&str; 4] = ["/livez", "/healthz", "/health/liveliness", "/health/liveness"];
const READY: [&str; 2] = ["/readyz", "/health/readiness"];

/// Whether a path is one of health.
pub(super) fn is_health(path: &str) -> bool {
    ALIVE.contains(&path) || READY.contains(&path)
}

/// The routes of health.
pub(super) fn routes(readiness: &Arc<Readiness>) -> Router {
    let mut router = Router::new();
    for path in ALIVE {
        router = router.route(path, get(|| async { status(StatusCode::OK, "ok") }));
    }
    for path in READY {
        let readiness = Arc::clone(readiness);
        router = router.route(
            path,
            get(move || async move {
                match readiness.is_ready() {
                    true => status(StatusCode::OK, "ok"),
                    false => status(StatusCode::SERVICE_UNAVAILABLE, "draining"),
                }
            }),
        );
    }
    router
}

fn status(status: StatusCode, text: &'static str) -> Response {
    (status, axum::Json(serde_json::json!({"status": text}))).into_response()
}
