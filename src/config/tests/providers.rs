//! Providers, their credentials, and certificates.

use crate::domain::catalog::{Credential, Entra, Training, TrainingType};

use super::*;

#[test]
fn entra_of_each_kind() {
    let entra = |inner: &str| {
        let text = format!(
            "{NO_WORKER}[providers.a]\nkind = \"azure\"\nbase_url = \"https://r.openai.azure.com\"\nentra = {{ {inner} }}"
        );
        match &good(&text, &[("S", "s3cret")]).catalog.providers["a"].credential {
            Credential::Entra(entra) => entra.clone(),
            other => panic!("{other:?}"),
        }
    };
    let Entra::ClientSecret { authority, scope, client_secret, .. } = entra(
        "kind = \"client_secret\", tenant_id = \"t\", client_id = \"c\", client_secret = { env = \"S\" }",
    ) else {
        panic!("a client secret")
    };
    assert_eq!(authority, "https://login.microsoftonline.com");
    assert_eq!(scope, "https://cognitiveservices.azure.com/.default");
    assert_eq!(client_secret.expose(), "s3cret");
    assert!(matches!(
        entra("kind = \"federated_token_file\", tenant_id = \"t\", client_id = \"c\", token_file = \"/x\""),
        Entra::FederatedTokenFile { .. }
    ));
    assert!(matches!(entra("kind = \"managed_identity\""), Entra::ManagedIdentity { client_id: None, .. }));
    assert!(matches!(entra("kind = \"token_file\", path = \"/x\""), Entra::TokenFile { .. }));
}

#[test]
fn certificates_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, label: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n")).expect("written");
        path.display().to_string()
    };
    let (cert, key) = (write("tls.crt", "CERTIFICATE"), write("tls.key", "EC PRIVATE KEY"));
    let config = good(&format!("[server]\ntls = {{ cert_file = {cert:?}, key_file = {key:?} }}"), &[]);
    assert_eq!(config.http.tls.expect("both").cert_file.display().to_string(), cert);
    let error = load_text(
        &format!("[server]\ntls = {{ cert_file = {key:?}, key_file = {cert:?} }}"),
        &Variables::new(),
    );
    assert_eq!(error.expect_err("swapped").problems.len(), 2);
}

fn training(provider: &str) -> Training {
    let config = good(&format!("{NO_WORKER}[providers.a]\n{provider}"), &[("K", "k")]);
    config.catalog.providers["a"].training.clone().expect("it trains")
}

#[test]
fn what_a_provider_trains_has_defaults_by_its_kind() {
    let openai = training("kind = \"openai\"\napi_key.env = \"K\"");
    let models: Vec<&str> = openai.models.iter().map(|name| &**name).collect();
    assert_eq!(models, ["gpt-*", "o4-*", "babbage-002", "davinci-002", "ft:*"]);
    assert_eq!((openai.resource, openai.arm), (None, None));
    let azure =
        training("kind = \"azure\"\napi_key.env = \"K\"\nbase_url = \"https://acme-eu.openai.azure.com\"");
    assert_eq!(azure, Training { resource: Some("acme-eu".into()), ..Training::default() });
    assert_eq!(training("kind = \"candle\"\nbase_url = \"unix:/x\""), Training::default());
    let none = training("kind = \"openai\"\napi_key.env = \"K\"\ntraining.models = []");
    assert!(none.models.is_empty());
}

#[test]
fn the_resource_manager_has_a_token_of_its_own() {
    const AZURE: &str = "kind = \"azure\"\nbase_url = \"https://r.openai.azure.com\"\n";
    const ACCOUNT: &str = "subscription_id = \"s\", resource_group = \"g\", account = \"r\"";
    let own = training(&format!(
        "{AZURE}api_key.env = \"K\"\ntraining = {{ resource = \"x\", training_type = \"developertier\", \
         arm = {{ {ACCOUNT}, entra = {{ kind = \"managed_identity\" }} }} }}"
    ));
    assert_eq!(own.training_type, Some(TrainingType::DeveloperTier));
    assert_eq!(own.resource.as_deref(), Some("x"));
    let arm = own.arm.expect("an account");
    assert_eq!(
        (&*arm.endpoint, &*arm.api_version, arm.poll),
        ("https://management.azure.com", "2025-09-01", Duration::from_secs(600))
    );
    let Entra::ManagedIdentity { scope, .. } = arm.credential else { panic!("its own") };
    assert_eq!(scope, "https://management.azure.com/.default");

    let shared = training(&format!(
        "{AZURE}entra = {{ kind = \"client_secret\", tenant_id = \"t\", client_id = \"c\", \
         client_secret = {{ env = \"K\" }}, scope = \"https://ai.azure.com/.default\" }}\n\
         training.arm = {{ {ACCOUNT}, endpoint = \"https://management.example/\", api_version = \"2024-10-01\" }}"
    ));
    let arm = shared.arm.expect("an account");
    assert_eq!((&*arm.endpoint, &*arm.api_version), ("https://management.example", "2024-10-01"));
    let Entra::ClientSecret { scope, .. } = arm.credential else { panic!("the provider's") };
    assert_eq!(scope, "https://management.azure.com/.default");
}

#[test]
fn an_account_is_read_by_one_provider() {
    let provider = |name: &str, group: &str| {
        format!(
            "[providers.{name}]\nkind = \"azure\"\nbase_url = \"https://{name}.openai.azure.com\"\napi_key.env = \"K\"\n\
             training.arm = {{ subscription_id = \"s\", resource_group = \"{group}\", account = \"r\", \
             entra = {{ kind = \"managed_identity\" }} }}\n"
        )
    };
    for (group, is_same) in [("Tuning", true), ("other", false)] {
        let text = format!("{NO_WORKER}{}{}", provider("a", "tuning"), provider("b", group));
        let told = load_text(&text, &variables(&[("K", "k")])).err().map(|error| error.to_string());
        let wanted = "providers.b.training.arm: providers.a reads the same account";
        assert_eq!(told.is_some(), is_same, "{group}: {told:?}");
        assert!(told.is_none_or(|told| told.contains(wanted)), "{group}");
    }
}
