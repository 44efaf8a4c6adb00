//! Dialects: how a provider wants to be asked, and what its answers mean. No I/O.
//!
//! OpenAI's wire is the common tongue, so a dialect says little: the path, the headers, what the body must carry, and
//! whose fault an error is.

pub mod arm;
mod azure;
mod candle;
mod fault;
mod openai;
pub mod tuning;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use crate::domain::catalog::{Deployment, Dialect, OnUnsupported, Provider, ProviderKind};
use crate::domain::endpoint::Endpoint;
use crate::domain::model_name;
use crate::domain::request::{CapName, InferenceRequest, OutputCap, Rewrite};
use crate::domain::secret::Authorization;

pub use crate::domain::fault::Fault;
pub use fault::{Said, envelope, fault, fault_of_event, message, said};

/// The worker says how many tokens the prompt has before it makes any of its own.
pub const PROMPT_TOKENS_HEADER: &str = "x-tunegate-prompt-tokens";
/// In which our worker says how long it had computed when its answer began, microseconds.
pub const COMPUTE_HEADER: &str = "x-tunegate-compute-us";

/// A request as the provider wants it, without the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers that the dialect itself needs.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; `None` sends none.
    pub body: Option<Bytes>,
    /// Whether we asked for a stream's usage chunk that the client did not ask for: it must be withheld.
    pub usage_injected: bool,
}

/// How one dialect asks.
trait Asks {
    /// Path and query of an inference request.
    fn path(&self, base_path: &str, endpoint: Endpoint, upstream_model: &str) -> String;
    /// Path and query of a stored response and what hangs below it (`tail` starts with `responses/`).
    fn stored_path(&self, base_path: &str, tail: &str) -> String;
    /// Whether the body names the model.
    fn model_in_body(&self, endpoint: Endpoint) -> bool;
    /// Whether `stream_options.include_usage` is understood.
    fn knows_usage_option(&self) -> bool {
        true
    }
    /// Whether chat knows `max_completion_tokens`.
    fn knows_completion_cap(&self) -> bool {
        true
    }
    /// Headers beside the credential.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }
    /// The header of an account's key.
    fn key_header(&self) -> HeaderName {
        http::header::AUTHORIZATION
    }
}

fn asks(dialect: &Dialect) -> &dyn Asks {
    match dialect {
        Dialect::OpenAi(dialect) => dialect,
        Dialect::AzureV1(dialect) => dialect,
        Dialect::AzureClassic(dialect) => dialect,
        Dialect::Candle => &candle::Candle,
    }
}

/// A cap on the output, under the name that a deployment takes when it is asked for one of the provider's models.
///
/// Source: OpenAI API 2.3.0: reasoning models refuse `max_tokens`; older servers know nothing else.
pub fn output_cap(
    deployment: &Deployment,
    endpoint: Endpoint,
    upstream_model: &str,
    tokens: u64,
) -> OutputCap {
    let identity = deployment.base_model.as_deref().unwrap_or(upstream_model);
    let new = deployment.makes_unseen_tokens(upstream_model) || model_name::makes_unseen_tokens(identity);
    let name = match endpoint {
        Endpoint::Responses => CapName::MaxOutputTokens,
        Endpoint::ChatCompletions if new && asks(&deployment.provider.dialect).knows_completion_cap() => {
            CapName::MaxCompletionTokens
        }
        _ => CapName::MaxTokens,
    };
    OutputCap { name, tokens }
}

/// Who has chosen the name under which a request caps its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapNamed {
    /// The client, who may know what its server takes.
    ByClient,
    /// We have, when we translated it: it must be the name that the deployment takes, or nothing is capped.
    ByUs,
}

/// The only name under which a deployment takes a cap on a chat's output; none where both will do. Only models that
/// are known to refuse the old name are asked under the new one: a server that knows neither would make what it likes.
///
/// Source: as for [`output_cap`].
fn only_cap(deployment: &Deployment, endpoint: Endpoint, upstream_model: &str) -> Option<CapName> {
    let dialect = &deployment.provider.dialect;
    if endpoint != Endpoint::ChatCompletions {
        return None;
    }
    if !asks(dialect).knows_completion_cap() {
        return Some(CapName::MaxTokens);
    }
    let identity = deployment.base_model.as_deref().unwrap_or(upstream_model);
    let refuses_old = model_name::makes_unseen_tokens(identity)
        || (dialect.kind() == ProviderKind::Azure && deployment.makes_unseen_tokens(upstream_model));
    refuses_old.then_some(CapName::MaxCompletionTokens)
}

/// An inference request for one deployment: its output capped where a cap is given, and without the members that the
/// operator wants dropped.
pub fn inference(
    deployment: &Deployment,
    request: &InferenceRequest,
    upstream_model: &str,
    cap: Option<OutputCap>,
    named: CapNamed,
) -> Outgoing {
    let provider = &deployment.provider;
    let dialect = asks(&provider.dialect);
    let endpoint = request.endpoint;
    let ask_usage =
        request.stream && !request.usage_asked && endpoint.usage_on_request() && dialect.knows_usage_option();
    let model = dialect.model_in_body(endpoint).then_some(upstream_model);
    let dropped = match deployment.on_unsupported {
        OnUnsupported::Drop => &*deployment.unsupported,
        OnUnsupported::Refuse => &[],
    };
    let only_cap = match named {
        CapNamed::ByUs => Some(output_cap(deployment, endpoint, upstream_model, 0).name),
        CapNamed::ByClient => only_cap(deployment, endpoint, upstream_model),
    };
    let rewrite = Rewrite { model, ask_usage, output_cap: cap, only_cap, dropped };
    let mut headers = dialect.headers();
    headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    Outgoing {
        method: Method::POST,
        path: dialect.path(&provider.base_path, endpoint, upstream_model),
        headers,
        body: Some(request.rewritten(rewrite)),
        usage_injected: ask_usage,
    }
}

/// A chat without messages at one deployment: who has it refuses that, and nothing is billed.
pub fn empty_chat(provider: &Provider, upstream_model: &str) -> Outgoing {
    let dialect = asks(&provider.dialect);
    let mut headers = dialect.headers();
    headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
    Outgoing {
        method: Method::POST,
        path: dialect.path(&provider.base_path, Endpoint::ChatCompletions, upstream_model),
        headers,
        body: Some(serde_json::json!({"model": upstream_model, "messages": []}).to_string().into()),
        usage_injected: false,
    }
}

/// A request for a stored response: `tail` is what stood behind the client's base URL, with its query.
pub fn stored(provider: &Provider, method: Method, tail: &str) -> Outgoing {
    let dialect = asks(&provider.dialect);
    Outgoing {
        method,
        path: dialect.stored_path(&provider.base_path, tail),
        headers: dialect.headers(),
        body: None,
        usage_injected: false,
    }
}

/// Whether a provider bills the input of a request that it refuses. Azure does where its content filter has read the
/// prompt, and where its own time ran out.
///
/// Source: MicrosoftDocs azure-ai-docs, "manage costs" (2026-02): 400 with a content filter's code, and 408, are charged.
pub fn bills_refusal(dialect: &Dialect, status: u16, body: &[u8]) -> bool {
    let is_azure = matches!(dialect, Dialect::AzureV1(_) | Dialect::AzureClassic(_));
    let filtered = || memchr::memmem::find(body, b"content_filter").is_some();
    is_azure && (status == 408 || (status == 400 && filtered()))
}

/// The model list, which every dialect has: what a probe asks for.
pub fn models(provider: &Provider) -> Outgoing {
    stored(provider, Method::GET, "models")
}

/// The header that carries a credential; nothing when there is none, or when it can't stand in a header.
pub fn authorize(provider: &Provider, authorization: &Authorization) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match authorization {
        Authorization::None => return None,
        Authorization::Bearer(token) => (http::header::AUTHORIZATION, format!("Bearer {}", token.expose())),
        Authorization::ApiKey(key) => match asks(&provider.dialect).key_header() {
            name if name == http::header::AUTHORIZATION => (name, format!("Bearer {}", key.expose())),
            name => (name, key.expose().to_owned()),
        },
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// `base` and `path` with the query's own `?` or `&` before `api-version`.
fn with_version(path: String, version: Option<&str>) -> String {
    match version {
        None => path,
        Some(version) if path.contains('?') => format!("{path}&api-version={version}"),
        Some(version) => format!("{path}?api-version={version}"),
    }
}

/// Percent-encodes what may not stand in one segment of a path.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
