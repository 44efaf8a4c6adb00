//! `[providers.NAME]`: a dialect, where it listens, and how it knows us.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::catalog::{
    Address, AzureClassic, AzureV1, Credential, Dialect, OnClientGone, OpenAi, Provider, Timeouts,
};

use crate::domain::key::KEY_PREFIX;

use super::address::BaseUrl;
use super::credentials;
use super::file::{self, AzureApi, ProviderKind};
use super::problem::{Checker, Place};
use super::training;
use super::values::{NAME_RULE, duration, duration_up_to, header_text, name_is_good, readable_pem};

const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
/// Longest time a stream is read on for its usage, ms: ten minutes.
const MAX_DRAIN_MS: u64 = 600_000;
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// A provider, and what its deployments take from it unless they say otherwise.
pub(super) struct Served {
    pub(super) provider: Arc<Provider>,
    pub(super) manners: Manners,
}

/// How an exchange with a deployment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    pub(super) timeouts: Timeouts,
    pub(super) on_client_gone: OnClientGone,
    pub(super) drain: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), on_client_gone: OnClientGone::Abort, drain: DEFAULT_DRAIN }
    }
}

impl Manners {
    /// Lays the keys that are set at a place over these.
    pub(super) fn overlaid(
        self,
        place: &Place,
        timeouts: &file::Timeouts,
        on_client_gone: Option<OnClientGone>,
        drain_ms: Option<u64>,
        checker: &mut Checker<'_>,
    ) -> Self {
        let drain = duration_up_to(&place.key("drain_ms"), drain_ms, self.drain, MAX_DRAIN_MS, checker);
        let place = place.key("timeouts");
        let mut time =
            |key: &str, ms: Option<u64>, default: Duration| duration(&place.key(key), ms, default, checker);
        let merged = Timeouts {
            connect: time("connect_ms", timeouts.connect_ms, self.timeouts.connect),
            first_byte: time("first_byte_ms", timeouts.first_byte_ms, self.timeouts.first_byte),
            between_chunks: time(
                "between_chunks_ms",
                timeouts.between_chunks_ms,
                self.timeouts.between_chunks,
            ),
            total: time("total_ms", timeouts.total_ms, self.timeouts.total),
        };
        if merged.connect > merged.total && *timeouts != file::Timeouts::default() {
            checker.wrong(
                &place.key("connect_ms"),
                format!(
                    "{} ms is longer than total_ms, {}",
                    merged.connect.as_millis(),
                    merged.total.as_millis()
                ),
            );
        }
        Self { timeouts: merged, on_client_gone: on_client_gone.unwrap_or(self.on_client_gone), drain }
    }
}

/// Checks all providers. What is missing from the answer has been complained about.
pub(super) fn check(
    providers: &BTreeMap<String, file::Provider>,
    checker: &mut Checker<'_>,
) -> BTreeMap<Arc<str>, Served> {
    let mut served = BTreeMap::new();
    for (name, written) in providers {
        let place = Place::top("providers").key(name);
        if !name_is_good(name) {
            checker.wrong(&place, NAME_RULE);
        }
        let manners = Manners::default().overlaid(
            &place,
            &written.timeouts,
            written.on_client_gone,
            written.drain_ms,
            checker,
        );
        if let Some(provider) = provider(&place, name, written, checker) {
            let provider = Arc::new(provider);
            served.insert(Arc::clone(&provider.name), Served { provider, manners });
        }
    }
    check_accounts(&served, checker);
    served
}

/// Notes who reads the list of an account that another provider reads: its hours would be charged twice.
fn check_accounts(served: &BTreeMap<Arc<str>, Served>, checker: &mut Checker<'_>) {
    let mut read = BTreeMap::new();
    for (name, Served { provider, .. }) in served {
        let Some(arm) = provider.training.as_ref().and_then(|training| training.arm.as_ref()) else {
            continue;
        };
        // Azure takes the case of letters for the same
        let account =
            [&arm.subscription_id, &arm.resource_group, &arm.account].map(|part| part.to_ascii_lowercase());
        if let Some(other) = read.insert(account, name) {
            let place = Place::top("providers").key(name).key("training").key("arm");
            checker.wrong(
                &place,
                format!(
                    "providers.{other} reads the same account: what stands there would be charged twice; keep one of them"
                ),
            );
        }
    }
}

fn provider(
    place: &Place,
    name: &str,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<Provider> {
    let Some(kind) = written.kind else {
        checker.wrong(&place.key("kind"), "missing: write openai, azure or candle");
        return None;
    };
    check_fits(place, kind, written, checker);
    let dialect = dialect(place, kind, written, checker);
    let base = base_url(place, kind, written, checker);
    let credential = credentials::check(place, kind, written, checker);
    let host = base.as_ref().map(|base| base.authority.clone()).unwrap_or_default();
    let training = training::check(place, kind, &host, written, checker);
    let base = base?;
    if let Some(ca_file) = &written.ca_file {
        readable_pem(&place.key("ca_file"), ca_file, "CERTIFICATE", checker);
        if !matches!(base.address, Address::Host { tls: true, .. }) {
            checker.wrong(&place.key("ca_file"), "base_url is not https: there is no certificate to check");
        }
    }
    let credential = credential?;
    if credential != Credential::None && base.crosses_a_network_in_clear() {
        checker.notice(
            &place.key("base_url"),
            "the key travels in clear text: use https where others share the network",
        );
    }
    if let Credential::ApiKey(key) = &credential
        && base.authority == "api.openai.com"
        && key.expose().starts_with(KEY_PREFIX)
    {
        checker.wrong(
            &place.key("api_key"),
            "a key of tunegate's own, which OpenAI does not know and must not see",
        );
    }
    if credential == Credential::None && base.authority == "api.openai.com" {
        checker.notice(
            &place.key("api_key"),
            "not set, but OpenAI will want one: write { env = \"OPENAI_API_KEY\" }",
        );
    }
    Some(Provider {
        name: name.into(),
        dialect: dialect?,
        address: base.address,
        base_path: base.base_path,
        authority: base.authority,
        credential,
        ca_file: written.ca_file.clone(),
        http2: written.http2.unwrap_or(true),
        training: Some(training?),
    })
}

/// Notes the keys that mean nothing for a kind.
fn check_fits(place: &Place, kind: ProviderKind, written: &file::Provider, checker: &mut Checker<'_>) {
    let keys = [
        ("organization", written.organization.is_some(), ProviderKind::Openai),
        ("project", written.project.is_some(), ProviderKind::Openai),
        ("api", written.api.is_some(), ProviderKind::Azure),
        ("api_version", written.api_version.is_some(), ProviderKind::Azure),
        ("entra", written.entra.is_some(), ProviderKind::Azure),
    ];
    for (key, _, fits) in keys.into_iter().filter(|(_, set, fits)| *set && *fits != kind) {
        let only = if fits == ProviderKind::Azure { "azure" } else { "openai" };
        checker.wrong(&place.key(key), format!("only for kind = {only:?}: take it out or correct the kind"));
    }
}

fn dialect(
    place: &Place,
    kind: ProviderKind,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<Dialect> {
    let mut text = |key: &str, value: &Option<String>| header_text(&place.key(key), value.as_ref(), checker);
    match kind {
        ProviderKind::Candle => Some(Dialect::Candle),
        ProviderKind::Openai => Some(Dialect::OpenAi(OpenAi {
            organization: text("organization", &written.organization),
            project: text("project", &written.project),
        })),
        ProviderKind::Azure => {
            let api_version = text("api_version", &written.api_version);
            match (written.api.unwrap_or(AzureApi::V1), api_version) {
                (AzureApi::V1, api_version) => Some(Dialect::AzureV1(AzureV1 { api_version })),
                (AzureApi::Classic, Some(api_version)) => {
                    Some(Dialect::AzureClassic(AzureClassic { api_version }))
                }
                (AzureApi::Classic, None) => {
                    checker.wrong(
                        &place.key("api_version"),
                        "missing: the classic API needs one, such as \"2024-10-21\"",
                    );
                    None
                }
            }
        }
    }
}

fn base_url(
    place: &Place,
    kind: ProviderKind,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<BaseUrl> {
    let place = place.key("base_url");
    let parsed = match (kind, written.base_url.as_deref()) {
        (ProviderKind::Openai, text) => BaseUrl::parse(text.unwrap_or(OPENAI_BASE_URL)),
        (ProviderKind::Azure, Some(text)) => BaseUrl::parse_azure(text),
        (ProviderKind::Candle, Some(text)) => BaseUrl::parse_candle(text),
        (ProviderKind::Azure, None) => Err("missing: write \"https://RESOURCE.openai.azure.com\"".to_owned()),
        (ProviderKind::Candle, None) => {
            Err("missing: write \"http://HOST:PORT/v1\" or \"unix:PATH\"".to_owned())
        }
    };
    parsed.map_err(|reason| checker.wrong(&place, reason)).ok()
}
