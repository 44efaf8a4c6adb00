//! Which deployments may answer, in which order.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::admit::Admitted;
use super::catalog::Live;
use super::refusal::Refusal;
use crate::domain::catalog::{Deployment, Resolved};
use crate::domain::request::{InferenceRequest, RequestError};

/// A request with everything that is decided before any upstream is asked.
pub(super) struct Prepared {
    /// Whose it is.
    pub admitted: Admitted,
    /// The catalog it was decided on.
    pub live: Arc<Live>,
    /// What the asked name leads to.
    pub resolved: Resolved,
    /// The request itself.
    pub request: InferenceRequest,
    /// The whole order of deployments; at least one.
    pub order: Vec<Arc<Deployment>>,
    /// Headers of the client's that travel on.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Decides for a request. `bound` names the deployment that made what it names.
pub(super) fn prepare(
    admitted: Admitted,
    live: Arc<Live>,
    request: InferenceRequest,
    headers: Vec<(HeaderName, HeaderValue)>,
    bound: Option<&str>,
) -> Result<Prepared, Refusal> {
    let unknown = || Refusal::UnknownModel(request.model.as_str().to_owned());
    if !admitted.key.terms.models.allows(&request.model) {
        return Err(unknown());
    }
    let resolved = live.catalog.resolve(&request.model).ok_or_else(unknown)?;
    let mut order: Vec<Arc<Deployment>> = resolved
        .model
        .deployments
        .iter()
        .filter(|deployment| deployment.endpoints.contains(&request.endpoint))
        .cloned()
        .collect();
    if order.is_empty() {
        return Err(Refusal::endpoint_not_served(request.model.as_str(), request.endpoint));
    }
    if let Some(bound) = bound {
        order.retain(|deployment| &*deployment.name == bound);
        if order.is_empty() {
            let why = "what the request names was made by a deployment that this model does not lead to";
            return Err(RequestError::Invalid { param: "model", why }.into());
        }
    }
    Ok(Prepared { admitted, live, resolved, request, order, headers })
}
