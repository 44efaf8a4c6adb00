//! What is said to Entra's token services, and what they answer. Pure, but for the file of a federated token.
//!
//! Sources: Microsoft identity platform, "OAuth 2.0 client credentials flow" (shared secret and federated credential);
//! Azure Instance Metadata Service, "Acquire an access token" (2018-02-01).

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::domain::secret::Secret;

use super::CredentialError;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const METADATA: HeaderName = HeaderName::from_static("metadata");
const METADATA_VERSION: &str = "2018-02-01";
/// How long a token is taken to live whose service does not say.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(300);
/// No token lives longer; a larger number is a mistake that would overflow a clock.
const MAX_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

/// How a token is asked for.
pub(super) struct Grant {
    url: String,
    /// The service's host, for errors.
    pub(super) service: String,
    form: Option<Form>,
}

struct Form {
    client_id: String,
    scope: String,
    proof: Proof,
}

/// What shows that we are the application.
pub(super) enum Proof {
    Secret(Secret),
    /// Another issuer's token, read anew for each request: its owner renews it.
    AssertionFile(PathBuf),
}

/// One request for a token.
pub(super) struct TokenRequest {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// A token, and how long it lives from when it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Issue {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
}

impl Grant {
    /// An application that asks the authority of a directory.
    pub(super) fn exchange(
        authority: &str,
        tenant_id: &str,
        client_id: &str,
        scope: &str,
        proof: Proof,
    ) -> Self {
        let url = format!("{}/{tenant_id}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let form = Form { client_id: client_id.to_owned(), scope: scope.to_owned(), proof };
        Self { service: host_of(&url), url, form: Some(form) }
    }

    /// A machine that asks its metadata service.
    pub(super) fn managed_identity(endpoint: &str, client_id: Option<&str>, scope: &str) -> Self {
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        let mut query = Serializer::new(String::new());
        query.append_pair("api-version", METADATA_VERSION).append_pair("resource", resource);
        if let Some(client_id) = client_id {
            query.append_pair("client_id", client_id);
        }
        let url = format!("{endpoint}?{}", query.finish());
        Self { service: host_of(&url), url, form: None }
    }

    /// Writes the request.
    pub(super) async fn request(&self) -> Result<TokenRequest, CredentialError> {
        let Some(form) = &self.form else {
            return Ok(TokenRequest {
                method: Method::GET,
                url: self.url.clone(),
                headers: vec![(METADATA, HeaderValue::from_static("true"))],
                body: Zeroizing::default(),
            });
        };
        let body = form.encode().await?;
        let headers = vec![
            (header::CONTENT_TYPE, FORM),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ];
        Ok(TokenRequest { method: Method::POST, url: self.url.clone(), headers, body })
    }

    /// Reads the answer.
    pub(super) fn read(&self, status: u16, body: &[u8]) -> Result<Issue, CredentialError> {
        if status != 200 {
            return Err(CredentialError::Refused {
                service: self.service.clone(),
                status,
                code: code_of(body),
            });
        }
        issue_of(body).ok_or_else(|| CredentialError::NoToken { service: self.service.clone() })
    }
}

impl Form {
    async fn encode(&self) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let (kind, proof) = match &self.proof {
            Proof::Secret(secret) => (None, secret.clone()),
            Proof::AssertionFile(path) => {
                let failed =
                    |reason: String| CredentialError::File { path: path.display().to_string(), reason };
                let text =
                    tokio::fs::read_to_string(path).await.map_err(|error| failed(error.to_string()))?;
                let assertion = Secret::new(text.trim());
                if assertion.is_empty() {
                    return Err(failed("it is empty".to_owned()));
                }
                (Some(ASSERTION_TYPE), assertion)
            }
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.client_id)
            .append_pair("scope", &self.scope);
        match kind {
            None => form.append_pair("client_secret", proof.expose()),
            Some(kind) => form
                .append_pair("client_assertion_type", kind)
                .append_pair("client_assertion", proof.expose()),
        };
        Ok(Zeroizing::new(form.finish().into_bytes()))
    }
}

fn host_of(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "the token service".to_owned())
}

fn issue_of(body: &[u8]) -> Option<Issue> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        /// Seconds: a number from Entra, a text from the metadata service.
        expires_in: Option<Value>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = Secret::new(answer.access_token);
    let sound = !token.is_empty() && token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let seconds = match answer.expires_in {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(number) => number.as_u64(),
        None => None,
    };
    let lifetime = seconds.map_or(UNKNOWN_LIFETIME, Duration::from_secs).min(MAX_LIFETIME);
    sound.then_some(Issue { token, lifetime })
}

/// The codes of an error and nothing else: a description may repeat what was sent.
fn code_of(body: &[u8]) -> String {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Answer {
        error: Option<String>,
        error_codes: Vec<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let is_code =
        |text: &String| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let error = answer.error.filter(is_code);
    let numbers = answer.error_codes.into_iter().map(|number| format!("AADSTS{number}"));
    let codes: Vec<String> = error.into_iter().chain(numbers).collect();
    if codes.is_empty() { "(no code)".to_owned() } else { codes.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let grant = Grant::managed_identity("http://169.254.169.254/x", None, "s");
        let service = || "169.254.169.254".to_owned();
        let issue =
            |lifetime_s| Ok(Issue { token: Secret::new("t"), lifetime: Duration::from_secs(lifetime_s) });
        let no_token = || Err(CredentialError::NoToken { service: service() });
        let refused = |code: &str| {
            Err(CredentialError::Refused { service: service(), status: 401, code: code.to_owned() })
        };
        for (status, body, want) in [
            (200, r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#, issue(3_599)),
            (200, r#"{"access_token":"t","expires_in":"86399","expires_on":"1"}"#, issue(86_399)),
            (200, r#"{"access_token":"t"}"#, issue(300)),
            (200, r#"{"access_token":"t","expires_in":18446744073709551615}"#, issue(7 * 86_400)),
            (200, r#"{"access_token":"","expires_in":1}"#, no_token()),
            (200, r#"{"access_token":"a\nb","expires_in":1}"#, no_token()),
            (200, "<html>", no_token()),
            (
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: s3cret","error_codes":[7000215]}"#,
                refused("invalid_client AADSTS7000215"),
            ),
            (401, r#"{"error":"what you sent: s3cret"}"#, refused("(no code)")),
            (401, "", refused("(no code)")),
        ] {
            assert_eq!(grant.read(status, body.as_bytes()), want, "{body}");
        }
    }
}
