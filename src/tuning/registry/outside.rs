//! What the registry has done at providers: models deleted, deployments made, looked at and taken away.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::domain::registry::Hosted;

/// Why a provider did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// It gave no answer.
    #[error("provider `{provider}` could not answer: {message}")]
    Away {
        /// Its name.
        provider: Arc<str>,
        /// What went wrong.
        message: String,
    },
    /// It said no.
    #[error("provider `{provider}` refused: {message}")]
    Refused {
        /// Its name.
        provider: Arc<str>,
        /// Its status.
        status: u16,
        /// Its words.
        message: String,
        /// Its code.
        code: Option<String>,
    },
    /// Nobody told us how to deploy there.
    #[error(
        "the gateway can't deploy at provider `{0}`: set `arm = {{ subscription_id, resource_group, account, entra }}` in \
         [providers.{0}.training]"
    )]
    NoArm(Arc<str>),
    /// It has no call for that, and the model is still there.
    #[error(
        "the model is still at provider `{0}`: Azure has no call for that: delete it in the portal, then here; \
         `tunegate models retire` takes it out of routes"
    )]
    DeletesNone(Arc<str>),
    /// It is not in the configuration, or is not one that trains.
    #[error("the configuration has no provider `{0}` that trains")]
    NoProvider(Arc<str>),
}

/// How a provider says that a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// How far it is.
    pub state: StandState,
    /// Since when, ms since 1970 UTC, where it says so.
    pub created_at_ms: Option<i64>,
}

/// How far a provider is with a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandState {
    /// At it.
    UnderWay,
    /// Done.
    Made,
    /// Nothing will come of it, in its words.
    Failed(String),
}

/// The hands at providers.
pub trait AtProviders: Send + Sync {
    /// Deletes a model; false where there was none.
    fn delete_model<'a>(
        &'a self,
        provider: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, OutsideError>>;

    /// Makes a deployment, or asks for the same again.
    fn deploy<'a>(&'a self, provider: &'a str, hosted: &'a Hosted)
    -> BoxFuture<'a, Result<(), OutsideError>>;

    /// Looks at a deployment; none where there is none.
    fn look<'a>(
        &'a self,
        provider: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Stand>, OutsideError>>;

    /// Takes a deployment away; one that is gone already is no mistake.
    fn undeploy<'a>(&'a self, provider: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), OutsideError>>;

    /// Whether requests find a deployment. It asks for nothing that is billed.
    fn answers<'a>(&'a self, provider: &'a str, name: &'a str) -> BoxFuture<'a, Result<bool, OutsideError>>;
}
