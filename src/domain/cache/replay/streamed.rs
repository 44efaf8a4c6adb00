//! A whole answer of a chat or a completion as the stream that it could have been: who speaks, the words in pieces, why
//! it ends, the usage.

use bytes::Bytes;

use super::{given, one_line, pieces, put, put_name, quoted, separate};
use crate::domain::cache::scan::{Member, elements, members, text};
use crate::domain::endpoint::Endpoint;

/// What every chunk says.
const IN_EVERY_CHUNK: [&[u8]; 5] = [b"id", b"created", b"model", b"service_tier", b"system_fingerprint"];
/// What grows piece by piece, in the order in which models make it.
const WORDS: [&str; 4] = ["reasoning_content", "reasoning", "content", "refusal"];

/// The stream, its usage in the chunk before the last; nothing where the answer is none.
pub(super) fn stream_of(endpoint: Endpoint, whole: &[u8]) -> Option<Bytes> {
    let whole = one_line(whole)?;
    let told = members(&whole);
    let choices = elements(given(&told, "choices")?);
    if choices.is_empty() || given(&told, "error").is_some() {
        return None;
    }
    let mut stream = Stream::new(endpoint, &told);
    for choice in choices {
        let choice = members(choice);
        match endpoint {
            Endpoint::ChatCompletions => stream.chat(&choice)?,
            _ => stream.completion(&choice)?,
        }
    }
    if let Some(usage) = given(&told, "usage") {
        stream.chunk(b"", usage);
    }
    stream.out.extend_from_slice(b"data: [DONE]\n\n");
    Some(stream.out.into())
}

/// The stream as it grows.
struct Stream<'a> {
    out: Vec<u8>,
    /// How every chunk begins.
    head: Vec<u8>,
    /// What only the first chunk says.
    first: Vec<Member<'a>>,
}

/// One chunk of a choice.
#[derive(Default)]
struct Piece<'a> {
    delta: &'a [u8],
    logprobs: Option<&'a [u8]>,
    finish_reason: Option<&'a [u8]>,
    others: &'a [Member<'a>],
}

impl<'a> Stream<'a> {
    fn new(endpoint: Endpoint, told: &[Member<'a>]) -> Self {
        let mut head = b"data: {".to_vec();
        let object: &[u8] = match endpoint {
            Endpoint::ChatCompletions => b"\"chat.completion.chunk\"",
            _ => b"\"text_completion\"",
        };
        put(&mut head, b"object", object);
        let mut first = Vec::new();
        for member in told {
            match &*member.name {
                b"object" | b"choices" | b"usage" => {}
                name if IN_EVERY_CHUNK.contains(&name) => put(&mut head, name, member.value),
                _ => first.push(member.clone()),
            }
        }
        Self { out: Vec::new(), head, first }
    }

    /// Writes a chunk with these choices.
    fn chunk(&mut self, choices: &[u8], usage: &[u8]) {
        self.out.extend_from_slice(&self.head);
        for member in std::mem::take(&mut self.first) {
            put(&mut self.out, &member.name, member.value);
        }
        put(&mut self.out, b"choices", b"[");
        self.out.extend_from_slice(choices);
        self.out.push(b']');
        put(&mut self.out, b"usage", usage);
        self.out.extend_from_slice(b"}\n\n");
    }

    /// Writes a chunk of one choice. `said`: `delta` with an object, or `text` with a text.
    fn piece(&mut self, index: &[u8], said: &[u8], piece: &Piece<'_>) {
        let mut choice = b"{".to_vec();
        put(&mut choice, b"index", index);
        put(&mut choice, said, piece.delta);
        put(&mut choice, b"logprobs", piece.logprobs.unwrap_or(b"null"));
        put(&mut choice, b"finish_reason", piece.finish_reason.unwrap_or(b"null"));
        piece.others.iter().for_each(|member| put(&mut choice, &member.name, member.value));
        choice.push(b'}');
        self.chunk(&choice, b"null");
    }

    fn completion(&mut self, choice: &[Member<'_>]) -> Option<()> {
        let index = given(choice, "index").unwrap_or(b"0");
        let words = given(choice, "text")?;
        match given(choice, "logprobs") {
            // its tokens have offsets into all of the text: they stay together
            Some(logprobs) => {
                let logprobs = Some(logprobs);
                self.piece(index, b"text", &Piece { delta: words, logprobs, ..Piece::default() });
            }
            None => {
                for words in pieces(words) {
                    self.piece(index, b"text", &Piece { delta: &words, ..Piece::default() });
                }
            }
        }
        let finish_reason = Some(given(choice, "finish_reason")?);
        let others = others(choice, &["index", "text", "logprobs", "finish_reason"]);
        self.piece(
            index,
            b"text",
            &Piece { delta: b"\"\"", finish_reason, others: &others, ..Piece::default() },
        );
        Some(())
    }

    fn chat(&mut self, choice: &[Member<'_>]) -> Option<()> {
        let index = given(choice, "index").unwrap_or(b"0");
        let message = members(given(choice, "message")?);
        let logprobs = given(choice, "logprobs");
        let told = logprobs.map(members).unwrap_or_default();
        let tokens = |name: &str| given(&told, name).map(elements).unwrap_or_default();
        // an object without a token stands where nothing is said yet
        let bare = logprobs.filter(|_| ["content", "refusal"].iter().all(|name| tokens(name).is_empty()));
        self.piece(index, b"delta", &Piece { delta: &begun(&message), logprobs: bare, ..Piece::default() });
        for name in WORDS {
            let Some(words) = given(&message, name) else { continue };
            for (words, tokens) in with_tokens(words, &tokens(name)) {
                let (delta, logprobs) = (object(name, &words), tokens.map(|tokens| of_tokens(name, &tokens)));
                let piece = Piece { delta: &delta, logprobs: logprobs.as_deref(), ..Piece::default() };
                self.piece(index, b"delta", &piece);
            }
        }
        let calls = given(&message, "tool_calls").map(elements).unwrap_or_default();
        for (at, call) in calls.into_iter().enumerate() {
            for delta in call_deltas(at, call) {
                self.piece(index, b"delta", &Piece { delta: &delta, ..Piece::default() });
            }
        }
        if let Some(call) = given(&message, "function_call") {
            for part in growing(call, "arguments") {
                let delta = object("function_call", &part);
                self.piece(index, b"delta", &Piece { delta: &delta, ..Piece::default() });
            }
        }
        let finish_reason = Some(given(choice, "finish_reason")?);
        let others = others(choice, &["index", "message", "logprobs", "finish_reason"]);
        self.piece(
            index,
            b"delta",
            &Piece { delta: b"{}", finish_reason, others: &others, ..Piece::default() },
        );
        Some(())
    }
}

/// The first delta: who speaks, and all that comes in one piece.
fn begun(message: &[Member<'_>]) -> Vec<u8> {
    let mut delta = b"{".to_vec();
    for member in message {
        match (&*member.name, member.is_given()) {
            (b"tool_calls" | b"function_call", _) => {}
            (b"content", true) => put(&mut delta, b"content", b"\"\""),
            (name, true) if WORDS.iter().any(|words| words.as_bytes() == name) => {}
            (name, _) => put(&mut delta, name, member.value),
        }
    }
    delta.push(b'}');
    delta
}

/// A piece of a text as JSON, and its tokens where it has any.
type Spoken<'a> = (Vec<u8>, Option<Vec<&'a [u8]>>);

/// Words in pieces, each with its tokens where it has any. Tokens that are not just the words go with all of them.
fn with_tokens<'a>(words: &[u8], tokens: &[&'a [u8]]) -> Vec<Spoken<'a>> {
    if tokens.is_empty() {
        return pieces(words).into_iter().map(|words| (words, None)).collect();
    }
    let said = |token: &&[u8]| given(&members(token), "token").and_then(text).map(|said| said.into_owned());
    let each: Option<Vec<String>> = tokens.iter().map(said).collect();
    let each = each.filter(|each| text(words).is_some_and(|words| *words == each.concat()));
    let Some(each) = each else { return vec![(words.to_vec(), Some(tokens.to_vec()))] };
    let of = |(said, token): (String, &&'a [u8])| (quoted(&said), Some(vec![*token]));
    each.into_iter().zip(tokens).map(of).collect()
}

fn of_tokens(name: &str, tokens: &[&[u8]]) -> Vec<u8> {
    let mut logprobs = b"{".to_vec();
    for kind in ["content", "refusal"] {
        put_name(&mut logprobs, kind.as_bytes());
        match kind == name {
            false => logprobs.extend_from_slice(b"null"),
            true => {
                logprobs.push(b'[');
                for token in tokens {
                    separate(&mut logprobs);
                    logprobs.extend_from_slice(token);
                }
                logprobs.push(b']');
            }
        }
    }
    logprobs.push(b'}');
    logprobs
}

/// The deltas of one call: who is called, then with what, piece by piece.
fn call_deltas(at: usize, call: &[u8]) -> Vec<Vec<u8>> {
    let told = members(call);
    let growing_part = [("function", "arguments"), ("custom", "input")]
        .into_iter()
        .find_map(|(name, inside)| given(&told, name).map(|of| (name, growing(of, inside))));
    let index = at.to_string();
    let mut first = b"{".to_vec();
    put(&mut first, b"index", index.as_bytes());
    let (grows, parts) = growing_part.unwrap_or_default();
    let mut parts = parts.into_iter();
    for member in told.iter().filter(|member| *member.name != *b"index") {
        match *member.name == *grows.as_bytes() {
            true => put(&mut first, grows.as_bytes(), &parts.next().unwrap_or_else(|| b"{}".to_vec())),
            false => put(&mut first, &member.name, member.value),
        }
    }
    first.push(b'}');
    let later = parts.map(|part| {
        let mut later = b"{".to_vec();
        put(&mut later, b"index", index.as_bytes());
        put(&mut later, grows.as_bytes(), &part);
        later.push(b'}');
        later
    });
    let calls = std::iter::once(first).chain(later);
    calls.map(|call| object("tool_calls", &[b"[", &*call, b"]"].concat())).collect()
}

/// An object as it comes: all of it but one member, which is empty, then that member piece by piece.
fn growing(whole: &[u8], name: &str) -> Vec<Vec<u8>> {
    let told = members(whole);
    let mut first = b"{".to_vec();
    for member in &told {
        let grows = *member.name == *name.as_bytes() && member.is_given();
        put(&mut first, &member.name, if grows { b"\"\"" } else { member.value });
    }
    first.push(b'}');
    let grown = given(&told, name).map(pieces).unwrap_or_default();
    std::iter::once(first).chain(grown.iter().map(|piece| object(name, piece))).collect()
}

fn object(name: &str, value: &[u8]) -> Vec<u8> {
    let mut object = b"{".to_vec();
    put(&mut object, name.as_bytes(), value);
    object.push(b'}');
    object
}

fn others<'a>(members: &[Member<'a>], known: &[&str]) -> Vec<Member<'a>> {
    let is_other = |member: &&Member<'_>| known.iter().all(|name| *member.name != *name.as_bytes());
    members.iter().filter(is_other).cloned().collect()
}
