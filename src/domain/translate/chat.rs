//! What is read of a chat completion, whole or chunk by chunk. Members are read where they stand, nothing is copied.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::text::{Joined, Text};
use crate::domain::usage::TokenCounts;

/// A whole chat completion, or a chunk of one.
#[derive(Debug, Deserialize)]
pub(super) struct Chat<'a> {
    #[serde(borrow, default)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) service_tier: Option<Text<'a>>,
    /// Padding of a chunk, so that its length tells nothing of its words.
    #[serde(borrow, default)]
    pub(super) obfuscation: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// The one choice we ask for.
#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    /// All of it.
    #[serde(borrow, default)]
    pub(super) message: Option<Words<'a>>,
    /// What is new of it. Azure leaves it out where there is nothing new.
    #[serde(borrow, default)]
    pub(super) delta: Option<Words<'a>>,
    #[serde(default)]
    pub(super) logprobs: Option<Logprobs>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Cow<'a, str>>,
}

/// What is said.
#[derive(Debug, Deserialize)]
pub(super) struct Words<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
}

/// A call, or a piece of one.
#[derive(Debug, Deserialize)]
pub(super) struct ToolCall<'a> {
    /// Which call a piece belongs to.
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) function: Option<Called<'a>>,
}

/// What a call calls.
#[derive(Debug, Deserialize)]
pub(super) struct Called<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<Text<'a>>,
}

/// How likely the words were.
#[derive(Debug, Deserialize)]
pub(super) struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Logprob>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Logprob {
    token: Box<RawValue>,
    logprob: Box<RawValue>,
    /// Chat knows none, a response has at least an empty array.
    #[serde(default, deserialize_with = "or_none")]
    bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Self>>,
}

fn or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Choice<'_> {
    /// How likely the new words were.
    pub(super) fn logprobs(&self) -> Joined {
        let content = self.logprobs.as_ref().and_then(|logprobs| logprobs.content.as_ref());
        content.map(Joined::of).unwrap_or_default()
    }
}

/// What an answer used, under the names of Responses.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Usage {
    /// What it cost, USD, where we have said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Box<RawValue>>,
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Clone, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Clone, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

#[derive(Deserialize)]
struct Cost {
    #[serde(default)]
    cost: Option<Box<RawValue>>,
}

impl Usage {
    /// Reads a chat's usage; nothing where it is no usage.
    pub(super) fn read(usage: &RawValue) -> Option<Self> {
        let counts = TokenCounts::from_json(&serde_json::from_str(usage.get()).ok()?)?;
        Some(Self {
            cost: serde_json::from_str(usage.get()).ok().and_then(|Cost { cost }| cost),
            input_tokens: counts.prompt,
            input_tokens_details: InputDetails {
                cached_tokens: counts.cached,
                cache_write_tokens: counts.cache_write,
            },
            output_tokens: counts.completion,
            output_tokens_details: OutputDetails { reasoning_tokens: counts.reasoning },
            total_tokens: counts.prompt.saturating_add(counts.completion),
        })
    }
}

/// An error that an upstream tells in mid-stream.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Fault {
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) r#type: Option<String>,
    /// Some servers send a number.
    #[serde(default)]
    pub(super) code: Option<serde_json::Value>,
}
