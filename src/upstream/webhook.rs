//! The operator's webhook: told of what needs a person, and signed, so that nobody else can tell it anything.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method, header};
use sha2::Sha256;
use tokio::time::{sleep, timeout};

use super::credential::TokenHttp as _;
use super::http::Pools;
use super::token_http::Tokens;
use crate::domain::secret::Secret;

/// `sha256=` and the HMAC-SHA256 of the body under the configured secret, as hex digits.
const SIGNATURE: HeaderName = HeaderName::from_static("x-tunegate-signature");
/// For one try.
const LIMIT: Duration = Duration::from_secs(5);
/// Waits before each further try.
const BACKOFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address; a token may be in it, so it is never printed.
    pub url: Secret,
    /// Its host, for logs.
    pub authority: String,
    /// Signs what is sent.
    pub secret: Option<Secret>,
}

/// A webhook.
pub struct Webhook {
    config: Config,
    service: Tokens,
    backoff: [Duration; 3],
}

impl Webhook {
    /// A webhook that has not been told anything.
    pub fn new(config: Config) -> Self {
        Self { config, service: Tokens::new(Arc::new(Pools::default()), None), backoff: BACKOFF }
    }

    /// Its host, for logs.
    pub fn authority(&self) -> &str {
        &self.config.authority
    }

    /// Tells it something, as JSON. Tried again where that may help.
    ///
    /// # Errors
    ///
    /// Why the last try failed.
    pub async fn tell(&self, body: &[u8]) -> Result<(), String> {
        let headers = self.headers(body);
        let mut waits = self.backoff.into_iter();
        loop {
            let sending = self.service.send(Method::POST, self.config.url.expose(), &headers, body);
            let (why, may_help) = match timeout(LIMIT, sending).await {
                Ok(Ok((200..=299, _))) => return Ok(()),
                Ok(Ok((status, _))) => {
                    (format!("it answered {status}"), status >= 500 || matches!(status, 408 | 429))
                }
                Ok(Err(why)) => (why, true),
                Err(_) => (format!("no answer within {} s", LIMIT.as_secs()), true),
            };
            match waits.next().filter(|_| may_help) {
                Some(wait) => sleep(wait).await,
                None => return Err(why),
            }
        }
    }

    fn headers(&self, body: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::USER_AGENT, HeaderValue::from_static(concat!("tunegate/", env!("CARGO_PKG_VERSION")))),
        ];
        let signature = self.config.secret.as_ref().map(|secret| signature(secret, body));
        headers.extend(signature.map(|signature| (SIGNATURE, signature)));
        headers
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length, and hex digits are a header's value")]
fn signature(secret: &Secret, body: &[u8]) -> HeaderValue {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("any length will do");
    let digest = mac.chain_update(body).finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("sha256={hex}")).expect("plain digits")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one connection after the other with these statuses. Returns what it was sent.
    async fn server(statuses: &'static [u16]) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while !request.ends_with(b"{\"kind\":\"x\"}") {
                    let read = stream.read(&mut chunk).await.expect("a request");
                    assert!(read > 0, "cut off");
                    request.extend_from_slice(&chunk[..read]);
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("answered");
                requests.push(String::from_utf8_lossy(&request).into_owned());
            }
            requests
        });
        (format!("http://{address}/hook?token=t0ken"), served)
    }

    fn webhook(url: &str) -> Webhook {
        let secret = Some(Secret::new("a secret of ours"));
        let config = Config { url: Secret::new(url), authority: "hook".to_owned(), secret };
        Webhook { backoff: [Duration::from_millis(1); 3], ..Webhook::new(config) }
    }

    #[tokio::test]
    async fn it_is_told_signed_and_once_more_where_that_may_help() {
        for (statuses, good) in [
            (&[204][..], true),
            (&[500, 429, 408, 200], true),
            (&[500, 502, 503, 504], false),
            (&[404], false),
            (&[301], false),
        ] {
            let (url, served) = server(statuses).await;
            let told = webhook(&url).tell(b"{\"kind\":\"x\"}").await;
            assert_eq!(told.is_ok(), good, "{statuses:?}: {told:?}");
            let requests = served.await.expect("served");
            assert_eq!(requests.len(), statuses.len());
            for request in requests {
                assert!(request.starts_with("POST /hook?token=t0ken HTTP/1.1\r\n"), "{request}");
                // printf '{"kind":"x"}' | openssl dgst -sha256 -hmac 'a secret of ours'
                let signed = "x-tunegate-signature: sha256=7078650642f8c19230d3c22712c542f5c584908c0f42cba02de8da4d202c54de\r\n";
                assert!(request.to_ascii_lowercase().contains(signed), "{request}");
            }
        }
    }

    #[tokio::test]
    async fn what_it_says_of_a_failure_holds_no_secret() {
        let error =
            webhook("http://127.0.0.1:9/hook?token=t0ken").tell(b"{}").await.expect_err("nobody there");
        assert!(!error.contains("t0ken") && !error.contains("a secret"), "{error}");
        let shown = format!("{:?}", webhook("http://127.0.0.1:9/?token=t0ken").config);
        assert!(!shown.contains("t0ken") && !shown.contains("a secret"), "{shown}");
    }
}
