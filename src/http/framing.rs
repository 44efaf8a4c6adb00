//! Request heads that two servers may read in two ways are refused: what looks like one request to us must look like
//! one to everybody.
//!
//! Source: RFC 9112, 6.1–6.3 and 3.2. pingora accepts a Content-Length beside a Transfer-Encoding and drops the former
//! (its issue 945), so the raw head is looked at.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Version};

/// Says what is wrong with a head's framing. `raw` is the head as it came (HTTP/1 only).
pub(super) fn wrong(version: Version, headers: &HeaderMap, raw: Option<&[u8]>) -> Option<&'static str> {
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Some("Content-Length is given twice");
    }
    if let Some(length) = headers.get(CONTENT_LENGTH)
        && !(!length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) && length.len() < 19)
    {
        return Some("Content-Length is not a number");
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        if version != Version::HTTP_11 {
            return Some("Transfer-Encoding is only for HTTP/1.1");
        }
        if headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
            return Some("Transfer-Encoding is given twice");
        }
        let chunked = headers
            .get(TRANSFER_ENCODING)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked {
            return Some("Transfer-Encoding must be `chunked` and nothing else");
        }
        if headers.contains_key(CONTENT_LENGTH) || raw.is_some_and(names_content_length) {
            return Some("Content-Length and Transfer-Encoding are both given");
        }
    }
    if let Some(raw) = raw {
        if version == Version::HTTP_11 && headers.get_all(HOST).iter().count() != 1 {
            return Some("Host must be given once");
        }
        if has_bare_line_feed(raw) {
            return Some("a header line ends without a carriage return");
        }
        if has_folded_or_spaced_line(raw) {
            return Some("a header line is folded, or has a space before its colon");
        }
    }
    None
}

fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    raw.split(|byte| *byte == b'\n').skip(1)
}

fn names_content_length(raw: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    lines(raw).any(|line| line.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME)))
}

fn has_bare_line_feed(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', raw).any(|at| at == 0 || raw[at - 1] != b'\r')
}

fn has_folded_or_spaced_line(raw: &[u8]) -> bool {
    lines(raw).any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        matches!(line.first(), Some(b' ' | b'\t')) || matches!(name.last(), Some(b' ' | b'\t'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn ambiguous_heads_are_refused() {
        let good = "POST /v1/x HTTP/1.1\r\nHost: a\r\n";
        let table = [
            ("Content-Length: 5\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", true),
            ("Content-Length: 5, 5\r\n", true),
            ("Content-Length: +5\r\n", true),
            ("Content-Length: \r\n", true),
            ("Content-Length: 99999999999999999999\r\n", true),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", true),
            ("content-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n", true),
            ("Transfer-Encoding: gzip, chunked\r\n", true),
            ("Transfer-Encoding: xchunked\r\n", true),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", true),
            ("Host: b\r\n", true),
            ("X: 1\n", true),
            (" folded\r\n", true),
            ("Content-Length : 5\r\n", true),
        ];
        for (extra, refused) in table {
            let raw = format!("{good}{extra}\r\n");
            let mut headers = HeaderMap::new();
            for line in raw.lines().skip(1) {
                if let Some((name, value)) = line.split_once(':')
                    && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
                {
                    headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
                }
            }
            let found = wrong(Version::HTTP_11, &headers, Some(raw.as_bytes()));
            assert_eq!(found.is_some(), refused, "{extra:?}: {found:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(wrong(Version::HTTP_10, &headers, None).is_some());
    }

    #[test]
    fn what_pingora_dropped_is_seen_in_the_raw_head() {
        let raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(wrong(Version::HTTP_11, &headers, Some(raw)).is_some());
    }
}
