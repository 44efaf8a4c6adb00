//! A stream of a chat or a completion as the whole answer that it is: its pieces put together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DONE, events_of, given, is_empty, put, put_name, separate};
use crate::domain::cache::scan::{Member, elements, members};
use crate::domain::endpoint::Endpoint;

/// The whole answer; nothing where the stream did not come to its end, or says that it failed.
pub(super) fn whole_of(endpoint: Endpoint, stream: &[u8]) -> Option<Bytes> {
    let events = events_of(stream)?;
    let (_, chunks) = events.split_last().filter(|(last, _)| last.starts_with(DONE))?;
    let mut answer = Answer::default();
    for chunk in chunks {
        answer.take(chunk.as_bytes())?;
    }
    answer.written(endpoint)
}

/// The answer as it grows.
#[derive(Default)]
struct Answer<'a> {
    /// What stands beside the choices.
    head: Vec<Member<'a>>,
    usage: Option<&'a [u8]>,
    choices: BTreeMap<u64, Choice<'a>>,
}

#[derive(Default)]
struct Choice<'a> {
    /// What was said in deltas.
    message: Grown<'a>,
    calls: Vec<Call<'a>>,
    logprobs: Option<Grown<'a>>,
    finish_reason: Option<&'a [u8]>,
    /// What else stands in it, its text among it.
    rest: Grown<'a>,
    others: Vec<Member<'a>>,
}

/// A call of a tool.
struct Call<'a> {
    index: &'a [u8],
    id: Option<&'a [u8]>,
    said: Grown<'a>,
}

/// An object that grows.
#[derive(Default)]
struct Grown<'a>(Vec<(Cow<'a, [u8]>, Value<'a>)>);

/// A member of it.
enum Value<'a> {
    /// As it was written.
    Raw(&'a [u8]),
    /// A text as it was written, without its quotes: put together it stays one.
    Text(Vec<u8>),
    /// What an array holds.
    Items(Vec<&'a [u8]>),
    /// What an object holds.
    Object(Grown<'a>),
}

impl<'a> Answer<'a> {
    /// Takes a chunk; nothing where it is an error.
    fn take(&mut self, chunk: &'a [u8]) -> Option<()> {
        for member in members(chunk) {
            match &*member.name {
                b"error" if member.is_given() => return None,
                b"choices" => {
                    for choice in elements(member.value) {
                        self.choice(choice)?;
                    }
                }
                b"usage" => self.usage = Some(member.value).filter(|_| member.is_given()).or(self.usage),
                b"object" | b"obfuscation" => {}
                _ => note(&mut self.head, member),
            }
        }
        Some(())
    }

    fn choice(&mut self, written: &'a [u8]) -> Option<()> {
        let told = members(written);
        let index = given(&told, "index").map_or(Some(0), number)?;
        let choice = self.choices.entry(index).or_default();
        for member in told {
            match &*member.name {
                b"index" => {}
                b"delta" => choice.said(member.value),
                b"text" => choice.rest.grow(member),
                b"logprobs" if member.is_given() => {
                    let logprobs = choice.logprobs.get_or_insert_default();
                    members(member.value).into_iter().for_each(|kind| logprobs.grow(kind));
                }
                b"logprobs" => {}
                b"finish_reason" if member.is_given() => choice.finish_reason = Some(member.value),
                b"finish_reason" => {}
                _ => note(&mut choice.others, member),
            }
        }
        Some(())
    }

    fn written(&self, endpoint: Endpoint) -> Option<Bytes> {
        if self.choices.is_empty() {
            return None;
        }
        let chat = endpoint == Endpoint::ChatCompletions;
        let mut out = b"{".to_vec();
        put(&mut out, b"object", if chat { b"\"chat.completion\"" } else { b"\"text_completion\"" });
        self.head.iter().for_each(|member| put(&mut out, &member.name, member.value));
        put(&mut out, b"choices", b"[");
        for (index, choice) in &self.choices {
            separate(&mut out);
            out.push(b'{');
            put(&mut out, b"index", index.to_string().as_bytes());
            if chat {
                put_name(&mut out, b"message");
                choice.write_message(&mut out);
            }
            choice.rest.write_members(&mut out);
            put_name(&mut out, b"logprobs");
            match &choice.logprobs {
                None => out.extend_from_slice(b"null"),
                Some(logprobs) => logprobs.write(&mut out),
            }
            // one without a reason broke off
            put(&mut out, b"finish_reason", choice.finish_reason?);
            choice.others.iter().for_each(|member| put(&mut out, &member.name, member.value));
            out.push(b'}');
        }
        out.push(b']');
        if let Some(usage) = self.usage {
            put(&mut out, b"usage", usage);
        }
        out.push(b'}');
        Some(out.into())
    }
}

impl<'a> Choice<'a> {
    fn said(&mut self, delta: &'a [u8]) {
        for member in members(delta) {
            match &*member.name {
                b"tool_calls" => elements(member.value).into_iter().for_each(|call| self.call(call)),
                _ => self.message.grow(member),
            }
        }
    }

    /// Adds a piece of a call: to the last one under its index. Later pieces have no id; another id under the same index
    /// is another call, as some servers count all of them as the first.
    fn call(&mut self, piece: &'a [u8]) {
        let told = members(piece);
        let index = given(&told, "index").unwrap_or(b"0");
        let id = given(&told, "id").filter(|id| !is_empty(id));
        let known = self.calls.iter().rposition(|call| call.index == index);
        let same = known.filter(|at| id.is_none_or(|id| self.calls[*at].id.is_none_or(|known| known == id)));
        let at = same.unwrap_or_else(|| {
            self.calls.push(Call { index, id, said: Grown::default() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        call.id = call.id.or(id);
        told.into_iter().filter(|member| *member.name != *b"index").for_each(|member| call.said.grow(member));
    }

    fn write_message(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (name, unless) in [(&b"role"[..], &b"\"assistant\""[..]), (b"content", b"null")] {
            match self.message.find(name) {
                // nothing was said beside the calls
                Some(Value::Text(text)) if text.is_empty() && !self.calls.is_empty() => {
                    put(out, name, unless);
                }
                Some(value) => {
                    put_name(out, name);
                    value.write(out);
                }
                None => put(out, name, unless),
            }
        }
        let others = self.message.0.iter().filter(|(name, _)| !matches!(&**name, b"role" | b"content"));
        for (name, value) in others {
            put_name(out, name);
            value.write(out);
        }
        if !self.calls.is_empty() {
            put(out, b"tool_calls", b"[");
            for call in &self.calls {
                separate(out);
                call.said.write(out);
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}

impl<'a> Grown<'a> {
    fn find(&self, name: &[u8]) -> Option<&Value<'a>> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Adds a piece: texts and arrays grow longer, objects grow member by member, of anything else the last holds.
    fn grow(&mut self, Member { name, value }: Member<'a>) {
        let known = self.0.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or_else(|| {
            self.0.push((name.clone(), Value::Raw(b"null")));
            self.0.len() - 1
        });
        let held = &mut self.0[at].1;
        let once = matches!(&*name, b"role" | b"id" | b"type" | b"name" | b"call_id");
        match (value.first().copied().unwrap_or_default(), held) {
            (b'n', _) => {}
            (b'"', held) if once => {
                if matches!(held, Value::Raw(known) if is_empty(known)) {
                    *held = Value::Raw(value);
                }
            }
            (b'"', Value::Text(text)) => text.extend_from_slice(unquoted(value)),
            (b'"', held) => *held = Value::Text(unquoted(value).to_vec()),
            (b'[', Value::Items(items)) => items.extend(elements(value)),
            (b'[', held) => *held = Value::Items(elements(value)),
            (b'{', Value::Object(object)) => {
                members(value).into_iter().for_each(|member| object.grow(member));
            }
            (b'{', held) => {
                let mut object = Grown::default();
                members(value).into_iter().for_each(|member| object.grow(member));
                *held = Value::Object(object);
            }
            (_, held) => *held = Value::Raw(value),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(out);
        out.push(b'}');
    }

    fn write_members(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            put_name(out, name);
            value.write(out);
        }
    }
}

impl Value<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(value) => out.extend_from_slice(value),
            Self::Text(text) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
            Self::Items(items) => {
                out.push(b'[');
                for item in items {
                    separate(out);
                    out.extend_from_slice(item);
                }
                out.push(b']');
            }
            Self::Object(object) => object.write(out),
        }
    }
}

/// Takes a member that stands beside what grows. The first that says something holds; of the tier the last, which is the
/// one it was served in.
fn note<'a>(head: &mut Vec<Member<'a>>, member: Member<'a>) {
    match head.iter_mut().find(|known| known.name == member.name) {
        None => head.push(member),
        Some(known) if is_empty(known.value) || (*known.name == *b"service_tier" && member.is_given()) => {
            known.value = member.value;
        }
        Some(_) => {}
    }
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
}

fn number(json: &[u8]) -> Option<u64> {
    std::str::from_utf8(json).ok()?.parse().ok()
}
