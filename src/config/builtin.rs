//! What is there without being written: the local worker's entries, and the providers that the usual environment
//! variables of OpenAI's and Azure's clients describe. They are put into the file's own shape and checked like it.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::domain::catalog::Address;
use crate::domain::endpoint::Endpoint;
use crate::domain::key::KEY_PREFIX;
use crate::domain::price::read::alone;
use crate::upstream::worker;

use super::address::{BaseUrl, UNIX_SCHEME, is_local};
use super::file::{AzureApi, Deployment, File, Model, Provider, ProviderKind, SecretSource};
use super::prices;
use super::problem::{Checker, Place};

/// The provider of the worker we start ourselves.
const LOCAL_PROVIDER: &str = "local";
const OPENAI_DEPLOYMENT: &str = "openai-any";
const AZURE_DEPLOYMENT: &str = "azure-any";

/// Adds the worker's provider, and a deployment and its names for each of its models. A name that the file already
/// uses is a contradiction.
pub(super) fn add_worker(file: &mut File, worker: &worker::Config, checker: &mut Checker<'_>) {
    if file.providers.contains_key(LOCAL_PROVIDER) {
        taken("providers", LOCAL_PROVIDER, checker);
    }
    let base_url = Some(format!("{UNIX_SCHEME}{}", worker.socket.display()));
    let provider = Provider { kind: Some(ProviderKind::Candle), base_url, ..Provider::default() };
    file.providers.entry(LOCAL_PROVIDER.to_owned()).or_insert(provider);
    let is_presumed = file.worker.price.is_none();
    let price = Some(worker_price(file, checker));
    let provider = Some(LOCAL_PROVIDER.to_owned());
    let deployment = Deployment { provider, price, is_presumed, ..Deployment::default() };
    if let Some(embedding) = &worker.embedding {
        let endpoints = Some(vec![Endpoint::Embeddings.name().to_owned()]);
        add_local(file, &embedding.name, Deployment { endpoints, ..deployment.clone() }, checker);
    }
    add_local(file, &worker.name, deployment, checker);
}

/// Adds a model of the worker's: `name` and `local/name`.
fn add_local(file: &mut File, name: &str, deployment: Deployment, checker: &mut Checker<'_>) {
    let models = [name.to_owned(), format!("{LOCAL_PROVIDER}/{name}")];
    if file.deployments.contains_key(name) {
        taken("deployments", name, checker);
    }
    for model in models.iter().filter(|model| file.models.contains_key(*model)) {
        taken("models", model, checker);
    }
    let deployment = Deployment { model: Some(name.to_owned()), ..deployment };
    file.deployments.entry(name.to_owned()).or_insert(deployment);
    for model in models {
        add_model(file, &model, name);
    }
}

fn taken(section: &str, key: &str, checker: &mut Checker<'_>) {
    let place = Place::top(section).key(key);
    checker.wrong(&place, "taken by the local worker: rename it, or set worker.enabled = false");
}

/// What the operator says the worker's tokens cost; nothing unless said otherwise, here or by `tunegate prices set`.
fn worker_price(file: &File, checker: &mut Checker<'_>) -> Value {
    let nothing = json!({"input_per_1m_usd": "0", "output_per_1m_usd": "0", "source": "our own machine"});
    let Some(written) = &file.worker.price else { return nothing };
    let Err(problems) = alone(written) else { return written.clone() };
    for problem in problems {
        checker.wrong(&Place::top("worker").key("price"), prices::line(&problem));
    }
    nothing
}

/// Adds OpenAI and Azure OpenAI as the environment describes them. Where the file says something, the file wins.
///
/// `listen` is our own data address: an `OPENAI_BASE_URL` that leads there was set for our clients.
pub(super) fn add_from_environment(file: &mut File, listen: SocketAddr, checker: &mut Checker<'_>) {
    let set = |name: &str| checker.environment.get(name).filter(|value| !value.trim().is_empty());
    let azure = set("AZURE_OPENAI_API_KEY");
    let (endpoint, api_version) = (set("AZURE_OPENAI_ENDPOINT"), set("OPENAI_API_VERSION"));
    let openai = set("OPENAI_API_KEY").and_then(|key| openai(&key, listen, checker));
    let openai_is_there = openai.is_some();
    if let Some(provider) = openai {
        add_any(file, "openai", OPENAI_DEPLOYMENT, provider);
        add_model(file, "openai/*", OPENAI_DEPLOYMENT);
        add_model(file, "*", OPENAI_DEPLOYMENT);
    }
    if let (Some(endpoint), Some(_)) = (endpoint, azure) {
        if let Err(reason) = BaseUrl::parse_azure(&endpoint) {
            checker.wrong(&Place::top("AZURE_OPENAI_ENDPOINT"), reason);
            return;
        }
        let provider = Provider {
            kind: Some(ProviderKind::Azure),
            base_url: Some(endpoint),
            api: Some(if api_version.is_some() { AzureApi::Classic } else { AzureApi::V1 }),
            api_version,
            api_key: Some(SecretSource { env: Some("AZURE_OPENAI_API_KEY".to_owned()), file: None }),
            ..Provider::default()
        };
        add_any(file, "azure", AZURE_DEPLOYMENT, provider);
        add_model(file, "azure/*", AZURE_DEPLOYMENT);
        if !openai_is_there {
            add_model(file, "*", AZURE_DEPLOYMENT);
        }
    }
}

/// OpenAI as the environment describes it; none when the key there is one of ours, set for our clients: OpenAI must not
/// see it.
fn openai(key: &str, listen: SocketAddr, checker: &mut Checker<'_>) -> Option<Provider> {
    let base_url = openai_base_url(listen, checker);
    if base_url.is_none() && key.trim().starts_with(KEY_PREFIX) {
        checker.notice(&Place::top("OPENAI_API_KEY"), "is a key of tunegate's own: OpenAI is not asked");
        return None;
    }
    Some(Provider {
        kind: Some(ProviderKind::Openai),
        base_url,
        api_key: Some(SecretSource { env: Some("OPENAI_API_KEY".to_owned()), file: None }),
        ..Provider::default()
    })
}

fn add_any(file: &mut File, provider_name: &str, deployment_name: &str, provider: Provider) {
    file.providers.entry(provider_name.to_owned()).or_insert(provider);
    let deployment = Deployment {
        provider: Some(provider_name.to_owned()),
        model: Some("*".to_owned()),
        ..Deployment::default()
    };
    file.deployments.entry(deployment_name.to_owned()).or_insert(deployment);
}

fn add_model(file: &mut File, name: &str, deployment: &str) {
    let model = || Model { deployments: Some(vec![deployment.to_owned()]), ..Model::default() };
    file.models.entry(name.to_owned()).or_insert_with(model);
}

fn openai_base_url(listen: SocketAddr, checker: &mut Checker<'_>) -> Option<String> {
    let place = Place::top("OPENAI_BASE_URL");
    let text = checker.environment.get("OPENAI_BASE_URL").filter(|value| !value.trim().is_empty())?;
    match BaseUrl::parse(&text) {
        Ok(base) if leads_to(&base.address, listen) => {
            checker.notice(&place, "leads to tunegate itself: OpenAI is asked at its usual address");
            None
        }
        Ok(_) => Some(text),
        Err(reason) => {
            checker.wrong(&place, reason);
            None
        }
    }
}

fn leads_to(address: &Address, listen: SocketAddr) -> bool {
    let Address::Host { host, port, .. } = address else { return false };
    let same_host = host.parse::<IpAddr>().is_ok_and(|ip| ip == listen.ip());
    let local_to_local = is_local(host) && (listen.ip().is_loopback() || listen.ip().is_unspecified());
    *port == listen.port() && (same_host || local_to_local)
}
