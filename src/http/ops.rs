//! Health, for both addresses: without a key, so that probes need none. Nothing is asked here: what is known is told, so
//! that a probe costs next to nothing however often it comes. docs/HEALTH.md says what each means.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::Readiness;
use crate::gateway::record::Book;

/// The paths that probes use: ours are Kubernetes', the others LiteLLM's (1.109).
const ALIVE: [&str; 4] = ["/livez", "/healthz", "/health/liveliness", "/health/liveness"];
const READY: [&str; 2] = ["/readyz", "/health/readiness"];
const BACKLOG: &str = "/health/backlog";

/// What a check says where nothing is wrong.
pub const OK: &str = "ok";

/// One thing that the process stands on.
pub struct Check {
    name: &'static str,
    /// How it is, in one word; must not wait.
    look: Box<dyn Fn() -> &'static str + Send + Sync>,
}

impl Check {
    /// A check by its name. `look` says [`OK`], or in one word what is wrong; it must not wait.
    pub fn new(name: &'static str, look: impl Fn() -> &'static str + Send + Sync + 'static) -> Self {
        Self { name, look: Box::new(look) }
    }
}

/// Whether a path is one of health that needs no key.
pub(super) fn is_health(path: &str) -> bool {
    ALIVE.contains(&path) || READY.contains(&path) || path == BACKLOG
}

/// The routes of health.
pub(super) fn routes(readiness: &Arc<Readiness>, book: &Arc<Book>) -> Router {
    let mut router = Router::new();
    for path in ALIVE {
        router =
            router.route(path, get(|uri: Uri| async move { said(&uri, StatusCode::OK, OK, Vec::new()) }));
    }
    for path in READY {
        let readiness = Arc::clone(readiness);
        router = router.route(path, get(move |uri: Uri| async move { ready(&uri, &readiness) }));
    }
    let book = Arc::clone(book);
    let backlog = move || async move { axum::Json(json!({"in_flight_requests": book.in_flight()})) };
    router.route(BACKLOG, get(backlog))
}

/// Draining: 503, so that a balancer sends no more. What is amiss otherwise takes no request away from us: another
/// process would miss the same database, and what needs nothing of it is served on.
fn ready(uri: &Uri, readiness: &Readiness) -> Response {
    let checks: Vec<_> = readiness.checks.iter().map(|check| (check.name, (check.look)())).collect();
    let (code, status) = match checks.iter().all(|(_, found)| *found == OK) {
        _ if !readiness.is_ready() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        true => (StatusCode::OK, OK),
        false => (StatusCode::OK, "degraded"),
    };
    said(uri, code, status, checks)
}

/// As JSON, or with `?verbose` line by line, as Kubernetes' own servers say it.
fn said(uri: &Uri, code: StatusCode, status: &str, checks: Vec<(&'static str, &'static str)>) -> Response {
    let asks = |query: &str| query.split('&').any(|one| one.split('=').next() == Some("verbose"));
    if uri.query().is_some_and(asks) {
        let line = |(name, found): &(&str, &str)| match *found {
            OK => format!("[+]{name} ok\n"),
            wrong => format!("[-]{name} {wrong}\n"),
        };
        let lines: String = checks.iter().map(line).collect();
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return (code, kind, format!("{lines}status: {status}\n")).into_response();
    }
    let mut body = json!({"status": status});
    if !checks.is_empty() {
        let checks: Map<String, Value> =
            checks.into_iter().map(|(name, found)| (name.to_owned(), found.into())).collect();
        body["checks"] = checks.into();
    }
    (code, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_tells_what_is_amiss_and_only_draining_is_unready() {
        let cases = [
            (&[][..], false, 200, json!({"status": "ok"})),
            (&[OK, OK], false, 200, json!({"status": "ok", "checks": {"a": "ok", "b": "ok"}})),
            (&[OK, "gone"], false, 200, json!({"status": "degraded", "checks": {"a": "ok", "b": "gone"}})),
            (&[OK, "gone"], true, 503, json!({"status": "draining", "checks": {"a": "ok", "b": "gone"}})),
            (&[OK], true, 503, json!({"status": "draining", "checks": {"a": "ok"}})),
        ];
        for (found, drains, code, want) in cases {
            let checks =
                ["a", "b"].into_iter().zip(found).map(|(name, found)| Check::new(name, move || *found));
            let readiness = Readiness::on(checks.collect());
            if drains {
                readiness.drain();
            }
            let (status, body) = answer(&readiness, "/readyz").await;
            assert_eq!((status, serde_json::from_str::<Value>(&body).expect("JSON")), (code, want));
            let (status, lines) = answer(&readiness, "/readyz?x=1&verbose").await;
            assert_eq!((status, lines.lines().count()), (code, found.len() + 1), "{lines}");
        }
    }

    async fn answer(readiness: &Readiness, target: &str) -> (u16, String) {
        let response = ready(&target.parse().expect("a target"), readiness);
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }
}
