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

#[cfg(test)]
mod tests {
    use super::super::testing::FakeServer;
    use super::*;
    use crate::domain::catalog::{AzureV1, Dialect, Training};

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_an_illness_is_none() {
        let statuses = [200, 400, 422, 404, 401, 403, 408, 429, 500, 503, 0];
        let json = "content-type: application/json\r\n";
        let answers = statuses.iter().map(|status| (*status, json, "{}".to_owned())).collect();
        let server = FakeServer::answering(answers).await;
        let upstream = server.upstream(Dialect::AzureV1(AzureV1::default()), Training::default());
        for status in statuses {
            let told = answers_of(&upstream).await;
            let want = match status {
                200 | 400 | 422 => Some(true),
                404 => Some(false),
                _ => None,
            };
            assert_eq!(told, want, "{status}");
        }
        for asked in server.asked() {
            let body: serde_json::Value = serde_json::from_slice(&asked.body).expect("JSON");
            assert_eq!(body["messages"], serde_json::json!([]), "nothing that could be billed");
            assert!(asked.line.starts_with("POST ") && asked.head.contains("k3y"), "{}", asked.line);
        }
        assert_eq!(server.asked().len(), statuses.len(), "asked once each");
    }

    /// What is told of a deployment; nothing where nothing is.
    async fn answers_of(upstream: &Upstream) -> Option<bool> {
        answers(upstream, "cat").await.ok()
    }
}
