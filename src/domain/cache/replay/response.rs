//! Responses: the last event of a stream holds the whole answer, and an answer tells which events led to it.

use bytes::Bytes;

use super::{events_of, given, one_line, pieces, put, put_name};
use crate::domain::cache::scan::{Member, elements, members, text};

/// The response that the last event holds; nothing where there is none that is whole.
pub(super) fn whole_of(stream: &[u8]) -> Option<Bytes> {
    let events = events_of(stream)?;
    let last = members(events.last()?.as_bytes());
    match text(given(&last, "type")?).as_deref() {
        Some("response.completed" | "response.incomplete") => {
            given(&last, "response").map(Bytes::copy_from_slice)
        }
        _ => None,
    }
}

/// The events that lead to a response; nothing where it is not one that is whole.
pub(super) fn stream_of(whole: &[u8]) -> Option<Bytes> {
    let whole = one_line(whole)?;
    let told = members(&whole);
    let last = match text(given(&told, "status")?).as_deref() {
        Some("completed") => "response.completed",
        Some("incomplete") => "response.incomplete",
        _ => return None,
    };
    let mut events = Events::default();
    let begun = changed(
        &told,
        &[
            ("status", b"\"in_progress\""),
            ("output", b"[]"),
            ("usage", b"null"),
            ("completed_at", b"null"),
            ("incomplete_details", b"null"),
        ],
    );
    for kind in ["response.created", "response.in_progress"] {
        events.write(kind, &[("response", &begun)]);
    }
    for (at, item) in elements(given(&told, "output")?).into_iter().enumerate() {
        events.item(at, item);
    }
    events.write(last, &[("response", &whole)]);
    Some(events.written.into())
}

/// Events as bytes, counted.
#[derive(Default)]
struct Events {
    written: Vec<u8>,
    next: u64,
}

/// Where something stands: its item's id, and the places.
struct Place<'a> {
    item_id: &'a [u8],
    output_index: Vec<u8>,
    /// `content_index` or `summary_index`, with the place.
    part: Option<(&'static str, Vec<u8>)>,
}

impl Place<'_> {
    fn members(&self) -> Vec<(&str, &[u8])> {
        let mut all = vec![("item_id", self.item_id), ("output_index", self.output_index.as_slice())];
        all.extend(self.part.as_ref().map(|(name, at)| (*name, at.as_slice())));
        all
    }
}

impl Events {
    /// Writes an event: its type, its number and its members.
    fn write(&mut self, kind: &str, body: &[(&str, &[u8])]) {
        self.written.extend_from_slice(format!("event: {kind}\ndata: {{\"type\":\"{kind}\"").as_bytes());
        put(&mut self.written, b"sequence_number", self.next.to_string().as_bytes());
        body.iter().for_each(|(name, value)| put(&mut self.written, name.as_bytes(), value));
        self.written.extend_from_slice(b"}\n\n");
        self.next += 1;
    }

    /// Writes an event about something at a place.
    fn at(&mut self, kind: &str, place: &Place<'_>, body: &[(&str, &[u8])]) {
        let mut all = place.members();
        all.extend_from_slice(body);
        self.write(kind, &all);
    }

    /// All that is said of one item.
    fn item(&mut self, at: usize, item: &[u8]) {
        let told = members(item);
        let kind = given(&told, "type").and_then(text).unwrap_or_default();
        let item_id = given(&told, "id").unwrap_or(b"\"\"");
        let output_index = at.to_string().into_bytes();
        let place = |part| Place { item_id, output_index: output_index.clone(), part };
        let in_progress: (&str, &[u8]) = ("status", b"\"in_progress\"");
        let begun = match &*kind {
            "message" => changed(&told, &[in_progress, ("content", b"[]")]),
            "function_call" => changed(&told, &[in_progress, ("arguments", b"\"\"")]),
            "custom_tool_call" => changed(&told, &[in_progress, ("input", b"\"\"")]),
            "reasoning" => changed(&told, &[in_progress, ("summary", b"[]"), ("content", b"[]")]),
            _ => changed(&told, &[in_progress]),
        };
        self.write("response.output_item.added", &[("output_index", &output_index), ("item", &begun)]);
        for (name, index) in [("summary", "summary_index"), ("content", "content_index")] {
            let parts = given(&told, name).map(elements).unwrap_or_default();
            for (at, part) in parts.into_iter().enumerate() {
                self.part(&place(Some((index, at.to_string().into_bytes()))), part);
            }
        }
        for (calls, name, event) in [
            ("function_call", "arguments", "response.function_call_arguments"),
            ("custom_tool_call", "input", "response.custom_tool_call_input"),
        ] {
            let Some(whole) = given(&told, name).filter(|_| kind == calls) else { continue };
            let place = place(None);
            for delta in pieces(whole) {
                self.at(&format!("{event}.delta"), &place, &[("delta", &delta)]);
            }
            let mut done = vec![(name, whole)];
            done.extend(given(&told, "name").filter(|_| name == "arguments").map(|name| ("name", name)));
            self.at(&format!("{event}.done"), &place, &done);
        }
        self.write("response.output_item.done", &[("output_index", &output_index), ("item", item)]);
    }

    /// All that is said of one part of a message, or of a thought.
    fn part(&mut self, place: &Place<'_>, part: &[u8]) {
        let told = members(part);
        let kind = given(&told, "type").and_then(text).unwrap_or_default();
        let (event, words, frame) = match &*kind {
            "output_text" => ("response.output_text", "text", "response.content_part"),
            "refusal" => ("response.refusal", "refusal", "response.content_part"),
            "summary_text" => ("response.reasoning_summary_text", "text", "response.reasoning_summary_part"),
            "reasoning_text" => ("response.reasoning_text", "text", "response.content_part"),
            _ => ("", "", "response.content_part"),
        };
        let begun = changed(&told, &[(words, b"\"\""), ("annotations", b"[]"), ("logprobs", b"[]")]);
        self.at(&format!("{frame}.added"), place, &[("part", &begun)]);
        if let Some(said) = given(&told, words) {
            let logprobs = match event {
                "response.output_text" => vec![("logprobs", given(&told, "logprobs").unwrap_or(b"[]"))],
                _ => Vec::new(),
            };
            self.deltas(event, place, said, &logprobs);
            self.annotations(place, given(&told, "annotations"));
            let mut done = vec![(words, said)];
            done.extend_from_slice(&logprobs);
            self.at(&format!("{event}.done"), place, &done);
        }
        self.at(&format!("{frame}.done"), place, &[("part", part)]);
    }

    /// The words of a part, piece by piece; with all their tokens where they have any.
    fn deltas(&mut self, event: &str, place: &Place<'_>, said: &[u8], logprobs: &[(&str, &[u8])]) {
        let has_tokens = logprobs.iter().any(|(_, tokens)| !elements(tokens).is_empty());
        for delta in if has_tokens { vec![said.to_vec()] } else { pieces(said) } {
            let mut body: Vec<(&str, &[u8])> = vec![("delta", &delta)];
            body.extend_from_slice(logprobs);
            self.at(&format!("{event}.delta"), place, &body);
        }
    }

    /// What is said about a text.
    fn annotations(&mut self, place: &Place<'_>, annotations: Option<&[u8]>) {
        for (at, annotation) in annotations.map(elements).unwrap_or_default().into_iter().enumerate() {
            let at = at.to_string();
            let body = [("annotation_index", at.as_bytes()), ("annotation", annotation)];
            self.at("response.output_text.annotation.added", place, &body);
        }
    }
}

/// An object with other values where it has these members.
fn changed(members: &[Member<'_>], to: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for member in members {
        put_name(&mut out, &member.name);
        let other = to.iter().find(|(name, _)| *member.name == *name.as_bytes());
        out.extend_from_slice(other.map_or(member.value, |(_, value)| value));
    }
    out.push(b'}');
    out
}
