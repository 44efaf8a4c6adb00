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

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::super::{Joiners, Scope};
    use super::*;

    pub(in super::super) fn policy(any_temperature: bool, tool_calls: bool) -> Policy {
        Policy {
            ttl: std::time::Duration::from_secs(60),
            scope: Scope::Team,
            any_temperature,
            tool_calls,
            joiners: Joiners::Free,
            semantic: None,
        }
    }

    fn request(endpoint: Endpoint, members: &str) -> InferenceRequest {
        let asked = match endpoint {
            Endpoint::ChatCompletions => r#""messages":["a"]"#,
            Endpoint::Completions => r#""prompt":"a""#,
            _ => r#""input":"a""#,
        };
        let body = format!(r#"{{"model":"m",{asked}{members}}}"#);
        InferenceRequest::parse(endpoint, Bytes::from(body.clone()), None)
            .unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[test]
    fn what_is_left_alone_by_what_it_asks() {
        use Endpoint::{ChatCompletions as Chat, Completions, Embeddings, Moderations, Responses};
        for (endpoint, members, want) in [
            (Chat, r#","temperature":0"#, None),
            (Chat, r#","temperature":0.0,"n":3"#, None),
            (Chat, r#","temperature":-0e7"#, None),
            (Chat, "", Some(Bypass::Temperature)),
            (Chat, r#","temperature":null"#, Some(Bypass::Temperature)),
            (Chat, r#","temperature":0.1"#, Some(Bypass::Temperature)),
            (Chat, r#","temperature":"0""#, Some(Bypass::Temperature)),
            (Chat, r#","temperature":0,"temperature":1"#, Some(Bypass::Temperature)),
            (Completions, "", Some(Bypass::Temperature)),
            (Completions, r#","temperature":0"#, None),
            (Embeddings, "", None),
            (Moderations, "", None),
            (Chat, r#","temperature":0,"tools":[{}]"#, Some(Bypass::Tools)),
            (Chat, r#","temperature":0,"functions":[{}]"#, Some(Bypass::Tools)),
            (Chat, r#","temperature":0,"web_search_options":{}"#, Some(Bypass::Tools)),
            (Chat, r#","temperature":0,"tools":[]"#, None),
            (Chat, r#","temperature":0,"store":true"#, Some(Bypass::StoredState)),
            (Chat, r#","temperature":0,"store":false"#, None),
            (Chat, r#","temperature":0,"modalities":["text"]"#, None),
            (Chat, r#","temperature":0,"modalities":["text","audio"]"#, Some(Bypass::Sound)),
            (Chat, r#","temperature":0,"x":{"file_id":"file-1"}"#, Some(Bypass::StoredState)),
            (Responses, r#","temperature":0"#, Some(Bypass::StoredState)),
            (Responses, r#","temperature":0,"store":null"#, Some(Bypass::StoredState)),
            (Responses, r#","temperature":0,"store":false"#, None),
            (
                Responses,
                r#","temperature":0,"store":false,"previous_response_id":"r""#,
                Some(Bypass::StoredState),
            ),
            (Responses, r#","temperature":0,"store":false,"conversation":"c""#, Some(Bypass::StoredState)),
            (Responses, r#","temperature":0,"store":false,"prompt":{"id":"p"}"#, Some(Bypass::StoredState)),
            (
                Responses,
                r#","temperature":0,"store":false,"x":[{"type":"item_reference"}]"#,
                Some(Bypass::StoredState),
            ),
            (Responses, r#","store":false"#, Some(Bypass::Temperature)),
        ] {
            let request = request(endpoint, members);
            let found = check(&request, Some(&policy(false, false)), KeyUse::On, &Directives::default());
            assert_eq!(found.err(), want, "{endpoint:?} {members}");
        }
        for members in ["", r#","temperature":1,"tools":[{}]"#] {
            let request = request(Chat, members);
            let found = check(&request, Some(&policy(true, true)), KeyUse::On, &Directives::default());
            assert_eq!(found, Ok(Access { find: true, keep: true }), "{members}");
        }
    }

    #[test]
    fn what_is_left_alone_by_who_asks_and_how() {
        let request = request(Endpoint::Embeddings, "");
        let said = |no_cache, no_store| Directives { no_cache, no_store, ..Directives::default() };
        let (yes, policy) = (Access { find: true, keep: true }, policy(false, false));
        for (policy, key, said, want) in [
            (None, KeyUse::On, said(false, false), Err(Bypass::Off)),
            (Some(&policy), KeyUse::Off, said(true, true), Err(Bypass::Key)),
            (Some(&policy), KeyUse::On, said(false, false), Ok(yes)),
            (Some(&policy), KeyUse::On, said(true, false), Ok(Access { find: false, ..yes })),
            (Some(&policy), KeyUse::On, said(false, true), Ok(Access { keep: false, ..yes })),
            (Some(&policy), KeyUse::On, said(true, true), Err(Bypass::NoCache)),
            (Some(&policy), KeyUse::ReadOnly, said(false, false), Ok(Access { keep: false, ..yes })),
            (Some(&policy), KeyUse::ReadOnly, said(true, false), Err(Bypass::NoCache)),
        ] {
            assert_eq!(check(&request, policy, key, &said), want, "{key:?} {said:?}");
        }
    }
}
