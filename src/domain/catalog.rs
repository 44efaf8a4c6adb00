//! The live catalog: providers, deployments, and which names lead to which deployments. Immutable; a reload swaps
//! it whole, and a request reads one of them from its start to its end.

mod deployment;
mod provider;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use deployment::{
    DEFAULT_OUTPUT_TOKENS, Deployment, OnClientGone, OnUnpriced, OnUnsupported, Pricing, Queue, Timeouts,
};
pub use provider::{
    Address, AzureClassic, AzureV1, Credential, Dialect, Entra, OpenAi, Provider, ProviderKind,
};

use super::ids::ModelName;
use super::limit::RateLimits;

/// A name clients ask for, or a pattern of names, and its deployments in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// An exact name, or a prefix and a final `*`.
    pub name: ModelName,
    /// At least one.
    pub deployments: Vec<Arc<Deployment>>,
    /// What all who ask for it may ask together.
    pub limits: RateLimits,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The entry of the catalog: a pattern's own name, so its number is bounded (for metric labels).
    pub model: Arc<Model>,
    /// What the pattern's `*` matched; the whole name for an exact entry.
    pub matched: String,
}

impl Resolved {
    /// The provider's own name for the model on one of the deployments.
    pub fn upstream_model(&self, deployment: &Deployment) -> Arc<str> {
        match deployment.upstream_model.contains('*') {
            true => deployment.upstream_model.replacen('*', &self.matched, 1).into(),
            false => Arc::clone(&deployment.upstream_model),
        }
    }
}

/// Everything a request may be sent to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// All providers by name.
    pub providers: BTreeMap<Arc<str>, Arc<Provider>>,
    /// All deployments by name.
    pub deployments: BTreeMap<Arc<str>, Arc<Deployment>>,
    exact: BTreeMap<ModelName, Arc<Model>>,
    /// Prefixes without their `*`, longest first.
    patterns: Vec<(String, Arc<Model>)>,
}

impl Catalog {
    /// Puts a checked set of providers, deployments and models together.
    pub fn new(
        providers: BTreeMap<Arc<str>, Arc<Provider>>,
        deployments: BTreeMap<Arc<str>, Arc<Deployment>>,
        models: Vec<Model>,
    ) -> Self {
        let mut exact = BTreeMap::new();
        let mut patterns = Vec::new();
        for model in models {
            let model = Arc::new(model);
            match model.name.as_str().strip_suffix('*') {
                Some(prefix) => patterns.push((prefix.to_owned(), model)),
                None => drop(exact.insert(model.name.clone(), model)),
            }
        }
        patterns.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self { providers, deployments, exact, patterns }
    }

    /// What a name leads to: an exact entry wins, then the longest prefix.
    pub fn resolve(&self, name: &ModelName) -> Option<Resolved> {
        if let Some(model) = self.exact.get(name) {
            return Some(Resolved { model: Arc::clone(model), matched: name.as_str().to_owned() });
        }
        self.patterns.iter().find_map(|(prefix, model)| {
            let matched = name.as_str().strip_prefix(prefix.as_str())?;
            (!matched.is_empty() && !climbs(matched))
                .then(|| Resolved { model: Arc::clone(model), matched: matched.to_owned() })
        })
    }

    /// The exact names, sorted: what `GET /v1/models` lists.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.exact.values()
    }

    /// The patterns, longest prefix first.
    pub fn patterns(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.patterns.iter().map(|(_, model)| model)
    }
}

/// Whether a text would lead out of its place in a provider's path, where a server undoes its percent-encoding.
fn climbs(text: &str) -> bool {
    text.split(['/', '\\']).any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::endpoint::Endpoint;

    pub(crate) fn deployment(name: &str, upstream: &str) -> Arc<Deployment> {
        let provider = Arc::new(Provider {
            name: "p".into(),
            dialect: Dialect::Candle,
            address: Address::Host { host: "127.0.0.1".into(), port: 1, tls: false },
            base_path: "/v1".into(),
            authority: "127.0.0.1:1".into(),
            credential: Credential::None,
            ca_file: None,
            http2: true,
        });
        Arc::new(Deployment {
            name: name.into(),
            provider,
            upstream_model: upstream.into(),
            base_model: None,
            reasoning: false,
            endpoints: Endpoint::ALL.to_vec(),
            max_output_tokens: None,
            default_output_tokens: DEFAULT_OUTPUT_TOKENS,
            timeouts: Timeouts::default(),
            on_client_gone: OnClientGone::Abort,
            drain: Duration::from_secs(30),
            pricing: Pricing::ByName,
            on_unpriced: OnUnpriced::Deny,
            direct: false,
            context_window: None,
            capabilities: None,
            quality: None,
            retires_at_ms: None,
            limits: RateLimits::default(),
            queue: Queue::default(),
            breaker: crate::domain::breaker::Policy::default(),
            unsupported: Vec::new(),
            on_unsupported: OnUnsupported::Refuse,
            health_check_every: None,
        })
    }

    #[test]
    fn behind_a_star_the_asked_name_tells_what_is_unseen() {
        for (written, asked, unseen) in [
            ("*", "o4-mini", true),
            ("*", "gpt-4.1", false),
            ("o4-mini", "o4-mini", false),
            ("team-*", "team-x", false),
        ] {
            assert_eq!(deployment("d", written).makes_unseen_tokens(asked), unseen, "{written} {asked}");
        }
    }

    #[test]
    fn exact_wins_then_the_longest_prefix() {
        let model = |name: &str, upstream: &str| Model {
            name: ModelName::parse(name).expect("a name"),
            deployments: vec![deployment(name, upstream)],
            limits: RateLimits::default(),
        };
        let catalog = Catalog::new(
            BTreeMap::new(),
            BTreeMap::new(),
            vec![model("*", "*"), model("azure/*", "pre-*"), model("azure/one", "uno")],
        );
        for (asked, entry, upstream) in [
            ("azure/one", "azure/one", "uno"),
            ("azure/two", "azure/*", "pre-two"),
            ("azure/", "*", "azure/"),
            ("ft:gpt-4.1:acme::id", "*", "ft:gpt-4.1:acme::id"),
        ] {
            let found = catalog.resolve(&ModelName::parse(asked).expect("a name")).expect("found");
            assert_eq!(found.model.name.as_str(), entry, "{asked}");
            assert_eq!(&*found.upstream_model(&found.model.deployments[0]), upstream, "{asked}");
        }
        for asked in ["azure/..", "azure/../../x", "azure/.", "..", "a/..\\b"] {
            assert!(catalog.resolve(&ModelName::parse(asked).expect("a name")).is_none(), "{asked}");
        }
    }
}
