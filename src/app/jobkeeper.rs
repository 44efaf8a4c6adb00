//! Looks after fine-tuning jobs behind the requests' backs.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::money;
use super::services::stopping;
use crate::domain::tuning::Caller;
use crate::gateway::Gateway;
use crate::store::Store;
use crate::tuning::TuningError;
use crate::tuning::files::Files;
use crate::tuning::jobs::{Config, Jobs, Parts, Winners};
use crate::tuning::registry::Finished;

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

/// Models are known by their jobs alone.
struct ByJobs;

#[async_trait]
impl Winners for ByJobs {
    async fn register(&self, finished: Finished) -> Result<(), TuningError> {
        tracing::info!(model = %finished.name, job = %finished.job_id, "a fine-tuning job has made a model");
        Ok(())
    }

    fn maker_of(&self, _caller: &Caller, _model: &str) -> Result<Option<Arc<str>>, TuningError> {
        Ok(None)
    }
}

/// The jobs, over all that they need.
pub(super) fn open(
    config: Config,
    gateway: &Gateway,
    money: &money::Opened,
    store: &Store,
    files: &Arc<Files>,
) -> Arc<Jobs> {
    let parts = Parts {
        store: store.clone(),
        instance: Arc::clone(&money.instance),
        files: Arc::clone(files),
        catalog: Arc::clone(&gateway.catalog),
        prices: Arc::clone(&money.prices),
        ledger: Arc::clone(&money.ledger),
        winners: Arc::new(ByJobs),
        metrics: Arc::clone(gateway.book.metrics()),
    };
    Arc::new(Jobs::new(config, parts))
}
