//! Live handles to deployments: sockets, credentials, the worker process. Carries values and decides nothing.

mod answering;
pub mod arm;
mod body;
mod call;
#[cfg(feature = "otel")]
pub mod collector;
mod credential;
pub mod embedder;
mod error;
pub mod http;
mod idle;
mod model_list;
mod probe;
#[cfg(test)]
mod testing;
mod token_http;
pub mod tuning;
pub mod webhook;
pub mod worker;

use std::sync::Arc;
use std::time::Instant;

pub use answering::answers;
pub use error::{Phase, UpstreamError};
pub use model_list::{ListError, ListedModel, model_list};
pub use probe::probe;

use self::arm::Arm;
use self::credential::LiveCredential;
use self::http::{Link, Pools};
use self::token_http::Tokens;
use crate::domain::catalog::Provider;
use crate::domain::secret::Authorization;

/// A provider, reachable.
pub struct Upstream {
    /// How it is reached.
    pub link: Link,
    credential: LiveCredential,
    arm: Option<Arm>,
}

impl Upstream {
    /// A handle that has not connected yet.
    pub fn new(provider: Arc<Provider>, pools: &Arc<Pools>) -> Self {
        let tokens = Tokens::new(Arc::clone(pools), provider.ca_file.clone());
        let credential = LiveCredential::new(&provider.credential, Arc::new(tokens));
        let account = provider.training.as_ref().and_then(|training| training.arm.as_ref());
        let arm = account.map(|account| Arm::new(account.clone(), provider.ca_file.clone(), pools));
        Self { link: Link::new(provider, pools), credential, arm }
    }

    /// Azure's resource manager behind it, where the operator has named it. All who ask take turns.
    pub const fn arm(&self) -> Option<&Arm> {
        self.arm.as_ref()
    }

    /// The provider behind it.
    pub fn provider(&self) -> &Arc<Provider> {
        self.link.provider()
    }

    /// What we show it. Called now and then it keeps a token fresh, so that no request waits for one.
    pub async fn authorization(&self, now: Instant) -> Result<Authorization, UpstreamError> {
        self.credential.header(now).await.map_err(|error| UpstreamError::Credential(error.to_string()))
    }

    /// Forgets a token that was refused; says whether another try may go better.
    pub fn refused(&self, authorization: &Authorization, now: Instant) -> bool {
        self.credential.reject(authorization, now)
    }
}
