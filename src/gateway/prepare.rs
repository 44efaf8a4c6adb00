//! Which deployments may answer, in which order.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::admit::Admitted;
use super::catalog::Live;
use super::refusal::Refusal;
use crate::domain::catalog::{Deployment, Resolved};
use crate::domain::ledger::{Attribution, Purpose};
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
    /// Whom it is booked on; the deployment is added where one is asked.
    pub attribution: Attribution,
}

/// Decides for a request. `bound` names the deployment that made what it names.
pub(super) fn prepare(
    admitted: Admitted,
    live: Arc<Live>,
    request: InferenceRequest,
    headers: Vec<(HeaderName, HeaderValue)>,
    tags: Vec<Arc<str>>,
    bound: Option<&str>,
) -> Result<Prepared, Refusal> {
    let unknown = || Refusal::UnknownModel(request.model.as_str().to_owned());
    let resolved = live.catalog.resolve(&request.model).ok_or_else(unknown)?;
    if !resolved.is_for(&request.model, &admitted.key.terms.models) {
        return Err(unknown());
    }
    let mut order: Vec<Arc<Deployment>> = resolved
        .route
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
    let attribution = attribution(&admitted, &resolved, &request, tags);
    Ok(Prepared { admitted, live, resolved, request, order, headers, attribution })
}

fn attribution(
    admitted: &Admitted,
    resolved: &Resolved,
    request: &InferenceRequest,
    mut tags: Vec<Arc<str>>,
) -> Attribution {
    tags.extend(admitted.key.terms.tags.iter().cloned());
    tags.extend(admitted.team.iter().flat_map(|team| team.tags.iter().cloned()));
    tags.sort();
    tags.dedup();
    Attribution {
        key_id: Arc::clone(&admitted.key.id),
        key: Arc::clone(&admitted.key.alias),
        team: admitted.team.as_ref().map(|team| Arc::clone(&team.alias)),
        end_user: request.end_user().map(Arc::from),
        tags,
        model: resolved.model.name.as_str().into(),
        purpose: Purpose::Inference,
        ..Attribution::default()
    }
}
