//! Whether requests find a deployment at Azure that was made just now: its data plane may not know it for some minutes.

use std::time::Duration;

use super::call::{Limits, call};
use super::{Upstream, UpstreamError};
use crate::clock;
use crate::provider;

/// For one question.
const LIMITS: Limits =
    Limits { total: Duration::from_secs(20), silence: Duration::from_secs(20), bytes: 1 << 20 };

/// Asks a deployment for a chat without messages. It is refused wherever there is one, so nothing is billed; 404 says that
/// there is none, and whatever else a server says when it is ill, nothing.
///
/// # Errors
///
/// When the provider gives no answer, or one that says nothing.
pub async fn answers(upstream: &Upstream, deployment: &str) -> Result<bool, UpstreamError> {
    let provider = upstream.provider();
    let authorization = upstream.authorization(clock::monotonic()).await?;
    let headers: Vec<_> = provider::authorize(provider, &authorization).into_iter().collect();
    let outgoing = provider::empty_chat(provider, deployment);
    let answered = call(&upstream.link, &outgoing, &headers, LIMITS).await?;
    match answered.status {
        404 => Ok(false),
        200..=299 | 400 | 422 => Ok(true),
        status => Err(UpstreamError::Connect(format!("it answered {status}"))),
    }
}
