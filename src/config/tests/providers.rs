//! Providers, their credentials, and certificates.

use crate::domain::catalog::{Credential, Entra};

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
