//! Which requests the cache may answer and learn from, and why it leaves the others alone.

use std::borrow::Cow;

use memchr::memmem;

use super::scan::{Member, is_zero, members, text};
use super::{Bypass, Directives, KeyUse, Policy};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::InferenceRequest;
use crate::domain::unboundable::Unboundable;

/// What a request may do with the cache; one that may do nothing is a [`Bypass`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// A kept answer may be its own. Not where the request wants a new one: [`Bypass::NoCache`].
    pub find: bool,
    /// Its answer may be kept. Not where the request forbids it, [`Bypass::NoStore`], or its key only reads.
    pub keep: bool,
}

/// Looks at a request that goes to a model with this policy, if it has one.
///
/// Only where there is a policy is the body read again, once.
///
/// # Errors
///
/// Why the cache is left alone: the first reason of those in the order of [`Bypass`].
pub fn check(
    request: &InferenceRequest,
    policy: Option<&Policy>,
    key: KeyUse,
    said: &Directives,
) -> Result<Access, Bypass> {
    let Some(policy) = policy else { return Err(Bypass::Off) };
    if key == KeyUse::Off {
        return Err(Bypass::Key);
    }
    let access = Access { find: !said.no_cache, keep: !said.no_store && key == KeyUse::On };
    if !access.find && !access.keep {
        return Err(Bypass::NoCache);
    }
    let members = members(request.body());
    let all = |name: &'static str| members.iter().filter(move |member| member.name == name.as_bytes());
    if !policy.any_temperature && !is_drawn_once(request.endpoint, all("temperature")) {
        return Err(Bypass::Temperature);
    }
    let searches = request.unboundable() == Some(Unboundable::WebSearch);
    if (request.has_tools() || searches) && !policy.tool_calls {
        return Err(Bypass::Tools);
    }
    if is_stored(request.endpoint, all("store")) || names_stored_state(request) {
        return Err(Bypass::StoredState);
    }
    if all("modalities").any(|modalities| modalities.is_given() && !is_only_text(modalities.value)) {
        return Err(Bypass::Sound);
    }
    Ok(access)
}

/// Whether the same words would come again: the temperature is 0. Without one it is 1 (OpenAI API 2.3.0), and
/// embeddings and moderations have none.
fn is_drawn_once<'a>(endpoint: Endpoint, told: impl Iterator<Item = &'a Member<'a>>) -> bool {
    if matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations) {
        return true;
    }
    let mut told = told.filter(|temperature| temperature.is_given()).peekable();
    told.peek().is_some() && told.all(|temperature| is_zero(temperature.value))
}

/// Whether the provider keeps the answer: responses unless told otherwise, the others when told.
fn is_stored<'a>(endpoint: Endpoint, told: impl Iterator<Item = &'a Member<'a>>) -> bool {
    let mut told = told.filter(|store| store.is_given()).peekable();
    match told.peek() {
        None => endpoint == Endpoint::Responses,
        Some(_) => !told.all(|store| store.value == b"false"),
    }
}

/// Whether it names what a provider keeps, items of earlier answers among it.
fn names_stored_state(request: &InferenceRequest) -> bool {
    // inside a JSON string the quotes would be escaped
    request.previous_response_id.is_some()
        || request.names_stored_state()
        || memmem::find(request.body(), b"\"item_reference\"").is_some()
}

fn is_only_text(modalities: &[u8]) -> bool {
    let named = super::scan::elements(modalities);
    !named.is_empty() && named.into_iter().all(|modality| text(modality) == Some(Cow::Borrowed("text")))
}
