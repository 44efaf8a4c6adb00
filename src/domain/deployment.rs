//! Deployments: one concrete served model each, with what it can do, what it costs and how long we wait for it.

use std::sync::Arc;
use std::time::Duration;

use super::fine_tuned_name::FineTunedName;
use super::prompt::{Injection, TrainedWith};
use super::provider::{Dialect, Provider, ProviderKind};
use crate::domain::breaker;
use crate::domain::capability::Capability;
use crate::domain::endpoint::Endpoint;
use crate::domain::limit::RateLimits;
use crate::domain::model_name;
use crate::domain::price::Price;

/// The member of a response that a stored prompt's words are put into.
pub const INSTRUCTIONS: &str = "instructions";

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
    /// Whether a client may ask for it by the provider's own name.
    pub direct: bool,
    /// Most tokens of input and output together; none where nobody said.
    pub context_window: Option<u64>,
    /// What it can do beyond plain text; none where nobody said: then it is taken to do all.
    pub capabilities: Option<Vec<Capability>>,
    /// How good its answers are, from 0 to 1,000, by the operator's own measure.
    pub quality: Option<u16>,
    /// When its provider ends it, as the operator says; ms since 1970 UTC.
    pub retires_at_ms: Option<i64>,
    /// What its provider lets us ask of it, until its answers say more; and how much at once.
    pub limits: RateLimits,
    /// Who waits while `limits.concurrent` requests are being served.
    pub queue: Queue,
    /// Top-level members of requests that it does not take.
    pub unsupported: Vec<Box<str>>,
    /// What becomes of a request with one of them.
    pub on_unsupported: OnUnsupported,
    /// When it is not asked for a while.
    pub breaker: breaker::Policy,
    /// How often it is asked whether it is there; none: only requests tell.
    pub health_check_every: Option<Duration>,
    /// The stored prompt that its requests get, whichever route they came by.
    pub prompt: Option<Arc<Injection>>,
    /// The words that its model was trained with, where somebody said.
    pub trained_with: Option<TrainedWith>,
    /// Which version of its model it serves, where its provider's name does not say: other than before, no answer kept
    /// before is served.
    pub model_version: Option<Arc<str>>,
    /// What it costs by standing there, where it is one that does.
    pub hosted: Hosted,
}

/// What a deployment costs by standing there goes by: its kind, and since when it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosted {
    /// The provider's name for the kind of deployment, such as `DeveloperTier`.
    pub sku: Option<Arc<str>>,
    /// Since when it stands, as the operator says; ms since 1970 UTC.
    pub from_ms: Option<i64>,
    /// Until when it stood, as the operator says; ms since 1970 UTC.
    pub until_ms: Option<i64>,
}

/// A bounded queue before a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Most requests in it.
    pub places: u32,
    /// Longest wait in it.
    pub wait: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self { places: 64, wait: Duration::from_secs(5) }
    }
}

/// What becomes of a request with a member that a deployment does not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnsupported {
    /// The deployment is not asked.
    #[default]
    Refuse,
    /// The member is left out.
    Drop,
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
    /// Nobody said anything, as of our own worker: the row of the price book under its model's name, or under that of the
    /// base that it was trained from; where there is none, this.
    Presumed {
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

/// Where a model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage<'a> {
    /// The base model.
    pub base: &'a str,
    /// Whether it was trained further.
    pub fine_tuned: bool,
}

/// What a provider's deployments serve where nobody says.
pub fn usual_endpoints(dialect: &Dialect) -> Vec<Endpoint> {
    match dialect {
        Dialect::Candle => vec![Endpoint::ChatCompletions, Endpoint::Completions],
        Dialect::OpenAi(_) | Dialect::AzureV1(_) | Dialect::AzureClassic(_) => Endpoint::ALL.to_vec(),
    }
}

/// What a provider's deployments can do where nobody says. Our own worker refuses tools, images, sound and schemas; of
/// others nothing is known.
pub const fn usual_capabilities(dialect: &Dialect) -> Option<Vec<Capability>> {
    match dialect {
        Dialect::Candle => Some(Vec::new()),
        Dialect::OpenAi(_) | Dialect::AzureV1(_) | Dialect::AzureClassic(_) => None,
    }
}

impl Deployment {
    /// Whether requests of an endpoint can be sent there as they came. Only a local worker tells how likely a known answer
    /// is, with the models that answer chats there.
    pub fn serves(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::Score => {
                matches!(self.provider.dialect, Dialect::Candle)
                    && self.endpoints.contains(&Endpoint::ChatCompletions)
            }
            _ => self.endpoints.contains(&endpoint),
        }
    }

    /// One of which nobody has said more than its names.
    pub fn plain(name: Arc<str>, provider: Arc<Provider>, upstream_model: Arc<str>) -> Self {
        Self {
            name,
            base_model: None,
            reasoning: model_name::makes_unseen_tokens(&upstream_model),
            endpoints: usual_endpoints(&provider.dialect),
            max_output_tokens: None,
            default_output_tokens: DEFAULT_OUTPUT_TOKENS,
            timeouts: Timeouts::default(),
            on_client_gone: OnClientGone::Abort,
            drain: Duration::from_secs(30),
            pricing: Pricing::ByName,
            on_unpriced: OnUnpriced::Deny,
            direct: false,
            context_window: None,
            capabilities: usual_capabilities(&provider.dialect),
            quality: None,
            retires_at_ms: None,
            limits: RateLimits::default(),
            queue: Queue::default(),
            unsupported: Vec::new(),
            on_unsupported: OnUnsupported::Refuse,
            breaker: breaker::Policy::default(),
            health_check_every: None,
            prompt: None,
            trained_with: None,
            model_version: None,
            hosted: Hosted::default(),
            upstream_model,
            provider,
        }
    }

    /// Whether it can do something; one of which nobody said anything is taken to.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.as_ref().is_none_or(|all| all.contains(&capability))
    }

    /// Whether it does not take a response's instructions, and a stored prompt's words with them.
    pub fn takes_no_instructions(&self) -> bool {
        self.unsupported.iter().any(|member| **member == *INSTRUCTIONS)
    }

    /// Whether they would be left out on the way to it.
    pub fn drops_instructions(&self) -> bool {
        let drops = self.on_unsupported == OnUnsupported::Drop && self.takes_no_instructions();
        drops && self.endpoints.contains(&Endpoint::Responses)
    }

    /// What it was trained from, if it was, else its own name: equal for a fine-tuned model and its base. The date of a
    /// base's version is not part of it.
    pub fn lineage(&self) -> Lineage<'_> {
        let named = [&*self.upstream_model, self.model_identity()].into_iter().find_map(FineTunedName::parse);
        // on Azure `base_model` says which model a deployment is of, elsewhere what it was trained from
        let is_azure = self.provider.dialect.kind() == ProviderKind::Azure;
        let is_other = |base: &str| model_name::undated(base) != model_name::undated(&self.upstream_model);
        let told = !is_azure && self.base_model.as_deref().is_some_and(is_other);
        let base = named.map_or_else(|| model_name::base_of(self.model_identity()), |named| named.base);
        Lineage { base: model_name::undated(base), fine_tuned: told || named.is_some() }
    }

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
