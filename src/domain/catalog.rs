//! The live catalog: providers, deployments, and which names lead to which deployments. Immutable; a reload swaps
//! it whole, and a request reads one of them from its start to its end.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use super::deployment::{
    DEFAULT_OUTPUT_TOKENS, Deployment, Hosted, INSTRUCTIONS, OnClientGone, OnUnpriced, OnUnsupported,
    Pricing, Queue, Timeouts,
};
pub use super::provider::{
    Address, ArmAccount, AzureClassic, AzureV1, Credential, Dialect, Entra, OpenAi, Provider, ProviderKind,
    Training, TrainingType,
};

use super::capability::Capability;
use super::capture;
use super::evaluation::gate::RouteGate;
use super::ids::ModelName;
use super::key::VirtualKey;
use super::limit::RateLimits;
use super::retry;
use super::route::{Plan, Route};
use super::tuning::Owner;

/// A name clients ask for, or a pattern of names, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// An exact name, or a prefix and a final `*`.
    pub name: ModelName,
    /// Where it leads.
    pub route: Arc<Route>,
    /// Where it leads with a label behind it, as in `support-bot@candidate`.
    pub labels: BTreeMap<Arc<str>, Arc<Route>>,
    /// Other exact names for it.
    pub aliases: Vec<ModelName>,
    /// What every deployment of its route can do.
    pub requires: Vec<Capability>,
    /// Who is asked where a request is too long for a deployment of its route.
    pub longer_context: Option<Arc<Route>>,
    /// Who is asked where a deployment's content filter refuses a request.
    pub content_filtered: Option<Arc<Route>>,
    /// How often and how patiently a request is tried.
    pub retry: retry::Policy,
    /// What all who ask for it may ask together.
    pub limits: RateLimits,
    /// Whose it is, where nobody else may ask for it by its own name.
    pub owner: Option<Owner>,
    /// What a registered model has to be evaluated at before it gets any of its requests.
    pub gate: Option<Arc<RouteGate>>,
    /// When what it leads to was made, ms since 1970 UTC, where somebody knows.
    pub created_at_ms: Option<i64>,
    /// What is kept of its traffic to train a successor on; none for nothing.
    pub capture: Option<Arc<capture::Policy>>,
}

impl Model {
    /// A name that leads to a plan, and nothing more.
    pub fn plain(name: ModelName, plan: Plan) -> Self {
        Self {
            name,
            route: Arc::new(Route::new(plan)),
            labels: BTreeMap::new(),
            aliases: Vec::new(),
            requires: Vec::new(),
            longer_context: None,
            content_filtered: None,
            retry: retry::Policy::default(),
            limits: RateLimits::default(),
            owner: None,
            gate: None,
            created_at_ms: None,
            capture: None,
        }
    }

    /// All its routes.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let others = self.longer_context.iter().chain(&self.content_filtered);
        std::iter::once(&self.route).chain(self.labels.values()).chain(others)
    }
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The entry of the catalog: a pattern's own name, so its number is bounded (for metric labels).
    pub model: Arc<Model>,
    /// Where the name leads: to the model's route, or to that of its label.
    pub route: Arc<Route>,
    /// What the pattern's `*` matched; the whole name for an exact entry.
    pub matched: String,
    /// Whose the models are that may be asked for, where nobody else may.
    pub owners: Vec<Owner>,
}

impl Resolved {
    /// Whether a key may have what it asked for: by the asked name, or by the model's own, of which the asked one is an
    /// alias or a label. What belongs to somebody is nobody else's, whatever name leads there.
    pub fn is_for(&self, asked: &ModelName, key: &VirtualKey) -> bool {
        let allowed = &key.terms.models;
        let is_its = |owner: &Owner| key.is_nobodys() || *owner == Owner::of(key);
        (allowed.allows(asked) || allowed.allows(&self.model.name)) && self.owners.iter().all(is_its)
    }

    /// The provider's own name for the model on one of the deployments.
    pub fn upstream_model(&self, deployment: &Deployment) -> Arc<str> {
        match deployment.upstream_model.contains('*') {
            true => deployment.upstream_model.replacen('*', &self.matched, 1).into(),
            false => Arc::clone(&deployment.upstream_model),
        }
    }
}

/// How providers know what belongs to somebody. One account may stand behind several providers of the configuration, so
/// their names say nothing; nor does the case of letters, which Azure takes for the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnedName {
    /// A model that a job has made: there is one of its name.
    Model(Arc<str>),
    /// A deployment at providers of a kind.
    Deployment(ProviderKind, Arc<str>),
}

impl OwnedName {
    /// Of a model.
    pub fn model(name: &str) -> Self {
        Self::Model(name.to_lowercase().into())
    }

    /// Of a deployment.
    pub fn deployment(kind: ProviderKind, name: &str) -> Self {
        Self::Deployment(kind, name.to_lowercase().into())
    }
}

/// An exact name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    model: Arc<Model>,
    route: Arc<Route>,
}

/// Everything a request may be sent to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// All providers by name.
    pub providers: BTreeMap<Arc<str>, Arc<Provider>>,
    /// All deployments by name.
    pub deployments: BTreeMap<Arc<str>, Arc<Deployment>>,
    /// The headers that any route looks at, in lower case.
    pub headers: Vec<Arc<str>>,
    exact: BTreeMap<ModelName, Entry>,
    /// Prefixes without their `*`, longest first.
    patterns: Vec<(String, Arc<Model>)>,
    /// Whose a model is, by its provider's name for it: no pattern leads others there.
    owned: BTreeMap<OwnedName, Owner>,
}

impl Catalog {
    /// Puts a checked set of providers, deployments and models together. A deployment that may be asked for by its
    /// provider's own name is, unless a model has that name.
    pub fn new(
        providers: BTreeMap<Arc<str>, Arc<Provider>>,
        deployments: BTreeMap<Arc<str>, Arc<Deployment>>,
        models: Vec<Model>,
    ) -> Self {
        let mut catalog = Self { providers, deployments, ..Self::default() };
        for model in models {
            catalog.add(Arc::new(model));
        }
        catalog.add_direct();
        catalog.patterns.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        catalog.headers.sort();
        catalog.headers.dedup();
        catalog
    }

    /// The catalog with models that belong to somebody, by their providers' names for them.
    #[must_use]
    pub fn with_owned(self, owned: BTreeMap<OwnedName, Owner>) -> Self {
        Self { owned, ..self }
    }

    /// Whether a model, an alias or a label has exactly this name.
    pub fn has_exactly(&self, name: &ModelName) -> bool {
        self.exact.contains_key(name)
    }

    fn add(&mut self, model: Arc<Model>) {
        let headers = model.routes().flat_map(|route| route.needs.headers.iter().cloned());
        self.headers.extend(headers);
        if let Some(prefix) = model.name.as_str().strip_suffix('*') {
            self.patterns.push((prefix.to_owned(), model));
            return;
        }
        let names = || std::iter::once(&model.name).chain(&model.aliases);
        let labelled = names().flat_map(|name| {
            model.labels.iter().filter_map(move |(label, route)| {
                Some((ModelName::parse(&format!("{}@{label}", name.as_str())).ok()?, route))
            })
        });
        let names = names().map(|name| (name.clone(), &model.route));
        for (name, route) in names.chain(labelled) {
            self.exact.insert(name, Entry { model: Arc::clone(&model), route: Arc::clone(route) });
        }
    }

    /// Several deployments of one name, as one model with two accounts, are asked in the order of their own names.
    fn add_direct(&mut self) {
        let mut plans: BTreeMap<ModelName, Vec<Plan>> = BTreeMap::new();
        for deployment in self.deployments.values().filter(|deployment| deployment.direct) {
            let Ok(name) = ModelName::parse(&deployment.upstream_model) else { continue };
            if !self.exact.contains_key(&name) {
                plans.entry(name).or_default().push(Plan::To(Arc::clone(deployment)));
            }
        }
        for (name, plans) in plans {
            self.add(Arc::new(Model::plain(name, Plan::Ordered(plans))));
        }
    }

    /// What a name leads to: an exact entry wins, then the longest prefix.
    pub fn resolve(&self, name: &ModelName) -> Option<Resolved> {
        if let Some(Entry { model, route }) = self.exact.get(name) {
            let (model, route, owners) = (Arc::clone(model), Arc::clone(route), model.owner.iter().cloned());
            let owners = owners.collect();
            return Some(Resolved { model, route, matched: name.as_str().to_owned(), owners });
        }
        self.patterns.iter().find_map(|(prefix, model)| {
            let matched = name.as_str().strip_prefix(prefix.as_str())?;
            let (model, route) = (Arc::clone(model), Arc::clone(&model.route));
            let found = Resolved { model, route, matched: matched.to_owned(), owners: Vec::new() };
            (!matched.is_empty() && !climbs(matched))
                .then(|| Resolved { owners: self.owners(&found), ..found })
        })
    }

    /// Whose models a pattern leads to, whichever deployment of its routes is asked.
    fn owners(&self, found: &Resolved) -> Vec<Owner> {
        if self.owned.is_empty() {
            return Vec::new();
        }
        let deployments = found.model.routes().flat_map(|route| &route.deployments);
        let names = deployments.flat_map(|deployment| {
            let upstream = found.upstream_model(deployment);
            let kind = deployment.provider.dialect.kind();
            [OwnedName::model(&upstream), OwnedName::deployment(kind, &upstream)]
        });
        names.filter_map(|name| self.owned.get(&name)).cloned().collect()
    }

    /// The exact names, sorted, and their models: what `GET /v1/models` lists.
    pub fn names(&self) -> impl Iterator<Item = (&ModelName, &Arc<Model>)> {
        self.exact.iter().map(|(name, entry)| (name, &entry.model))
    }

    /// All models, patterns included.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        let exact = self.exact.iter().filter(|(name, entry)| **name == entry.model.name);
        exact.map(|(_, entry)| &entry.model).chain(self.patterns())
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
            training: None,
        });
        let plain = Deployment::plain(name.into(), provider, upstream.into());
        Arc::new(Deployment {
            reasoning: false,
            endpoints: Endpoint::ALL.to_vec(),
            capabilities: None,
            ..plain
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
        let model = |name: &str, upstream: &str| {
            Model::plain(ModelName::parse(name).expect("a name"), Plan::To(deployment(name, upstream)))
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
            assert_eq!(&*found.upstream_model(&found.route.deployments[0]), upstream, "{asked}");
        }
        for asked in ["azure/..", "azure/../../x", "azure/.", "..", "a/..\\b"] {
            assert!(catalog.resolve(&ModelName::parse(asked).expect("a name")).is_none(), "{asked}");
        }
    }

    #[test]
    fn aliases_labels_and_the_providers_own_names_are_names_too() {
        let name = |name: &str| ModelName::parse(name).expect("a name");
        let to = |name: &str| Plan::To(deployment(name, name));
        let bot = Model {
            labels: [("candidate".into(), Arc::new(Route::new(to("v4"))))].into(),
            aliases: vec![name("helpdesk")],
            ..Model::plain(name("bot"), to("v3"))
        };
        let direct = |own: &str, upstream: &str| {
            let plain = deployment(own, upstream);
            (plain.name.clone(), Arc::new(Deployment { direct: true, ..(*plain).clone() }))
        };
        let deployments =
            [direct("b", "ft:x"), direct("a", "ft:x"), direct("c", "bot"), direct("d", "helpdesk")];
        let any = Model::plain(name("*"), to("any"));
        let catalog = Catalog::new(BTreeMap::new(), deployments.into(), vec![bot, any]);
        for (asked, model, first) in [
            ("bot", "bot", "v3"),
            ("helpdesk", "bot", "v3"),
            ("bot@candidate", "bot", "v4"),
            ("bot@stable", "*", "any"),
            ("ft:x", "ft:x", "a"),
            ("helpdesk@candidate", "bot", "v4"),
        ] {
            let found = catalog.resolve(&name(asked)).expect("found");
            assert_eq!(
                (found.model.name.as_str(), &*found.route.deployments[0].name),
                (model, first),
                "{asked}"
            );
        }
        let listed: Vec<&str> = catalog.names().map(|(name, _)| name.as_str()).collect();
        assert_eq!(listed, ["bot", "bot@candidate", "ft:x", "helpdesk", "helpdesk@candidate"]);
        let models: Vec<&str> = catalog.models().map(|model| model.name.as_str()).collect();
        assert_eq!(models, ["bot", "ft:x", "*"]);
    }
}
