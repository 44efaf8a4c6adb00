//! The metered endpoints. What is not listed here is not served: nothing passes through unmetered.

use serde::{Deserialize, Serialize};

/// One kind of inference request (OpenAI API 2.3.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    #[serde(rename = "chat.completions")]
    ChatCompletions,
    /// `POST /v1/completions`
    #[serde(rename = "completions")]
    Completions,
    /// `POST /v1/embeddings`
    #[serde(rename = "embeddings")]
    Embeddings,
    /// `POST /v1/responses`
    #[serde(rename = "responses")]
    Responses,
    /// `POST /v1/moderations`
    #[serde(rename = "moderations")]
    Moderations,
    /// `POST /v1/tunegate/score` of a local worker: how likely a known answer is. The gateway's own requests only; no
    /// client can ask it, and no configuration names it.
    #[serde(rename = "score")]
    Score,
}

impl Endpoint {
    /// All that clients may ask.
    pub const ALL: [Self; 5] =
        [Self::ChatCompletions, Self::Completions, Self::Embeddings, Self::Responses, Self::Moderations];

    /// The path behind a base URL, without a leading slash.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Moderations => "moderations",
            Self::Score => "tunegate/score",
        }
    }

    /// The name in configuration, logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Moderations => "moderations",
            Self::Score => "score",
        }
    }

    /// The endpoint of clients behind a path without its leading slash.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// Whether Azure's classic API binds it to a deployment in the path; others name the deployment in the body.
    pub const fn azure_deployment_bound(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions | Self::Embeddings)
    }

    /// Whether `stream_options.include_usage` is a member of its requests. Responses carry usage in their last
    /// event unasked; the others do not stream.
    pub const fn usage_on_request(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether answers can be streamed.
    pub const fn streams(self) -> bool {
        !matches!(self, Self::Embeddings | Self::Moderations | Self::Score)
    }
}
