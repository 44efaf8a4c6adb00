//! Asks the questions of evaluations behind the requests' backs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::money;
use super::services::stopping;
use crate::control::Directory;
use crate::control::teams::Teams;
use crate::gateway::Gateway;
use crate::http::status_of;
use crate::store::Store;
use crate::tuning::evaluations::{Evaluations, Parts};
use crate::tuning::files::Files;

/// Does it.
pub(super) struct EvaluationKeeper {
    pub(super) evaluations: Arc<Evaluations>,
}

#[async_trait]
impl BackgroundService for EvaluationKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.evaluations.run(stopping(&mut shutdown)).await;
    }
}

/// The evaluations, over all that they need.
pub(super) fn open(
    (lease, at_once): (Duration, usize),
    gateway: &Arc<Gateway>,
    money: &money::Opened,
    store: &Store,
    files: &Arc<Files>,
    directory: &Arc<Directory>,
) -> Arc<Evaluations> {
    Arc::new(Evaluations::new(Parts {
        store: store.clone(),
        instance: Arc::clone(&money.instance),
        lease,
        at_once,
        files: Arc::clone(files),
        gateway: Arc::clone(gateway),
        teams: Arc::new(Teams::new(Arc::clone(directory))),
        status_of,
    }))
}
