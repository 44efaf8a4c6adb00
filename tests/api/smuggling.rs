//! Requests that two readers could read differently. Each is refused and its connection closed: what follows on it is
//! nobody's request.

use crate::support::{Setup, SimulatedProvider, TestGateway, chat, streamed_chat};

const PATH: &str = "/v1/chat/completions";

/// Sends `head` (its `KEY` replaced), then bytes that would be a request of their own to a reader who stops early, and
/// insists on at most one answer, a refusal.
fn refused(gateway: &TestGateway, case: &str, head: &str, body: &str) {
    let smuggled = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{}",
        gateway.key(),
        chat("support-bot", "smuggled").to_string().len(),
        chat("support-bot", "smuggled")
    );
    let mut connection = gateway.connect();
    connection.write(head.replace("KEY", gateway.key()).as_bytes());
    connection.write(body.as_bytes());
    connection.write(smuggled.as_bytes());
    if let Some(answer) = connection.last_words() {
        assert!((400..=505).contains(&answer.status), "{case}: {} {}", answer.status, answer.text());
        assert!(connection.is_closed(), "{case}: the connection stays open");
    }
}

#[test]
fn two_ways_to_read_a_length_are_none() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = chat("support-bot", "hi").to_string();
    let n = body.len();
    let head = |headers: &str| {
        format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n{headers}\r\n\r\n")
    };
    let chunked = format!("{n:x}\r\n{body}\r\n0\r\n\r\n");
    for (case, headers, body) in [
        ("two different lengths", format!("content-length: {n}\r\ncontent-length: {}", n - 1), &body),
        ("two equal lengths", format!("content-length: {n}\r\ncontent-length: {n}"), &body),
        ("a list of lengths", format!("content-length: {n}, {n}"), &body),
        ("a length and chunks", format!("content-length: {n}\r\ntransfer-encoding: chunked"), &chunked),
        ("chunks and a length", format!("transfer-encoding: chunked\r\ncontent-length: {n}"), &chunked),
        ("a signed length", format!("content-length: +{n}"), &body),
        ("a negative length", "content-length: -1".to_owned(), &body),
        ("a length in hex", format!("content-length: 0x{n:x}"), &body),
        ("a length beyond numbers", "content-length: 99999999999999999999".to_owned(), &body),
        ("an unknown coding", "transfer-encoding: banana".to_owned(), &chunked),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked".to_owned(), &chunked),
        ("chunked is not last", "transfer-encoding: chunked, identity".to_owned(), &chunked),
        ("a coding with a tab", "transfer-encoding:\u{b}chunked".to_owned(), &chunked),
        ("a space before the colon", format!("content-length : {n}"), &body),
        ("a folded line", format!("content-length: {n}\r\n folded: 1"), &body),
        ("a null in a value", format!("content-length: {n}\r\nx-odd: a\0b"), &body),
    ] {
        refused(&gateway, case, &head(&headers), body);
    }
    let seen: Vec<String> = provider
        .requests()
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).into_owned())
        .collect();
    assert!(seen.is_empty(), "went upstream: {seen:?}");
}

#[test]
fn no_path_is_read_more_leniently() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for target in ["/livez", "/readyz", "/v1/models", "/v1/responses/resp_1", "/nowhere"] {
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n\
             content-length: 40\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        refused(&gateway, target, &head, "0\r\n\r\n");
    }
    assert!(provider.requests().is_empty(), "what hid in a body was served");
}

#[test]
fn broken_chunks_are_refused() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for (case, body) in [
        ("no number", "zz\r\nhello\r\n0\r\n\r\n"),
        ("a negative number", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a number beyond numbers", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than stated", "3\r\nhello\r\n0\r\n\r\n"),
    ] {
        refused(&gateway, case, &head, body);
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn heads_that_are_no_http_are_refused() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (case, head) in [
        ("no version", format!("POST {PATH}\r\n\r\n")),
        ("an unknown version", format!("POST {PATH} HTTP/3.7\r\nhost: a\r\n\r\n")),
        ("a tunnel", "CONNECT example.invalid:443 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n".to_owned()),
        ("a header without a colon", format!("POST {PATH} HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n")),
    ] {
        refused(&gateway, case, &head, "");
    }
    assert!(provider.requests().is_empty());
}

#[test]
fn a_head_without_end_is_refused_before_it_fills_memory() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let mut connection = gateway.connect();
    connection.write(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n");
    let line = format!("x-filler: {}\r\n", "x".repeat(8_000));
    for _ in 0..300 {
        connection.write(line.as_bytes());
    }
    if let Some(answer) = connection.last_words() {
        assert!(matches!(answer.status, 400 | 413 | 414 | 431), "{}: {}", answer.status, answer.text());
        assert!(connection.is_closed());
    }
}

#[test]
fn an_upgrade_is_not_followed() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = chat("support-bot", "hi").to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nconnection: upgrade\r\nupgrade: h2c\r\n\
         content-length: {}\r\n\r\n{body}",
        gateway.key(),
        body.len()
    );
    let mut connection = gateway.connect();
    connection.write(head.as_bytes());
    let answer = connection.answer();
    assert_ne!(answer.status, 101, "{}", answer.text());
    for seen in provider.requests() {
        assert_eq!(seen.header("upgrade"), None, "the upgrade went upstream");
    }
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut wire = Vec::new();
    for n in 1..=3 {
        let body = chat("support-bot", &"word ".repeat(n)).to_string();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            gateway.key(),
            body.len()
        );
        wire.extend_from_slice(head.as_bytes());
    }
    let mut connection = gateway.connect();
    connection.write(&wire);
    let first = connection.answer().expect(200).json();
    assert_eq!(first["usage"]["prompt_tokens"], 1);
    // Whether a gateway serves pipelined requests or closes is its choice; it must not answer in another order.
    for n in 2..=3 {
        match connection.last_words() {
            Some(answer) => assert_eq!(answer.expect(200).json()["usage"]["prompt_tokens"], n),
            None => break,
        }
    }
}

#[test]
fn an_http_1_0_client_knows_the_end_of_its_answer_by_the_connections() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (body, end) in
        [(chat("support-bot", "hi"), "}"), (streamed_chat("support-bot", "hi"), "data: [DONE]\n\n")]
    {
        let body = body.to_string();
        let mut connection = gateway.connect();
        let head = format!(
            "POST {PATH} HTTP/1.0\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            gateway.key(),
            body.len()
        );
        connection.write(head.as_bytes());
        connection.write(body.as_bytes());
        let answer = connection.answer().expect(200);
        assert_eq!(answer.header("transfer-encoding"), None, "it does not know chunks");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.text().ends_with(end), "{}", answer.text());
        assert!(connection.is_closed());
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!(outcome["usage"]["source"], "reported", "{outcome:#}");
    }
}
