//! Stored responses: a request that names one goes to the deployment that made it, and only for the key that asked for
//! it. Nothing is generated here, so nothing is metered.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use http::{HeaderMap, Method, header};

use super::admit::Admitted;
use super::asking;
use super::inference::Gateway;
use super::refusal::Refusal;
use crate::clock;
use crate::provider;

/// The largest stored response we pass on.
const STORED_BYTES: usize = 64 << 20;

/// A stored response, or what the upstream says instead.
pub struct Stored {
    /// The upstream's status.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

impl Gateway {
    /// Reads, cancels or deletes a stored response; `tail` is the path behind the base URL with its query, such as
    /// `responses/resp_1/input_items?limit=5`.
    pub async fn stored_response(
        &self,
        admitted: &Admitted,
        id: &str,
        method: Method,
        tail: &str,
    ) -> Result<Stored, Refusal> {
        let unknown = || Refusal::UnknownResponse(id.to_owned());
        let pin = self.pins.find(id, admitted).await.ok_or_else(unknown)?;
        let live = self.catalog.load();
        let deployment = live.catalog.deployments.get(pin.deployment.as_str()).ok_or_else(unknown)?;
        let upstream = live.upstream(deployment).ok_or_else(unknown)?;
        let outgoing = provider::stored(upstream.provider(), method, tail);
        let failed = |error| Refusal::Upstream { deployment: Arc::clone(&deployment.name), error };
        let deadline = clock::monotonic() + deployment.timeouts.total;
        let sent = AtomicBool::new(false);
        let mut exchange = asking::open(upstream, &outgoing, &[], &deployment.timeouts, deadline, &sent)
            .await
            .map_err(failed)?;
        let body = exchange
            .whole(STORED_BYTES, deployment.timeouts.between_chunks, deadline)
            .await
            .map_err(failed)?;
        let status = exchange.status();
        let content_type = content_type(exchange.headers());
        exchange.release().await;
        match status {
            0..300 => Ok(Stored { status, content_type, body }),
            300..400 => Err(asking::redirected(deployment, status)),
            400.. => match provider::fault(status, &body) {
                fault if !fault.is_our_trouble() => Ok(Stored {
                    status,
                    content_type: "application/json".to_owned(),
                    body: provider::envelope(status, &body),
                }),
                fault => Err(asking::our_trouble(deployment, fault, status, &body)),
            },
        }
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.unwrap_or("application/json").to_owned()
}
