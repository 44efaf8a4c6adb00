//! Under which key an answer is kept: two requests share one exactly when every member that matters is equal.
//!
//! The key is BLAKE3 over who shares, what answers, and the request's members in one canonical form. At the top of the
//! body the order of members says nothing; below it everything keeps its order, because a model reads messages, tools
//! and schemas in the order in which they are written.

use std::borrow::Cow;
use std::fmt;

use super::scan::{Member, Sink, elements, members, text, write_canonical, write_text};
use crate::domain::catalog::{Address, Deployment, Dialect};
use crate::domain::deployment::OnUnsupported;
use crate::domain::endpoint::Endpoint;
use crate::domain::request::{InferenceRequest, droppable};

/// Stands before everything that is hashed: other rules, other keys.
const VERSION: &[u8] = b"tunegate answers 1";
/// How much is gathered before it is hashed.
const GATHERED_BYTES: usize = 8 << 10;
/// How many bytes of a key are shown, in hex.
const SHOWN_BYTES: usize = 16;

/// What an answer is kept under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The bytes that [`CacheKey`]'s text shows: who purges names an entry by them.
    pub fn shown(&self) -> [u8; SHOWN_BYTES] {
        let mut shown = [0; SHOWN_BYTES];
        shown.copy_from_slice(&self.0[..SHOWN_BYTES]);
        shown
    }

    /// One like no other, for tests that make none.
    #[cfg(test)]
    pub(crate) const fn numbered(number: u8) -> Self {
        Self([number; 32])
    }

    /// Reads back what was shown: 32 hex digits.
    pub fn read_shown(text: &str) -> Option<[u8; SHOWN_BYTES]> {
        let digits = text.len() == 2 * SHOWN_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut shown = [0; SHOWN_BYTES];
        for (at, byte) in shown.iter_mut().enumerate().filter(|_| digits) {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        digits.then_some(shown)
    }
}

/// As headers and the admin API show it: the first 32 hex digits.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..SHOWN_BYTES].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// Who shares an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tenant<'a> {
    /// One key, by its id.
    Key(&'a str),
    /// The keys of one team, by its id.
    Team(&'a str),
    /// All.
    Shared,
}

/// What an answer depends on besides the request that goes to its deployment.
#[derive(Debug, Clone, Copy)]
pub struct KeyedOn<'a> {
    /// The request as it was asked. Where the deployment gets it in other words, the answer repeats members of this one.
    pub asked: &'a InferenceRequest,
    /// Who shares.
    pub tenant: Tenant<'a>,
    /// The request's own part of the cache.
    pub namespace: Option<&'a str>,
    /// Which deployment answers.
    pub deployment: &'a Deployment,
    /// The provider's name for the model, its pattern filled in.
    pub upstream_model: &'a str,
    /// The stored prompt that was put in: `support@3`.
    pub prompt: Option<&'a str>,
    /// The cap that is written into a request without one.
    pub default_cap: Option<u64>,
    /// The header `openai-beta`, which travels on.
    pub beta: Option<&'a [u8]>,
    /// The catalog's entry: its answers are purged by this name, so two entries share none.
    pub model: &'a str,
}

/// The key of a request as it goes to its deployment.
pub fn cache_key(request: &InferenceRequest, on: &KeyedOn<'_>) -> CacheKey {
    let mut hashing = Hashing::begin("exact", request, on);
    for member in mattering(request, on) {
        hashing.member(&member);
    }
    hashing.end(request, on)
}

/// The key of all requests that differ from this one in nothing but the words of their last turn, and those words.
/// Nothing where the last turn is not the user's, or is more than words.
pub fn semantic_key(request: &InferenceRequest, on: &KeyedOn<'_>) -> Option<(CacheKey, String)> {
    let turns = match request.endpoint {
        Endpoint::ChatCompletions => "messages",
        Endpoint::Responses => "input",
        Endpoint::Completions | Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score => {
            return None;
        }
    };
    let mut hashing = Hashing::begin("semantic", request, on);
    let mut asked = None;
    for member in mattering(request, on) {
        match *member.name == *turns.as_bytes() {
            true => asked = Some(hashing.turns(&member)?),
            false => hashing.member(&member),
        }
    }
    let words = asked.filter(|words| !words.trim().is_empty())?;
    Some((hashing.end(request, on), words))
}

/// The members that matter, in the order of their names; of those with one name in the order in which they came.
fn mattering<'r>(request: &'r InferenceRequest, on: &KeyedOn<'_>) -> Vec<Member<'r>> {
    let repeats = on.asked.endpoint == Endpoint::Responses;
    let drops = match on.deployment.on_unsupported {
        OnUnsupported::Drop => on.deployment.unsupported.as_slice(),
        OnUnsupported::Refuse => &[],
    };
    let is_dropped = |name: &str| droppable(name) && drops.iter().any(|dropped| **dropped == *name);
    let matters = |member: &Member<'_>| {
        let name = std::str::from_utf8(&member.name);
        member.is_given() && !name.is_ok_and(|name| changes_nothing(name, repeats) || is_dropped(name))
    };
    sorted(request, matters)
}

/// What an answer in other words repeats of the request as it was asked: all but what the deployment gets as turns.
fn repeated(asked: &InferenceRequest) -> Vec<Member<'_>> {
    sorted(asked, |member| {
        let name = std::str::from_utf8(&member.name);
        member.is_given() && !name.is_ok_and(|name| name == "input" || changes_nothing(name, true))
    })
}

fn sorted<'r>(request: &'r InferenceRequest, matters: impl Fn(&Member<'_>) -> bool) -> Vec<Member<'r>> {
    let mut members = members(request.body());
    members.retain(matters);
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members
}

/// Whether a member leaves the answer as it is. A response repeats most of what it was asked with, so there all but
/// the way of telling matters (OpenAI API 2.3.0, `Response`).
///
/// `service_tier` matters: an answer says in which tier it was served, and who asks for another one paid for that.
fn changes_nothing(name: &str, repeats: bool) -> bool {
    match name {
        // the deployment stands for the model; either way of telling is made of the other
        "model" | "stream" | "stream_options" => true,
        // who asks, what a provider's own prompt cache goes by, labels of what it stores: requests that store are
        // left alone
        "user"
        | "safety_identifier"
        | "prompt_cache_key"
        | "prompt_cache_options"
        | "prompt_cache_retention"
        | "metadata"
        | "store" => !repeats,
        _ => false,
    }
}

/// A hash in the making.
struct Hashing {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl Sink for Hashing {
    fn put(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() > GATHERED_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
            if bytes.len() > GATHERED_BYTES {
                self.hasher.update(bytes);
                return;
            }
        }
        self.gathered.extend_from_slice(bytes);
    }
}

impl Hashing {
    /// Begins with all that does not stand in the request.
    fn begin(kind: &str, request: &InferenceRequest, on: &KeyedOn<'_>) -> Self {
        let KeyedOn {
            asked,
            tenant,
            namespace,
            deployment,
            upstream_model,
            prompt,
            default_cap,
            beta,
            model,
        } = *on;
        let room = GATHERED_BYTES.min(request.body().len() + 1024);
        let mut hashing = Self { hasher: blake3::Hasher::new(), gathered: Vec::with_capacity(room) };
        hashing.field(VERSION);
        hashing.field(kind.as_bytes());
        let (scope, of) = match tenant {
            Tenant::Key(id) => ("key", id),
            Tenant::Team(id) => ("team", id),
            Tenant::Shared => ("shared", ""),
        };
        hashing.field(scope.as_bytes());
        hashing.field(of.as_bytes());
        hashing.optional(namespace.map(str::as_bytes));
        hashing.field(model.as_bytes());
        hashing.field(asked.endpoint.name().as_bytes());
        hashing.field(request.endpoint.name().as_bytes());
        hashing.deployment(deployment);
        hashing.field(upstream_model.as_bytes());
        hashing.optional(prompt.map(str::as_bytes));
        hashing.optional(default_cap.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        hashing.optional(beta);
        hashing
    }

    /// What answers: another one gives other answers.
    fn deployment(&mut self, deployment: &Deployment) {
        let provider = &deployment.provider;
        self.field(deployment.name.as_bytes());
        self.field(provider.name.as_bytes());
        match &provider.address {
            Address::Host { host, port, tls } => {
                self.field(b"host");
                self.field(host.as_bytes());
                self.field(&port.to_be_bytes());
                self.field(&[u8::from(*tls)]);
            }
            Address::Unix(path) => {
                self.field(b"unix");
                self.field(path.as_os_str().as_encoded_bytes());
            }
        }
        self.field(provider.base_path.as_bytes());
        self.field(provider.authority.as_bytes());
        self.field(provider.dialect.name().as_bytes());
        match &provider.dialect {
            Dialect::OpenAi(openai) => {
                self.optional(openai.organization.as_deref().map(str::as_bytes));
                self.optional(openai.project.as_deref().map(str::as_bytes));
            }
            Dialect::AzureV1(azure) => self.optional(azure.api_version.as_deref().map(str::as_bytes)),
            Dialect::AzureClassic(azure) => self.field(azure.api_version.as_bytes()),
            Dialect::Candle => {}
        }
        self.optional(deployment.base_model.as_deref().map(str::as_bytes));
        self.optional(deployment.model_version.as_deref().map(str::as_bytes));
    }

    /// Something of any length.
    fn field(&mut self, bytes: &[u8]) {
        self.put(&(bytes.len() as u64).to_le_bytes());
        self.put(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.put(&[u8::from(bytes.is_some())]);
        self.field(bytes.unwrap_or_default());
    }

    fn member(&mut self, member: &Member<'_>) {
        self.field(&member.name);
        write_canonical(member.value, self);
    }

    /// The member with the turns, without the words of the last one; returns those.
    fn turns(&mut self, member: &Member<'_>) -> Option<String> {
        self.field(&member.name);
        if let Some(words) = text(member.value) {
            self.put(b"?");
            return Some(words.into_owned());
        }
        let turns = elements(member.value);
        let (last, earlier) = turns.split_last()?;
        self.put(b"[");
        earlier.iter().for_each(|turn| write_canonical(turn, self));
        let said = members(last);
        if word_of(&said, b"role").flatten().as_deref() != Some("user") {
            return None;
        }
        if word_of(&said, b"type").is_some_and(|kind| kind.as_deref() != Some("message")) {
            return None;
        }
        let words = only_words(only(&said, b"content")?)?;
        self.put(b"{");
        for member in said.iter().filter(|member| *member.name != *b"content") {
            write_text(&member.name, self);
            write_canonical(member.value, self);
        }
        self.put(b"?}]");
        Some(words)
    }

    /// Ends with what the answer repeats of a request that was asked in other words.
    fn end(mut self, request: &InferenceRequest, on: &KeyedOn<'_>) -> CacheKey {
        if request.endpoint != on.asked.endpoint {
            self.put(b"|");
            for member in repeated(on.asked) {
                self.member(&member);
            }
        }
        self.hasher.update(&self.gathered);
        CacheKey(self.hasher.finalize().into())
    }
}

/// The value of a member that is there once.
fn only<'a>(members: &[Member<'a>], name: &[u8]) -> Option<&'a [u8]> {
    let mut named = members.iter().filter(|member| *member.name == *name);
    let first = named.next()?;
    named.next().is_none().then_some(first.value)
}

/// A member that may be a word: nothing where it is not there, and no word where it is something else.
fn word_of<'a>(members: &[Member<'a>], name: &[u8]) -> Option<Option<Cow<'a, str>>> {
    let is_there = members.iter().any(|member| *member.name == *name);
    is_there.then(|| only(members, name).and_then(text))
}

/// What a content says, where it is nothing but words: a text, or parts that are texts and nothing more.
fn only_words(content: &[u8]) -> Option<String> {
    if let Some(words) = text(content) {
        return Some(words.into_owned());
    }
    let mut all = Vec::new();
    for part in elements(content) {
        let mut words = None;
        for member in members(part) {
            match &*member.name {
                b"type" if matches!(text(member.value).as_deref(), Some("text" | "input_text")) => {}
                b"text" if words.is_none() => words = Some(text(member.value)?),
                _ => return None,
            }
        }
        all.push(words?);
    }
    (!all.is_empty()).then(|| all.join("\n"))
}

/// A key that a test tells from others by its number.
#[cfg(test)]
pub(crate) const fn some_key(number: u8) -> CacheKey {
    CacheKey([number; 32])
}

#[cfg(test)]
mod tests;
