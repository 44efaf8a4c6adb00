//! The live catalog: one immutable snapshot of what may be asked, with the handles to ask it. A reload swaps it whole;
//! a request keeps the one it began with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::catalog::{Catalog, Deployment, Dialect};
use crate::domain::tokens::{Encoding, TokenCounter};
use crate::upstream::Upstream;
use crate::upstream::http::Pools;

/// One snapshot.
pub struct Live {
    /// What may be asked.
    pub catalog: Catalog,
    /// By the provider's name.
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// What each deployment is counted with, by its name: found out once, not for each request. Not for those that take
    /// any name.
    counters: HashMap<Arc<str>, TokenCounter>,
}

impl Live {
    fn new(catalog: Catalog, upstreams: BTreeMap<Arc<str>, Arc<Upstream>>) -> Self {
        let named =
            catalog.deployments.values().filter(|deployment| !deployment.upstream_model.contains('*'));
        let counter = |deployment: &Arc<Deployment>| {
            let counter = TokenCounter::expecting(deployment, &deployment.upstream_model);
            (Arc::clone(&deployment.name), counter)
        };
        let counters = named.map(counter).collect();
        Self { catalog, upstreams, counters }
    }

    /// What the input of a request to a deployment is counted with, when it is asked for one of its provider's models.
    pub(super) fn counter(&self, deployment: &Deployment, upstream_model: &str) -> TokenCounter {
        let known = self.counters.get(&deployment.name).copied();
        known.unwrap_or_else(|| TokenCounter::expecting(deployment, upstream_model))
    }

    /// The handle to a deployment's provider.
    pub fn upstream(&self, deployment: &Deployment) -> Option<&Arc<Upstream>> {
        self.upstreams.get(&deployment.provider.name)
    }

    /// All handles.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The token tables that its deployments are counted with. A deployment that takes any name loads its table when
    /// it first needs it, and the worker counts for itself.
    pub fn encodings(&self) -> Vec<Encoding> {
        let mut all: Vec<Encoding> = Vec::new();
        for deployment in self.catalog.deployments.values() {
            let counted = deployment.provider.dialect != Dialect::Candle
                && (deployment.base_model.is_some() || !deployment.upstream_model.contains('*'));
            let encoding = Encoding::of_model(deployment.model_identity());
            if counted && !all.contains(&encoding) {
                all.push(encoding);
            }
        }
        all
    }
}

/// The snapshot that requests begin with now.
pub struct LiveCatalog {
    now: ArcSwap<Live>,
    pools: Arc<Pools>,
}

impl LiveCatalog {
    /// The first snapshot.
    pub fn new(catalog: Catalog) -> Self {
        let pools = Arc::new(Pools::default());
        let upstreams = connect(&catalog, &pools, &BTreeMap::new());
        Self { now: ArcSwap::from_pointee(Live::new(catalog, upstreams)), pools }
    }

    /// The snapshot of this moment.
    pub fn load(&self) -> Arc<Live> {
        self.now.load_full()
    }

    /// Swaps in another; a provider that did not change keeps its connections and tokens. Says whether anything
    /// changed.
    pub fn replace(&self, catalog: Catalog) -> bool {
        let before = self.load();
        if before.catalog == catalog {
            return false;
        }
        let upstreams = connect(&catalog, &self.pools, &before.upstreams);
        self.now.store(Arc::new(Live::new(catalog, upstreams)));
        true
    }
}

fn connect(
    catalog: &Catalog,
    pools: &Arc<Pools>,
    before: &BTreeMap<Arc<str>, Arc<Upstream>>,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let handle = |name: &Arc<str>, provider: &Arc<_>| match before.get(name) {
        Some(same) if same.provider() == provider => Arc::clone(same),
        _ => Arc::new(Upstream::new(Arc::clone(provider), pools)),
    };
    catalog.providers.iter().map(|(name, provider)| (Arc::clone(name), handle(name, provider))).collect()
}
