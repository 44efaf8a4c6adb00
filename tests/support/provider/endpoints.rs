//! What a request asks for, read from its path: OpenAI's paths and both of Azure's.

use super::super::server::Request;

/// Whose manners the answer must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum House {
    OpenAi,
    /// `/openai/deployments/…` and `/openai/…` with a dated version.
    AzureClassic,
    /// `/openai/v1/…`
    AzureV1,
}

/// A request's path, taken apart.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) house: House,
    /// Azure's deployment in the path.
    pub(super) deployment: Option<String>,
    /// Such as `chat/completions`, `models` or `responses/resp_1`.
    pub(super) operation: String,
    post: bool,
}

impl Asked {
    pub(super) fn from(request: &Request) -> Self {
        let path = request.path();
        let post = request.method == "POST";
        let asked = |house, deployment: Option<&str>, operation: &str| Self {
            house,
            deployment: deployment.map(str::to_owned),
            operation: operation.to_owned(),
            post,
        };
        if let Some(rest) = path.strip_prefix("/openai/deployments/") {
            let (deployment, operation) = rest.split_once('/').unwrap_or((rest, ""));
            return asked(House::AzureClassic, Some(deployment), operation);
        }
        if let Some(operation) = path.strip_prefix("/openai/v1/") {
            return asked(House::AzureV1, None, operation);
        }
        if let Some(operation) = path.strip_prefix("/openai/") {
            return asked(House::AzureClassic, None, operation);
        }
        asked(House::OpenAi, None, path.strip_prefix("/v1/").unwrap_or(path))
    }

    /// The model or deployment that is asked for.
    pub(super) fn model(&self, request: &Request) -> Option<String> {
        self.deployment.clone().or_else(|| {
            let body: serde_json::Value = serde_json::from_slice(&request.body).ok()?;
            body["model"].as_str().map(str::to_owned)
        })
    }

    pub(super) fn is_azure(&self) -> bool {
        self.house != House::OpenAi
    }

    /// Whether scripted replies are meant for it.
    pub(super) fn is_inference(&self) -> bool {
        self.post || self.operation.starts_with("responses/")
    }
}
