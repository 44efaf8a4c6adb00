//! Asks a provider whether it would serve us, for `tunegate check-config --probe`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::header;
use serde_json::Value;

use super::Upstream;
use super::http::Pools;
use crate::clock;
use crate::domain::catalog::{Provider, Timeouts};
use crate::provider;

/// How long a provider has for its list of models.
const LIMIT: Duration = Duration::from_secs(15);
/// The largest list we read.
const LIST_BYTES: usize = 8 << 20;

/// Returns what the provider says when it is asked for its models, in a few words; else why it can't be asked.
pub async fn probe(provider: &Provider) -> Result<String, String> {
    let upstream = Upstream::new(Arc::new(provider.clone()), &Arc::new(Pools::default()));
    let authorization =
        upstream.authorization(clock::monotonic()).await.map_err(|error| error.to_string())?;
    let outgoing = provider::models(provider);
    let mut headers = vec![(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"))];
    headers.extend(provider::authorize(provider, &authorization));
    let deadline = clock::monotonic() + LIMIT;
    let timeouts =
        Timeouts { connect: Duration::from_secs(5), first_byte: LIMIT, between_chunks: LIMIT, total: LIMIT };
    let sent = AtomicBool::new(false);
    let opened = upstream.link.open(&outgoing, &headers, &timeouts, deadline, &sent).await;
    let mut exchange = opened.map_err(|error| error.to_string())?;
    let status = exchange.status();
    let body = exchange.whole(LIST_BYTES, LIMIT, deadline).await.map_err(|error| error.to_string())?;
    if !(200..300).contains(&status) {
        return Err(format!("it answers {status}: {}", provider::message(status, &body)));
    }
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    match list["data"].as_array() {
        Some(models) if models.len() == 1 => Ok("it serves us 1 model".to_owned()),
        Some(models) => Ok(format!("it serves us {} models", models.len())),
        None => Err("it answers, but not with a list of models: check base_url".to_owned()),
    }
}
