//! What changes in a body on its way to one deployment: new text is spliced in where the old stood.

use std::ops::Range;

use bytes::Bytes;

use super::members::{Member, all_members, key_before};
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
    /// The only name under which the deployment takes a cap; none where the client's names are as good.
    pub only_cap: Option<CapName>,
    /// Members that the deployment does not take: left out, unless [`droppable`] says no.
    pub dropped: &'a [Box<str>],
}

/// Whether a member may be left out on the way to a deployment. Those that say what is asked for, how it is answered or
/// what it can cost may not: without them it would be another request than the one that was checked and paid for.
pub fn droppable(name: &str) -> bool {
    !matches!(
        name,
        "model"
            | "messages"
            | "prompt"
            | "input"
            | "stream"
            | "stream_options"
            | "max_tokens"
            | "max_completion_tokens"
            | "max_output_tokens"
            | "background"
            | "previous_response_id"
            | "conversation"
            | "service_tier"
    )
}

/// New text for a place in the body.
pub(super) type Edit = (Range<usize>, String);

impl InferenceRequest {
    /// Which of these members stand at its top and are more than `null`. The body is read once more.
    pub fn members_of<'n>(&self, names: &'n [Box<str>]) -> Vec<&'n str> {
        if names.is_empty() {
            return Vec::new();
        }
        let members = all_members(&self.body);
        let stands = |name: &str| members.iter().any(|member| member.given && member.name == name);
        names.iter().map(AsRef::as_ref).filter(|name| stands(name)).collect()
    }

    /// The body for one deployment; the client's own bytes where nothing changes.
    pub fn rewritten(&self, rewrite: Rewrite<'_>) -> Bytes {
        let mut edits: Vec<Edit> = Vec::with_capacity(2);
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
        let refused_cap = match (rewrite.only_cap, rewrite.output_cap) {
            (Some(only), cap) => self.cap_under(only, cap.map(|cap| cap.tokens), &mut edits, &mut added),
            (None, Some(cap)) => {
                self.cap_output(cap, &mut edits, &mut added);
                None
            }
            (None, None) => None,
        };
        let mut any = self.any;
        if !rewrite.dropped.is_empty() || refused_cap.is_some() {
            let members = all_members(&self.body);
            let goes = |member: &Member<'_>| {
                let named = rewrite.dropped.iter().any(|name| **name == *member.name);
                (named && droppable(&member.name)) || refused_cap.is_some_and(|cap| cap.name() == member.name)
            };
            any = without(&members, goes, &mut edits);
        }
        if !added.is_empty() {
            if !any {
                added.pop();
            }
            edits.push((self.start..self.start, added));
        }
        self.splice(edits)
    }

    /// The client's own caps are lowered where they stand, under whichever names; `null` is none.
    fn cap_output(&self, cap: OutputCap, edits: &mut Vec<Edit>, added: &mut String) {
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

    /// One cap is left, under the only name that is taken: the lowest of the client's own and ours. The name is changed
    /// where it stands; where both names are there, the one that must go is returned.
    fn cap_under(
        &self,
        only: CapName,
        ours: Option<u64>,
        edits: &mut Vec<Edit>,
        added: &mut String,
    ) -> Option<CapName> {
        let lowest = self.caps.iter().filter_map(|own| own.tokens).chain(ours).min();
        let Some(kept) = self.caps.iter().find(|own| own.name == only).or_else(|| self.caps.first()) else {
            added.extend(lowest.map(|tokens| format!("\"{}\":{tokens},", only.name())));
            return None;
        };
        if kept.name != only {
            edits.push((key_before(&self.body, kept.at.start), json_string(only.name())));
        }
        if let Some(tokens) = lowest.filter(|_| kept.tokens != lowest) {
            edits.push((kept.at.clone(), tokens.to_string()));
        }
        self.caps.iter().map(|own| own.name).find(|name| *name != kept.name)
    }

    pub(super) fn splice(&self, mut edits: Vec<Edit>) -> Bytes {
        if edits.is_empty() {
            return self.body.clone();
        }
        // what is added stands before what is left out at the same place
        edits.sort_by_key(|(at, _)| (at.start, at.end));
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

/// Takes members out, each with one comma; says whether any is left.
pub(super) fn without(
    members: &[Member<'_>],
    goes: impl Fn(&Member<'_>) -> bool,
    edits: &mut Vec<Edit>,
) -> bool {
    let places: Vec<Range<usize>> = members.iter().map(|member| member.at.clone()).collect();
    left_out(&places, |place| goes(&members[place]), edits)
}

/// Takes members of an object or elements of an array out, each with one comma; says whether any is left.
pub(super) fn left_out(places: &[Range<usize>], goes: impl Fn(usize) -> bool, edits: &mut Vec<Edit>) -> bool {
    let mut any_left = false;
    for (place, at) in places.iter().enumerate() {
        if !goes(place) {
            any_left = true;
            continue;
        }
        // with the comma before it; the first ones with the comma behind
        let from = match place.checked_sub(1) {
            Some(before) if any_left => places[before].end,
            _ => at.start,
        };
        let to = match places.get(place + 1) {
            Some(next) if !any_left => next.start,
            _ => at.end,
        };
        edits.push((from..to, String::new()));
    }
    any_left
}

pub(super) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `stream_options` with `include_usage` set, other members kept.
fn with_usage(options: &[u8]) -> String {
    let mut options: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(options).unwrap_or_default();
    options.insert("include_usage".to_owned(), true.into());
    serde_json::Value::from(options).to_string()
}
