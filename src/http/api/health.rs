//! `GET /health`, as LiteLLM has it, for a key: how the models stand that it may use. Nobody is asked, and nothing is
//! spent: it is what the requests so far have met.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::catalog::Catalog;
use crate::domain::key::VirtualKey;
use crate::gateway::{DeploymentReport, Gateway};

/// Each of the models' deployments, by whether it is asked.
pub(in crate::http) fn report(gateway: &Gateway, catalog: &Catalog, key: &VirtualKey) -> Bytes {
    let (mut well, mut ill) = (Vec::new(), Vec::new());
    let named = catalog.names().filter_map(|(name, _)| Some((name, catalog.resolve(name)?)));
    for (name, _) in named.filter(|(name, found)| found.is_for(name, key)) {
        let route = gateway.route(name.as_str());
        for deployment in route.into_iter().flat_map(|route| route.deployments) {
            let is_asked = deployment.breaker == "closed" && !deployment.retired;
            let row = row(name.as_str(), &deployment);
            if is_asked { well.push(row) } else { ill.push(row) }
        }
    }
    let report = json!({
        "healthy_count": well.len(), "unhealthy_count": ill.len(),
        "healthy_endpoints": well, "unhealthy_endpoints": ill,
    });
    report.to_string().into()
}

fn row(model: &str, deployment: &DeploymentReport) -> Value {
    json!({
        "model": model,
        "deployment": deployment.deployment,
        "breaker": deployment.breaker,
        "retired": deployment.retired,
        "last_trouble": deployment.last_trouble,
        "ready_in_ms": deployment.ready_in_ms,
    })
}
