//! Whose fault an upstream's error is, read from its status and body, or from an error event in a stream.
//!
//! Source: the error tables of OpenAI (guide "Error codes", November 2026) and of Azure OpenAI (inference
//! 2024-10-21, v1): two families of bodies share one path there, OpenAI's and Microsoft's. What has no code is known by
//! the words of OpenAI, vLLM, SGLang, llama.cpp and TGI.

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Map, Value, json};

use crate::domain::fault::Fault;

/// Codes that say an account can't pay, whatever the status says.
const QUOTA_CODES: [&str; 7] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
];

/// Codes of a content filter, OpenAI's and Azure's.
const FILTER_CODES: [&str; 5] = [
    "content_filter",
    "ResponsibleAIPolicyViolation",
    "content_policy_violation",
    "invalid_prompt",
    "bio_policy",
];

/// Codes of a prompt that is too long; the last one is llama.cpp's.
const LENGTH_CODES: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];

/// The same in words, small letters: OpenAI's old form and vLLM's, OpenAI's for responses, vLLM's and SGLang's for
/// prompts, llama.cpp's, and TGI's two.
const LENGTH_WORDS: [&str; 8] = [
    "maximum context length",
    "exceeds the context window",
    "longer than the maximum model length",
    "longer than the model's context length",
    "exceeds the available context size",
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens` must be",
    "prompt is too long",
];

/// Codes of what a model does not know; the last one is Azure's for an operation.
const UNSUPPORTED_CODES: [&str; 4] =
    ["unsupported_parameter", "unsupported_value", "unknown_parameter", "OperationNotSupported"];

/// The same in words, small letters: OpenAI's before it had codes, Pydantic's (vLLM), JSON schema's.
const UNSUPPORTED_WORDS: [&str; 3] = [
    "unrecognized request argument",
    "extra inputs are not permitted",
    "additional properties are not allowed",
];

/// Codes of a deployment that is not there.
const MISSING_CODES: [&str; 3] = ["model_not_found", "DeploymentNotFound", "model_deprecated"];

/// Codes that ask for a wait, whatever the status says.
const WAIT_CODES: [&str; 7] = [
    "rate_limit_exceeded",
    "slow_down",
    "server_is_overloaded",
    "RateLimitReached",
    "too_many_requests",
    "NoCapacity",
    "429",
];

/// What of an error body decides, in either family.
#[derive(Default)]
struct Told {
    kind: Option<String>,
    code: Option<String>,
    param: Option<String>,
    message: Option<String>,
    /// Azure's, one level deeper.
    inner_code: Option<String>,
    openai_shape: bool,
}

fn text(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    }
}

fn told(body: &[u8]) -> Told {
    told_by(&serde_json::from_slice(body).unwrap_or(Value::Null))
}

fn told_by(value: &Value) -> Told {
    // an event of Responses: {"type": "response.failed", "response": {"error": …}}
    let failed = value.get("response").and_then(|response| response.get("error"));
    match value.get("error").or(failed) {
        Some(Value::String(message)) => Told { message: Some(message.clone()), ..Told::default() },
        Some(error @ Value::Object(_)) => told_in(error),
        // an API front end: {"statusCode": 401, "message": "…"}, or {"detail": "…"}
        _ => Told {
            code: text(value.get("statusCode")).or_else(|| text(value.get("code"))),
            param: text(value.get("param")),
            message: text(value.get("message")).or_else(|| text(value.get("detail"))),
            ..Told::default()
        },
    }
}

fn told_in(error: &Value) -> Told {
    // three spellings: on the wire, in the dated specification, in v1's
    let inner = error.get("innererror").or_else(|| error.get("inner_error"));
    Told {
        kind: text(error.get("type")),
        code: text(error.get("code")),
        param: text(error.get("param")),
        message: text(error.get("message")),
        inner_code: inner.and_then(|inner| text(inner.get("code"))),
        openai_shape: error.get("message").is_some_and(Value::is_string)
            && error.get("type").is_some_and(Value::is_string),
    }
}

impl Told {
    /// Whether a code, a kind or an inner code is one of these. Vendors differ in letters and underscores:
    /// `insufficient_quota`, `InsufficientQuota`.
    fn is_one_of(&self, codes: &[&str]) -> bool {
        let plain = |code: &str| code.replace('_', "").to_ascii_lowercase();
        let said = [&self.code, &self.kind, &self.inner_code].into_iter().flatten().map(|said| plain(said));
        said.into_iter().any(|said| codes.iter().any(|code| plain(code) == said))
    }

    fn says(&self, words: &[&str]) -> bool {
        let message = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        words.iter().any(|words| message.contains(words))
    }

    /// Whether the request itself is longer than the model's context.
    fn is_too_long(&self) -> bool {
        // a text of more characters than the API takes; elsewhere than in the prompt it is just wrong
        let in_prompt =
            |param: &String| ["messages", "input", "prompt"].iter().any(|top| param.starts_with(top));
        let too_many_characters =
            self.is_one_of(&["string_above_max_length"]) && self.param.as_ref().is_some_and(in_prompt);
        too_many_characters || self.is_one_of(&LENGTH_CODES) || self.says(&LENGTH_WORDS)
    }
}

/// Whose fault an answer of 400 or more is.
pub fn fault(status: u16, body: &[u8]) -> Fault {
    judged(status, &told(body))
}

fn judged(status: u16, told: &Told) -> Fault {
    let refused = matches!(status, 400 | 403 | 413 | 422);
    match status {
        _ if told.is_one_of(&QUOTA_CODES) => Fault::Quota,
        402 => Fault::Quota,
        _ if refused && told.is_one_of(&FILTER_CODES) => Fault::ContentFilter,
        400 | 403 if told.is_one_of(&MISSING_CODES) => Fault::DeploymentMissing,
        401 | 403 => Fault::Auth,
        // 404 names a missing thing of the client's only where OpenAI's own envelope says which
        404 if told.openai_shape && !told.is_one_of(&MISSING_CODES) && !told.is_one_of(&["404"]) => {
            Fault::Told
        }
        404 | 410 => Fault::DeploymentMissing,
        413 | 429 if told.says(&["request too large for"]) => Fault::TooLarge,
        429 => Fault::Wait,
        // llama.cpp answers 500 for it
        400 | 413 | 422 | 500 if told.is_too_long() => Fault::ContextLength,
        400 | 422 if told.is_one_of(&UNSUPPORTED_CODES) || told.says(&UNSUPPORTED_WORDS) => {
            Fault::Unsupported
        }
        501 => Fault::Unsupported,
        503 if told.is_one_of(&WAIT_CODES) => Fault::Wait,
        // RFC 4918, 424: something behind the upstream failed
        408 | 409 | 424 | 425 | 500.. => Fault::Transient,
        _ => Fault::Told,
    }
}

/// Whose fault it is, if an event of a stream, or a whole answer of status 200, is an error: `{"error":{…}}`, or the
/// events `error` and `response.failed` of responses. It has no status of its own: its codes must do.
pub fn fault_of_event(json: &[u8]) -> Option<Fault> {
    // nearly every event: no error, no tree
    memmem::find(json, b"\"error\"")?;
    let event: Value = serde_json::from_slice(json).ok()?;
    let told = match event.get("type").and_then(Value::as_str) {
        Some("response.failed") => event.get("response").map(told_by)?,
        Some("error") => told_by(&event),
        _ => match event.get("error")? {
            Value::Object(error) if !error.is_empty() => told_by(&event),
            Value::String(message) if !message.is_empty() => told_by(&event),
            _ => return None,
        },
    };
    Some(judged(status_of(&told), &told))
}

/// The status that an error would have had.
fn status_of(told: &Told) -> u16 {
    let number = told.code.as_deref().and_then(|code| code.parse().ok());
    match number {
        Some(status @ 400..=599) => status,
        _ if told.is_one_of(&WAIT_CODES) || told.is_one_of(&["rate_limit_error", "tokens", "requests"]) => {
            429
        }
        _ if told.is_one_of(&["authentication_error", "invalid_api_key"]) => 401,
        _ if told.is_one_of(&MISSING_CODES) => 404,
        _ if told.is_one_of(&["invalid_request_error", "BadRequestError", "BadRequest"]) => 400,
        _ if told.is_one_of(&FILTER_CODES) || told.is_too_long() || told.is_one_of(&UNSUPPORTED_CODES) => 400,
        _ => 500,
    }
}

/// The error body as the client shall get it: the upstream's own bytes where they have OpenAI's shape, else what they
/// say in that shape.
pub fn envelope(status: u16, body: &Bytes) -> Bytes {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let told = told_by(&value);
    if told.openai_shape {
        return body.clone();
    }
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let message = told.message.unwrap_or_else(|| without_words(status));
    // what else Azure says stays: which of its filters it was, for one
    let mut error = value.get("error").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    error.insert("message".to_owned(), message.into());
    error.insert("type".to_owned(), told.kind.map_or_else(|| kind.into(), Value::from));
    error.entry("param").or_insert(Value::Null);
    error.entry("code").or_insert_with(|| told.code.into());
    Bytes::from(json!({ "error": error }).to_string())
}

fn without_words(status: u16) -> String {
    format!("the upstream answered {status} without a message")
}

/// What an error body says to people, without anything that looks like a key; at most 300 characters.
pub fn message(status: u16, body: &[u8]) -> String {
    let message = told(body).message.unwrap_or_else(|| without_words(status));
    let words = message.split(' ').map(|word| if looks_secret(word) { "***" } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

/// What an error body says about a training file, a job or a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Such as `invalid_training_file`.
    pub code: Option<String>,
    /// Its words, without anything that looks like a key; at most 2,000 characters.
    pub message: String,
    /// The parameter that it names.
    pub param: Option<String>,
}

/// Reads an error body of either family.
pub fn said(status: u16, body: &[u8]) -> Said {
    let told = told(body);
    let message = told.message.unwrap_or_else(|| without_words(status));
    let words = message.split(' ').map(|word| if looks_like_a_key(word) { "***" } else { word });
    let message = words.collect::<Vec<_>>().join(" ").chars().take(2_000).collect();
    // Azure says nothing but the status's number in many of its codes
    let code = told.code.filter(|code| code.parse::<u16>().is_err());
    Said { code, message, param: told.param }
}

/// Whether a word is a key or a token. Ids of files, jobs and models are as long, but have a dash or a colon in them.
fn looks_like_a_key(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    word.contains("sk-")
        || word.contains("**")
        || bare.starts_with("eyJ")
        || (bare.len() >= 24 && bare.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Providers repeat the key they refuse, masked in their own way.
fn looks_secret(word: &str) -> bool {
    word.contains("sk-")
        || word.contains("**")
        || (word.len() >= 24 && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-*.+/=".contains(c)))
}

#[cfg(test)]
mod tests;
