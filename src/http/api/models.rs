//! `GET /v1/models`: the names of the catalog that a key may ask for, whatever provider is behind them.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::catalog::{Catalog, Resolved};
use crate::domain::ids::ModelName;
use crate::domain::key::VirtualKey;
use crate::gateway::retirements::Retirements;

/// When a model of the configuration was made nobody knows; OpenAI's clients want a number.
const UNKNOWN: i64 = 0;

fn object(name: &str, found: &Resolved, retirements: &Retirements) -> Value {
    let first = found.route.deployments.first();
    let owner = first.map_or("tunegate", |deployment| &*deployment.provider.name);
    let created = found.model.created_at_ms.map_or(UNKNOWN, |ms| ms.div_euclid(1_000));
    let mut object = json!({"id": name, "object": "model", "created": created, "owned_by": owner});
    if let Some(day) = shutdown_date(found, retirements) {
        object["shutdown_date"] = day.into();
    }
    object
}

/// The day of the last of its deployments, in OpenAI's form (`2027-01-14`); none while one of them has no end that is
/// known.
fn shutdown_date(found: &Resolved, retirements: &Retirements) -> Option<String> {
    let deployments = found.route.deployments.iter();
    let ends = deployments.map(|deployment| retirements.of(deployment, &found.upstream_model(deployment)));
    let ends: Option<Vec<_>> = ends.collect();
    Some(ends?.into_iter().max_by_key(|end| end.at_ms)?.day())
}

/// The list.
pub(in crate::http) fn list(catalog: &Catalog, retirements: &Retirements, key: &VirtualKey) -> Bytes {
    let named = catalog.names().filter_map(|(name, _)| Some((name, catalog.resolve(name)?)));
    let data: Vec<Value> = named
        .filter(|(name, found)| found.is_for(name, key))
        .map(|(name, found)| object(name.as_str(), &found, retirements))
        .collect();
    json!({"object": "list", "data": data}).to_string().into()
}

/// One model, also where only a pattern knows it.
pub(in crate::http) fn one(
    catalog: &Catalog,
    retirements: &Retirements,
    key: &VirtualKey,
    name: &str,
) -> Option<Bytes> {
    let asked = ModelName::parse(name).ok()?;
    let found = catalog.resolve(&asked).filter(|found| found.is_for(&asked, key))?;
    Some(object(name, &found, retirements).to_string().into())
}
