//! A streamed answer as it passes: its usage is read, the usage chunk that only we asked for is taken out, everything
//! else goes on byte for byte.
//!
//! Source: OpenAI API 2.3.0. Chat and completions: the usage chunk has `choices: []` and comes last before `[DONE]`;
//! all other chunks then carry `usage: null`. Responses: the last event holds the whole response with its usage.
//! Azure's first chunk has empty ids and no choices, and a `delta` may be missing.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::file_ids::file_ids;
use super::money::Usd;
use super::priced::Priced;
use super::provider::ProviderKind;
use super::usage::{COMPUTE_COMMENT, TokenCounts};
use crate::domain::service_tier::ServiceTier;
use crate::sse::{self, Piece, Splitter};

/// Events are kept unread up to this many bytes; most streams end before, with their usage, and are never read again.
const UNREAD_BYTES: usize = 64 << 10;

/// Reads a stream as it passes.
#[derive(Debug)]
pub struct StreamReader {
    endpoint: Endpoint,
    /// The usage chunk was asked for by us alone.
    withhold_usage: bool,
    splitter: Splitter,
    usage: Option<TokenCounts>,
    /// Who tells that usage.
    told_by: ProviderKind,
    /// The tier that the answer says it was served in.
    served: Option<ServiceTier>,
    /// What its usage is told with.
    cost: Option<CostTold>,
    /// How long our own worker has computed so far, microseconds, where it has said so since that was last taken.
    computed_us: Option<u64>,
    /// Of the stored response and of files in it, not yet taken.
    ids: Vec<String>,
    finished: bool,
    /// A choice has said why it ends.
    reasoned: bool,
    failed: bool,
    dropped_last: bool,
    seen_first: bool,
    tally: Tally,
}

/// How the cost is known that a usage is told with.
#[derive(Debug)]
enum CostTold {
    /// From what was used.
    Priced(Priced),
    /// Whatever was used.
    Paid(Usd),
}

/// What becomes of one event.
enum Fate {
    Pass,
    Drop,
    Replace(Bytes),
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(default)]
    choices: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(borrow, default)]
    service_tier: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    response: Option<Stored<'a>>,
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(borrow, default)]
    service_tier: Option<Cow<'a, str>>,
}

impl StreamReader {
    /// A reader at the start of a stream.
    pub fn new(endpoint: Endpoint, withhold_usage: bool) -> Self {
        Self {
            endpoint,
            withhold_usage,
            splitter: Splitter::new(),
            usage: None,
            told_by: ProviderKind::OpenAi,
            served: None,
            cost: None,
            computed_us: None,
            ids: Vec::new(),
            finished: false,
            reasoned: false,
            failed: false,
            dropped_last: false,
            seen_first: false,
            tally: Tally::new(endpoint),
        }
    }

    /// The cost is put into the usage that the client asked for, as `usage.cost`, USD.
    #[must_use]
    pub fn priced(self, priced: Option<Priced>) -> Self {
        let told_by = priced.as_ref().map_or(self.told_by, |priced| priced.by);
        Self { cost: priced.map(CostTold::Priced), told_by, ..self }
    }

    /// It comes from a provider of a kind: what only our own worker is believed is read of nobody else's.
    #[must_use]
    pub fn told_by(self, told_by: ProviderKind) -> Self {
        Self { told_by, ..self }
    }

    /// As [`Self::priced`], of an answer of which the client pays so much, whatever it used.
    #[must_use]
    pub fn paid(self, cost: Usd) -> Self {
        Self { cost: Some(CostTold::Paid(cost)), ..self }
    }

    /// The tier that the stream said it was served in.
    pub const fn served(&self) -> Option<ServiceTier> {
        self.served
    }

    /// Takes what came from upstream and returns what may go to the client now: whole events only.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        let untouched_start = self.splitter.is_between_events();
        let original = chunk.clone();
        let mut pieces = Vec::new();
        self.splitter.push(chunk, |piece| pieces.push(piece));
        let mut changed = false;
        let mut kept: Vec<Bytes> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Tail(tail) if self.dropped_last => {
                    changed = true;
                    drop(tail);
                }
                Piece::Tail(tail) => kept.push(tail),
                Piece::Event(event) => match self.inspect(&event) {
                    Fate::Pass => kept.push(event),
                    Fate::Drop => changed = true,
                    Fate::Replace(other) => {
                        changed = true;
                        kept.push(other);
                    }
                },
            }
        }
        if !changed && untouched_start && self.splitter.is_between_events() {
            return original;
        }
        concat(kept)
    }

    /// What is left when the stream has ended well: an event without its closing blank line.
    pub fn finish(&mut self) -> Bytes {
        let Some(rest) = self.splitter.finish() else { return Bytes::new() };
        match self.inspect(&rest) {
            Fate::Pass => rest,
            Fate::Drop => Bytes::new(),
            Fate::Replace(other) => other,
        }
    }

    /// The usage the provider reported.
    pub const fn usage(&self) -> Option<TokenCounts> {
        self.usage
    }

    /// The ids seen since the last call: of the stored response, and of files in it.
    pub fn take_ids(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ids)
    }

    /// How long our own worker has computed so far, microseconds, if it has said so since the last call.
    pub const fn take_computed_us(&mut self) -> Option<u64> {
        self.computed_us.take()
    }

    /// Whether the stream has said that it failed: an error event, whatever comes behind it.
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the stream has said that it is complete: by its last event, by the reason why it ends, or by its usage,
    /// which comes last.
    pub const fn is_complete(&self) -> bool {
        self.finished || self.reasoned || self.usage.is_some()
    }

    /// What was streamed so far.
    pub fn streamed(&mut self) -> Streamed<'_> {
        self.tally.read();
        Streamed { text: &self.tally.text, pieces: self.tally.pieces }
    }

    fn inspect(&mut self, event: &Bytes) -> Fate {
        self.dropped_last = false;
        if self.told_by == ProviderKind::Candle
            && let Some(told) = event.strip_prefix(COMPUTE_COMMENT.as_bytes())
        {
            self.computed_us = str::from_utf8(told).ok().and_then(|told| told.trim_ascii_end().parse().ok());
            self.dropped_last = true;
            return Fate::Drop;
        }
        if event.starts_with(b"data: [DONE]") || event.starts_with(b"data:[DONE]") {
            self.finished = true;
            return Fate::Pass;
        }
        self.tally.keep(event);
        // an event that is nothing but an error; in a chunk, the member would not come first
        self.failed |= event.starts_with(b"data: {\"error\":{") || event.starts_with(b"event: error");
        let fate = match self.endpoint {
            Endpoint::Responses => self.inspect_response(event),
            _ => self.inspect_chunk(event),
        };
        self.dropped_last = matches!(fate, Fate::Drop);
        fate
    }

    fn inspect_chunk(&mut self, event: &Bytes) -> Fate {
        self.reasoned = self.reasoned || gives_reason(event);
        // inside a JSON string the quotes would be escaped: these bytes are a member's name
        if memmem::find(event, b"\"usage\"").is_none() {
            return Fate::Pass;
        }
        if let Some(at) = memmem::find(event, b",\"usage\":null") {
            if !self.withhold_usage {
                return Fate::Pass;
            }
            let mut without = BytesMut::with_capacity(event.len());
            without.extend_from_slice(&event[..at]);
            without.extend_from_slice(&event[at + b",\"usage\":null".len()..]);
            return Fate::Replace(without.freeze());
        }
        let Some(data) = sse::data(event) else { return Fate::Pass };
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&data) else { return Fate::Pass };
        let counts = |usage| TokenCounts::told_by(self.told_by, usage);
        let Some(usage) = chunk.usage.as_ref().and_then(counts) else { return Fate::Pass };
        self.usage = Some(usage);
        self.served = chunk.service_tier.as_deref().map(|tier| ServiceTier::served(Some(tier)));
        let bare = chunk.choices.is_some_and(|choices| choices.is_empty());
        match bare && self.withhold_usage {
            true => Fate::Drop,
            false => self.with_cost(event),
        }
    }

    /// The event with its cost as the first member of its usage.
    fn with_cost(&self, event: &Bytes) -> Fate {
        let (Some(cost), Some(usage)) = (&self.cost, &self.usage) else { return Fate::Pass };
        let cost = match cost {
            CostTold::Priced(priced) => priced.cost(usage, self.served),
            CostTold::Paid(cost) => *cost,
        };
        let Some(at) = usage_members(event) else { return Fate::Pass };
        let mut told = BytesMut::with_capacity(event.len() + 32);
        told.extend_from_slice(&event[..at]);
        told.extend_from_slice(format!("\"cost\":{cost},").as_bytes());
        told.extend_from_slice(&event[at..]);
        Fate::Replace(told.freeze())
    }

    fn inspect_response(&mut self, event: &Bytes) -> Fate {
        let first = !std::mem::replace(&mut self.seen_first, true);
        let terminal = [&b"response.completed"[..], b"response.incomplete", b"response.failed"]
            .iter()
            .any(|name| memmem::find(event, name).is_some());
        if !first && !terminal {
            return Fate::Pass;
        }
        let Some(data) = sse::data(event) else {
            self.seen_first = !first;
            return Fate::Pass;
        };
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&data) else { return Fate::Pass };
        let Some(response) = chunk.response else { return Fate::Pass };
        if first {
            self.ids.extend(response.id.map(Cow::into_owned));
        }
        let counts = |usage| TokenCounts::told_by(self.told_by, usage);
        if let Some(usage) = response.usage.as_ref().and_then(counts) {
            self.usage = Some(usage);
            self.finished = true;
            self.served = response.service_tier.as_deref().map(|tier| ServiceTier::served(Some(tier)));
            self.ids.extend(file_ids(&data));
            return self.with_cost(event);
        }
        Fate::Pass
    }
}

/// Whether an event says why a choice ends.
fn gives_reason(event: &[u8]) -> bool {
    let name = b"\"finish_reason\":";
    memmem::find_iter(event, name).any(|at| {
        let value = event[at + name.len()..].iter().find(|byte| !byte.is_ascii_whitespace());
        value == Some(&b'"')
    })
}

/// Where the members of an event's usage begin.
fn usage_members(event: &[u8]) -> Option<usize> {
    let name = b"\"usage\"";
    let mut at = memmem::rfind(event, name)? + name.len();
    for sign in [b':', b'{'] {
        at += event[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if event.get(at) != Some(&sign) {
            return None;
        }
        at += 1;
    }
    Some(at)
}

fn concat(mut kept: Vec<Bytes>) -> Bytes {
    match kept.len() {
        0 => Bytes::new(),
        1 => kept.remove(0),
        _ => kept.concat().into(),
    }
}

/// What was streamed to the client so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed<'a> {
    /// All texts, tool calls included, one after the other.
    pub text: &'a str,
    /// Events that carried any text: our worker sends one a token.
    pub pieces: u64,
}

/// Keeps what was streamed, read only when somebody asks.
#[derive(Debug)]
struct Tally {
    endpoint: Endpoint,
    unread: Vec<u8>,
    text: String,
    pieces: u64,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    delta: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    delta: Option<Value>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

impl Tally {
    const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, unread: Vec::new(), text: String::new(), pieces: 0 }
    }

    fn keep(&mut self, event: &[u8]) {
        self.unread.extend_from_slice(event);
        if self.unread.len() > UNREAD_BYTES {
            self.read();
        }
    }

    fn read(&mut self) {
        let unread = Bytes::from(std::mem::take(&mut self.unread));
        let mut splitter = Splitter::new();
        splitter.push(unread, |piece| {
            if let Piece::Event(event) = piece {
                self.add(&event);
            }
        });
        if let Some(rest) = splitter.finish() {
            self.add(&rest);
        }
    }

    fn add(&mut self, event: &[u8]) {
        let Some(data) = sse::data(event) else { return };
        let Ok(delta) = serde_json::from_slice::<Delta<'_>>(&data) else { return };
        let before = self.text.len();
        if self.endpoint == Endpoint::Responses {
            if let (Some(kind), Some(Value::String(text))) = (delta.kind, delta.delta)
                && kind.ends_with(".delta")
            {
                self.text.push_str(&text);
            }
        } else {
            for choice in delta.choices {
                self.text.push_str(choice.text.as_deref().unwrap_or_default());
                if let Some(delta) = choice.delta {
                    add_texts(&delta, &mut self.text);
                }
            }
        }
        self.pieces += u64::from(self.text.len() > before);
    }
}

/// Every text of a delta but its role, ids and types.
fn add_texts(delta: &Value, out: &mut String) {
    match delta {
        Value::String(text) => out.push_str(text),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, out)),
        Value::Object(members) => members
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "role" | "id" | "type"))
            .for_each(|(_, value)| add_texts(value, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = concat!(
        "data: {\"id\":\"\",\"choices\":[],\"prompt_filter_results\":[],\"usage\":null}\n\n",
        ": comment\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\r\n\r\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Zürich 漢 ,\\\"usage\\\":null\"}}],\"usage\":null}\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\n",
        "data: \"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}],\"usage\":null}\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
        "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":5,\"total_tokens\":17}}\n\n",
        "data: [DONE]\n\n",
    );

    fn run(endpoint: Endpoint, withhold: bool, parts: &[&[u8]]) -> (Vec<u8>, StreamReader) {
        let mut reader = StreamReader::new(endpoint, withhold);
        let mut out = Vec::new();
        for part in parts {
            out.extend_from_slice(&reader.push(Bytes::copy_from_slice(part)));
        }
        out.extend_from_slice(&reader.finish());
        (out, reader)
    }

    fn without_usage() -> Vec<u8> {
        let kept: Vec<&str> =
            CHAT.split_inclusive("\n\n").filter(|event| !event.contains("\"prompt_tokens\"")).collect();
        kept.concat().replace(",\"usage\":null", "").into_bytes()
    }

    #[test]
    fn our_own_workers_comments_are_for_us_at_every_cut_and_nobody_elses() {
        let told = CHAT.replace("data: {\"id\":\"c\"", ": tunegate-compute-us 71\ndata: {\"id\":\"c\"");
        for cut in 0..=told.len() {
            let (a, b) = told.as_bytes().split_at(cut);
            let mut reader =
                StreamReader::new(Endpoint::ChatCompletions, false).told_by(ProviderKind::Candle);
            let out = [a, b].map(|part| reader.push(Bytes::copy_from_slice(part))).concat();
            assert_eq!(String::from_utf8_lossy(&out), CHAT, "cut at {cut}");
            assert_eq!((reader.take_computed_us(), reader.take_computed_us()), (Some(71), None));
            assert_eq!(reader.streamed().pieces, 2);
        }
        let mut reader = StreamReader::new(Endpoint::ChatCompletions, false);
        assert_eq!(reader.push(told.clone().into()), told);
        assert_eq!(reader.take_computed_us(), None);
        let mut reader = StreamReader::new(Endpoint::ChatCompletions, false).told_by(ProviderKind::Candle);
        assert!(reader.push(": tunegate-compute-us never\n".into()).is_empty());
        assert_eq!(reader.take_computed_us(), None);
    }

    #[test]
    fn the_usage_chunk_is_withheld_only_where_we_asked_at_every_cut() {
        for cut in 0..=CHAT.len() {
            let (a, b) = CHAT.as_bytes().split_at(cut);
            let (out, mut reader) = run(Endpoint::ChatCompletions, true, &[a, b]);
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&without_usage()),
                "cut at {cut}"
            );
            assert_eq!(reader.usage().map(|usage| (usage.prompt, usage.completion)), Some((12, 5)));
            assert!(reader.is_complete());
            assert_eq!(reader.streamed().text, "Zürich 漢 ,\"usage\":null{}f");
            assert_eq!(reader.streamed().pieces, 2);
            let (out, reader) = run(Endpoint::ChatCompletions, false, &[a, b]);
            assert_eq!(out, CHAT.as_bytes(), "cut at {cut}");
            assert!(reader.usage().is_some());
        }
        let bytes: Vec<&[u8]> = CHAT.as_bytes().chunks(1).collect();
        assert_eq!(run(Endpoint::ChatCompletions, true, &bytes).0, without_usage());
    }

    #[test]
    fn an_untouched_chunk_is_passed_on_without_a_copy() {
        let chunk = Bytes::from_static(b"data: {\"choices\":[]}\n\ndata: {}\n\n");
        let mut reader = StreamReader::new(Endpoint::ChatCompletions, true);
        assert_eq!(reader.push(chunk.clone()).as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn responses_name_their_id_first_and_their_usage_last() {
        let stream = concat!(
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"usage\":null}}\n\n",
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Do\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"output\":[{\"file_id\":\"cfile_1\"}],\"usage\":{\"input_tokens\":30,\"output_tokens\":12,\"output_tokens_details\":{\"reasoning_tokens\":8}}}}\n\n",
        );
        for cut in 0..=stream.len() {
            let (a, b) = stream.as_bytes().split_at(cut);
            let (out, mut reader) = run(Endpoint::Responses, false, &[a, b]);
            assert_eq!(out, stream.as_bytes());
            assert_eq!(reader.take_ids(), ["resp_1", "cfile_1"]);
            assert_eq!(reader.usage().map(|usage| (usage.prompt, usage.reasoning)), Some((30, 8)));
            assert!(reader.is_complete());
            assert_eq!(reader.streamed().text, "Do");
        }
    }

    #[test]
    fn an_error_event_is_no_good_end() {
        let word = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"{\\\"error\\\":{}\"}}]}\n\n";
        for (last, failed) in [
            ("data: [DONE]\n\n", false),
            ("data: {\"error\":{\"message\":\"m\"},\"usage\":{\"prompt_tokens\":1}}\n\n", true),
        ] {
            let stream = format!("{word}{last}");
            let (out, reader) = run(Endpoint::ChatCompletions, true, &[stream.as_bytes()]);
            assert_eq!(out, stream.as_bytes(), "an error is never withheld");
            assert_eq!(reader.has_failed(), failed);
        }
    }

    #[test]
    fn a_long_stream_is_read_in_parts() {
        let event = "data: {\"choices\":[{\"index\":0,\"text\":\"ab\"}]}\n\n";
        let mut reader = StreamReader::new(Endpoint::Completions, true);
        for _ in 0..4_000 {
            reader.push(Bytes::from_static(event.as_bytes()));
            assert!(reader.tally.unread.len() <= UNREAD_BYTES + event.len());
        }
        assert_eq!(reader.streamed().pieces, 4_000);
        assert_eq!(reader.streamed().text.len(), 8_000);
    }
}
