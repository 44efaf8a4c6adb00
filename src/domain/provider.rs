//! Providers: a dialect, its account, and where it listens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::secret::Secret;

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

/// Where Azure trains, and so what it asks for.
///
/// Source: `trainingType` of the authoring API since 2025-04-01-preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainingType {
    /// In the resource's own region.
    Standard,
    /// Anywhere.
    GlobalStandard,
    /// On capacity that is left over.
    DeveloperTier,
}

impl TrainingType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Standard, Self::GlobalStandard, Self::DeveloperTier];

    /// The name in Azure's requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::GlobalStandard => "globalstandard",
            Self::DeveloperTier => "developerTier",
        }
    }
}

/// Azure's resource manager, as far as it knows one account: who deploys and takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmAccount {
    /// Such as `https://management.azure.com`, without a slash at its end.
    pub endpoint: Arc<str>,
    /// The account's subscription.
    pub subscription_id: Arc<str>,
    /// The account's resource group.
    pub resource_group: Arc<str>,
    /// The account's name.
    pub account: Arc<str>,
    /// Such as `2025-09-01`.
    pub api_version: Arc<str>,
    /// How it knows us: another token than the account's own.
    pub credential: Entra,
    /// Between two readings of its list of deployments.
    pub poll: Duration,
}

/// What a provider trains, and how it is asked to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Training {
    /// The names that lead here without a provider in front: exact, or a prefix and a final `*`.
    pub models: Vec<Arc<str>>,
    /// What stands between `azure/` and a model's name; none but at Azure.
    pub resource: Option<Arc<str>>,
    /// Where Azure trains; none says nothing of it.
    pub training_type: Option<TrainingType>,
    /// How many tokens it trains a second, where that is measured: our own worker's price is by the time.
    pub tokens_per_second: Option<u64>,
    /// Who deploys what it has trained; none where the operator does.
    pub arm: Option<ArmAccount>,
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
    /// What it trains; none where it is not asked to.
    pub training: Option<Training>,
}
