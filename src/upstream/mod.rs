//! Live handles to deployments: sockets, credentials, the worker process. Carries values and decides nothing.

mod error;
pub mod http;
mod idle;
mod probe;
pub mod worker;

use std::sync::Arc;

pub use error::{Phase, UpstreamError};
pub use probe::probe;

use self::http::{Link, Pools};
use crate::domain::catalog::{Credential, Provider};
use crate::domain::secret::Authorization;

/// A provider, reachable.
pub struct Upstream {
    /// How it is reached.
    pub link: Link,
}

impl Upstream {
    /// A handle that has not connected yet.
    pub fn new(provider: Arc<Provider>, pools: &Pools) -> Self {
        Self { link: Link::new(provider, pools) }
    }

    /// The provider behind it.
    pub fn provider(&self) -> &Arc<Provider> {
        self.link.provider()
    }

    /// What we show it.
    pub async fn authorization(&self) -> Result<Authorization, UpstreamError> {
        match &self.provider().credential {
            Credential::None => Ok(Authorization::None),
            Credential::ApiKey(key) => Ok(Authorization::ApiKey(key.clone())),
            Credential::Entra(_) => Err(UpstreamError::Credential("not built in yet".to_owned())),
        }
    }

    /// Forgets a token that was refused; says whether another try may go better.
    pub fn refused(&self, authorization: &Authorization) -> bool {
        matches!(authorization, Authorization::Bearer(_))
    }
}
