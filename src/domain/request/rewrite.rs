//! What changes in a body on its way to one deployment: new text is spliced in where the old stood.

use std::ops::Range;

use bytes::Bytes;

use super::{Cap, InferenceRequest};

/// The name under which a model takes the cap on its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapName {
    /// Of completions, and of chat models before the reasoning ones.
    MaxTokens,
    /// Of chat models since the reasoning ones, whose thoughts it covers.
    MaxCompletionTokens,
    /// Of responses.
    MaxOutputTokens,
}

impl CapName {
    /// The member's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }
}

/// A cap on the output of each choice, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputCap {
    /// The name, where the client gave none of its own.
    pub name: CapName,
    /// Tokens.
    pub tokens: u64,
}

/// What a dialect changes in a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrite<'a> {
    /// The provider's own name for the model, where the body carries it.
    pub model: Option<&'a str>,
    /// Asks for the usage chunk of a stream.
    pub ask_usage: bool,
    /// The output is not to be longer. A lower cap of the client's own stays.
    pub output_cap: Option<OutputCap>,
}

impl InferenceRequest {
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
        if let Some(cap) = rewrite.output_cap {
            self.cap_output(cap, &mut edits, &mut added);
        }
        if !added.is_empty() {
            if !self.any {
                added.pop();
            }
            edits.push((self.start..self.start, added));
        }
        self.splice(edits)
    }

    /// The client's own caps are lowered where they stand, under whichever names; `null` is none.
    fn cap_output(&self, cap: OutputCap, edits: &mut Vec<(Range<usize>, String)>, added: &mut String) {
        let text = cap.tokens.to_string();
        if self.caps.iter().any(|own| own.tokens.is_some()) {
            let too_high =
                self.caps.iter().filter(|own| own.tokens.is_some_and(|tokens| tokens > cap.tokens));
            edits.extend(too_high.map(|own| (own.at.clone(), text.clone())));
            return;
        }
        match self.caps.iter().find(|own| own.name == cap.name) {
            Some(Cap { at, .. }) => edits.push((at.clone(), text)),
            None => added.push_str(&format!("\"{}\":{text},", cap.name.name())),
        }
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
