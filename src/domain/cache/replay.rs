//! A kept answer told the other way: a stream as the whole answer that it is, a whole answer as the stream that it
//! could have been.
//!
//! Members that nobody here knows stay as they are written, numbers too. Source: OpenAI API 2.3.0.

mod chat;
mod response;
mod streamed;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::scan::{Member, members, text};
use crate::domain::endpoint::Endpoint;
use crate::sse::{self, Piece, Splitter};

/// Longest piece of a text in one event, bytes.
const PIECE_BYTES: usize = 256;
/// The data of a stream's last event; responses have none.
const DONE: &str = "[DONE]";

/// The whole answer that a stream is; nothing where the stream did not come to its end, or is none that we know.
pub fn whole_of(endpoint: Endpoint, events: &[u8]) -> Option<Bytes> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => chat::whole_of(endpoint, events),
        Endpoint::Responses => response::whole_of(events),
        Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score => None,
    }
}

/// The stream that a whole answer could have been, with its usage as if the client had asked for it; nothing where it is
/// no answer that we know.
pub fn stream_of(endpoint: Endpoint, whole: &[u8]) -> Option<Bytes> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => streamed::stream_of(endpoint, whole),
        Endpoint::Responses => response::stream_of(whole),
        Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score => None,
    }
}

/// Whether a stream that is no whole answer says that it failed, or is nothing that we know; else it broke off.
pub(super) fn has_failed(events: &[u8]) -> bool {
    let Some(events) = events_of(events) else { return true };
    events.iter().any(|event| {
        let told = members(event.as_bytes());
        let kind = given(&told, "type").and_then(text);
        given(&told, "error").is_some() || matches!(kind.as_deref(), Some("error" | "response.failed"))
    })
}

/// The data of every event, in order; nothing where one is neither JSON nor `[DONE]`.
fn events_of(stream: &[u8]) -> Option<Vec<String>> {
    let mut splitter = Splitter::new();
    let mut events = Vec::new();
    splitter.push(Bytes::copy_from_slice(stream), |piece| {
        if let Piece::Event(event) = piece {
            events.push(event);
        }
    });
    events.extend(splitter.finish());
    let mut all = Vec::with_capacity(events.len());
    for event in &events {
        let Some(data) = sse::data(event) else { continue };
        let data = std::str::from_utf8(&data).ok()?;
        if !data.starts_with(DONE) {
            serde_json::from_str::<IgnoredAny>(data).ok()?;
        }
        all.push(data.to_owned());
    }
    Some(all)
}

/// The pieces of a text that events carry, as JSON and each whole characters; none of an empty one. What is no text
/// stays in one piece.
fn pieces(json: &[u8]) -> Vec<Vec<u8>> {
    let Some(text) = text(json) else { return vec![json.to_vec()] };
    let mut rest = &*text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        pieces.push(quoted(piece));
        rest = behind;
    }
    pieces
}

/// A text as JSON.
fn quoted(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).expect("a text can always be written")
}

/// One object of JSON as text, on one line: an event's data must not break. A line end is never inside a text, there it
/// is escaped.
fn one_line(json: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(json).ok()?.trim();
    serde_json::from_str::<IgnoredAny>(text).ok().filter(|_| text.starts_with('{'))?;
    Some(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect())
}

/// Writes a member of the object that is being written.
fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_name(out, name);
    out.extend_from_slice(value);
}

/// Writes a member's name, with the comma before it.
fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    separate(out);
    out.extend_from_slice(&quoted(&String::from_utf8_lossy(name)));
    out.push(b':');
}

/// Writes a comma where something stands before.
fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'{' | b'[')) {
        out.push(b',');
    }
}

/// Whether a value says nothing: Azure's first chunk is full of them.
fn is_empty(value: &[u8]) -> bool {
    matches!(value, b"null" | b"\"\"" | b"0" | b"[]" | b"{}")
}

/// A member's value by its name; `null` counts as absent.
fn given<'a>(members: &[Member<'a>], name: &str) -> Option<&'a [u8]> {
    members
        .iter()
        .find(|member| *member.name == *name.as_bytes() && member.is_given())
        .map(|member| member.value)
}

#[cfg(test)]
mod tests;
