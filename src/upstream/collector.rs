//! The operator's collector of traces: takes batches of spans, over the same connector as everything else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, header};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::http::{Link, Pools};
use super::token_http::{Tokens, send_on};
use crate::clock;
use crate::telemetry::traces::Config;

/// Waits before each further try.
const BACKOFF: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// How long a link is used before its name is looked up again.
const LINK_KEPT: Duration = Duration::from_secs(60);

/// A collector.
pub struct Collector {
    url: String,
    authority: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    service: Tokens,
    /// The connections to it, and since when: its name is looked up again now and then.
    link: Mutex<Option<(Instant, Arc<Link>)>>,
    backoff: [Duration; 2],
}

impl Collector {
    /// A collector that has not been sent anything.
    pub fn new(config: &Config) -> Self {
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (header::USER_AGENT, HeaderValue::from_static(concat!("tunegate/", env!("CARGO_PKG_VERSION")))),
        ];
        for (name, secret) in &config.headers {
            if let Ok(mut value) = HeaderValue::from_str(secret.expose()) {
                value.set_sensitive(true);
                headers.push((name.clone(), value));
            }
        }
        Self {
            url: config.url.clone(),
            authority: config.authority.clone(),
            headers,
            timeout: config.timeout,
            service: Tokens::new(Arc::new(Pools::default()), config.ca_file.clone()),
            link: Mutex::default(),
            backoff: BACKOFF,
        }
    }

    /// One call, over a connection of the one before if that is not long ago.
    async fn call(&self, batch: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let link = self.link(clock::monotonic())?;
        send_on(&link, Method::POST, &self.url, &self.headers, batch).await
    }

    fn link(&self, now: Instant) -> Result<Arc<Link>, String> {
        let mut kept = self.link.lock();
        if let Some((since, link)) = kept.as_ref()
            && now.saturating_duration_since(*since) < LINK_KEPT
        {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(self.service.link(&self.url)?);
        *kept = Some((now, Arc::clone(&link)));
        Ok(link)
    }

    /// Its host, for logs.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends one batch; returns the answer's body. Tried again where that may help (OTLP 1.11, §Retryable Response Codes).
    ///
    /// # Errors
    ///
    /// Why the last try failed.
    pub async fn send(&self, batch: &[u8]) -> Result<Vec<u8>, String> {
        let mut waits = self.backoff.into_iter();
        loop {
            let sending = self.call(batch);
            let sent = timeout(self.timeout, sending).await;
            if !matches!(sent, Ok(Ok(_))) {
                // its name may lead elsewhere by now
                *self.link.lock() = None;
            }
            let (why, may_help) = match sent {
                Ok(Ok((200..=299, answer))) => return Ok(answer),
                Ok(Ok((status, _))) => {
                    (format!("it answered {status}"), matches!(status, 429 | 502 | 503 | 504))
                }
                Ok(Err(why)) => (why, true),
                Err(_) => (format!("no answer within {} ms", self.timeout.as_millis()), true),
            };
            match waits.next().filter(|_| may_help) {
                Some(wait) => sleep(wait).await,
                None => return Err(why),
            }
        }
    }
}
