//! The operator's collector of traces: takes batches of spans, over the same connector as everything else.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tokio::time::{sleep, timeout};

use super::credential::TokenHttp as _;
use super::http::Pools;
use super::token_http::Tokens;
use crate::telemetry::traces::Config;

/// Waits before each further try.
const BACKOFF: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// A collector.
pub struct Collector {
    url: String,
    authority: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    service: Tokens,
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
            backoff: BACKOFF,
        }
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
            let sending = self.service.send(Method::POST, &self.url, &self.headers, batch);
            let (why, may_help) = match timeout(self.timeout, sending).await {
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
