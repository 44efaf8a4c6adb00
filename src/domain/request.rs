//! An inference request as it came: the few members we act on are read, everything else stays the client's bytes.
//!
//! Rewriting splices new text into the body at the places where the old stood, so an unknown member, a number's
//! spelling or the order of a schema's keys reaches the provider as the client wrote it.

mod consume;
mod inject;
mod instructions;
mod members;
mod parts;
mod rewrite;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

pub use consume::Consumed;
pub use inject::{Placed, Speaker, Unfit};
pub use instructions::system_message;
pub use rewrite::{CapName, OutputCap, Rewrite, droppable};

use super::endpoint::Endpoint;
use super::file_ids::file_ids;
use super::ids::{ModelName, ModelNameError};
use super::unboundable::Unboundable;
use super::usage::MOST_TOKENS;
use members::{Members, Top, boolean, count, count_or_none, given, has_elements, prompts, range_of, text};

/// What a completion makes at most when its request does not say (OpenAI API 2.3.0, `max_tokens`).
pub const LEGACY_OUTPUT_TOKENS: u64 = 16;

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

/// Longest end user or metadata value that is read, in bytes: longer ones are cut. OpenAI takes 64 and 512 characters.
const MAX_LABEL_BYTES: usize = 512;

/// A member that caps the output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cap {
    name: CapName,
    /// `null` is none.
    tokens: Option<u64>,
    at: Range<usize>,
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
    /// The client's own caps on the output of each choice.
    caps: Vec<Cap>,
    /// How many choices are made, those that the client does not get included.
    choices: u64,
    /// An earlier answer this request goes on from.
    pub previous_response_id: Option<String>,
    /// The provider's own conversation that this request goes on in.
    pub conversation: Option<String>,
    service_tier: Option<String>,
    end_user: Option<String>,
    unboundable: Option<Unboundable>,
    has_tools: bool,
    wants_json_schema: bool,
    /// Whether an answer in sound is asked for.
    wants_sound: bool,
    /// Found when first asked for: a long body is not searched again.
    images: OnceLock<bool>,
    audio: OnceLock<bool>,
    file_ids: OnceLock<Vec<String>>,
    body: Bytes,
    metadata_at: Option<Range<usize>>,
    /// Whether it has our own member `cache`.
    has_cache: bool,
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

impl InferenceRequest {
    /// Reads a body. `model_in_path` is the name an Azure-shaped path carries; it wins over the body's.
    pub fn parse(endpoint: Endpoint, body: Bytes, model_in_path: Option<&str>) -> Result<Self, RequestError> {
        let json = std::str::from_utf8(&body).map_err(|error| RequestError::NotJson(error.to_string()))?;
        let mut reader = serde_json::Deserializer::from_str(json);
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
        let previous_response_id = text(members.previous_response_id, "previous_response_id")?;
        if previous_response_id.as_ref().is_some_and(|id| id.len() > MAX_RESPONSE_ID_BYTES) {
            let param = "previous_response_id";
            return Err(RequestError::Invalid { param, why: "it is longer than any response's id" });
        }
        let conversation = conversation(&members);
        let caps = caps(endpoint, &members, json)?;
        let choices = match endpoint {
            Endpoint::ChatCompletions => count(members.n, "n")?.unwrap_or(1),
            Endpoint::Completions => {
                let told = count(members.n, "n")?.unwrap_or(1);
                let made = told.max(count(members.best_of, "best_of")?.unwrap_or(1));
                made.saturating_mul(prompts(members.prompt))
            }
            _ => 1,
        };
        let at = |value: &serde_json::value::RawValue| range_of(json.as_bytes(), value.get());
        let model_at = members.model.map(at);
        let stream_options_at = members.stream_options.map(at);
        let metadata_at = members.metadata.map(at);
        let service_tier = text(members.service_tier, "service_tier")?;
        let end_user = end_user(&members);
        let unboundable = unboundable(endpoint, &members);
        let has_tools = has_elements(members.tools) || has_elements(members.functions);
        let wants_json_schema = wants_json_schema(endpoint, &members);
        let wants_sound = given(members.modalities).is_some_and(|modalities| !only_text(modalities));
        let has_cache = members.cache.is_some();
        let any = members.any;
        let start = json.find('{').map_or(0, |at| at + 1);
        Ok(Self {
            endpoint,
            model,
            stream,
            usage_asked,
            caps,
            choices,
            previous_response_id,
            conversation,
            service_tier,
            end_user,
            unboundable,
            has_tools,
            wants_json_schema,
            wants_sound,
            images: OnceLock::new(),
            audio: OnceLock::new(),
            file_ids: OnceLock::new(),
            metadata_at,
            has_cache,
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
        let unless_told = match self.endpoint {
            Endpoint::ChatCompletions | Endpoint::Responses => model_cap,
            Endpoint::Completions => LEGACY_OUTPUT_TOKENS,
            Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score => 0,
        };
        self.output_cap().unwrap_or(unless_told).min(model_cap).saturating_mul(self.choices).min(MOST_TOKENS)
    }

    /// The client's own cap on the output of each choice, tokens. Where it gives two, servers differ in which one they
    /// take: the higher counts.
    pub fn output_cap(&self) -> Option<u64> {
        self.caps.iter().filter_map(|cap| cap.tokens).max()
    }

    /// How many choices are made, those that the client does not get included.
    pub const fn choices(&self) -> u64 {
        self.choices
    }

    /// `service_tier`, as the client wrote it.
    pub fn service_tier(&self) -> Option<&str> {
        self.service_tier.as_deref()
    }

    /// The client's own user: `safety_identifier`, or else `user`. At most 512 bytes, never empty.
    pub fn end_user(&self) -> Option<&str> {
        self.end_user.as_deref()
    }

    /// A value of `metadata`, at most 512 bytes of it; nothing where it is no text.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let json = &self.body[self.metadata_at.clone()?];
        let metadata: BTreeMap<Cow<'_, str>, serde_json::Value> = serde_json::from_slice(json).ok()?;
        metadata.get(key)?.as_str().and_then(label)
    }

    /// Whether it names what one provider's account keeps: another deployment has not got it.
    pub fn names_stored_state(&self) -> bool {
        let kept = matches!(
            self.unboundable,
            Some(Unboundable::StoredConversation | Unboundable::StoredPrompt | Unboundable::StoredItem)
        );
        kept || self.conversation.is_some() || !self.file_ids().is_empty()
    }

    /// The files that it names ([`file_ids`]).
    pub fn file_ids(&self) -> &[String] {
        self.file_ids.get_or_init(|| file_ids(&self.body))
    }

    /// Why it can't be bounded, as far as the members at its top tell. What stands deeper is found by the count.
    pub const fn unboundable(&self) -> Option<Unboundable> {
        self.unboundable
    }

    /// Whether it brings tools, or the functions that came before them.
    pub const fn has_tools(&self) -> bool {
        self.has_tools
    }

    /// Whether its answer must keep to a JSON schema.
    pub const fn wants_json_schema(&self) -> bool {
        self.wants_json_schema
    }

    /// Whether a picture is among its messages. Read once more only where a word in it looks so.
    pub fn has_images(&self) -> bool {
        let find = || parts::any_of(&self.body, &["image_url", "input_image", "computer_screenshot"]);
        *self.images.get_or_init(find)
    }

    /// Whether a sound is among its messages, or asked for. Read once more only where a word in it looks so.
    pub fn has_audio(&self) -> bool {
        self.wants_sound || *self.audio.get_or_init(|| parts::any_of(&self.body, &["input_audio"]))
    }

    /// The client's bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// The caps that an endpoint knows.
fn caps(endpoint: Endpoint, members: &Members<'_>, json: &str) -> Result<Vec<Cap>, RequestError> {
    let chat = endpoint == Endpoint::ChatCompletions;
    let old = chat || endpoint == Endpoint::Completions;
    let all = [
        (chat, CapName::MaxCompletionTokens, members.max_completion_tokens),
        (old, CapName::MaxTokens, members.max_tokens),
        (endpoint == Endpoint::Responses, CapName::MaxOutputTokens, members.max_output_tokens),
    ];
    let mut caps = Vec::new();
    for (_, name, value) in all.into_iter().filter(|(known, ..)| *known) {
        let Some(written) = value else { continue };
        let tokens = match endpoint {
            // a completion without an answer scores its prompt
            Endpoint::Completions => count_or_none(value, name.name())?,
            _ => count(value, name.name())?,
        };
        caps.push(Cap { name, tokens, at: range_of(json.as_bytes(), written.get()) });
    }
    Ok(caps)
}

/// A text as a label of a request, such as its end user: at most 512 bytes of it, and not empty.
pub fn label(text: &str) -> Option<String> {
    let text = &text[..text.floor_char_boundary(MAX_LABEL_BYTES)];
    (!text.is_empty()).then(|| text.to_owned())
}

/// The id of `conversation`: a text, or an object with it.
fn conversation(members: &Members<'_>) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Id(String),
        Object { id: String },
    }
    let written = serde_json::from_str(given(members.conversation)?).ok()?;
    let (Written::Id(id) | Written::Object { id }) = written;
    (id.len() <= MAX_RESPONSE_ID_BYTES).then_some(id)
}

fn end_user(members: &Members<'_>) -> Option<String> {
    [members.safety_identifier, members.user].into_iter().find_map(|value| {
        let name: String = serde_json::from_str(given(value)?).ok()?;
        label(&name)
    })
}

/// Whether `modalities` names nothing but text.
fn only_text(modalities: &str) -> bool {
    let named = serde_json::from_str::<Vec<Cow<'_, str>>>(modalities);
    named.is_ok_and(|named| named.iter().all(|modality| modality == "text"))
}

/// Whether the answer must keep to a JSON schema: `response_format`, or `text.format` of responses.
fn wants_json_schema(endpoint: Endpoint, members: &Members<'_>) -> bool {
    #[derive(serde::Deserialize)]
    struct Format<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    #[derive(serde::Deserialize)]
    struct Text<'a> {
        #[serde(borrow)]
        format: Format<'a>,
    }
    let format = match endpoint {
        Endpoint::Responses => given(members.text)
            .and_then(|text| serde_json::from_str::<Text<'_>>(text).ok())
            .map(|text| text.format),
        _ => given(members.response_format).and_then(|format| serde_json::from_str(format).ok()),
    };
    format.is_some_and(|format| format.kind == "json_schema")
}

/// Looks at members of every endpoint alike: who knows which of them a server minds where.
fn unboundable(endpoint: Endpoint, members: &Members<'_>) -> Option<Unboundable> {
    let stored_prompt = members.prompt.filter(|_| endpoint == Endpoint::Responses);
    let none = [
        (members.previous_response_id, Unboundable::StoredConversation),
        (members.conversation, Unboundable::StoredConversation),
        (stored_prompt, Unboundable::StoredPrompt),
        (members.web_search_options, Unboundable::WebSearch),
        (members.context_management, Unboundable::ContextManagement),
        (members.modalities.filter(|value| !only_text(value.get())), Unboundable::AudioOutput),
    ];
    none.into_iter().find_map(|(value, why)| given(value).map(|_| why))
}

/// Whether what the endpoint lives on is there and of a type that can be right; the rest is the provider's to judge.
fn check_required(endpoint: Endpoint, members: &Members<'_>) -> Result<(), RequestError> {
    let (param, value) = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Score => ("messages", members.messages),
        Endpoint::Completions => ("prompt", members.prompt),
        Endpoint::Embeddings | Endpoint::Moderations => ("input", members.input),
        // a stored prompt or a conversation may stand for the input
        Endpoint::Responses => return Ok(()),
    };
    let Some(text) = given(value) else { return Err(RequestError::Missing(param)) };
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let expected = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Score if first != b'[' => "an array of messages",
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

#[cfg(test)]
mod tests;
