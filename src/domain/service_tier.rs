//! How fast a request is served: what the word `service_tier` of a request or an answer means for its price.

/// How fast a request is served, cheapest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceTier {
    /// Within a day.
    Batch,
    /// When there is room.
    Flex,
    /// As usual.
    #[default]
    Default,
    /// Before others.
    Priority,
}

impl ServiceTier {
    /// All of them, cheapest first.
    pub const ALL: [Self; 4] = [Self::Batch, Self::Flex, Self::Default, Self::Priority];

    /// The name in price files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Default => "default",
            Self::Priority => "priority",
        }
    }

    /// The dearest tier that a request may get by its `service_tier`. `auto`, and none at all, is what the account's
    /// settings say, which may be the dearest; so may a word that we don't know. `scale` is paid for by the month: at
    /// most the usual price.
    ///
    /// Source: OpenAI API 2.3.0, `ServiceTier`.
    pub fn asked(service_tier: Option<&str>) -> Self {
        match service_tier {
            Some("default" | "standard" | "scale") => Self::Default,
            Some("flex") => Self::Flex,
            Some("batch") => Self::Batch,
            _ => Self::Priority,
        }
    }

    /// The tier that an answer says it was served in. A server that says nothing, or repeats `auto`, has no tiers.
    pub fn served(service_tier: Option<&str>) -> Self {
        match service_tier {
            None | Some("auto" | "") => Self::Default,
            said => Self::asked(said),
        }
    }
}
