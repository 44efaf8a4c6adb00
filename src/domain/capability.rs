//! What a request may need beyond plain text, and a deployment may be able to do.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Calls tools, or the functions that came before them.
    Tools,
    /// Sees images.
    Images,
    /// Keeps to a JSON schema.
    JsonSchema,
    /// Hears or speaks.
    Audio,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Images, Self::JsonSchema, Self::Audio];

    /// The name in configuration and in words to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Images => "images",
            Self::JsonSchema => "json_schema",
            Self::Audio => "audio",
        }
    }

    /// Reads back what [`Capability::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.name() == name)
    }
}
