//! An inference request as it came: the few members we act on are read, everything else stays the client's bytes.
//!
//! Rewriting splices new text into the body at the places where the old stood, so an unknown member, a number's
//! spelling or the order of a schema's keys reaches the provider as the client wrote it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::endpoint::Endpoint;
use super::ids::{ModelName, ModelNameError};
use super::usage::MOST_TOKENS;

/// What is wrong with a request's body: always the client's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not JSON, or not one object.
    #[error("the body is not one valid JSON object: {0}")]
    NotJson(String),
    /// A member that must be there is not.
    #[error("missing required parameter: '{0}'")]
    Missing(&'static str),
    /// A member of the wrong type.
    #[error("invalid type for '{param}': expected {expected}")]
    WrongType {
        /// The member.
        param: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A member whose value can't be served.
    #[error("invalid value for '{param}': {why}")]
    Invalid {
        /// The member.
        param: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A member we act on is there twice; providers differ in which one they take.
    #[error("'{0}' is given twice; give it once")]
    Twice(&'static str),
    /// The name of the model.
    #[error("{0}")]
    Model(#[from] ModelNameError),
}

impl RequestError {
    /// The member to point at.
    pub const fn param(&self) -> Option<&'static str> {
        match self {
            Self::NotJson(_) => None,
            Self::Missing(param) | Self::Twice(param) => Some(param),
            Self::WrongType { param, .. } | Self::Invalid { param, .. } => Some(param),
            Self::Model(_) => Some("model"),
        }
    }

    /// OpenAI's code for it, where it has one.
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::NotJson(_) => None,
            Self::Missing(_) => Some("missing_required_parameter"),
            Self::WrongType { .. } => Some("invalid_type"),
            Self::Invalid { .. } | Self::Model(_) => Some("invalid_value"),
            Self::Twice(_) => Some("duplicate_parameter"),
        }
    }
}

/// Longest id of a stored response we look up, in bytes: as long as one in a path may be.
const MAX_RESPONSE_ID_BYTES: usize = 256;

/// The members we act on, as text, with their places in the body.
#[derive(Default)]
struct Members<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    max_completion_tokens: Option<&'a RawValue>,
    max_output_tokens: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    best_of: Option<&'a RawValue>,
    background: Option<&'a RawValue>,
    previous_response_id: Option<&'a RawValue>,
    /// Whether the object has any member at all: decides about a comma.
    any: bool,
    twice: Option<&'static str>,
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
            "max_tokens" => ("max_tokens", &mut self.max_tokens),
            "max_completion_tokens" => ("max_completion_tokens", &mut self.max_completion_tokens),
            "max_output_tokens" => ("max_output_tokens", &mut self.max_output_tokens),
            "n" => ("n", &mut self.n),
            "best_of" => ("best_of", &mut self.best_of),
            "background" => ("background", &mut self.background),
            "previous_response_id" => ("previous_response_id", &mut self.previous_response_id),
            _ => return None,
        })
    }
}

/// A key of the object: borrowed where it has no escapes.
struct Key;

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

struct Top;

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

/// A member's text, `null` counting as absent.
fn given(value: Option<&RawValue>) -> Option<&str> {
    value.map(RawValue::get).filter(|text| *text != "null")
}

fn boolean(value: Option<&RawValue>, param: &'static str) -> Result<bool, RequestError> {
    match given(value) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(RequestError::WrongType { param, expected: "a boolean" }),
    }
}

fn count(value: Option<&RawValue>, param: &'static str) -> Result<Option<u64>, RequestError> {
    match count_or_none(value, param)? {
        Some(0) => Err(RequestError::Invalid { param, why: "it must be at least 1" }),
        number => Ok(number),
    }
}

/// As [`count`], where 0 asks for something too: a completion without an answer scores its prompt.
fn count_or_none(value: Option<&RawValue>, param: &'static str) -> Result<Option<u64>, RequestError> {
    match given(value) {
        None => Ok(None),
        Some(text) => match serde_json::from_str::<u64>(text) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(RequestError::WrongType { param, expected: "a positive integer" }),
        },
    }
}

/// How many prompts a completion has: an array of texts or of token arrays is so many, an array of tokens is one.
fn prompts(value: Option<&RawValue>) -> u64 {
    let Some(Ok(prompts)) = given(value).map(serde_json::from_str::<Vec<&RawValue>>) else { return 1 };
    let several = prompts.first().is_some_and(|first| first.get().starts_with(['"', '[']));
    if several { prompts.len() as u64 } else { 1 }
}

/// The place of a piece of `whole` in it.
fn range_of(whole: &[u8], piece: &str) -> Range<usize> {
    let start = piece.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + piece.len()
}

/// A checked inference request and its bytes.
#[derive(Clone)]
pub struct InferenceRequest {
    /// Which endpoint it was sent to.
    pub endpoint: Endpoint,
    /// The model asked for.
    pub model: ModelName,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for the usage chunk of a stream.
    pub usage_asked: bool,
    /// The client's own cap on the output of each choice, tokens.
    max_output: Option<u64>,
    /// How many choices are made, those that the client does not get included.
    choices: u64,
    /// An earlier answer this request goes on from.
    pub previous_response_id: Option<String>,
    body: Bytes,
    model_at: Option<Range<usize>>,
    stream_options_at: Option<Range<usize>>,
    /// Just behind the opening brace.
    start: usize,
    any: bool,
}

impl fmt::Debug for InferenceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // no word of the body: it may hold anything
        f.debug_struct("InferenceRequest")
            .field("endpoint", &self.endpoint)
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// What a dialect changes in a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrite<'a> {
    /// The provider's own name for the model, where the body carries it.
    pub model: Option<&'a str>,
    /// Asks for the usage chunk of a stream.
    pub ask_usage: bool,
}

impl InferenceRequest {
    /// Reads a body. `model_in_path` is the name an Azure-shaped path carries; it wins over the body's.
    pub fn parse(endpoint: Endpoint, body: Bytes, model_in_path: Option<&str>) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(&body).map_err(|error| RequestError::NotJson(error.to_string()))?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = serde::Deserializer::deserialize_map(&mut reader, Top)
            .and_then(|members| reader.end().map(|()| members))
            .map_err(|error| RequestError::NotJson(error.to_string()))?;
        if let Some(name) = members.twice {
            return Err(RequestError::Twice(name));
        }
        let model = match (model_in_path, given(members.model)) {
            (Some(name), _) => ModelName::parse(name)?,
            (None, None) => return Err(RequestError::Missing("model")),
            (None, Some(text)) => {
                let name: String = serde_json::from_str(text)
                    .map_err(|_| RequestError::WrongType { param: "model", expected: "a string" })?;
                ModelName::parse(&name)?
            }
        };
        check_required(endpoint, &members)?;
        let stream = boolean(members.stream, "stream")?;
        if stream && !endpoint.streams() {
            return Err(RequestError::Invalid { param: "stream", why: "this endpoint does not stream" });
        }
        if boolean(members.background, "background")? {
            return Err(RequestError::Invalid {
                param: "background",
                why: "background responses can't be metered through this gateway; leave it out",
            });
        }
        let usage_asked = match given(members.stream_options) {
            None => false,
            Some(_) if !stream && endpoint.usage_on_request() => {
                return Err(RequestError::Invalid {
                    param: "stream_options",
                    why: "it is only allowed when 'stream' is true",
                });
            }
            Some(text) => wants_usage(text)?,
        };
        let previous_response_id = match given(members.previous_response_id) {
            None => None,
            Some(text) => {
                let param = "previous_response_id";
                let id: String = serde_json::from_str(text)
                    .map_err(|_| RequestError::WrongType { param, expected: "a string" })?;
                if id.len() > MAX_RESPONSE_ID_BYTES {
                    return Err(RequestError::Invalid { param, why: "it is longer than any response's id" });
                }
                Some(id)
            }
        };
        let each = match endpoint {
            Endpoint::ChatCompletions => count(members.max_completion_tokens, "max_completion_tokens")?
                .or(count(members.max_tokens, "max_tokens")?),
            Endpoint::Completions => Some(count_or_none(members.max_tokens, "max_tokens")?.unwrap_or(16)),
            Endpoint::Responses => count(members.max_output_tokens, "max_output_tokens")?,
            Endpoint::Embeddings | Endpoint::Moderations => Some(0),
        };
        let choices = match endpoint {
            Endpoint::ChatCompletions => count(members.n, "n")?.unwrap_or(1),
            Endpoint::Completions => {
                let told = count(members.n, "n")?.unwrap_or(1);
                let made = told.max(count(members.best_of, "best_of")?.unwrap_or(1));
                made.saturating_mul(prompts(members.prompt))
            }
            _ => 1,
        };
        let model_at = members.model.map(|value| range_of(text.as_bytes(), value.get()));
        let stream_options_at = members.stream_options.map(|value| range_of(text.as_bytes(), value.get()));
        let any = members.any;
        let start = text.find('{').map_or(0, |at| at + 1);
        Ok(Self {
            endpoint,
            model,
            stream,
            usage_asked,
            max_output: each,
            choices,
            previous_response_id,
            model_at,
            stream_options_at,
            start,
            any,
            body,
        })
    }

    /// The most output that can be made, tokens, all choices together; `model_cap` is what the model makes of one at
    /// most.
    pub fn most_output(&self, model_cap: u64) -> u64 {
        self.max_output.unwrap_or(model_cap).min(model_cap).saturating_mul(self.choices).min(MOST_TOKENS)
    }

    /// The client's bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body for one deployment; the client's own bytes where nothing changes.
    pub fn rewritten(&self, rewrite: Rewrite<'_>) -> Bytes {
        let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
        let mut added = String::new();
        if let Some(model) = rewrite.model {
            let text = json_string(model);
            match &self.model_at {
                Some(at) if self.body[at.clone()] == *text.as_bytes() => {}
                Some(at) => edits.push((at.clone(), text)),
                None => added.push_str(&format!("\"model\":{text},")),
            }
        }
        if rewrite.ask_usage && self.stream && !self.usage_asked {
            match &self.stream_options_at {
                Some(at) => edits.push((at.clone(), with_usage(&self.body[at.clone()]))),
                None => added.push_str("\"stream_options\":{\"include_usage\":true},"),
            }
        }
        if !added.is_empty() {
            if !self.any {
                added.pop();
            }
            edits.push((self.start..self.start, added));
        }
        self.splice(edits)
    }

    fn splice(&self, mut edits: Vec<(Range<usize>, String)>) -> Bytes {
        if edits.is_empty() {
            return self.body.clone();
        }
        edits.sort_by_key(|(at, _)| at.start);
        let grown: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + grown);
        let mut from = 0;
        for (at, text) in edits {
            out.extend_from_slice(&self.body[from..at.start]);
            out.extend_from_slice(text.as_bytes());
            from = at.end;
        }
        out.extend_from_slice(&self.body[from..]);
        out.into()
    }
}

/// Whether what the endpoint lives on is there and of a type that can be right; the rest is the provider's to judge.
fn check_required(endpoint: Endpoint, members: &Members<'_>) -> Result<(), RequestError> {
    let (param, value) = match endpoint {
        Endpoint::ChatCompletions => ("messages", members.messages),
        Endpoint::Completions => ("prompt", members.prompt),
        Endpoint::Embeddings | Endpoint::Moderations => ("input", members.input),
        // a stored prompt or a conversation may stand for the input
        Endpoint::Responses => return Ok(()),
    };
    let Some(text) = given(value) else { return Err(RequestError::Missing(param)) };
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let expected = match endpoint {
        Endpoint::ChatCompletions if first != b'[' => "an array of messages",
        _ if first != b'[' && first != b'"' => "a string or an array",
        _ => {
            let empty = first == b'[' && text[1..].trim_start().starts_with(']');
            return match empty {
                true => Err(RequestError::Invalid { param, why: "it is empty; give at least one item" }),
                false => Ok(()),
            };
        }
    };
    Err(RequestError::WrongType { param, expected })
}

fn wants_usage(text: &str) -> Result<bool, RequestError> {
    let wrong = RequestError::WrongType { param: "stream_options", expected: "an object" };
    let options: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|_| wrong)?;
    match options.get("include_usage") {
        None | Some(serde_json::Value::Null) => Ok(false),
        Some(serde_json::Value::Bool(asked)) => Ok(*asked),
        Some(_) => {
            Err(RequestError::WrongType { param: "stream_options.include_usage", expected: "a boolean" })
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `stream_options` with `include_usage` set, other members kept.
fn with_usage(options: &[u8]) -> String {
    let mut options: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(options).unwrap_or_default();
    options.insert("include_usage".to_owned(), true.into());
    serde_json::Value::from(options).to_string()
}

#[cfg(test)]
mod tests;
