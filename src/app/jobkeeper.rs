//! Looks after fine-tuning jobs behind the requests' backs.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::money;
use super::services::stopping;
use crate::gateway::Gateway;
use crate::store::Store;
use crate::tuning::files::Files;
use crate::tuning::jobs::{Config, Jobs, Parts};
use crate::tuning::registry::Registry;

/// Does it.
pub(super) struct JobKeeper {
    pub(super) jobs: Arc<Jobs>,
}

#[async_trait]
impl BackgroundService for JobKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.jobs.run(stopping(&mut shutdown)).await;
    }
}

/// The jobs, over all that they need.
pub(super) fn open(
    config: Config,
    gateway: &Gateway,
    money: &money::Opened,
    store: &Store,
    files: &Arc<Files>,
    registry: &Arc<Registry>,
) -> Arc<Jobs> {
    let parts = Parts {
        store: store.clone(),
        instance: Arc::clone(&money.instance),
        files: Arc::clone(files),
        catalog: Arc::clone(&gateway.catalog),
        prices: Arc::clone(&money.prices),
        ledger: Arc::clone(&money.ledger),
        registry: Arc::clone(registry),
        metrics: Arc::clone(gateway.book.metrics()),
    };
    Arc::new(Jobs::new(config, parts))
}
