//! Publishes the catalog with the model registry over it, and looks after deployments at providers until they answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::time::sleep;

use super::fidelity::Fidelity;
use super::services::{self, stopping};
use crate::clock;
use crate::gateway::board::Board;
use crate::gateway::catalog::LiveCatalog;
use crate::tuning::registry::{Publish, Registry};

/// Between two looks at deployments that are under way.
const EVERY: Duration = Duration::from_secs(2);

/// Does it.
pub(super) struct ModelKeeper {
    pub(super) registry: Arc<Registry>,
}

#[async_trait]
impl BackgroundService for ModelKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                () = sleep(EVERY) => {
                    if let Err(error) = self.registry.step().await {
                        tracing::warn!(%error, "deployments of models could not be looked at");
                    }
                }
            }
        }
    }
}

/// How the registry swaps the catalog that requests begin with.
pub(super) fn publisher(catalog: &Arc<LiveCatalog>, board: &Arc<Board>, fidelity: &Arc<Fidelity>) -> Publish {
    let (live, board, fidelity) = (Arc::clone(catalog), Arc::clone(board), Arc::clone(fidelity));
    Box::new(move |catalog| {
        // before the catalog: who comes with the new one finds all its deployments there
        board.replace(&catalog, clock::monotonic());
        let changed = live.replace(catalog);
        if changed {
            services::load_token_tables(&live.load());
        }
        fidelity.look();
        changed
    })
}
