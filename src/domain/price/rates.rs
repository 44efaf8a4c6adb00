//! Token prices by class, service tier and length of the input.

use crate::domain::money::PerToken;
use crate::domain::service_tier::ServiceTier;
use crate::domain::usage::TokenCounts;

/// What a token is, as far as its price goes. Each token belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Read anew.
    Input,
    /// Read from the provider's prompt cache.
    CachedInput,
    /// Read and written into that cache.
    CacheWrite,
    /// Heard.
    AudioInput,
    /// Made.
    Output,
    /// Made unseen, where that is priced apart.
    Reasoning,
    /// Spoken.
    AudioOutput,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Input,
        Self::CachedInput,
        Self::CacheWrite,
        Self::AudioInput,
        Self::Output,
        Self::Reasoning,
        Self::AudioOutput,
    ];
    /// Those of the input.
    pub const INPUT: [Self; 4] = [Self::Input, Self::CachedInput, Self::CacheWrite, Self::AudioInput];
    /// Those of the output.
    pub const OUTPUT: [Self; 3] = [Self::Output, Self::Reasoning, Self::AudioOutput];

    /// The name in price files, reports and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::CacheWrite => "cache_write",
            Self::AudioInput => "audio_input",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioOutput => "audio_output",
        }
    }

    /// What it costs the price of where it is not listed.
    pub const fn parent(self) -> Self {
        match self {
            Self::Input | Self::CachedInput | Self::CacheWrite | Self::AudioInput => Self::Input,
            Self::Output | Self::Reasoning | Self::AudioOutput => Self::Output,
        }
    }
}

/// What each class costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates([PerToken; Class::ALL.len()]);

/// What of it is listed.
pub type Listed = [Option<PerToken>; Class::ALL.len()];

impl Rates {
    /// What a class costs.
    pub const fn of(&self, class: Class) -> PerToken {
        self.0[class as usize]
    }

    /// The usual prices, once both input and output are listed.
    pub fn standard(listed: &Listed) -> Option<Self> {
        listed[Class::Input as usize]?;
        listed[Class::Output as usize]?;
        let of = |class: Class| listed[class as usize].or(listed[class.parent() as usize]);
        Some(Self(Class::ALL.map(|class| of(class).unwrap_or_default())))
    }

    /// Prices of a tier or of long inputs, beside the usual ones. What is not listed keeps its ratio to its parent; only
    /// a discount on cached input is not taken for granted in a tier that is cheaper already.
    pub fn beside(&self, listed: &Listed) -> Self {
        let parent = |class: Class| listed[class.parent() as usize].unwrap_or(self.of(class.parent()));
        Self(Class::ALL.map(|class| {
            let (usual, usual_parent) = (self.of(class), self.of(class.parent()));
            listed[class as usize].unwrap_or_else(|| match parent(class) {
                cheaper if cheaper < usual_parent && usual < usual_parent => usual.min(cheaper),
                other => scaled(usual, other, usual_parent),
            })
        }))
    }

    /// All of it times a factor in thousandths, rounded up.
    #[must_use]
    pub fn times_thousandths(&self, thousandths: u32) -> Self {
        let times = |price: PerToken| product(price, i128::from(thousandths), 1_000);
        Self(self.0.map(times))
    }

    /// For each class the dearer of both.
    #[must_use]
    pub fn dearer(&self, other: &Self) -> Self {
        Self(Class::ALL.map(|class| self.of(class).max(other.of(class))))
    }

    /// Puts each token into its class. Audio counts as text where it costs the same.
    pub(super) fn split(&self, counts: &TokenCounts) -> [(Class, u64); Class::ALL.len()] {
        let counts = counts.in_bounds();
        let apart = |class: Class, tokens: u64| match self.of(class) == self.of(class.parent()) {
            true => 0,
            false => tokens,
        };
        let audio_input = apart(Class::AudioInput, counts.audio_prompt);
        let text = counts.prompt - audio_input;
        let cache_write = counts.cache_write.min(text);
        let cached = counts.cached.min(text - cache_write);
        let audio_output = apart(Class::AudioOutput, counts.audio_completion);
        let reasoning = apart(Class::Reasoning, counts.reasoning).min(counts.completion - audio_output);
        [
            (Class::Input, text - cache_write - cached),
            (Class::CachedInput, cached),
            (Class::CacheWrite, cache_write),
            (Class::AudioInput, audio_input),
            (Class::Output, counts.completion - audio_output - reasoning),
            (Class::Reasoning, reasoning),
            (Class::AudioOutput, audio_output),
        ]
    }
}

/// `price` × `numerator` / `denominator`, rounded up; `numerator` itself where there is no ratio.
fn scaled(price: PerToken, numerator: PerToken, denominator: PerToken) -> PerToken {
    match denominator {
        PerToken::FREE => price.max(numerator),
        some => product(price, i128::from(numerator.picos()), i128::from(some.picos())),
    }
}

fn product(price: PerToken, numerator: i128, denominator: i128) -> PerToken {
    let exact = i128::from(price.picos()) * numerator;
    let rounded = exact / denominator + i128::from(exact % denominator > 0);
    PerToken::from_picos(i64::try_from(rounded).unwrap_or(i64::MAX)).unwrap_or_default()
}

/// The prices of each tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tiers([Rates; ServiceTier::ALL.len()]);

impl Tiers {
    /// From the usual prices; a tier that is not sold costs the same.
    pub fn new(standard: Rates) -> Self {
        Self([standard; ServiceTier::ALL.len()])
    }

    /// The same with another price for one tier.
    #[must_use]
    pub fn with(mut self, tier: ServiceTier, rates: Rates) -> Self {
        self.0[tier as usize] = rates;
        self
    }

    /// What a tier costs.
    pub const fn of(&self, tier: ServiceTier) -> &Rates {
        &self.0[tier as usize]
    }
}

/// Prices of requests whose input is longer than a threshold: they count for all their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongContext {
    /// Input of more than so many tokens.
    pub above_tokens: u64,
    /// What they cost.
    pub tiers: Tiers,
}

/// All token prices of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenPrices {
    /// What requests of usual length cost.
    pub tiers: Tiers,
    /// What long ones cost, where that is not the same.
    pub long_context: Option<LongContext>,
}

impl TokenPrices {
    /// What a request costs by its input's length and its tier.
    pub fn rates(&self, input_tokens: u64, tier: ServiceTier) -> &Rates {
        match &self.long_context {
            Some(long) if input_tokens > long.above_tokens => long.tiers.of(tier),
            _ => self.tiers.of(tier),
        }
    }

    /// What a usual request costs.
    pub const fn standard(&self) -> &Rates {
        self.tiers.of(ServiceTier::Default)
    }

    /// The dearest of some classes that a request with at most so much input may meet.
    pub(super) fn dearest(&self, classes: &[Class], input_tokens: u64, tier: ServiceTier) -> PerToken {
        let long = self.long_context.as_ref().filter(|long| input_tokens > long.above_tokens);
        let tables = [Some(&self.tiers), long.map(|long| &long.tiers)];
        let reachable = tier.max(ServiceTier::Default);
        let tiers = || ServiceTier::ALL.into_iter().filter(|tier| *tier <= reachable);
        let rates = tables.into_iter().flatten().flat_map(|table| tiers().map(|tier| table.of(tier)));
        rates.flat_map(|rates| classes.iter().map(|class| rates.of(*class))).max().unwrap_or_default()
    }
}
