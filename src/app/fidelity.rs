//! Says which routes put other words in than a model was trained with, whenever prompts or the catalog change; each
//! thing once, until it changes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::prompt::fidelity::warnings;
use crate::gateway::catalog::LiveCatalog;
use crate::gateway::prompts::LivePrompts;

/// What was said, and what it is about.
pub(super) struct Fidelity {
    catalog: Arc<LiveCatalog>,
    prompts: Arc<LivePrompts>,
    said: Mutex<Vec<String>>,
}

impl Fidelity {
    /// Nothing was said yet.
    pub(super) fn new(catalog: &Arc<LiveCatalog>, prompts: &Arc<LivePrompts>) -> Self {
        Self { catalog: Arc::clone(catalog), prompts: Arc::clone(prompts), said: Mutex::default() }
    }

    /// Looks anew.
    pub(super) fn look(&self) {
        let found = warnings(&self.catalog.load().catalog, self.prompts.load().book(), true);
        let mut said = self.said.lock();
        for warning in found.iter().filter(|warning| !said.contains(warning)) {
            tracing::warn!("{warning}");
        }
        *said = found;
    }
}
