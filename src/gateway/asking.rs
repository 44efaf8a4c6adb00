//! One request on the wire: sent with our credential, and watched for a client that leaves.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::{HeaderName, HeaderValue, header};
use pingora::time::timeout;

use super::presence::{Client, Presence};
use super::refusal::Refusal;
use crate::clock;
use crate::domain::catalog::{Deployment, Timeouts};
use crate::domain::fault::Fault;
use crate::domain::leaving::{Leaving, leaving};
use crate::provider::{self, Outgoing};
use crate::upstream::http::Exchange;
use crate::upstream::{Phase, Upstream, UpstreamError};

/// How much of an upstream's error we read.
pub(super) const ERROR_BYTES: usize = 1 << 20;
/// What we tell upstreams we are.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tunegate/", env!("CARGO_PKG_VERSION")));

/// One deployment being asked.
pub(super) struct Asking<'a> {
    pub(super) deployment: &'a Arc<Deployment>,
    /// Whether it makes tokens that the client does not see.
    pub(super) unseen: bool,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) outgoing: &'a Outgoing,
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    /// When everything must be over.
    pub(super) deadline: Instant,
    /// Whether the upstream may have seen any of it.
    pub(super) sent: &'a AtomicBool,
}

impl Asking<'_> {
    /// Waits for the answer's head.
    pub(super) async fn watched<C: Client>(
        &self,
        stream: bool,
        presence: &mut Presence<'_, C>,
    ) -> Result<Exchange, Refusal> {
        let mut opening = pin!(self.open());
        let opened = tokio::select! {
            biased;
            opened = &mut opening => Some(opened),
            () = presence.left() => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None if !self.sent.load(Ordering::Relaxed) => return Err(Refusal::ClientGone),
            None => match leaving(self.deployment, stream, self.unseen) {
                Leaving::Abort => return Err(Refusal::ClientGone),
                Leaving::ReadOn(limit) => {
                    timeout(limit, opening).await.unwrap_or(Err(UpstreamError::Timeout(Phase::Total)))
                }
            },
        };
        opened.map_err(|error| self.refusal(error))
    }

    /// Whether the upstream may have begun to work.
    pub(super) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    fn refusal(&self, error: UpstreamError) -> Refusal {
        Refusal::Upstream { deployment: Arc::clone(&self.deployment.name), error }
    }

    async fn open(&self) -> Result<Exchange, UpstreamError> {
        let exchange = open(
            self.upstream,
            self.outgoing,
            self.headers,
            &self.deployment.timeouts,
            self.deadline,
            self.sent,
        );
        exchange.await
    }
}

/// Opens an exchange with our credential; one that is refused and can be renewed is renewed, once.
pub(super) async fn open(
    upstream: &Upstream,
    outgoing: &Outgoing,
    client_headers: &[(HeaderName, HeaderValue)],
    timeouts: &Timeouts,
    deadline: Instant,
    sent: &AtomicBool,
) -> Result<Exchange, UpstreamError> {
    let mut renewed = false;
    loop {
        let authorization = upstream.authorization(clock::monotonic()).await?;
        let mut headers = Vec::with_capacity(client_headers.len() + 4);
        headers.extend_from_slice(client_headers);
        headers.push((header::USER_AGENT, USER_AGENT));
        // a compressed stream can't be read as it passes
        headers.push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        headers.extend(provider::authorize(upstream.provider(), &authorization));
        let exchange = upstream.link.open(outgoing, &headers, timeouts, deadline, sent).await?;
        if exchange.status() == 401 && !renewed && upstream.refused(&authorization, clock::monotonic()) {
            renewed = true;
            exchange.discard().await;
            continue;
        }
        return Ok(exchange);
    }
}

/// A redirect: followed, it would carry our credential elsewhere.
pub(super) fn redirected(deployment: &Deployment, status: u16) -> Refusal {
    Refusal::UpstreamFault {
        deployment: Arc::clone(&deployment.name),
        fault: Fault::DeploymentMissing,
        status,
        message: "its base URL answers with a redirect: check it".to_owned(),
    }
}

/// An upstream's no to us, which is none to the client.
pub(super) fn our_trouble(deployment: &Deployment, fault: Fault, status: u16, body: &[u8]) -> Refusal {
    let message = provider::message(status, body);
    Refusal::UpstreamFault { deployment: Arc::clone(&deployment.name), fault, status, message }
}
