//! Lines of a file, of any length, in bounded memory.

use std::io::{self, BufRead};

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Without the line break.
    Whole(&'a [u8]),
    /// Longer than what is held: how long, bytes.
    TooLong(u64),
}

/// What is unusual about a file's bytes, but accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Oddities {
    /// It begins with a byte order mark.
    pub byte_order_mark: bool,
    /// Lines that end with CR LF.
    pub carriage_returns: u64,
    /// Lines with nothing but white space.
    pub blank_lines: u64,
}

/// Reads lines.
pub struct Lines<R> {
    source: R,
    max_bytes: usize,
    held: Vec<u8>,
    /// Bytes read so far.
    pub bytes: u64,
    number: u64,
    /// What was seen beside the lines.
    pub oddities: Oddities,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most so many bytes are held.
    pub const fn new(source: R, max_bytes: usize) -> Self {
        let oddities = Oddities { byte_order_mark: false, carriage_returns: 0, blank_lines: 0 };
        Self { source, max_bytes, held: Vec::new(), bytes: 0, number: 0, oddities }
    }

    /// The next line that is not blank, and its number; none at the end.
    ///
    /// # Errors
    ///
    /// The source's own.
    pub fn next_line(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        loop {
            let Some(length) = self.fill()? else { return Ok(None) };
            self.number += 1;
            if length > self.max_bytes as u64 {
                return Ok(Some((self.number, Line::TooLong(length))));
            }
            self.trim();
            if self.held.iter().all(u8::is_ascii_whitespace) {
                self.oddities.blank_lines += 1;
                continue;
            }
            return Ok(Some((self.number, Line::Whole(&self.held))));
        }
    }

    /// Reads up to a line break; the line's length without it. None at the end of the source.
    fn fill(&mut self) -> io::Result<Option<u64>> {
        self.held.clear();
        let mut length = 0_u64;
        let mut begun = false;
        loop {
            let chunk = match self.source.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if chunk.is_empty() {
                return Ok(begun.then_some(length));
            }
            begun = true;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            length += part.len() as u64;
            if length <= self.max_bytes as u64 {
                self.held.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.source.consume(used);
            self.bytes += used as u64;
            if end.is_some() {
                return Ok(Some(length));
            }
        }
    }

    fn trim(&mut self) {
        if self.held.last() == Some(&b'\r') {
            self.held.pop();
            self.oddities.carriage_returns += 1;
        }
        if self.number == 1 && self.held.starts_with(b"\xef\xbb\xbf") {
            self.held.drain(..3);
            self.oddities.byte_order_mark = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    fn read(text: &[u8], max_bytes: usize) -> (Vec<String>, Oddities) {
        let mut lines = Lines::new(BufReader::with_capacity(3, text), max_bytes);
        let mut all = Vec::new();
        loop {
            all.push(match lines.next_line().expect("read") {
                None => break,
                Some((number, Line::Whole(line))) => format!("{number}:{}", String::from_utf8_lossy(line)),
                Some((number, Line::TooLong(bytes))) => format!("{number}:<{bytes}>"),
            });
        }
        assert_eq!(lines.bytes, text.len() as u64);
        (all, lines.oddities)
    }

    #[test]
    fn lines_are_cut_at_breaks() {
        let odd = |byte_order_mark, carriage_returns, blank_lines| Oddities {
            byte_order_mark,
            carriage_returns,
            blank_lines,
        };
        for (text, want, oddities) in [
            (&b""[..], vec![], odd(false, 0, 0)),
            (b"a\nb", vec!["1:a", "2:b"], odd(false, 0, 0)),
            (b"a\r\n\r\nb\r\n", vec!["1:a", "3:b"], odd(false, 3, 1)),
            (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", vec!["1:a", "2:\u{feff}b"], odd(true, 0, 0)),
            (b"\n \t\nabcdefghij\nabcdefghijk\nx", vec!["3:abcdefghij", "4:<11>", "5:x"], odd(false, 0, 2)),
        ] {
            let want = want.into_iter().map(str::to_owned).collect();
            assert_eq!(read(text, 10), (want, oddities), "{text:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let endless = BufReader::new(io::repeat(b'x').take(64 << 20));
        let mut lines = Lines::new(endless, 1_000);
        assert_eq!(lines.next_line().expect("read"), Some((1, Line::TooLong(64 << 20))));
        assert!(lines.held.capacity() < 64 << 10, "{}", lines.held.capacity());
    }
}
