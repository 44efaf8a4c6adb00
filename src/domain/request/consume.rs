//! What is the gateway's own in a body, taken out before anybody else reads it.

use serde_json::Value;

use super::members::{Member, all_members, members_of};
use super::rewrite::{Edit, without};
use super::{InferenceRequest, RequestError};
use crate::domain::prompt::template::MAX_VALUES_BYTES;

/// The gateway's own part of `metadata`.
const OWN: &str = "tunegate";
/// Longest `cache` as it is written, bytes.
const MAX_CACHE_BYTES: usize = 4 << 10;
/// Longest `metadata.tunegate` as it is written, bytes: all the values that a prompt may have, with room for escapes and
/// names.
const MAX_VARIABLES_BYTES: usize = 2 * MAX_VALUES_BYTES;

/// What the gateway's own members said; `null` is nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Consumed {
    /// `cache`: what the request wants of the response cache.
    pub cache: Option<Value>,
    /// `metadata.tunegate`: values for a prompt's variables.
    pub variables: Option<Value>,
}

impl InferenceRequest {
    /// Takes `cache` and `metadata.tunegate` out, and `metadata` with it where nothing else is in there. Everything else
    /// stays the client's bytes; a body without them is not touched.
    ///
    /// # Errors
    ///
    /// When `metadata.tunegate` is there twice, or one of them is too long or can't be read.
    pub fn consume(self) -> Result<(Self, Consumed), RequestError> {
        let mut consumed = Consumed::default();
        let mut edits: Vec<Edit> = Vec::new();
        let mut whole_metadata = false;
        if let Some(at) = &self.metadata_at {
            let json = &self.body[at.clone()];
            let unreadable = "one of its names can't be read: it has half of a surrogate pair";
            let members =
                members_of(json).map_err(|_| RequestError::Invalid { param: "metadata", why: unreadable })?;
            let own: Vec<&Member<'_>> = members.iter().filter(|member| member.name == OWN).collect();
            if own.len() > 1 {
                return Err(RequestError::Twice("metadata.tunegate"));
            }
            if let Some(own) = own.first() {
                let written = &json[own.value_at.clone()];
                consumed.variables = value(written, "metadata.tunegate", MAX_VARIABLES_BYTES)?;
                let mut within = Vec::new();
                whole_metadata = !without(&members, |member| member.name == OWN, &mut within);
                if !whole_metadata {
                    let moved = within
                        .into_iter()
                        .map(|(gone, text)| (at.start + gone.start..at.start + gone.end, text));
                    edits.extend(moved);
                }
            }
        }
        if self.has_cache || whole_metadata {
            let members = all_members(&self.body);
            if let Some(cache) = members.iter().find(|member| member.name == "cache") {
                consumed.cache = value(&self.body[cache.value_at.clone()], "cache", MAX_CACHE_BYTES)?;
            }
            let goes =
                |member: &Member<'_>| member.name == "cache" || (whole_metadata && member.name == "metadata");
            without(&members, goes, &mut edits);
        }
        if edits.is_empty() {
            return Ok((self, consumed));
        }
        let body = self.splice(edits);
        Ok((Self::parse(self.endpoint, body, Some(self.model.as_str()))?, consumed))
    }
}

/// A value, if it is short enough to be made a tree of; nothing for `null`.
fn value(json: &[u8], param: &'static str, most_bytes: usize) -> Result<Option<Value>, RequestError> {
    if json.len() > most_bytes {
        return Err(RequestError::Invalid { param, why: "it is too long" });
    }
    let why = "it can't be read: a text in it has half of a surrogate pair, or a number no bounds";
    let value: Value = serde_json::from_slice(json).map_err(|_| RequestError::Invalid { param, why })?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::domain::endpoint::Endpoint;

    fn read(endpoint: Endpoint, body: &str) -> InferenceRequest {
        InferenceRequest::parse(endpoint, Bytes::copy_from_slice(body.as_bytes()), None).expect(body)
    }

    #[test]
    fn our_members_leave_and_all_else_stays_as_it_was() {
        for (body, left, cache, variables) in [
            (r#"{"model":"a"}"#, r#"{"model":"a"}"#, None, None),
            (r#"{"model":"a","cache":{"ttl":5}}"#, r#"{"model":"a"}"#, Some(json!({"ttl": 5})), None),
            (r#"{ "cache" : null , "model" : "a" }"#, r#"{ "model" : "a" }"#, None, None),
            (r#"{"c\u0061che":true,"model":"a"}"#, r#"{"model":"a"}"#, Some(json!(true)), None),
            (
                r#"{"model":"a","metadata":{"tunegate":{"x":1}},"z":1.50}"#,
                r#"{"model":"a","z":1.50}"#,
                None,
                Some(json!({"x": 1})),
            ),
            (
                r#"{"metadata":{"a":"b","tunegate":"{}", "c" : 1.0},"model":"a"}"#,
                r#"{"metadata":{"a":"b", "c" : 1.0},"model":"a"}"#,
                None,
                Some(json!("{}")),
            ),
            (
                r#"{"metadata":{"tunegate":null,"c":1},"cache":{},"model":"a"}"#,
                r#"{"metadata":{"c":1},"model":"a"}"#,
                Some(json!({})),
                None,
            ),
            (
                r#"{"cache":1,"metadata":{"tunegate":2},"model":"a"}"#,
                r#"{"model":"a"}"#,
                Some(json!(1)),
                Some(json!(2)),
            ),
            (
                r#"{"model":"a","metadata":{},"x":{"cache":1,"metadata":{"tunegate":2}}}"#,
                r#"{"model":"a","metadata":{},"x":{"cache":1,"metadata":{"tunegate":2}}}"#,
                None,
                None,
            ),
            (r#"{"model":"a","metadata":"tunegate"}"#, r#"{"model":"a","metadata":"tunegate"}"#, None, None),
        ] {
            for (endpoint, needed) in [
                (Endpoint::Responses, ""),
                (Endpoint::ChatCompletions, r#","messages":[{}]"#),
                (Endpoint::Completions, r#","prompt":"x""#),
                (Endpoint::Embeddings, r#","input":"x""#),
                (Endpoint::Moderations, r#","input":"x""#),
            ] {
                let with = |text: &str| match text.trim_end().strip_suffix('}') {
                    Some(open) => format!("{open}{needed}}}"),
                    None => text.to_owned(),
                };
                let (request, consumed) = read(endpoint, &with(body)).consume().expect(body);
                let (request_body, want) = (String::from_utf8_lossy(request.body()), with(left));
                assert_eq!(request_body, want, "{body}");
                let want = Consumed { cache: cache.clone(), variables: variables.clone() };
                assert_eq!((consumed, request.model.as_str()), (want, "a"), "{body}");
            }
        }
    }

    #[test]
    fn what_is_untouched_is_not_copied() {
        let request = read(Endpoint::Responses, r#"{"model":"a","metadata":{"x":"y"}}"#);
        let before = request.body().as_ptr();
        let (request, _) = request.consume().expect("nothing to take");
        assert_eq!(request.body().as_ptr(), before);
    }

    #[test]
    fn twice_is_once_too_often() {
        let body = r#"{"model":"a","cache":1,"cache":2}"#;
        let error = InferenceRequest::parse(Endpoint::Responses, Bytes::from_static(body.as_bytes()), None);
        assert_eq!(error.expect_err("twice"), RequestError::Twice("cache"));
        let body = r#"{"model":"a","instructions":"x","instructions":"y"}"#;
        let error = InferenceRequest::parse(Endpoint::Responses, Bytes::from_static(body.as_bytes()), None);
        assert_eq!(error.expect_err("twice"), RequestError::Twice("instructions"));
        let twice = read(Endpoint::Responses, r#"{"model":"a","metadata":{"tunegate":1,"tunegate":2}}"#);
        assert_eq!(twice.consume().expect_err("twice"), RequestError::Twice("metadata.tunegate"));
    }

    #[test]
    fn what_cant_be_read_or_is_too_long_is_refused_and_never_nothing() {
        let long = |bytes: usize| "x".repeat(bytes - 2);
        for (body, param) in [
            (r#"{"model":"a","cache":{"no-store":true,"namespace":"\ud83d"}}"#.to_owned(), "cache"),
            (r#"{"model":"a","cache":1e999}"#.to_owned(), "cache"),
            (r#"{"model":"a","metadata":{"tunegate":{"x":"\ud83d"}}}"#.to_owned(), "metadata.tunegate"),
            (r#"{"model":"a","metadata":{"\ud83d":1,"tunegate":{"x":"y"}}}"#.to_owned(), "metadata"),
            (format!(r#"{{"model":"a","cache":"{}"}}"#, long(MAX_CACHE_BYTES + 1)), "cache"),
            (
                format!(r#"{{"model":"a","metadata":{{"tunegate":"{}"}}}}"#, long(MAX_VARIABLES_BYTES + 1)),
                "metadata.tunegate",
            ),
        ] {
            let refused = read(Endpoint::Responses, &body).consume().expect_err(param);
            assert_eq!(refused.param(), Some(param), "{refused}");
        }
        let longest = format!(r#"{{"model":"a","cache":"{}"}}"#, long(MAX_CACHE_BYTES));
        let (_, consumed) = read(Endpoint::Responses, &longest).consume().expect("short enough");
        assert!(consumed.cache.is_some());
    }

    #[test]
    fn a_model_in_the_path_stays() {
        let body = Bytes::from_static(br#"{"messages":[{}],"cache":{}}"#);
        let request = InferenceRequest::parse(Endpoint::ChatCompletions, body, Some("dep")).expect("right");
        let (request, _) = request.consume().expect("right");
        assert_eq!((request.model.as_str(), &request.body()[..]), ("dep", &br#"{"messages":[{}]}"#[..]));
    }
}
