//! A provider's list of models, bounded in time and size: which there are, and when they end.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::Value;

use super::UpstreamError;
use super::http::Link;
use crate::clock;
use crate::domain::catalog::Timeouts;
use crate::domain::retirement::{day_ms, seconds_ms};
use crate::domain::secret::Authorization;
use crate::provider;

/// The largest list we read.
const LIST_BYTES: usize = 8 << 20;
/// The longest name we keep; no model has one.
const NAME_BYTES: usize = 512;
/// For the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A model of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// The provider's own name.
    pub id: Box<str>,
    /// When it ends, ms since 1970 UTC, where the list says so.
    pub ends_ms: Option<i64>,
}

/// Why there is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// No whole answer came.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The provider says something else.
    #[error("it answers {status}: {words}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// What it says.
        words: String,
    },
    /// What comes is no list of models.
    #[error("it answers, but not with a list of models: check base_url")]
    NoList,
}

/// Asks for the list, on a connection of its own, for so long at most.
///
/// # Errors
///
/// When it can't be reached in time, refuses, or answers with something else.
pub async fn model_list(
    link: &Link,
    authorization: &Authorization,
    limit: Duration,
) -> Result<Vec<ListedModel>, ListError> {
    let provider = link.provider();
    let outgoing = provider::models(provider);
    let mut headers = vec![(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
    headers.extend(provider::authorize(provider, authorization));
    let deadline = clock::monotonic() + limit;
    let connect = CONNECT_LIMIT.min(limit);
    let timeouts = Timeouts { connect, first_byte: limit, between_chunks: limit, total: limit };
    let sent = AtomicBool::new(false);
    let mut exchange = link.open(&outgoing, &headers, &timeouts, deadline, &sent).await?;
    let status = exchange.status();
    let body = exchange.whole(LIST_BYTES, limit, deadline).await?;
    if !(200..300).contains(&status) {
        return Err(ListError::Refused { status, words: provider::message(status, &body) });
    }
    read(&body).ok_or(ListError::NoList)
}

/// What we look at, whoever wrote it.
#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

/// OpenAI's `shutdown_date` is a day or null; Azure's `deprecation.inference` is in seconds since 1970. What has another
/// form says nothing, and keeps nobody from reading the rest.
///
/// Source: openai-python 3.54 `types/model.py`; Azure authoring 2024-10-21, `Deprecation`; both read in November 2026.
#[derive(Deserialize)]
struct Entry {
    id: Box<str>,
    #[serde(default)]
    shutdown_date: Value,
    #[serde(default)]
    deprecation: Value,
}

fn read(body: &[u8]) -> Option<Vec<ListedModel>> {
    let list: List = serde_json::from_slice(body).ok()?;
    let listed = list.data.into_iter().filter(|entry| entry.id.len() <= NAME_BYTES).map(|entry| {
        let moment = |value: &Value| value.as_str().and_then(day_ms).or_else(|| seconds_ms(value.as_i64()?));
        let ends_ms = moment(&entry.shutdown_date).or_else(|| moment(entry.deprecation.get("inference")?));
        ListedModel { id: entry.id, ends_ms }
    });
    Some(listed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_found_in_either_providers_list() {
        let end = day_ms("2027-01-14");
        for (entry, want) in [
            (
                r#"{"id":"m","object":"model","created":1,"owned_by":"acme","shutdown_date":"2027-01-14"}"#,
                end,
            ),
            (r#"{"id":"m","shutdown_date":1799884800}"#, end),
            (
                r#"{"id":"m","lifecycle_status":"preview","deprecation":{"fine_tune":1,"inference":1799884800}}"#,
                end,
            ),
            (r#"{"id":"m","shutdown_date":null,"deprecation":{"inference":1799884800}}"#, end),
            (r#"{"id":"m","shutdown_date":null}"#, None),
            (r#"{"id":"m"}"#, None),
            (r#"{"id":"m","shutdown_date":"soon","deprecation":"never"}"#, None),
            (r#"{"id":"m","shutdown_date":{"day":1},"deprecation":[{"inference":1}]}"#, None),
            (r#"{"id":"m","deprecation":{"inference":0}}"#, None),
            (r#"{"id":"m","shutdown_date":9223372036854775807}"#, None),
        ] {
            let body = format!(r#"{{"object":"list","data":[{entry}]}}"#);
            let want = vec![ListedModel { id: "m".into(), ends_ms: want }];
            assert_eq!(read(body.as_bytes()), Some(want), "{entry}");
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        for body in [
            "",
            "{}",
            "[]",
            "<html>",
            r#"{"data":{}}"#,
            r#"{"data":[{"object":"model"}]}"#,
            r#"{"data":[1]}"#,
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
        assert_eq!(read(br#"{"data":[]}"#), Some(Vec::new()));
    }
}
