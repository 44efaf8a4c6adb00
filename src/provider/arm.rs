//! Deployments of Azure's resource manager: how it is asked, and what its answers mean.
//!
//! Source: Microsoft.CognitiveServices accounts/deployments, 2025-09-01, and azure-mgmt-cognitiveservices 14.1.0, read
//! in November 2026.

use std::sync::Arc;

use serde_json::{Value, json};

use super::segment;
use crate::domain::catalog::ArmAccount;

/// The version of every fine-tuned model.
const FINE_TUNE_VERSION: &str = "1";

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmState {
    /// It is being made or moved.
    Coming,
    /// It stands. The data plane may not know it for some minutes more.
    Stands,
    /// It is being taken away.
    Going,
    /// It was never there, or can't be asked.
    Broken,
}

impl ArmState {
    /// Reads `provisioningState`; a word that nobody knows is of one that is not ready yet.
    fn read(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Stands,
            "deleting" => Self::Going,
            "failed" | "canceled" | "disabled" => Self::Broken,
            _ => Self::Coming,
        }
    }
}

/// A deployment, as the resource manager tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmDeployment {
    /// Its name: what requests ask for.
    pub name: Arc<str>,
    /// The provider's name of its model.
    pub model: Arc<str>,
    /// Its model's version; `1` for a fine-tuned one.
    pub version: Option<Arc<str>>,
    /// What kind it is, such as `Standard` or `DeveloperTier`.
    pub sku: Option<Arc<str>>,
    /// Thousands of tokens a minute, or provisioned units.
    pub capacity: Option<u64>,
    /// How far it is.
    pub state: ArmState,
    /// Since when it is there, ms since 1970 UTC.
    pub created_at_ms: Option<i64>,
    /// Where what was begun is followed, where there is such an address.
    pub operation: Option<Arc<str>>,
    /// All of it, as it came.
    pub raw: Value,
}

/// One page of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmPage {
    /// What is on it.
    pub items: Vec<ArmDeployment>,
    /// The next page's whole address; none behind the last one.
    pub next: Option<String>,
}

/// What was begun, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmOperation {
    /// How far it is: [`ArmState::Stands`] when it has gone well.
    pub state: ArmState,
    /// The code of what went wrong.
    pub code: Option<String>,
    /// What went wrong, in its words.
    pub message: Option<String>,
}

/// Path and query of all deployments of an account, or of one.
pub fn path(account: &ArmAccount, name: Option<&str>) -> String {
    let base = format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.CognitiveServices/accounts/{}/deployments",
        segment(&account.subscription_id),
        segment(&account.resource_group),
        segment(&account.account)
    );
    let name = name.map(|name| format!("/{}", segment(name))).unwrap_or_default();
    format!("{base}{name}?api-version={}", segment(&account.api_version))
}

/// The body that makes a deployment of a fine-tuned model.
pub fn order(model: &str, sku: &str, capacity: u64) -> Value {
    json!({
        "sku": { "name": sku, "capacity": capacity },
        "properties": { "model": { "format": "OpenAI", "name": model, "version": FINE_TUNE_VERSION } },
    })
}

/// A deployment; none where it is none.
pub fn deployment(body: &[u8]) -> Option<ArmDeployment> {
    one(serde_json::from_slice(body).ok()?)
}

/// A page of the list. One that can't be read is none: what is not on the list counts as gone.
pub fn page(body: &[u8]) -> Option<ArmPage> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let Value::Array(items) = answer.get_mut("value")?.take() else { return None };
    let items: Option<Vec<ArmDeployment>> = items.into_iter().map(one).collect();
    let next = answer.get("nextLink").and_then(Value::as_str).filter(|next| !next.is_empty());
    Some(ArmPage { items: items?, next: next.map(str::to_owned) })
}

/// The state of what was begun.
pub fn operation(body: &[u8]) -> Option<ArmOperation> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let state = match answer.get("status")?.as_str()? {
        "InProgress" | "Running" => ArmState::Coming,
        word => ArmState::read(word),
    };
    let said = |member: &str| Some(answer.get("error")?.get(member)?.as_str()?.to_owned());
    Some(ArmOperation { state, code: said("code"), message: said("message") })
}

fn one(raw: Value) -> Option<ArmDeployment> {
    let properties = raw.get("properties")?;
    let model = properties.get("model")?;
    let text = |value: Option<&Value>| {
        value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(Arc::<str>::from)
    };
    let created = raw.get("systemData").and_then(|system| system.get("createdAt"));
    let created = created.and_then(Value::as_str).and_then(|moment| moment.parse::<jiff::Timestamp>().ok());
    let state = properties.get("provisioningState").and_then(Value::as_str).unwrap_or_default();
    Some(ArmDeployment {
        name: text(raw.get("name"))?,
        model: text(model.get("name"))?,
        version: text(model.get("version")),
        sku: text(raw.get("sku").and_then(|sku| sku.get("name"))),
        capacity: raw.get("sku").and_then(|sku| sku.get("capacity")).and_then(Value::as_u64),
        state: ArmState::read(state),
        created_at_ms: created.map(jiff::Timestamp::as_millisecond),
        operation: None,
        raw,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::catalog::Entra;

    const ANSWER: &str = r#"{
        "id": "/subscriptions/s/deployments/support-ft", "name": "support-ft",
        "type": "Microsoft.CognitiveServices/accounts/deployments",
        "sku": {"name": "DeveloperTier", "capacity": 1}, "etag": "\"x\"",
        "properties": {"provisioningState": "Creating",
            "model": {"format": "OpenAI", "name": "gpt-4.1-mini-2025-04-14.ft-b044", "version": "1"},
            "capabilities": {"chatCompletion": "true"}, "raiPolicyName": "Microsoft.Default"},
        "systemData": {"createdBy": "…", "createdByType": "User", "createdAt": "2026-01-01T00:00:00Z"}}"#;

    fn account() -> ArmAccount {
        ArmAccount {
            endpoint: "https://management.azure.com".into(),
            subscription_id: "s-1".into(),
            resource_group: "ml (eu)".into(),
            account: "acme".into(),
            api_version: "2025-09-01".into(),
            credential: Entra::TokenFile { path: "/x".into() },
            poll: Duration::from_secs(600),
        }
    }

    #[test]
    fn it_is_asked_by_path_and_body() {
        let base = "/subscriptions/s-1/resourceGroups/ml%20%28eu%29/providers/Microsoft.CognitiveServices/accounts/\
                    acme/deployments";
        assert_eq!(path(&account(), None), format!("{base}?api-version=2025-09-01"));
        assert_eq!(path(&account(), Some("a/b")), format!("{base}/a%2Fb?api-version=2025-09-01"));
        let body = order("gpt-4.1.ft-0a1b", "Standard", 50);
        assert_eq!(body["sku"], json!({"name": "Standard", "capacity": 50}));
        let model = json!({"format": "OpenAI", "name": "gpt-4.1.ft-0a1b", "version": "1"});
        assert_eq!(body["properties"]["model"], model);
    }

    #[test]
    fn a_deployment_is_read() {
        let found = deployment(ANSWER.as_bytes()).expect("a deployment");
        assert_eq!((&*found.name, &*found.model), ("support-ft", "gpt-4.1-mini-2025-04-14.ft-b044"));
        assert_eq!((found.sku.as_deref(), found.capacity), (Some("DeveloperTier"), Some(1)));
        assert_eq!((found.state, found.version.as_deref()), (ArmState::Coming, Some("1")));
        assert_eq!(found.created_at_ms, Some(1_767_225_600_000));
        let bare = br#"{"name":"d","properties":{"model":{"name":"gpt-4.1"}}}"#;
        let bare = deployment(bare).expect("a deployment");
        assert_eq!((bare.sku, bare.created_at_ms, bare.state), (None, None, ArmState::Coming));
        for none in ["", "[]", "{}", r#"{"name":"d"}"#, r#"{"name":"","properties":{"model":{"name":"m"}}}"#]
        {
            assert_eq!(deployment(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_list_is_whole_or_none() {
        let next = "https://management.azure.com/next?$skiptoken=x";
        let listed =
            page(format!(r#"{{"value":[{ANSWER}],"nextLink":"{next}"}}"#).as_bytes()).expect("a page");
        assert_eq!((listed.items.len(), listed.next.as_deref()), (1, Some(next)));
        let last = page(br#"{"value":[],"nextLink":null}"#).expect("a page");
        assert_eq!(last, ArmPage { items: Vec::new(), next: None });
        for none in ["", "{}", r#"{"value":{}}"#, r#"{"value":[{"name":"d"}]}"#] {
            assert_eq!(page(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn every_state_has_a_meaning() {
        for (word, want) in [
            ("Accepted", ArmState::Coming),
            ("Creating", ArmState::Coming),
            ("Moving", ArmState::Coming),
            ("Succeeded", ArmState::Stands),
            ("Deleting", ArmState::Going),
            ("Failed", ArmState::Broken),
            ("Canceled", ArmState::Broken),
            ("Disabled", ArmState::Broken),
            ("Hesitating", ArmState::Coming),
        ] {
            assert_eq!(ArmState::read(word), want, "{word}");
        }
        let failed = br#"{"status":"Failed","error":{"code":"InsufficientQuota","message":"no more"}}"#;
        let failed = operation(failed).expect("an operation");
        assert_eq!((failed.state, failed.code.as_deref()), (ArmState::Broken, Some("InsufficientQuota")));
        let running = operation(br#"{"status":"InProgress"}"#).expect("an operation");
        assert_eq!((running.state, running.message), (ArmState::Coming, None));
    }
}
