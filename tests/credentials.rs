//! Microsoft Entra ID: tokens are fetched, kept while they are good, and never shown.

use crate::support::tokens::TokenEndpoint;
use crate::support::{Setup, SimulatedProvider, TestGateway, chat};

const PATH: &str = "/v1/chat/completions";

fn setup(provider: &SimulatedProvider, entra: &str) -> Setup {
    Setup::bare()
        .and(&format!(
            "[providers.azure]\nkind = \"azure\"\nbase_url = \"{}\"\napi = \"v1\"\nentra = {{ {entra} }}\n\
             [deployments.support-eu]\nprovider = \"azure\"\nmodel = \"support-eu\"\n\
             base_model = \"gpt-4.1-mini-2025-04-14\"\n[models.support-bot]\ndeployments = [\"support-eu\"]\n",
            provider.url()
        ))
        .watched(provider)
}

fn client_secret(endpoint: &TokenEndpoint) -> String {
    format!(
        "kind = \"client_secret\", tenant_id = \"tenant-1\", client_id = \"client-1\", \
         client_secret = {{ file = \"secret\" }}, authority = \"{}\"",
        endpoint.url()
    )
}

#[test]
fn a_client_secret_is_exchanged_once_for_many_requests() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    provider.knows_only(&["entra-token-1"]);
    let setup = setup(&provider, &client_secret(&endpoint)).file("secret", "s3cret+/=\n");
    let gateway = TestGateway::with(setup).start();
    for _ in 0..3 {
        gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    }
    let seen = provider.last_request();
    assert_eq!(seen.header("authorization"), Some("Bearer entra-token-1"));
    assert_eq!(seen.header("api-key"), None);
    let calls = endpoint.calls();
    assert_eq!(calls.len(), 1, "a token is kept while it is good");
    assert_eq!(calls[0].path(), "/tenant-1/oauth2/v2.0/token");
    let form = String::from_utf8_lossy(&calls[0].body).into_owned();
    assert!(form.contains("client_secret=s3cret%2B%2F%3D") && !form.contains("%0A"), "{form}");
    assert!(form.contains("scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"), "{form}");
    for secret in ["s3cret", "entra-token-1"] {
        assert!(!gateway.log().contains(secret), "a secret is in the log");
    }
}

#[test]
fn many_requests_at_once_fetch_one_token() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    provider.knows_only(&["entra-token-1"]);
    let gateway =
        TestGateway::with(setup(&provider, &client_secret(&endpoint)).file("secret", "s3cret")).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| gateway.post(PATH, &chat("support-bot", "hi")).expect(200));
        }
    });
    assert_eq!(endpoint.calls().len(), 1);
}

#[test]
fn a_token_that_ran_out_is_fetched_anew() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    endpoint.expires_in(0);
    provider.knows_only(&["entra-token-1", "entra-token-2", "entra-token-3", "entra-token-4"]);
    let gateway =
        TestGateway::with(setup(&provider, &client_secret(&endpoint)).file("secret", "s3cret")).start();
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    assert!(endpoint.calls().len() >= 2, "an expired token was used again");
}

#[test]
fn a_token_endpoint_that_fails_is_told_as_ours_and_tried_again() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    endpoint.fails(1);
    provider.knows_only(&["entra-token-2"]);
    let gateway =
        TestGateway::with(setup(&provider, &client_secret(&endpoint)).file("secret", "s3cret")).start();
    let answer = gateway.post(PATH, &chat("support-bot", "hi"));
    answer.expect_error(502, "upstream_auth_failed");
    assert!(!answer.text().contains("s3cret"));
    crate::support::eventually("a token after the failure", || {
        (gateway.post(PATH, &chat("support-bot", "hi")).status == 200).then_some(())
    });
}

#[test]
fn workload_identity_shows_the_files_newest_token() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    endpoint.expires_in(0);
    provider.knows_only(&["entra-token-1", "entra-token-2", "entra-token-3", "entra-token-4"]);
    let entra = format!(
        "kind = \"federated_token_file\", tenant_id = \"tenant-1\", client_id = \"client-1\", \
         token_file = \"projected\", authority = \"{}\"",
        endpoint.url()
    );
    let gateway = TestGateway::with(setup(&provider, &entra).file("projected", "first.jwt")).start();
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    std::fs::write(gateway.folder().join("projected"), "second.jwt").expect("the file is rewritten");
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    let forms: Vec<String> =
        endpoint.calls().iter().map(|call| String::from_utf8_lossy(&call.body).into_owned()).collect();
    assert!(forms.first().is_some_and(|form| form.contains("client_assertion=first.jwt")), "{forms:?}");
    assert!(forms.last().is_some_and(|form| form.contains("client_assertion=second.jwt")), "{forms:?}");
    let kind = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    assert!(forms[0].contains(kind), "{forms:?}");
}

#[test]
fn a_managed_identity_asks_the_metadata_service() {
    let (provider, endpoint) = (SimulatedProvider::start(), TokenEndpoint::start());
    provider.knows_only(&["entra-token-1"]);
    let entra = format!(
        "kind = \"managed_identity\", client_id = \"client-1\", endpoint = \"{}\"",
        endpoint.metadata_url()
    );
    let gateway = TestGateway::with(setup(&provider, &entra)).start();
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    let calls = endpoint.calls();
    let call = &calls[0];
    assert_eq!((call.method.as_str(), call.header("metadata")), ("GET", Some("true")));
    assert_eq!(call.query("client_id"), Some("client-1"));
    assert!(call.query("api-version").is_some(), "{}", call.target);
    let resource = call.query("resource").unwrap_or_default();
    assert!(resource.contains("cognitiveservices.azure.com") && !resource.contains(".default"), "{resource}");
}

#[test]
fn a_token_file_is_read_again_when_it_changes() {
    let provider = SimulatedProvider::start();
    provider.knows_only(&["token-a"]);
    let entra = "kind = \"token_file\", path = \"token\"";
    let gateway = TestGateway::with(setup(&provider, entra).file("token", "token-a\n")).start();
    gateway.post(PATH, &chat("support-bot", "hi")).expect(200);
    provider.knows_only(&["token-of-another-length"]);
    std::fs::write(gateway.folder().join("token"), "token-of-another-length\n")
        .expect("the file is rewritten");
    crate::support::eventually("the new token at the provider", || {
        (gateway.post(PATH, &chat("support-bot", "hi")).status == 200).then_some(())
    });
}
