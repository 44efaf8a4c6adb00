//! Whose fault an upstream's error is.
//!
//! Source: the error tables of OpenAI (guide "Error codes", November 2026) and of Azure OpenAI (inference
//! 2024-10-21, v1): two families of bodies share one path there, OpenAI's and Microsoft's.

use bytes::Bytes;
use serde_json::{Value, json};

/// Whose fault an upstream's error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Our credential is refused: our trouble, never the client's key.
    Auth,
    /// The deployment or its path is not there: our trouble.
    DeploymentMissing,
    /// Money or quota of our account ran out: our trouble, and no retry helps.
    Quota,
    /// The client's request, or a passing state the client should hear of as it is.
    Told,
}

/// Codes that say an account can't pay, whatever the status says.
const QUOTA_CODES: [&str; 6] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
];

/// What of an error body decides, in either family.
struct Told {
    kind: Option<String>,
    code: Option<String>,
    message: Option<String>,
    openai_shape: bool,
}

fn told(body: &[u8]) -> Told {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    match value.get("error") {
        Some(Value::String(message)) => {
            Told { kind: None, code: None, message: Some(message.clone()), openai_shape: false }
        }
        Some(error) => Told {
            kind: text(error.get("type")),
            code: text(error.get("code")),
            message: text(error.get("message")),
            openai_shape: error.get("message").is_some_and(Value::is_string)
                && error.get("type").is_some_and(Value::is_string),
        },
        // an API front end: {"statusCode": 401, "message": "…"}
        None => Told {
            kind: None,
            code: text(value.get("statusCode")).or_else(|| text(value.get("code"))),
            message: text(value.get("message")),
            openai_shape: false,
        },
    }
}

/// Whose fault an answer of 400 or more is.
pub fn fault(status: u16, body: &[u8]) -> Fault {
    let told = told(body);
    let code = told.code.as_deref().unwrap_or_default();
    let quota = QUOTA_CODES.contains(&code) || told.kind.as_deref() == Some("insufficient_quota");
    match status {
        401 | 403 => Fault::Auth,
        402 => Fault::Quota,
        _ if quota => Fault::Quota,
        // 404 names a missing thing of the client's only where OpenAI's own envelope says which
        404 if told.openai_shape && !matches!(code, "model_not_found" | "DeploymentNotFound" | "404") => {
            Fault::Told
        }
        404 => Fault::DeploymentMissing,
        _ => Fault::Told,
    }
}

/// The error body as the client shall get it: the upstream's own bytes where they have OpenAI's shape, else what they
/// say in that shape.
pub fn envelope(status: u16, body: &Bytes) -> Bytes {
    let told = told(body);
    if told.openai_shape {
        return body.clone();
    }
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let message = told.message.unwrap_or_else(|| format!("the upstream answered {status} without a message"));
    let error = json!({"error": {"message": message, "type": kind, "param": null, "code": told.code}});
    Bytes::from(error.to_string())
}

/// What an error body says to people, without anything that looks like a key; at most 300 characters.
pub fn message(status: u16, body: &[u8]) -> String {
    let message =
        told(body).message.unwrap_or_else(|| format!("the upstream answered {status} without a message"));
    let words = message.split(' ').map(|word| if looks_secret(word) { "***" } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

/// Providers repeat the key they refuse, masked in their own way.
fn looks_secret(word: &str) -> bool {
    word.contains("sk-")
        || word.contains("**")
        || (word.len() >= 24 && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-*.+/=".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_on_whom_they_should() {
        let openai = |kind: &str, code: &str| {
            json!({"error": {"message": "m", "type": kind, "param": null, "code": code}}).to_string()
        };
        let microsoft = |code: &str| json!({"error": {"code": code, "message": "m"}}).to_string();
        let table = [
            (401, openai("invalid_request_error", "invalid_api_key"), Fault::Auth),
            (403, openai("invalid_request_error", "unsupported_country_region_territory"), Fault::Auth),
            (401, r#"{"statusCode":401,"message":"Access denied"}"#.to_owned(), Fault::Auth),
            (404, openai("invalid_request_error", "model_not_found"), Fault::DeploymentMissing),
            (404, microsoft("DeploymentNotFound"), Fault::DeploymentMissing),
            (404, microsoft("404"), Fault::DeploymentMissing),
            (404, "<html>".to_owned(), Fault::DeploymentMissing),
            (404, openai("invalid_request_error", "previous_response_not_found"), Fault::Told),
            (429, openai("insufficient_quota", "insufficient_quota"), Fault::Quota),
            (429, openai("insufficient_quota", "credit_balance_exhausted"), Fault::Quota),
            (429, openai("tokens", "rate_limit_exceeded"), Fault::Told),
            (429, microsoft("429"), Fault::Told),
            (402, String::new(), Fault::Quota),
            (400, openai("invalid_request_error", "context_length_exceeded"), Fault::Told),
            (400, microsoft("content_filter"), Fault::Told),
            (500, openai("server_error", ""), Fault::Told),
        ];
        for (status, body, want) in table {
            assert_eq!(fault(status, body.as_bytes()), want, "{status} {body}");
        }
    }

    #[test]
    fn an_upstreams_words_never_carry_a_key() {
        let body = json!({"error": {"message": "Incorrect API key provided: sk-proj-abc***xyz. See 0123456789abcdef01234567"}});
        assert_eq!(message(401, body.to_string().as_bytes()), "Incorrect API key provided: *** See ***");
    }

    #[test]
    fn the_client_always_gets_openais_envelope() {
        let own = Bytes::from(r#"{"error":{"message":"m","type":"x","param":null,"code":1},"extra":2}"#);
        assert_eq!(envelope(400, &own), own);
        for (status, body, message, code) in [
            (429, r#"{"error":{"code":"429","message":"wait"}}"#, "wait", json!("429")),
            (401, r#"{"statusCode":401,"message":"denied"}"#, "denied", json!("401")),
            (500, "<html>", "the upstream answered 500 without a message", Value::Null),
            (500, r#"{"error":"plain"}"#, "plain", Value::Null),
        ] {
            let out: Value = serde_json::from_slice(&envelope(status, &Bytes::from(body))).expect("JSON");
            assert_eq!(out["error"]["message"], message);
            assert_eq!(out["error"]["code"], code);
            assert!(out["error"]["type"].is_string());
        }
    }
}
