//! Looks after deployments that cost by the hour, behind the requests' backs.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::money;
use super::services::stopping;
use crate::gateway::Gateway;
use crate::store::Store;
use crate::tuning::hosting::{Config, Hosting, Means};

/// Does it.
pub(super) struct HostKeeper {
    pub(super) hosting: Arc<Hosting>,
}

#[async_trait]
impl BackgroundService for HostKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.hosting.run(stopping(&mut shutdown)).await;
    }
}

/// The hosting clock, over all that it needs.
pub(super) fn open(config: Config, gateway: &Gateway, money: &money::Opened, store: &Store) -> Arc<Hosting> {
    let alerts = money.alerts.clone();
    let means = Means {
        catalog: Arc::clone(&gateway.catalog),
        prices: Arc::clone(&money.prices),
        ledger: Arc::clone(&money.ledger),
        retirements: Arc::clone(&gateway.retirements),
        tell: Arc::new(move |alert| alerts.give(alert)),
        metrics: Arc::clone(gateway.book.metrics()),
    };
    Arc::new(Hosting::new(config, means, store, Arc::clone(&money.instance)))
}
