//! A token endpoint in the manner of Microsoft Entra ID, and the metadata service of a machine.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::server::{After, Handler, Request, Server, Wire};

#[derive(Debug)]
struct Desk {
    expires_in: u64,
    failures: usize,
    calls: Vec<Request>,
}

struct Office(Mutex<Desk>);

/// Hands out `entra-token-1`, `entra-token-2`, … and remembers who asked for them, and how.
pub(crate) struct TokenEndpoint {
    office: Arc<Office>,
    server: Server,
}

impl TokenEndpoint {
    /// Tokens are good for an hour unless told otherwise.
    pub(crate) fn start() -> Self {
        let office = Arc::new(Office(Mutex::new(Desk { expires_in: 3600, failures: 0, calls: Vec::new() })));
        let handler: Arc<dyn Handler> = Arc::<Office>::clone(&office);
        Self { server: Server::start(handler), office }
    }

    /// What goes into `authority`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// What goes into the `endpoint` of a managed identity.
    pub(crate) fn metadata_url(&self) -> String {
        format!("{}/metadata/identity/oauth2/token", self.url())
    }

    /// How long the tokens from now on are good for, seconds.
    pub(crate) fn expires_in(&self, seconds: u64) -> &Self {
        self.office.0.lock().expires_in = seconds;
        self
    }

    /// Fails the next calls with 503.
    pub(crate) fn fails(&self, calls: usize) -> &Self {
        self.office.0.lock().failures = calls;
        self
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<Request> {
        self.office.0.lock().calls.clone()
    }
}

impl Desk {
    fn serve(&mut self, request: &Request) -> (u16, Value) {
        self.calls.push(request.clone());
        if self.failures > 0 {
            self.failures -= 1;
            return (503, json!({"error": "temporarily_unavailable", "error_description": "try later"}));
        }
        let token = format!("entra-token-{}", self.calls.len());
        if request.path() == "/metadata/identity/oauth2/token" {
            if request.header("metadata") != Some("true") {
                return (400, json!({"error": "invalid_request", "error_description": "no Metadata header"}));
            }
            // The metadata service writes its numbers as strings.
            let expires_in = self.expires_in.to_string();
            return (200, json!({"access_token": token, "expires_in": expires_in, "token_type": "Bearer"}));
        }
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let known = form.contains("client_secret=") || form.contains("client_assertion=");
        if !known || !form.contains("grant_type=client_credentials") {
            return (400, json!({"error": "invalid_client", "error_description": "AADSTS7000215"}));
        }
        (200, json!({"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"}))
    }
}

#[async_trait]
impl Handler for Office {
    async fn answer(&self, request: Request, wire: &mut Wire) -> After {
        let (status, body) = self.0.lock().serve(&request);
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} Token\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        match wire.write(answer.as_bytes()).await {
            Ok(()) => After::KeepAlive,
            Err(_) => After::Close,
        }
    }
}
