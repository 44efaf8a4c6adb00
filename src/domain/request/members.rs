//! The members of a body that we act on, read in one pass without a tree: everything else is skipped.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RequestError;

/// The members we act on, as text, with their places in the body.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) model: Option<&'a RawValue>,
    pub(super) stream: Option<&'a RawValue>,
    pub(super) stream_options: Option<&'a RawValue>,
    pub(super) messages: Option<&'a RawValue>,
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) input: Option<&'a RawValue>,
    pub(super) instructions: Option<&'a RawValue>,
    pub(super) max_tokens: Option<&'a RawValue>,
    pub(super) max_completion_tokens: Option<&'a RawValue>,
    pub(super) max_output_tokens: Option<&'a RawValue>,
    pub(super) n: Option<&'a RawValue>,
    pub(super) best_of: Option<&'a RawValue>,
    pub(super) background: Option<&'a RawValue>,
    pub(super) previous_response_id: Option<&'a RawValue>,
    pub(super) conversation: Option<&'a RawValue>,
    pub(super) context_management: Option<&'a RawValue>,
    pub(super) web_search_options: Option<&'a RawValue>,
    pub(super) modalities: Option<&'a RawValue>,
    pub(super) service_tier: Option<&'a RawValue>,
    pub(super) safety_identifier: Option<&'a RawValue>,
    pub(super) user: Option<&'a RawValue>,
    pub(super) metadata: Option<&'a RawValue>,
    pub(super) tools: Option<&'a RawValue>,
    pub(super) functions: Option<&'a RawValue>,
    pub(super) response_format: Option<&'a RawValue>,
    pub(super) text: Option<&'a RawValue>,
    pub(super) cache: Option<&'a RawValue>,
    /// Whether the object has any member at all: decides about a comma.
    pub(super) any: bool,
    pub(super) twice: Option<&'static str>,
}

impl<'a> Members<'a> {
    fn place(&mut self, key: &str) -> Option<(&'static str, &mut Option<&'a RawValue>)> {
        Some(match key {
            "model" => ("model", &mut self.model),
            "stream" => ("stream", &mut self.stream),
            "stream_options" => ("stream_options", &mut self.stream_options),
            "messages" => ("messages", &mut self.messages),
            "prompt" => ("prompt", &mut self.prompt),
            "input" => ("input", &mut self.input),
            "instructions" => ("instructions", &mut self.instructions),
            "max_tokens" => ("max_tokens", &mut self.max_tokens),
            "max_completion_tokens" => ("max_completion_tokens", &mut self.max_completion_tokens),
            "max_output_tokens" => ("max_output_tokens", &mut self.max_output_tokens),
            "n" => ("n", &mut self.n),
            "best_of" => ("best_of", &mut self.best_of),
            "background" => ("background", &mut self.background),
            "previous_response_id" => ("previous_response_id", &mut self.previous_response_id),
            "conversation" => ("conversation", &mut self.conversation),
            "context_management" => ("context_management", &mut self.context_management),
            "web_search_options" => ("web_search_options", &mut self.web_search_options),
            "modalities" => ("modalities", &mut self.modalities),
            "service_tier" => ("service_tier", &mut self.service_tier),
            "safety_identifier" => ("safety_identifier", &mut self.safety_identifier),
            "user" => ("user", &mut self.user),
            "metadata" => ("metadata", &mut self.metadata),
            "tools" => ("tools", &mut self.tools),
            "functions" => ("functions", &mut self.functions),
            "response_format" => ("response_format", &mut self.response_format),
            "text" => ("text", &mut self.text),
            "cache" => ("cache", &mut self.cache),
            _ => return None,
        })
    }
}

/// A key of an object: borrowed where it has no escapes.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

pub(super) struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(key) = map.next_key_seed(Key)? {
            members.any = true;
            match members.place(&key) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some((name, place)) => {
                    let again = place.replace(map.next_value()?).is_some();
                    if again {
                        members.twice.get_or_insert(name);
                    }
                }
            }
        }
        Ok(members)
    }
}

/// A member at the top, whatever it is.
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, str>,
    /// Its name and value, without the comma.
    pub(super) at: Range<usize>,
    /// Its value alone.
    pub(super) value_at: Range<usize>,
    /// Whether it is more than `null`.
    pub(super) given: bool,
}

/// All members at the top of a body that was read before, in their order.
pub(super) fn all_members(json: &[u8]) -> Vec<Member<'_>> {
    // it was read before
    members_of(json).unwrap_or_default()
}

/// All members of an object further inside, in their order; none where it is no object. An error where a name can't be
/// read, as with half of a surrogate pair: what was skipped before was not looked at.
pub(super) fn members_of(json: &[u8]) -> Result<Vec<Member<'_>>, serde_json::Error> {
    if json.first() != Some(&b'{') {
        return Ok(Vec::new());
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_slice(json), All { json })
}

struct All<'a> {
    json: &'a [u8],
}

impl<'de> Visitor<'de> for All<'de> {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Key)? {
            let value: &RawValue = map.next_value()?;
            let value_at = range_of(self.json, value.get());
            let starts = key_before(self.json, value_at.start).start;
            let (at, given) = (starts..value_at.end, value.get() != "null");
            members.push(Member { name, at, value_at, given });
        }
        Ok(members)
    }
}

/// The place of the key before a member's value, quotes included.
pub(super) fn key_before(json: &[u8], value_starts: usize) -> Range<usize> {
    let last = |byte: u8, before: usize| json[..before].iter().rposition(|b| *b == byte).unwrap_or(0);
    let colon = last(b':', value_starts);
    let closing = last(b'"', colon);
    let mut opening = last(b'"', closing);
    // a quote within the key has an odd number of backslashes before it; before the opening one there is none
    while json[..opening].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 {
        opening = last(b'"', opening);
    }
    opening..closing + 1
}

/// Whether an array has any element.
pub(super) fn has_elements(value: Option<&RawValue>) -> bool {
    let inside = given(value).and_then(|text| text.strip_prefix('['));
    inside.is_some_and(|inside| !inside.trim_start().starts_with(']'))
}

/// A member's text, `null` counting as absent.
pub(super) fn given(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|text| *text != "null")
}

pub(super) fn boolean(value: Option<&RawValue>, param: &'static str) -> Result<bool, RequestError> {
    match given(value) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(RequestError::WrongType { param, expected: "a boolean" }),
    }
}

pub(super) fn count(value: Option<&RawValue>, param: &'static str) -> Result<Option<u64>, RequestError> {
    match count_or_none(value, param)? {
        Some(0) => Err(RequestError::Invalid { param, why: "it must be at least 1" }),
        number => Ok(number),
    }
}

/// As [`count`], where 0 asks for something too: a completion without an answer scores its prompt.
pub(super) fn count_or_none(
    value: Option<&RawValue>,
    param: &'static str,
) -> Result<Option<u64>, RequestError> {
    match given(value) {
        None => Ok(None),
        Some(text) => match serde_json::from_str::<u64>(text) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(RequestError::WrongType { param, expected: "a positive integer" }),
        },
    }
}

/// How many prompts a completion has: an array of texts or of token arrays is so many, an array of tokens is one.
pub(super) fn prompts(value: Option<&RawValue>) -> u64 {
    let Some(Ok(prompts)) = given(value).map(serde_json::from_str::<Vec<&RawValue>>) else { return 1 };
    let several = prompts.first().is_some_and(|first| first.get().starts_with(['"', '[']));
    if several { prompts.len() as u64 } else { 1 }
}

/// The place of a piece of `whole` in it.
pub(super) fn range_of(whole: &[u8], piece: &str) -> Range<usize> {
    let start = piece.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + piece.len()
}

/// A text, `null` counting as absent.
pub(super) fn text(value: Option<&RawValue>, param: &'static str) -> Result<Option<String>, RequestError> {
    let Some(text) = given(value) else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|_| RequestError::WrongType { param, expected: "a string" })
}
