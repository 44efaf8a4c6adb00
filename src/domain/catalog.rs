//! The live catalog: providers, deployments, and which models lead to which deployments. Immutable; a reload swaps
//! it whole, and a request reads one of them from its start to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::ids::ModelName;
use super::limit::RateLimits;
use super::model_name;
use super::price::Price;
use super::secret::Secret;

/// OpenAI's dialect, or any server that speaks it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenAi {
    /// `OpenAI-Organization`.
    pub organization: Option<String>,
    /// `OpenAI-Project`.
    pub project: Option<String>,
}

/// Azure's v1 API: OpenAI's paths under `/openai/v1`, the deployment named in the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AzureV1 {
    /// `preview`, or nothing for the default.
    pub api_version: Option<String>,
}

/// Azure's classic API: the deployment in the path, a dated version in the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureClassic {
    /// Such as `2024-10-21`.
    pub api_version: String,
}

/// The dialect a provider speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's, or any server that speaks it.
    OpenAi(OpenAi),
    /// Azure's v1 API.
    AzureV1(AzureV1),
    /// Azure's classic API.
    AzureClassic(AzureClassic),
    /// Our own worker.
    Candle,
}

impl Dialect {
    /// Whose it is, whatever its version.
    pub const fn kind(&self) -> ProviderKind {
        match self {
            Self::OpenAi(_) => ProviderKind::OpenAi,
            Self::AzureV1(_) | Self::AzureClassic(_) => ProviderKind::Azure,
            Self::Candle => ProviderKind::Candle,
        }
    }

    /// The name in logs and metric labels.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }
}

/// Who defines a dialect: prices go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Our own worker.
    Candle,
}

impl ProviderKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Azure, Self::Candle];

    /// The name in files, logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Candle => "candle",
        }
    }

    /// Reads back what [`ProviderKind::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a provider listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and port, and whether TLS is spoken there.
    Host {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// `https`.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// How long we wait for an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// From the request's last byte to the answer's head.
    pub first_byte: Duration,
    /// Between two reads of the answer.
    pub between_chunks: Duration,
    /// For the whole exchange.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(600),
            between_chunks: Duration::from_secs(300),
            total: Duration::from_secs(1_800),
        }
    }
}

/// What becomes of an upstream's stream when the client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnClientGone {
    /// Aborted at once and settled at what was counted.
    Abort,
    /// Read on to its usage, for at most `drain_ms`.
    Drain,
}

/// How a provider knows us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Not at all.
    None,
    /// By a key.
    ApiKey(Secret),
    /// By a token of Microsoft Entra ID.
    Entra(Entra),
}

/// Where an Entra token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entra {
    /// A service principal with a secret.
    ClientSecret {
        /// Such as `https://login.microsoftonline.com`.
        authority: String,
        /// The directory.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// What the token is for.
        scope: String,
    },
    /// Workload identity: a token of another issuer in a file, exchanged for one of Entra.
    FederatedTokenFile {
        /// Such as `https://login.microsoftonline.com`.
        authority: String,
        /// The directory.
        tenant_id: String,
        /// The application.
        client_id: String,
        /// The other issuer's token, read anew at each exchange.
        token_file: PathBuf,
        /// What the token is for.
        scope: String,
    },
    /// The identity of the machine.
    ManagedIdentity {
        /// The metadata service.
        endpoint: String,
        /// Only for a user-assigned identity.
        client_id: Option<String>,
        /// What the token is for.
        scope: String,
    },
    /// A token that somebody else renews in a file.
    TokenFile {
        /// Read again when it changes.
        path: PathBuf,
    },
}

/// A dialect and its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it listens.
    pub address: Address,
    /// What stands before every path: empty, or `/v1`, never with a slash at its end.
    pub base_path: String,
    /// The value of `Host`.
    pub authority: String,
    /// How it knows us.
    pub credential: Credential,
    /// Trusted instead of the system's roots, PEM.
    pub ca_file: Option<PathBuf>,
    /// Whether h2 is offered by ALPN.
    pub http2: bool,
}

/// [`Deployment::default_output_tokens`] unless the operator says otherwise.
pub const DEFAULT_OUTPUT_TOKENS: u64 = 4_096;

/// One concrete served model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: Arc<Provider>,
    /// The provider's own name; `*` stands for what the asked name's pattern matched.
    pub upstream_model: Arc<str>,
    /// What it was trained from, when its own name does not say.
    pub base_model: Option<String>,
    /// Whether it makes tokens that the client does not see.
    pub reasoning: bool,
    /// What it serves.
    pub endpoints: Vec<Endpoint>,
    /// The model's own cap on output, tokens.
    pub max_output_tokens: Option<u64>,
    /// The cap that is written into a request without one, where a hard budget applies, tokens.
    pub default_output_tokens: u64,
    /// How long we wait.
    pub timeouts: Timeouts,
    /// What happens when the client leaves.
    pub on_client_gone: OnClientGone,
    /// How long a stream is read on for its usage.
    pub drain: Duration,
    /// Where its price comes from.
    pub pricing: Pricing,
    /// What becomes of a request without a known price.
    pub on_unpriced: OnUnpriced,
}

/// Where a deployment's price comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pricing {
    /// The row of the price book that its model's name leads to.
    #[default]
    ByName,
    /// A row of the price book that the operator named.
    Row(Arc<str>),
    /// The operator wrote it out.
    Explicit {
        /// What it costs.
        price: Arc<Price>,
        /// Names it in the ledger.
        version: Arc<str>,
    },
}

/// What becomes of a request whose price nobody knows. It is never taken for free silently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnUnpriced {
    /// It is refused.
    #[default]
    Deny,
    /// It is booked at the price of this row of the price book.
    Cap(Arc<str>),
    /// It is served, booked at nothing, and said.
    Allow,
}

impl Deployment {
    /// The name that says which model it really is: the base where it was given, else the provider's name.
    pub fn model_identity(&self) -> &str {
        self.base_model.as_deref().unwrap_or(&self.upstream_model)
    }

    /// Whether tokens are made that the client does not see, when it is asked for one of the provider's models: behind
    /// a `*` only the asked name tells.
    pub fn makes_unseen_tokens(&self, upstream_model: &str) -> bool {
        let told_by_the_name = self.base_model.is_none() && self.upstream_model.contains('*');
        self.reasoning || (told_by_the_name && model_name::makes_unseen_tokens(upstream_model))
    }
}

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
    use super::*;

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
