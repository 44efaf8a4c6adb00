//! One small call and its whole answer, within limits.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::UpstreamError;
use super::body::FileBody;
use super::http::{Exchange, Link};
use crate::clock;
use crate::domain::catalog::Timeouts;
use crate::provider::Outgoing;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest that a provider may ask us to wait, ms: an hour.
const LONGEST_WAIT_MS: u64 = 3_600_000;

/// How long a call may take, and how large its answer may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the whole call.
    pub(super) total: Duration,
    /// For the answer's head, behind the request's last byte; and for each piece of either.
    pub(super) silence: Duration,
    /// Of the answer.
    pub(super) bytes: usize,
}

/// An answer, read to its end.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answered {
    /// Whether it is a yes.
    pub(super) const fn is_good(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long it asks us to wait, ms.
    pub(super) fn wait_ms(&self) -> Option<u64> {
        let ms = self.header("retry-after-ms").and_then(|text| text.trim().parse::<u64>().ok());
        let seconds = || self.header("retry-after")?.trim().parse::<u64>().ok();
        ms.or_else(|| seconds()?.checked_mul(1_000)).map(|ms| ms.min(LONGEST_WAIT_MS))
    }
}

/// Asks, with the request's own body.
pub(super) async fn call(
    link: &Link,
    outgoing: &Outgoing,
    headers: &[(HeaderName, HeaderValue)],
    limits: Limits,
) -> Result<Answered, UpstreamError> {
    let deadline = clock::monotonic() + limits.total;
    let (timeouts, sent) = (timeouts(limits), AtomicBool::new(false));
    let exchange = match outgoing.method {
        // it makes something: who asks looks whether it was made before they ask again
        Method::POST => link.open_once(outgoing, headers, &timeouts, deadline, &sent).await?,
        _ => link.open(outgoing, headers, &timeouts, deadline, &sent).await?,
    };
    whole(exchange, limits, deadline).await
}

/// Asks, with a file as the body.
pub(super) async fn call_with_file(
    link: &Link,
    body: &mut FileBody,
    outgoing: &Outgoing,
    headers: &[(HeaderName, HeaderValue)],
    limits: Limits,
) -> Result<Answered, UpstreamError> {
    let deadline = clock::monotonic() + limits.total;
    let (timeouts, sent) = (timeouts(limits), AtomicBool::new(false));
    let exchange = link.open_file(body, outgoing, headers, &timeouts, deadline, &sent).await?;
    whole(exchange, limits, deadline).await
}

fn timeouts(limits: Limits) -> Timeouts {
    Timeouts {
        connect: CONNECT.min(limits.total),
        first_byte: limits.silence,
        between_chunks: limits.silence,
        total: limits.total,
    }
}

async fn whole(
    mut exchange: Exchange,
    limits: Limits,
    deadline: std::time::Instant,
) -> Result<Answered, UpstreamError> {
    let body = exchange.whole(limits.bytes, limits.silence, deadline).await?;
    let answered = Answered { status: exchange.status(), headers: exchange.headers().clone(), body };
    exchange.release().await;
    Ok(answered)
}
