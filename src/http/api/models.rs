//! `GET /v1/models`: the names of the catalog, whatever provider is behind them.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::catalog::{Catalog, Model};
use crate::domain::ids::ModelName;

/// When the catalog's models were made is not known to us; OpenAI's clients want a number.
const CREATED: i64 = 0;

fn object(name: &str, model: &Model) -> Value {
    let owner = model.deployments.first().map_or("tunegate", |deployment| &*deployment.provider.name);
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": owner})
}

/// The list.
pub(in crate::http) fn list(catalog: &Catalog) -> Bytes {
    let data: Vec<Value> = catalog.models().map(|model| object(model.name.as_str(), model)).collect();
    json!({"object": "list", "data": data}).to_string().into()
}

/// One model, also where only a pattern knows it.
pub(in crate::http) fn one(catalog: &Catalog, name: &str) -> Option<Bytes> {
    let found = catalog.resolve(&ModelName::parse(name).ok()?)?;
    Some(object(name, &found.model).to_string().into())
}
