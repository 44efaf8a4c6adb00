//! Credentials as they are shown to a provider: a key as it is, a token of Microsoft Entra ID renewed in time.
//!
//! A token is renewed by the first request that comes in its last minutes; the others go on with the old one. Without
//! a valid token all requests wait for one renewal and share how it ends. Nobody but this room sees a token request:
//! no error and no log line holds a secret or a token.

mod entra;
mod issued;
#[cfg(test)]
mod tests;
mod token_file;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method};

use crate::domain::catalog::{Credential, Entra};
use crate::domain::secret::Authorization;

use self::entra::Grant;
use self::issued::Issued;
use self::token_file::TokenFile;

/// Asks a token service: an upstream's connection without an upstream.
#[async_trait]
pub(super) trait TokenHttp: Send + Sync {
    /// Sends one request and returns the status and the whole body. The error says why there is none, in words that
    /// hold nothing of the request's headers or body.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), String>;
}

/// Why we have nothing to show. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CredentialError {
    /// The token service could not be asked.
    #[error("{service} can't be asked for a token: {reason}")]
    Unreachable {
        /// The service's host.
        service: String,
        /// What the connection says.
        reason: String,
    },
    /// The token service did not answer in time.
    #[error("{service} gave no token in time")]
    Timeout {
        /// The service's host.
        service: String,
    },
    /// The token service said no.
    #[error("{service} gives no token: status {status} {code}")]
    Refused {
        /// The service's host.
        service: String,
        /// Its status.
        status: u16,
        /// Its own code, such as `invalid_client AADSTS7000215`.
        code: String,
    },
    /// The token service's answer holds no token.
    #[error("{service} answered without a token")]
    NoToken {
        /// The service's host.
        service: String,
    },
    /// A token's file can't be used.
    #[error("no token in {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
}

/// A provider's credential, alive.
pub(super) struct LiveCredential {
    source: Source,
}

enum Source {
    Fixed(Authorization),
    File(TokenFile),
    Issued(Box<Issued>),
}

impl LiveCredential {
    /// A credential that has no token yet.
    pub(super) fn new(credential: &Credential, http: Arc<dyn TokenHttp>) -> Self {
        let source = match credential {
            Credential::None => Source::Fixed(Authorization::None),
            Credential::ApiKey(key) => Source::Fixed(Authorization::ApiKey(key.clone())),
            Credential::Entra(Entra::TokenFile { path }) => Source::File(TokenFile::new(path.clone())),
            Credential::Entra(Entra::ClientSecret {
                authority,
                tenant_id,
                client_id,
                client_secret,
                scope,
            }) => {
                let secret = entra::Proof::Secret(client_secret.clone());
                let grant = Grant::exchange(authority, tenant_id, client_id, scope, secret);
                Source::Issued(Box::new(Issued::new(grant, http)))
            }
            Credential::Entra(Entra::FederatedTokenFile {
                authority,
                tenant_id,
                client_id,
                token_file,
                scope,
            }) => {
                let assertion = entra::Proof::AssertionFile(token_file.clone());
                let grant = Grant::exchange(authority, tenant_id, client_id, scope, assertion);
                Source::Issued(Box::new(Issued::new(grant, http)))
            }
            Credential::Entra(Entra::ManagedIdentity { endpoint, client_id, scope }) => {
                let grant = Grant::managed_identity(endpoint, client_id.as_deref(), scope);
                Source::Issued(Box::new(Issued::new(grant, http)))
            }
        };
        Self { source }
    }

    /// Returns what we show the provider now. Waits for a token service only when there is no valid token, or as the
    /// one who renews; calling this now and then in the background spares requests even that.
    pub(super) async fn header(&self, now: Instant) -> Result<Authorization, CredentialError> {
        match &self.source {
            Source::Fixed(authorization) => Ok(authorization.clone()),
            Source::File(file) => file.token(now).await.map(Authorization::Bearer),
            Source::Issued(issued) => issued.token(now).await.map(Authorization::Bearer),
        }
    }

    /// Forgets a token that the provider has refused with a 401. Returns whether another try may go better: not for a
    /// key, nor for a token that was issued only just now.
    pub(super) fn reject(&self, refused: &Authorization, now: Instant) -> bool {
        match (&self.source, refused) {
            (Source::File(file), Authorization::Bearer(token)) => file.reject(token),
            (Source::Issued(issued), Authorization::Bearer(token)) => issued.reject(token, now),
            _ => false,
        }
    }
}
