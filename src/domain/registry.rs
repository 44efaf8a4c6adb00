//! The model registry: what jobs have made, where each of it stands, and how that is laid over the configuration's
//! catalog. A model comes into a route as its candidate, gets a part of its traffic as a canary, then all of it, and is
//! taken out again; each step is a move that can be undone.

pub mod curve;
mod overlay;
mod placement;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use curve::Point;
pub use overlay::{CANDIDATE, Overlaid, Trouble, can_be_route, overlay};
pub use placement::{Assignment, Canary, MAX_PERCENT, NoMove, Placement, Stage};

use super::fine_tuned_name::FineTunedName;
use super::money::Usd;
use super::prompt::hash::sha256_of;
use super::prompt::{Injection, TrainedWith};
use super::tuning::Owner;

/// What a dataset's rows begin with, where all of them begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemPrompt {
    /// The words; empty where no row has any.
    pub text: Arc<str>,
    /// SHA-256 of the words, 64 hex digits.
    pub sha256: Arc<str>,
}

impl SystemPrompt {
    /// Words with their hash.
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), sha256: sha256_of(text).into() }
    }
}

/// A model of the middle of a job; it can be asked and deployed by its own name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Behind which step.
    pub step: u64,
    /// The provider's name for it.
    pub name: Arc<str>,
    /// When it was made, ms since 1970 UTC; rows of before do not have it.
    #[serde(default)]
    pub created_at_ms: Option<i64>,
    /// Figures, in OpenAI's form.
    #[serde(default)]
    pub metrics: Value,
}

/// What a finished job has made.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// The provider's name for it: `fine_tuned_model` of its job.
    pub name: Arc<str>,
    /// Whose it is.
    pub owner: Owner,
    /// The name of the provider that made it.
    pub provider: Arc<str>,
    /// What it was trained from, as the job was asked for it.
    pub base: Arc<str>,
    /// Our id of the job.
    pub job_id: Arc<str>,
    /// SHA-256 of the training file.
    pub dataset_sha256: Arc<str>,
    /// What the training file's rows begin with; none where they differ, or are no chats.
    pub system_prompt: Option<SystemPrompt>,
    /// Billed tokens, over all epochs; none where nobody said.
    pub trained_tokens: Option<u64>,
    /// What the training cost.
    pub cost: Usd,
    /// The version of the prices that this was computed with.
    pub price_version: Arc<str>,
    /// Models of the middle of the job, by their steps.
    pub checkpoints: Vec<Variant>,
    /// When the job was made, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When the job ended, ms since 1970 UTC.
    pub finished_at_ms: i64,
    /// Since when it is out of all routes for good, ms since 1970 UTC.
    pub retired_at_ms: Option<i64>,
    /// The stored prompt that all its requests get, whichever route they come by.
    pub bound: Option<Arc<Injection>>,
    /// Where it is served, if its provider serves only what was deployed.
    pub hosted: Vec<Hosted>,
}

impl Registered {
    /// Its own name, then those of its checkpoints.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.name).chain(self.checkpoints.iter().map(|checkpoint| &checkpoint.name))
    }

    /// When it, or its checkpoint of a name, was made, ms since 1970 UTC: a model is there when its job ends.
    pub fn made_at_ms(&self, name: &str) -> i64 {
        let of_name = self.checkpoints.iter().find(|checkpoint| *checkpoint.name == *name);
        of_name.and_then(|checkpoint| checkpoint.created_at_ms).unwrap_or(self.finished_at_ms)
    }

    /// The words that it was trained with, as a deployment says it.
    pub fn trained_with(&self) -> Option<TrainedWith> {
        self.system_prompt.as_ref().map(|prompt| TrainedWith::Words(Arc::clone(&prompt.sha256)))
    }

    /// What the trainer called it, if the name holds that.
    pub fn suffix(&self) -> Option<&str> {
        FineTunedName::parse(&self.name)?.suffix
    }
}

/// How far a provider is with a deployment of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostedState {
    /// We are about to ask for it, or have: whether the provider has heard is not known.
    Wished,
    /// The provider makes it.
    Creating,
    /// It is made; requests may still find nobody.
    Warming,
    /// It answers.
    Ready,
    /// The provider could not make it.
    Failed,
    /// It is being taken away.
    Leaving,
}

impl HostedState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Wished, Self::Creating, Self::Warming, Self::Ready, Self::Failed, Self::Leaving];

    /// The name in rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wished => "wished",
            Self::Creating => "creating",
            Self::Warming => "warming",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Leaving => "leaving",
        }
    }

    /// Reads back what [`HostedState::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether something is still to be done about it.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Wished | Self::Creating | Self::Warming | Self::Leaving)
    }
}

/// What a deployment of a model costs and promises (Azure's words, 2026-03).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Billed by the hour, idle or not.
    Standard,
    /// Billed by the hour, idle or not; served anywhere.
    GlobalStandard,
    /// Without an hourly fee; ends after 24 hours.
    Developer,
}

/// After this Azure takes a Developer deployment away, ms.
pub const DEVELOPER_LIFE_MS: i64 = 24 * 3_600_000;

impl Tier {
    /// All of them; who is asked first comes first.
    pub const ALL: [Self; 3] = [Self::Standard, Self::GlobalStandard, Self::Developer];

    /// The name in rows, answers and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::GlobalStandard => "globalstandard",
            Self::Developer => "developer",
        }
    }

    /// Azure's word: `sku.name`.
    pub const fn sku(self) -> &'static str {
        match self {
            Self::Standard => "Standard",
            Self::GlobalStandard => "GlobalStandard",
            Self::Developer => "DeveloperTier",
        }
    }

    /// Reads back what [`Tier::name`] wrote, or Azure's word, without case.
    pub fn read(text: &str) -> Option<Self> {
        let is_it =
            |tier: &Self| [tier.name(), tier.sku()].iter().any(|name| name.eq_ignore_ascii_case(text));
        Self::ALL.into_iter().find(is_it)
    }

    /// Whether it costs money by the hour.
    pub const fn is_by_the_hour(self) -> bool {
        !matches!(self, Self::Developer)
    }

    /// When a deployment that was made at a moment ends by itself.
    pub const fn ends_at_ms(self, made_at_ms: i64) -> Option<i64> {
        match self {
            Self::Developer => Some(made_at_ms.saturating_add(DEVELOPER_LIFE_MS)),
            Self::Standard | Self::GlobalStandard => None,
        }
    }
}

/// A deployment of a model, where its provider serves only what was deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted {
    /// The provider's name for the deployment, and ours.
    pub name: Arc<str>,
    /// The model's name, or that of one of its checkpoints.
    pub model: Arc<str>,
    /// Its tier.
    pub tier: Tier,
    /// What may be asked of it, in the provider's unit: thousands of tokens a minute.
    pub capacity: u32,
    /// How far it is.
    pub state: HostedState,
    /// Why it failed, in the provider's words.
    pub why: Option<Arc<str>>,
    /// When it was asked for, ms since 1970 UTC.
    pub wished_at_ms: i64,
    /// When it ends by itself, ms since 1970 UTC.
    pub ends_at_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_known_by_both_names() {
        for tier in Tier::ALL {
            assert_eq!(
                (Tier::read(tier.name()), Tier::read(&tier.sku().to_lowercase())),
                (Some(tier), Some(tier))
            );
        }
        assert_eq!(Tier::read("premium"), None);
        assert_eq!(Tier::Developer.ends_at_ms(1), Some(86_400_001));
        assert_eq!(Tier::Standard.ends_at_ms(1), None);
    }

    #[test]
    fn states_survive_their_names() {
        for state in HostedState::ALL {
            assert_eq!(HostedState::from_name(state.name()), Some(state));
        }
    }
}
