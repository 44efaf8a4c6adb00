//! W3C Trace Context, level 1 (recommendation of 2020-02-06): what links a request to its caller's trace, and the
//! upstream's to ours.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The header that says whose child a request is.
pub const TRACEPARENT: &str = "traceparent";
/// The header that vendors keep their own words in.
pub const TRACESTATE: &str = "tracestate";

/// Length of a `traceparent` of version 00, bytes.
const PARENT_BYTES: usize = 55;
/// Most members of a `tracestate` (§3.3.1.1).
const MOST_MEMBERS: usize = 32;
/// Longest `tracestate` that travels on, bytes: four times what has to (§3.3.1.5).
const MOST_STATE_BYTES: usize = 2_048;
/// How many of a trace id's bits are taken to be random: the last seven bytes, as in level 2 of the recommendation.
const RANDOM_BITS: u32 = 56;

/// The id of a trace: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// Makes one of random bits.
    pub fn new(random: u128) -> Self {
        Self(random.max(1))
    }

    /// Its bytes, in the order of the wire.
    pub const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The id of one span in a trace: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl SpanId {
    /// Makes one of random bits.
    pub fn new(random: u64) -> Self {
        Self(random.max(1))
    }

    /// Its bytes, in the order of the wire.
    pub const fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub span: SpanId,
    /// Whether the caller may have kept its span.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the header's value; nothing where it is not valid (§3.2.2). Of a later version the part that we know is
    /// read, as far as it stands alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_at_checked(2)?;
        let version = u8::try_from(hex(version)?).ok().filter(|version| *version != 0xff)?;
        let more = text.get(PARENT_BYTES..)?;
        if version == 0 && !more.is_empty() || !more.is_empty() && !more.starts_with('-') {
            return None;
        }
        let mut fields = rest.get(..PARENT_BYTES - 2)?.strip_prefix('-')?.split('-');
        let mut field = |digits: usize| fields.next().filter(|text| text.len() == digits).and_then(hex);
        let (trace, span, flags) = (field(32)?, field(16)?, field(2)?);
        let span = u64::try_from(span).ok()?;
        if trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Reads digits, which are in lower case.
fn hex(digits: &str) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match digits.bytes().all(is_digit) {
        true => u128::from_str_radix(digits, 16).ok(),
        false => None,
    }
}

/// Reads the values of `tracestate`, of one header or several; nothing where they are not valid, too many or too long
/// (§3.3.1): then it is dropped, and the trace goes on without.
pub fn trace_state<'a>(values: impl Iterator<Item = &'a str>) -> Option<Arc<str>> {
    let mut members: Vec<&str> = Vec::new();
    for member in values.flat_map(|value| value.split(',')).map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        let key_is_new = members.iter().all(|known| known.split('=').next() != Some(key));
        if !(key_is_good(key) && value_is_good(value) && key_is_new) || members.len() == MOST_MEMBERS {
            return None;
        }
        members.push(member);
    }
    let state = members.join(",");
    (1..=MOST_STATE_BYTES).contains(&state.len()).then(|| state.into())
}

/// `key`, or `tenant@system`.
fn key_is_good(key: &str) -> bool {
    let is_part = |part: &str, most: usize, may_begin: fn(u8) -> bool| {
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/')
        };
        (1..=most).contains(&part.len())
            && part.bytes().all(fits)
            && part.bytes().next().is_some_and(may_begin)
    };
    let letter = |byte: u8| byte.is_ascii_lowercase();
    match key.split_once('@') {
        None => is_part(key, 256, letter),
        Some((tenant, system)) => {
            is_part(tenant, 241, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && is_part(system, 14, letter)
        }
    }
}

fn value_is_good(value: &str) -> bool {
    let fits = |byte: u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.bytes().all(fits)
}

/// The share of new traces that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleRatio {
    /// Trace ids whose random bits are below it are kept.
    below: u64,
}

impl SampleRatio {
    /// All of them.
    pub const ALL: Self = Self { below: 1 << RANDOM_BITS };

    /// So many in a million.
    pub fn per_million(count: u32) -> Self {
        let below = (u128::from(count.min(1_000_000)) << RANDOM_BITS) / 1_000_000;
        Self { below: u64::try_from(below).unwrap_or(u64::MAX) }
    }

    /// Whether a trace is kept. Who else decides by the same bits and the same share decides the same.
    pub const fn takes(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g] = trace.bytes();
        u64::from_be_bytes([0, a, b, c, d, e, f, g]) < self.below
    }
}

/// Where one request stands in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The request's own span.
    pub span: SpanId,
    /// The caller's span, where it told.
    pub parent: Option<SpanId>,
    /// Whether its spans are kept: as the caller has decided, or by the configured share.
    pub sampled: bool,
    /// What vendors have to say about it; it travels on as it came.
    pub state: Option<Arc<str>>,
    /// The request's method, one of HTTP's own; `_OTHER` for any other.
    pub method: &'static str,
    /// Its path, with names for what differs between requests; empty for one that we don't know.
    pub route: &'static str,
}

impl Trace {
    /// Goes on with the caller's trace, or begins one.
    pub fn begin(
        incoming: Option<TraceParent>,
        state: Option<Arc<str>>,
        ratio: SampleRatio,
        random: (u128, u64),
    ) -> Self {
        let span = SpanId::new(random.1);
        let (id, parent, sampled, state) = match incoming {
            Some(caller) => (caller.trace, Some(caller.span), caller.sampled, state),
            None => {
                let id = TraceId::new(random.0);
                // it belongs to a parent that there is not
                (id, None, ratio.takes(id), None)
            }
        };
        Self { id, span, parent, sampled, state, method: "", route: "" }
    }

    /// The `traceparent` of a request that is a child of this one and has this span.
    pub const fn child(&self, span: SpanId) -> TraceParent {
        TraceParent { trace: self.id, span, sampled: self.sampled }
    }
}

#[cfg(test)]
mod tests;
