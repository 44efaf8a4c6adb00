//! `/admin/v1/cache`: how much is kept, and letting answers go.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::query::{Asked, Given};
use super::{Admin, error, store_failed};
use crate::clock;
use crate::control::keys::KeysError;
use crate::domain::cache::key::CacheKey;
use crate::gateway::answers::Purge;

/// Ten years: nothing is kept for so long.
const MOST_SECONDS: i64 = 10 * 366 * 86_400;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin/v1/cache", get(show).delete(purge))
}

async fn show(State(admin): State<Arc<Admin>>) -> Response {
    let answers = Arc::clone(&admin.gateway.answers);
    // all of them are looked at
    let told = tokio::task::spawn_blocking(move || (answers.standing(), answers.by_model())).await;
    match told {
        Ok((standing, models)) => Json(json!({
            "object": "cache",
            "entries": standing.entries,
            "bytes": standing.bytes,
            "limit_bytes": standing.limit_bytes,
            "models": models,
        }))
        .into_response(),
        Err(why) => store_failed(&why),
    }
}

async fn purge(State(admin): State<Arc<Admin>>, query: Given) -> Response {
    let mut asked = Asked::new(query);
    let all = asked.word("all", &["true"], |word| word).is_some();
    let key = asked.text("key");
    let mut wanted = Purge {
        model: asked.text("model"),
        deployment: asked.text("deployment"),
        prompt: asked.text("prompt"),
        older_than: asked.number("older_than_s", MOST_SECONDS).map(|s| Duration::from_secs(s.unsigned_abs())),
        key_id: None,
        entry: asked.read(
            "entry",
            CacheKey::read_shown,
            "no key of an answer: 32 hex digits, as x-tunegate-cache-key says",
        ),
    };
    if let Err(refused) = asked.end() {
        return *refused;
    }
    if let Some(name) = &key {
        match admin.keys.get(name, clock::unix_ms()).await {
            Ok(listed) => wanted.key_id = Some(listed.key.id.to_string()),
            Err(why @ KeysError::Unknown(_)) => {
                return error(StatusCode::NOT_FOUND, &why.to_string(), "key_not_found");
            }
            Err(why) => return store_failed(&why),
        }
    }
    if all != (wanted == Purge::default()) {
        let words = "say which answers go, by model, deployment, key, prompt, older_than_s or entry; or all=true, alone";
        return error(StatusCode::BAD_REQUEST, words, "invalid_query");
    }
    let (answers, which) = (Arc::clone(&admin.gateway.answers), wanted.clone());
    let gone = tokio::task::spawn_blocking(move || answers.purge(&which, clock::unix_ms())).await;
    let purged = match gone {
        Ok(purged) => purged,
        Err(why) => return store_failed(&why),
    };
    let detail = json!({
        "model": wanted.model,
        "deployment": wanted.deployment,
        "key_id": wanted.key_id,
        "prompt": wanted.prompt,
        "older_than_s": wanted.older_than.map(|age| age.as_secs()),
        "one_entry": wanted.entry.is_some(),
        "purged": purged,
    });
    if let Err(why) = admin.audit.note("cache.purge", "cache", &detail, clock::unix_ms()).await {
        tracing::error!(error = %why, "answers are purged, which is missing in the audit log");
    }
    Json(json!({"object": "cache.purge", "purged": purged})).into_response()
}
