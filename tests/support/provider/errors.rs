//! The errors that providers really send.

use serde_json::{Value, json};

/// A status, a body and its headers.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Trouble {
    fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// An error in OpenAI's envelope.
    pub(crate) fn openai(status: u16, kind: &str, code: Option<&str>, message: &str) -> Self {
        Self::new(status, json!({"error": {"message": message, "type": kind, "param": null, "code": code}}))
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// 429 with the wait that the provider asks for.
    pub(crate) fn rate_limited(retry_after_seconds: u32) -> Self {
        Self::openai(429, "tokens", Some("rate_limit_exceeded"), "Rate limit reached for support-bot")
            .with_header("retry-after", &retry_after_seconds.to_string())
            .with_header("retry-after-ms", &(retry_after_seconds * 1000).to_string())
            .with_header("x-ratelimit-remaining-tokens", "0")
    }

    /// 429 with the wait in ms alone.
    pub(crate) fn rate_limited_for_ms(retry_after_ms: u32) -> Self {
        Self::rate_limited_silently().with_header("retry-after-ms", &retry_after_ms.to_string())
    }

    /// 429 that names no wait.
    pub(crate) fn rate_limited_silently() -> Self {
        Self::openai(429, "requests", Some("rate_limit_exceeded"), "Rate limit reached for support-bot")
    }

    pub(crate) fn server_error() -> Self {
        let message = "The server had an error while processing your request.";
        Self::openai(500, "server_error", None, message)
    }

    pub(crate) fn overloaded() -> Self {
        Self::openai(503, "service_unavailable_error", Some("server_is_overloaded"), "Overloaded")
    }

    /// 503 of something that stands before the provider.
    pub(crate) fn unavailable() -> Self {
        Self::openai(503, "server_error", None, "Service temporarily unavailable")
    }

    pub(crate) fn bad_request() -> Self {
        let mut trouble = Self::openai(
            400,
            "invalid_request_error",
            Some("context_length_exceeded"),
            "This model's maximum context length is 10 tokens.",
        );
        trouble.body["error"]["param"] = "messages".into();
        trouble
    }

    /// A chat that says nothing.
    pub(crate) fn no_messages() -> Self {
        let mut trouble = Self::openai(400, "invalid_request_error", None, "[] is too short - 'messages'");
        trouble.body["error"]["param"] = "messages".into();
        trouble
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "Incorrect API key provided: upst****-key.";
        Self::openai(401, "invalid_request_error", Some("invalid_api_key"), message)
    }

    pub(crate) fn forbidden() -> Self {
        Self::openai(403, "invalid_request_error", None, "You are not allowed to sample from this model")
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::openai(404, "invalid_request_error", Some("model_not_found"), &message)
    }

    pub(crate) fn quota_used_up() -> Self {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        Self::openai(429, "insufficient_quota", Some("insufficient_quota"), message)
    }

    /// In Microsoft's envelope, which has no `type`.
    pub(crate) fn azure(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, json!({"error": {"code": code, "message": message}}))
    }

    /// Azure's filter has stopped the prompt, which it bills.
    pub(crate) fn azure_content_filtered() -> Self {
        let message = "The response was filtered due to the prompt triggering Azure OpenAI's content management \
                       policy. Please modify your prompt and retry.";
        let mut trouble = Self::azure(400, "content_filter", message);
        trouble.body["error"]["param"] = "prompt".into();
        trouble.body["error"]["status"] = 400.into();
        trouble.body["error"]["innererror"] = json!({"code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": true, "severity": "high"}}});
        trouble
    }

    pub(crate) fn azure_deployment_not_found() -> Self {
        let message = "The API deployment for this resource does not exist. If you created the deployment within \
                       the last 5 minutes, please wait a moment and try again.";
        Self::azure(404, "DeploymentNotFound", message)
    }

    pub(crate) fn azure_unauthorized() -> Self {
        let message = "Access denied due to invalid subscription key or wrong API endpoint.";
        Self::azure(401, "401", message)
    }

    pub(crate) fn azure_resource_not_found() -> Self {
        Self::azure(404, "404", "Resource not found")
    }
}
