//! `GET /v1/models`: the names of the catalog that a key may ask for, whatever provider is behind them.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::allowed::AllowedModels;
use crate::domain::catalog::{Catalog, Model};
use crate::domain::ids::ModelName;

/// When the catalog's models were made is not known to us; OpenAI's clients want a number.
const CREATED: i64 = 0;

fn object(name: &str, model: &Model) -> Value {
    let owner = model.route.deployments.first().map_or("tunegate", |deployment| &*deployment.provider.name);
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": owner})
}

/// The list.
pub(in crate::http) fn list(catalog: &Catalog, allowed: &AllowedModels) -> Bytes {
    let models = catalog.names().filter(|(name, model)| allowed.allows(name) || allowed.allows(&model.name));
    let data: Vec<Value> = models.map(|(name, model)| object(name.as_str(), model)).collect();
    json!({"object": "list", "data": data}).to_string().into()
}

/// One model, also where only a pattern knows it.
pub(in crate::http) fn one(catalog: &Catalog, allowed: &AllowedModels, name: &str) -> Option<Bytes> {
    let asked = ModelName::parse(name).ok()?;
    let found = catalog.resolve(&asked).filter(|found| found.is_for(&asked, allowed))?;
    Some(object(name, &found.model).to_string().into())
}
