//! `[deployments.NAME]` and `[models.NAME]`, put together with the providers into a [`Catalog`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::clock;
use crate::domain::catalog::{Catalog, Deployment, Model};

use super::file;
use super::prices::Known;
use super::problem::{Checker, Place};
use super::providers::Served;
use super::{deployments, models};

/// Checks deployments and models, and puts the catalog together.
pub(super) fn check(
    file: &file::File,
    served: &BTreeMap<Arc<str>, Served>,
    prices: &Known,
    checker: &mut Checker<'_>,
) -> Catalog {
    let now_ms = clock::unix_ms();
    let deployments = deployments::check(file, served, prices, now_ms, checker);
    let models = models::check(file, &deployments, prices, now_ms, checker);
    note_unused(&deployments, &models, checker);
    let providers = served.iter().map(|(name, served)| (Arc::clone(name), Arc::clone(&served.provider)));
    Catalog::new(providers.collect(), deployments, models)
}

/// Says of which deployments no request will ever see anything.
fn note_unused(
    deployments: &BTreeMap<Arc<str>, Arc<Deployment>>,
    models: &[Model],
    checker: &mut Checker<'_>,
) {
    let routes = models.iter().flat_map(Model::routes);
    let used: BTreeSet<&str> =
        routes.flat_map(|route| &route.deployments).map(|deployment| &*deployment.name).collect();
    for deployment in deployments.values().filter(|deployment| !deployment.direct) {
        if !used.contains(&*deployment.name) {
            checker.notice(&Place::top("deployments").key(&deployment.name), "no model leads here");
        }
    }
}
