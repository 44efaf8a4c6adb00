//! How a provider knows us: a key, or a token of Microsoft Entra ID.

use std::path::PathBuf;

use crate::domain::catalog::{Credential, Entra};

use super::address::{BaseUrl, is_local};
use super::file::{self, EntraKind, ProviderKind};
use super::problem::{Checker, Place};
use super::values::{required, secret};
use crate::domain::catalog::Address;

/// What a token for the provider itself is for.
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
/// What a token for Azure's resource manager is for; a key never works there.
const ARM_SCOPE: &str = "https://management.azure.com/.default";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const METADATA_ENDPOINT: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// Checks `api_key` and `entra`; none when they are wrong.
pub(super) fn check(
    place: &Place,
    kind: ProviderKind,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<Credential> {
    match (&written.api_key, &written.entra) {
        (Some(_), Some(_)) => {
            checker.wrong(place, "api_key and entra contradict: keep one");
            None
        }
        (Some(source), None) => secret(&place.key("api_key"), source, checker).map(Credential::ApiKey),
        (None, Some(entra)) => check_entra(&place.key("entra"), entra, SCOPE, checker).map(Credential::Entra),
        (None, None) if kind == ProviderKind::Azure => {
            checker.wrong(&place.key("api_key"), "missing: Azure needs api_key or entra");
            None
        }
        (None, None) => Some(Credential::None),
    }
}

/// Checks `entra` of `training.arm`; without one the provider's own identity asks for another token.
pub(super) fn check_arm(
    place: &Place,
    provider: &Place,
    arm: &file::Arm,
    written: &file::Provider,
    checker: &mut Checker<'_>,
) -> Option<Entra> {
    if let Some(entra) = &arm.entra {
        return check_entra(&place.key("entra"), entra, ARM_SCOPE, checker);
    }
    let place = place.key("entra");
    match &written.entra {
        Some(own) if own.kind != Some(EntraKind::TokenFile) => {
            let own = file::Entra { scope: None, ..own.clone() };
            check_entra(&provider.key("entra"), &own, ARM_SCOPE, checker)
        }
        Some(_) => {
            checker.wrong(&place, "missing: the token in the provider's file is for the account alone");
            None
        }
        None => {
            checker.wrong(&place, "missing: Azure's resource manager takes a token of Entra ID, never a key");
            None
        }
    }
}

fn check_entra(
    place: &Place,
    written: &file::Entra,
    scope: &str,
    checker: &mut Checker<'_>,
) -> Option<Entra> {
    let Some(kind) = written.kind else {
        checker.wrong(
            &place.key("kind"),
            "missing: write client_secret, federated_token_file, managed_identity or token_file",
        );
        return None;
    };
    check_fits(place, kind, written, checker);
    match kind {
        EntraKind::ClientSecret => client_secret(place, written, scope, checker),
        EntraKind::FederatedTokenFile => federated(place, written, scope, checker),
        EntraKind::ManagedIdentity => {
            let endpoint = written.endpoint.clone().unwrap_or_else(|| METADATA_ENDPOINT.to_owned());
            if let Err(reason) = BaseUrl::parse(&endpoint) {
                checker.wrong(&place.key("endpoint"), reason);
            }
            Some(Entra::ManagedIdentity {
                endpoint,
                client_id: written.client_id.clone(),
                scope: scope_or(written, scope),
            })
        }
        EntraKind::TokenFile => Some(Entra::TokenFile {
            path: token_file(
                &place.key("path"),
                written.path.as_ref(),
                "\"/run/secrets/azure-token\"",
                checker,
            )?,
        }),
    }
}

fn client_secret(
    place: &Place,
    written: &file::Entra,
    scope: &str,
    checker: &mut Checker<'_>,
) -> Option<Entra> {
    let authority = authority(place, written, checker);
    let tenant_id = tenant_id(place, written, checker);
    let client_id = client_id(place, written, checker);
    let secret = match &written.client_secret {
        Some(source) => secret(&place.key("client_secret"), source, checker),
        None => {
            checker.wrong(&place.key("client_secret"), "missing: write { env = \"AZURE_CLIENT_SECRET\" }");
            None
        }
    };
    Some(Entra::ClientSecret {
        authority: authority?,
        tenant_id: tenant_id?,
        client_id: client_id?,
        client_secret: secret?,
        scope: scope_or(written, scope),
    })
}

fn federated(place: &Place, written: &file::Entra, scope: &str, checker: &mut Checker<'_>) -> Option<Entra> {
    let authority = authority(place, written, checker);
    let tenant_id = tenant_id(place, written, checker);
    let client_id = client_id(place, written, checker);
    let example = "\"/var/run/secrets/azure/tokens/azure-identity-token\"";
    let token_file = token_file(&place.key("token_file"), written.token_file.as_ref(), example, checker);
    Some(Entra::FederatedTokenFile {
        authority: authority?,
        tenant_id: tenant_id?,
        client_id: client_id?,
        token_file: token_file?,
        scope: scope_or(written, scope),
    })
}

/// Notes the keys that mean nothing for a kind of `entra`.
fn check_fits(place: &Place, kind: EntraKind, written: &file::Entra, checker: &mut Checker<'_>) {
    use EntraKind::{ClientSecret, FederatedTokenFile, ManagedIdentity, TokenFile};
    let keys: [(&str, bool, &[EntraKind]); 8] = [
        ("tenant_id", written.tenant_id.is_some(), &[ClientSecret, FederatedTokenFile]),
        ("client_id", written.client_id.is_some(), &[ClientSecret, FederatedTokenFile, ManagedIdentity]),
        ("client_secret", written.client_secret.is_some(), &[ClientSecret]),
        ("token_file", written.token_file.is_some(), &[FederatedTokenFile]),
        ("path", written.path.is_some(), &[TokenFile]),
        ("scope", written.scope.is_some(), &[ClientSecret, FederatedTokenFile, ManagedIdentity]),
        ("authority", written.authority.is_some(), &[ClientSecret, FederatedTokenFile]),
        ("endpoint", written.endpoint.is_some(), &[ManagedIdentity]),
    ];
    for (key, _, _) in keys.into_iter().filter(|(_, set, fits)| *set && !fits.contains(&kind)) {
        checker.wrong(&place.key(key), "means nothing for this kind: take it out or correct the kind");
    }
}

fn scope_or(written: &file::Entra, default: &str) -> String {
    written.scope.clone().unwrap_or_else(|| default.to_owned())
}

/// Where tokens are asked for: with https, because our secret goes there.
fn authority(place: &Place, written: &file::Entra, checker: &mut Checker<'_>) -> Option<String> {
    let place = place.key("authority");
    let text = written.authority.as_deref().unwrap_or(AUTHORITY).trim().trim_end_matches('/');
    match BaseUrl::parse(text) {
        Ok(BaseUrl { address: Address::Host { tls, ref host, .. }, .. }) if tls || is_local(host) => {
            return Some(text.to_owned());
        }
        Ok(_) => checker.wrong(&place, "needs https: a secret is sent there"),
        Err(reason) => checker.wrong(&place, reason),
    }
    None
}

fn tenant_id(place: &Place, written: &file::Entra, checker: &mut Checker<'_>) -> Option<String> {
    let place = place.key("tenant_id");
    let tenant = required(&place, written.tenant_id.as_ref(), "the directory's id", checker)?;
    let good = tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if !good {
        checker.wrong(&place, "a directory's id or domain has only letters, digits, dots and dashes");
    }
    good.then_some(tenant)
}

fn client_id(place: &Place, written: &file::Entra, checker: &mut Checker<'_>) -> Option<String> {
    required(&place.key("client_id"), written.client_id.as_ref(), "the application's id", checker)
}

/// A file that need not be there yet: whoever renews the token may start after us.
fn token_file(
    place: &Place,
    path: Option<&PathBuf>,
    example: &str,
    checker: &mut Checker<'_>,
) -> Option<PathBuf> {
    let path = path.filter(|path| !path.as_os_str().is_empty()).cloned();
    match &path {
        None => checker.wrong(place, format!("missing: write {example}")),
        Some(path) if !path.exists() => {
            checker.notice(place, format!("{} is not there yet: requests fail until it is", path.display()));
        }
        Some(_) => {}
    }
    path
}
