//! Server-sent events, incrementally, without I/O.
//!
//! A read from an upstream is not an event: one chunk may hold many events or a piece of one, cut at any byte. The
//! [`Splitter`] finds where events end and hands on their bytes untouched.
//!
//! Source: WHATWG HTML, 9.2.5 (line ends are LF, CRLF or CR; a blank line ends an event; `:` starts a comment).

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// An event is passed on uninspected when it grows beyond this; no model's event comes near it.
pub const MAX_EVENT_BYTES: usize = 4 << 20;

/// Cuts a byte stream into events, each with the blank line that ends it.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of an event whose end has not come yet.
    pending: BytesMut,
    /// Nothing but line ends since the last line end: the next one ends the event.
    line_empty: bool,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    /// The event before ended with a CR; a LF that comes first now is its last byte.
    owes_lf: bool,
    /// No byte of the event has come yet.
    fresh: bool,
    /// The line is a comment between events: it goes out at its own line end, for it may be a sign of life.
    in_comment: bool,
}

/// What the splitter found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A whole event with its closing blank line, or a comment line that stands between events.
    Event(Bytes),
    /// The rest of the last event's line end, which came late; shares that event's fate.
    Tail(Bytes),
}

impl Splitter {
    /// A splitter at the start of a stream.
    pub fn new() -> Self {
        Self { line_empty: true, fresh: true, ..Self::default() }
    }

    /// Whether no event is half read.
    pub fn is_between_events(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes the next bytes and calls `found` for each event that is complete now, in order.
    ///
    /// An event that lies whole in `chunk` is handed on without a copy.
    pub fn push(&mut self, mut chunk: Bytes, mut found: impl FnMut(Piece)) {
        if self.owes_lf && !chunk.is_empty() {
            self.owes_lf = false;
            self.after_cr = false;
            if chunk[0] == b'\n' {
                found(Piece::Tail(chunk.split_to(1)));
            }
        }
        while let Some(end) = self.event_end(&chunk) {
            let head = chunk.split_to(end);
            let event = match self.pending.is_empty() {
                true => head,
                false => {
                    self.pending.extend_from_slice(&head);
                    self.pending.split().freeze()
                }
            };
            found(Piece::Event(event));
        }
        if !chunk.is_empty() {
            self.pending.extend_from_slice(&chunk);
            if self.pending.len() > MAX_EVENT_BYTES {
                found(Piece::Event(self.pending.split().freeze()));
            }
        }
    }

    /// The bytes of an event that was never closed; the stream ended.
    pub fn finish(&mut self) -> Option<Bytes> {
        (!self.pending.is_empty()).then(|| self.pending.split().freeze())
    }

    /// Just behind the first blank line in `chunk`, which goes on where the last one stopped; or behind the first
    /// comment line, when no event has begun.
    fn event_end(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < chunk.len() {
            let byte = chunk[at];
            if byte != b'\n' && byte != b'\r' {
                // the common case: run to the line's end
                self.in_comment |= self.fresh && byte == b':';
                self.fresh = false;
                self.line_empty = false;
                self.after_cr = false;
                at += memchr::memchr2(b'\n', b'\r', &chunk[at..])?;
                continue;
            }
            at += 1;
            if byte == b'\n' && self.after_cr {
                self.after_cr = false;
                continue;
            }
            self.after_cr = byte == b'\r';
            self.fresh = false;
            if !self.line_empty && !self.in_comment {
                self.line_empty = true;
                continue;
            }
            self.line_empty = true;
            self.in_comment = false;
            self.fresh = true;
            if self.after_cr {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.owes_lf = true,
                }
                self.after_cr = self.owes_lf;
            }
            return Some(at);
        }
        None
    }
}

/// The lines of an event.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|byte| *byte == b'\n').flat_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|byte| *byte == b'\r')
    })
}

/// The value of a field in one line, without the one space that may follow the colon.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    match value {
        [] => Some(value),
        [b':', b' ', rest @ ..] | [b':', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// The data of an event: its `data:` lines joined by LF; nothing for a comment.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut found: Option<Cow<'_, [u8]>> = None;
    for line in lines(event) {
        let Some(value) = field(line, b"data") else { continue };
        match &mut found {
            None => found = Some(Cow::Borrowed(value)),
            Some(joined) => {
                let joined = joined.to_mut();
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
        }
    }
    found
}

/// One event with this data, as we write it ourselves.
pub fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new();
        let mut out: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            splitter.push(Bytes::copy_from_slice(part), |piece| match piece {
                Piece::Event(event) => out.push(event.to_vec()),
                Piece::Tail(tail) => {
                    out.last_mut().expect("a tail follows an event").extend_from_slice(&tail);
                }
            });
        }
        out.extend(splitter.finish().map(|rest| rest.to_vec()));
        out
    }

    const SAMPLES: [&str; 8] = [
        "data: {\"a\":1}\n\ndata: [DONE]\n\n",
        "data: é漢🎉\r\n\r\n: comment\r\n\r\ndata: a\r\ndata: b\r\n\r\n",
        "event: x\rdata: 1\r\rdata: 2\r\r",
        ": only a comment\n\n\n\ndata: x\n\n",
        "data: mixed\r\n\ndata: y\n\r\ndata: z\n\n",
        "data: never closed",
        "\r\n\r\ndata: leading\r\n\r\n",
        ":\n: alive\r\ndata: x\n: inside\n\n:\r:\n\ndata: y\n\n",
    ];

    #[test]
    fn events_are_the_same_cut_at_every_byte() {
        for sample in SAMPLES {
            let whole = split(&[sample.as_bytes()]);
            assert_eq!(whole.concat(), sample.as_bytes());
            for cut in 0..=sample.len() {
                let (a, b) = sample.as_bytes().split_at(cut);
                assert_eq!(split(&[a, b]), whole, "{sample:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = sample.as_bytes().chunks(1).collect();
            assert_eq!(split(&bytes), whole, "{sample:?} byte by byte");
        }
    }

    #[test]
    fn a_comment_between_events_does_not_wait_for_an_event() {
        assert_eq!(split(&[b": alive\n"]), [b": alive\n"]);
        let pieces = split(&[b":a\n\ndata: x\n:b\n\n"]);
        assert_eq!(pieces, [&b":a\n"[..], b"\n", b"data: x\n:b\n\n"]);
    }

    #[test]
    fn data_lines_are_joined_and_comments_are_none() {
        let table: [(&str, Option<&str>); 7] = [
            ("data: a\n\n", Some("a")),
            ("data:a\r\n\r\n", Some("a")),
            ("data:  a\n\n", Some(" a")),
            ("event: x\ndata: a\ndata: b\n\n", Some("a\nb")),
            (": hello\n\n", None),
            ("data\n\n", Some("")),
            ("database: x\n\n", None),
        ];
        for (event, want) in table {
            assert_eq!(data(event.as_bytes()).as_deref(), want.map(str::as_bytes), "{event:?}");
        }
    }

    #[test]
    fn a_whole_event_is_not_copied_and_a_giant_one_does_not_grow_without_end() {
        let chunk = Bytes::from_static(b"data: x\n\n");
        let at = chunk.as_ptr();
        Splitter::new().push(chunk, |piece| match piece {
            Piece::Event(event) => assert_eq!(event.as_ptr(), at),
            Piece::Tail(_) => panic!("no tail here"),
        });
        let mut splitter = Splitter::new();
        let mut passed = 0;
        for _ in 0..9 {
            splitter.push(Bytes::from(vec![b'a'; 1 << 20]), |piece| match piece {
                Piece::Event(event) | Piece::Tail(event) => passed += event.len(),
            });
        }
        assert!(passed > 4 << 20 && splitter.pending.len() <= MAX_EVENT_BYTES);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_cut_give_the_same_events(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'd'), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut parts: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&text[from..cut]);
                from = cut;
            }
            parts.push(&text[from..]);
            let whole = split(&[&text]);
            prop_assert_eq!(whole.concat(), text.clone());
            prop_assert_eq!(split(&parts), whole);
        }
    }
}
