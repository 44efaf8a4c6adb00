//! A request's JSON, looked at without a tree: where its top-level members stand, and what a value is whatever the way
//! it is written.
//!
//! Everything here has been read by serde_json before: what is not JSON gives some answer, never a panic.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// A member at the top of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Its name, escapes read.
    pub(super) name: Cow<'a, [u8]>,
    /// Its value as it is written.
    pub(super) value: &'a [u8],
}

impl Member<'_> {
    /// Whether it is more than `null`.
    pub(super) fn is_given(&self) -> bool {
        self.value != b"null"
    }
}

/// The members of an object, in order.
pub(super) fn members(json: &[u8]) -> Vec<Member<'_>> {
    let mut found = Vec::with_capacity(16);
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return found;
    }
    loop {
        at = skip_space(json, at + 1);
        if json.get(at) != Some(&b'"') {
            return found;
        }
        let name_end = string_end(json, at);
        let name = decoded(inside(json, at, name_end));
        let colon = skip_space(json, name_end);
        let start = skip_space(json, colon + 1);
        let end = value_end(json, start);
        found.push(Member { name, value: json.get(start..end).unwrap_or_default() });
        at = skip_space(json, end);
        if json.get(at) != Some(&b',') {
            return found;
        }
    }
}

/// The elements of an array, as they are written.
pub(super) fn elements(json: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'[') {
        return found;
    }
    loop {
        let start = skip_space(json, at + 1);
        if matches!(json.get(start), None | Some(b']')) {
            return found;
        }
        let end = value_end(json, start);
        found.push(json.get(start..end).unwrap_or_default());
        at = skip_space(json, end);
        if json.get(at) != Some(&b',') {
            return found;
        }
    }
}

/// A text, where the value is one.
pub(super) fn text(json: &[u8]) -> Option<Cow<'_, str>> {
    let quoted = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    match decoded(quoted) {
        Cow::Borrowed(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => String::from_utf8(text).ok().map(Cow::Owned),
    }
}

/// Takes the pieces of a canonical form.
pub(super) trait Sink {
    /// Takes a few bytes.
    fn put(&mut self, bytes: &[u8]);
}

/// Behind every text: no text has this byte in it (UTF-8), so no text runs into what follows.
const END: u8 = 0xff;

/// Writes a value down in the one way in which all that are equal to it are written: space between tokens is left out,
/// texts have their escapes read, numbers are exact decimals. Members keep their order.
///
/// Nothing follows from where tokens are separated: each begins with its own kind, and a text ends with a byte that no
/// text has. So two values are written alike only where they are equal.
pub(super) fn write_canonical(json: &[u8], sink: &mut impl Sink) {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = string_end(json, at);
                write_text(inside(json, at, end), sink);
                at = end;
            }
            b'{' | b'}' | b'[' | b']' => {
                sink.put(std::slice::from_ref(byte));
                at += 1;
            }
            b't' | b'f' | b'n' => {
                sink.put(std::slice::from_ref(byte));
                at = word_end(json, at);
            }
            b'-' | b'0'..=b'9' => {
                let end = word_end(json, at);
                write_number(&json[at..end], sink);
                at = end;
            }
            // space, commas and colons say nothing that the tokens don't
            _ => at += 1,
        }
    }
}

/// Writes a text, its escapes read.
pub(super) fn write_text(escaped: &[u8], sink: &mut impl Sink) {
    sink.put(b"\"");
    unescape(escaped, |piece| sink.put(piece));
    sink.put(&[END]);
}

/// Writes a number as its digits without zeros at either end, and its power of ten: 1, 1.0 and 10e-1 are one number.
fn write_number(number: &[u8], sink: &mut impl Sink) {
    let (sign, digits) = match number.strip_prefix(b"-") {
        Some(digits) => (b'-', digits),
        None => (b'+', number),
    };
    let (mantissa, written_power) = match digits.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b"0"[..]),
    };
    let (whole, fraction) = match memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &b""[..]),
    };
    let zeros = |digits: &[u8]| digits.iter().take_while(|byte| **byte == b'0').count();
    let zeros_behind = |digits: &[u8]| digits.iter().rev().take_while(|byte| **byte == b'0').count();
    let fraction = &fraction[..fraction.len() - zeros_behind(fraction)];
    let (whole, fraction, dropped) = match fraction {
        [] => {
            let dropped = zeros_behind(whole);
            (&whole[..whole.len() - dropped], fraction, dropped)
        }
        _ => (whole, fraction, 0),
    };
    let whole = &whole[zeros(whole)..];
    let fraction_shown = if whole.is_empty() { &fraction[zeros(fraction)..] } else { fraction };
    if whole.is_empty() && fraction_shown.is_empty() {
        return sink.put(b"0");
    }
    let written = std::str::from_utf8(written_power).ok().and_then(|power| power.parse::<i64>().ok());
    let shift = i64::try_from(dropped).unwrap_or(i64::MAX).saturating_sub_unsigned(fraction.len() as u64);
    let Some(power) = written.and_then(|power| power.checked_add(shift)) else {
        // nobody's number: equal only to what is written alike
        sink.put(b"#");
        sink.put(number);
        return sink.put(&[END]);
    };
    sink.put(&[sign]);
    sink.put(whole);
    sink.put(fraction_shown);
    sink.put(b"e");
    sink.put(&power.to_le_bytes());
}

/// Whether a number is 0.
pub(super) fn is_zero(number: &[u8]) -> bool {
    let number = number.strip_prefix(b"-").unwrap_or(number);
    let mantissa = number.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
    mantissa.first().is_some_and(u8::is_ascii_digit)
        && mantissa.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

/// The inside of a string that stands from `start` to `end`, its quotes among them.
fn inside(json: &[u8], start: usize, end: usize) -> &[u8] {
    json.get(start + 1..end.saturating_sub(1)).unwrap_or_default()
}

/// A text with its escapes read; a lone surrogate, which is no text, as the three bytes it would have.
fn decoded(escaped: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', escaped).is_none() {
        return Cow::Borrowed(escaped);
    }
    let mut read = Vec::with_capacity(escaped.len());
    unescape(escaped, |piece| read.extend_from_slice(piece));
    Cow::Owned(read)
}

/// Calls `piece` with a text's bytes, in order.
fn unescape(mut escaped: &[u8], mut piece: impl FnMut(&[u8])) {
    while let Some(at) = memchr(b'\\', escaped) {
        if at > 0 {
            piece(&escaped[..at]);
        }
        let kind = escaped.get(at + 1).copied().unwrap_or_default();
        escaped = escaped.get(at + 2..).unwrap_or_default();
        let plain = match kind {
            b'u' => {
                let mut bytes = [0; 4];
                let (len, taken) = code_point(escaped, &mut bytes);
                piece(&bytes[..len]);
                escaped = escaped.get(taken..).unwrap_or_default();
                continue;
            }
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0c,
            other => other,
        };
        piece(&[plain]);
    }
    if !escaped.is_empty() {
        piece(escaped);
    }
}

/// Reads what stands behind `\u`, the second half of a pair too: how many bytes it is, and how many it is written in.
fn code_point(escaped: &[u8], bytes: &mut [u8; 4]) -> (usize, usize) {
    let unit = |from: usize| {
        let digits = std::str::from_utf8(escaped.get(from..from + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(0).unwrap_or_default();
    if (0xd800..0xdc00).contains(&first)
        && escaped.get(4..6) == Some(b"\\u")
        && let Some(second) = unit(6).filter(|second| (0xdc00..0xe000).contains(second))
        && let Some(both) = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return (both.encode_utf8(bytes).len(), 10);
    }
    match char::from_u32(first) {
        Some(character) => (character.encode_utf8(bytes).len(), 4),
        None => {
            // a lone surrogate has no bytes in UTF-8: it gets those that it would have, as no text can
            let bits = |shift: u32| u8::try_from(first >> shift & 0x3f).unwrap_or_default();
            bytes[..3].copy_from_slice(&[0xed, 0x80 | bits(6), 0x80 | bits(0)]);
            (3, 4)
        }
    }
}

fn skip_space(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

/// Just behind the string that begins at `start`.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    loop {
        match json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            None => return json.len(),
            Some(found) if json[at + found] == b'"' => return at + found + 1,
            // what is escaped is never the end
            Some(found) => at += found + 2,
        }
    }
}

/// Just behind the number or word that begins at `start`.
fn word_end(json: &[u8], start: usize) -> usize {
    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.');
    start + json[start..].iter().take_while(is_part).count()
}

/// Just behind the value that begins at `start`.
fn value_end(json: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut depth = 0_usize;
    while let Some(byte) = json.get(at) {
        at = match byte {
            b'"' => string_end(json, at),
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => word_end(json, at),
            _ => {
                at += 1;
                continue;
            }
        };
        if depth == 0 {
            return at;
        }
    }
    json.len()
}
