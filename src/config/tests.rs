mod deployments;
mod environment;
mod mistakes;
mod models;
mod prices;
mod providers;
mod refused_plans;
mod reload;
mod shipped;
mod traces;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::ids::ModelName;

use super::*;

type Variables = BTreeMap<String, String>;

/// A worker would stand in the way where it is not the subject.
const NO_WORKER: &str = "[worker]\nenabled = false\n";

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_text(text: &str, variables: &Variables) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tunegate.toml");
    fs::write(&path, text).expect("written");
    load(Some(&path), variables)
}

fn good(text: &str, pairs: &[(&str, &str)]) -> Config {
    load_text(text, &variables(pairs)).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn resolve(config: &Config, asked: &str) -> Option<(Arc<str>, Arc<str>, String)> {
    let found = config.catalog.resolve(&ModelName::parse(asked).expect("a name"))?;
    let deployment = &found.route.deployments[0];
    let upstream = found.upstream_model(deployment).to_string();
    Some((Arc::clone(&deployment.provider.name), Arc::clone(&deployment.name), upstream))
}

/// What is wrong with a text, a line each.
fn wrong(text: &str) -> Vec<String> {
    let error = load_text(text, &Variables::new()).expect_err(text);
    error.problems.iter().map(ToString::to_string).collect()
}
