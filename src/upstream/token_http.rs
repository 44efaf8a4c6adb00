//! Asks services beside the providers, over the same connector as everything else: token services and the operator's
//! webhook.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};

use super::credential::TokenHttp;
use super::http::{Link, Pools};
use crate::clock;
use crate::domain::catalog::{Address, Credential, Dialect, Provider, Timeouts};
use crate::provider::Outgoing;

/// For one call; the credential has a limit of its own around it.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer of such a service that makes sense.
const ANSWER_BYTES: usize = 1 << 20;

/// The connections to such services.
pub(super) struct Tokens {
    pools: Arc<Pools>,
    /// The provider's own roots serve its token service too: where a private proxy ends TLS, it ends all of it.
    roots: Option<PathBuf>,
}

impl Tokens {
    /// Connections from these pools.
    pub(super) const fn new(pools: Arc<Pools>, roots: Option<PathBuf>) -> Self {
        Self { pools, roots }
    }

    /// A link to a service; its connections wait in it for the next call.
    pub(super) fn link(&self, url: &str) -> Result<Link, String> {
        let url: Uri = url.parse().map_err(|_| "the address is no URL")?;
        Ok(Link::new(Arc::new(self.service(&url)?), &self.pools))
    }

    fn service(&self, url: &Uri) -> Result<Provider, String> {
        let host = url.host().ok_or("the address has no host")?;
        let tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Provider {
            name: "service".into(),
            dialect: Dialect::Candle,
            address: Address::Host { host: host.trim_matches(['[', ']']).to_owned(), port, tls },
            base_path: String::new(),
            authority: url.authority().map(ToString::to_string).unwrap_or_default(),
            credential: Credential::None,
            ca_file: self.roots.clone(),
            http2: false,
            training: None,
        })
    }
}

#[async_trait]
impl TokenHttp for Tokens {
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), String> {
        // such a service is asked about once an hour: a link of its own each time
        let link = self.link(url)?;
        send_on(&link, method, url, headers, body).await
    }
}

/// One call over a link.
pub(super) async fn send_on(
    link: &Link,
    method: Method,
    url: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Result<(u16, Vec<u8>), String> {
    let url: Uri = url.parse().map_err(|_| "the address is no URL")?;
    let outgoing = Outgoing {
        method,
        path: url.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: headers.to_vec(),
        body: (!body.is_empty()).then(|| Bytes::copy_from_slice(body)),
        usage_injected: false,
    };
    let timeouts = Timeouts { connect: LIMIT, first_byte: LIMIT, between_chunks: LIMIT, total: LIMIT };
    let deadline = clock::monotonic() + LIMIT;
    let sent = AtomicBool::new(false);
    let opened = link.open(&outgoing, &[], &timeouts, deadline, &sent).await;
    let mut exchange = opened.map_err(|error| error.to_string())?;
    let status = exchange.status();
    let body = exchange.whole(ANSWER_BYTES, LIMIT, deadline).await.map_err(|error| error.to_string())?;
    exchange.release().await;
    Ok((status, body.to_vec()))
}
