//! `[providers.NAME.training]`: what a provider trains, and who deploys that at Azure.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::catalog::{Address, ArmAccount, Training, TrainingType};

use super::address::{BaseUrl, is_local};
use super::credentials;
use super::file::{self, ProviderKind};
use super::problem::{Checker, Place};
use super::values::{header_text, in_range, known, required};

/// What leads to OpenAI without a provider's name in front.
const OPENAI_MODELS: [&str; 5] = ["gpt-*", "o4-*", "babbage-002", "davinci-002", "ft:*"];
/// The resource manager of Azure's public cloud.
const ARM_ENDPOINT: &str = "https://management.azure.com";
/// The version that its deployments are asked with.
const ARM_API_VERSION: &str = "2025-09-01";
/// How often its list of deployments is read: ten minutes.
const ARM_POLL_MS: u64 = 600_000;
/// Shortest and longest time between two readings, ms: a deployment that is gone goes on being charged for so long.
const ARM_POLL_BOUNDS: std::ops::RangeInclusive<u64> = 50..=3_600_000;
/// No machine trains faster.
const MAX_TOKENS_PER_SECOND: u64 = 100_000_000;
/// Longest name of a model or a pattern of names, bytes.
const MAX_NAME_BYTES: usize = 256;

/// Checks `training`; none when it is wrong. `host` names an Azure resource that has no other name.
pub(super) fn check(
    provider: &Place,
    kind: ProviderKind,
    host: &str,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<Training> {
    let place = provider.key("training");
    let training = &written.training;
    check_fits(&place, kind, training, checker);
    let models = models(&place, kind, training, checker);
    let training_type = training_type(&place, training, checker);
    let resource = resource(&place, host, training, checker).filter(|_| kind == ProviderKind::Azure);
    let tokens_per_second = training.tokens_per_second.map(|tokens| {
        let place = place.key("tokens_per_second");
        in_range(&place, Some(tokens), tokens, 1..=MAX_TOKENS_PER_SECOND, checker)
    });
    let arm = match &training.arm {
        Some(arm) => Some(self::arm(&place.key("arm"), provider, arm, written, checker)?),
        None => None,
    };
    Some(Training { models, resource, training_type, tokens_per_second, arm })
}

/// Notes the keys that mean nothing for a kind.
fn check_fits(place: &Place, kind: ProviderKind, training: &file::Training, checker: &mut Checker<'_>) {
    let keys = [
        ("resource", training.resource.is_some(), ProviderKind::Azure),
        ("training_type", training.training_type.is_some(), ProviderKind::Azure),
        ("arm", training.arm.is_some(), ProviderKind::Azure),
        ("tokens_per_second", training.tokens_per_second.is_some(), ProviderKind::Candle),
    ];
    for (key, _, fits) in keys.into_iter().filter(|(_, set, fits)| *set && *fits != kind) {
        let only = if fits == ProviderKind::Azure { "azure" } else { "candle" };
        checker.wrong(&place.key(key), format!("only for kind = {only:?}: take it out or correct the kind"));
    }
}

fn models(
    place: &Place,
    kind: ProviderKind,
    training: &file::Training,
    checker: &mut Checker<'_>,
) -> Vec<Arc<str>> {
    let Some(written) = &training.models else {
        return match kind {
            ProviderKind::Openai => OPENAI_MODELS.map(Arc::from).into(),
            ProviderKind::Azure | ProviderKind::Candle => Vec::new(),
        };
    };
    let place = place.key("models");
    let mut models: Vec<Arc<str>> = Vec::new();
    for (index, name) in written.iter().enumerate() {
        let place = place.index(index);
        let star_inside = name.strip_suffix('*').unwrap_or(name).contains('*');
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            checker.wrong(&place, "the name of a base model stands here, such as \"gpt-4.1-mini\"");
        } else if star_inside {
            checker.wrong(&place, "a pattern has one `*`, at its end");
        } else if models.iter().any(|known| **known == **name) {
            checker.wrong(&place, format!("{name} is listed twice"));
        } else {
            models.push(name.as_str().into());
        }
    }
    models
}

fn training_type(
    place: &Place,
    training: &file::Training,
    checker: &mut Checker<'_>,
) -> Option<TrainingType> {
    let written = training.training_type.as_deref()?;
    let found = TrainingType::ALL.into_iter().find(|one| one.name().eq_ignore_ascii_case(written.trim()));
    if found.is_none() {
        let all = known(TrainingType::ALL.iter().map(|one| one.name()));
        checker.wrong(&place.key("training_type"), format!("{written:?} is no type of training: {all}"));
    }
    found
}

/// What stands in `azure/RESOURCE/MODEL`: the first label of the host, unless it is said.
fn resource(
    place: &Place,
    host: &str,
    training: &file::Training,
    checker: &mut Checker<'_>,
) -> Option<Arc<str>> {
    let place = place.key("resource");
    let Some(written) = training.resource.as_deref().map(str::trim) else {
        let first = host.split(['.', ':']).next().unwrap_or_default();
        return (!first.is_empty()).then(|| first.into());
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=64).contains(&written.len()) || !written.bytes().all(fits) {
        checker.wrong(&place, "the resource's name has 1 to 64 of A-Z a-z 0-9 . _ -");
        return None;
    }
    Some(written.into())
}

fn arm(
    place: &Place,
    provider: &Place,
    arm: &file::Arm,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<ArmAccount> {
    let mut name = |key: &str, value: &Option<String>, what: &str| {
        let text = required(&place.key(key), value.as_ref(), what, checker)?;
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'(' | b')');
        if text.len() > 90 || text.starts_with('.') || !text.bytes().all(fits) {
            checker.wrong(&place.key(key), "holds characters that no name at Azure has");
            return None;
        }
        Some(Arc::<str>::from(text))
    };
    let subscription_id = name("subscription_id", &arm.subscription_id, "the subscription's id");
    let resource_group = name("resource_group", &arm.resource_group, "the name of the resource group");
    let account = name("account", &arm.account, "the name of the Azure OpenAI resource");
    let credential = credentials::check_arm(place, provider, arm, written, checker);
    let endpoint = endpoint(place, arm, checker);
    let version = header_text(&place.key("api_version"), arm.api_version.as_ref(), checker);
    let poll = in_range(&place.key("poll_ms"), arm.poll_ms, ARM_POLL_MS, ARM_POLL_BOUNDS, checker);
    Some(ArmAccount {
        endpoint: endpoint?,
        subscription_id: subscription_id?,
        resource_group: resource_group?,
        account: account?,
        api_version: version.unwrap_or_else(|| ARM_API_VERSION.to_owned()).into(),
        credential: credential?,
        poll: Duration::from_millis(poll),
    })
}

/// Where the resource manager is: with https, because our token goes there.
fn endpoint(place: &Place, arm: &file::Arm, checker: &mut Checker<'_>) -> Option<Arc<str>> {
    let place = place.key("endpoint");
    let text = arm.endpoint.as_deref().unwrap_or(ARM_ENDPOINT).trim().trim_end_matches('/');
    match BaseUrl::parse(text) {
        Ok(BaseUrl { address: Address::Host { tls, ref host, .. }, .. }) if tls || is_local(host) => {
            return Some(text.into());
        }
        Ok(_) => checker.wrong(&place, "needs https: a token is sent there"),
        Err(reason) => checker.wrong(&place, reason),
    }
    None
}
