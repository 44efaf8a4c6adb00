//! How long we wait, and for whom.

use serde_json::json;

use crate::support::provider::Fate;
use crate::support::{Call, End, Reply, Setup, SimulatedProvider, TestGateway, chat, streamed_chat};

const PATH: &str = "/v1/chat/completions";

fn hasty(provider: &SimulatedProvider, timeouts: &str) -> TestGateway {
    let keyed = format!("api_key = {{ file = \"upstream.key\" }}\ntimeouts = {{ {timeouts} }}");
    let setup = Setup::in_front_of(provider).model("hasty", &format!("{}/v1", provider.url()), &keyed, "");
    TestGateway::with(setup).start()
}

#[test]
fn a_provider_that_says_nothing_is_504_with_the_deployments_name() {
    let provider = SimulatedProvider::start();
    let gateway = hasty(&provider, "first_byte_ms = 50");
    for body in [chat("hasty", "hi"), streamed_chat("hasty", "hi")] {
        provider.replies(Reply::usual().hangs());
        let answer = gateway.post(PATH, &body);
        let error = answer.expect_error(504, "upstream_timeout");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("hasty")), "{error}");
        assert_eq!(provider.await_fate(), Fate::PeerGone);
        assert_eq!(gateway.outcome_of(&answer.request_id())["code"], "upstream_timeout");
    }
}

#[test]
fn a_stream_that_falls_silent_ends_with_an_error_and_uncleanly() {
    let provider = SimulatedProvider::start();
    let gateway = hasty(&provider, "between_chunks_ms = 1000");
    provider.replies(Reply::usual().hangs_after_events(3));
    let answer = gateway.post(PATH, &streamed_chat("hasty", "hi"));
    assert_eq!((answer.status, answer.end), (200, End::Broken), "{}", answer.text());
    let last = answer.events().pop().expect("events").json();
    let code = last["error"]["code"].as_str().unwrap_or_default().to_owned();
    assert!(matches!(code.as_str(), "upstream_timeout" | "upstream_broke"), "{last}");
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["ending"], "upstream_broke", "{outcome:#}");
    assert!(outcome["usage"].is_object(), "{outcome:#}");
}

#[test]
fn an_exchange_has_a_limit_as_a_whole() {
    let provider = SimulatedProvider::start();
    provider.says(&"word ".repeat(2_000));
    let gateway = hasty(
        &provider,
        "connect_ms = 3000, first_byte_ms = 3000, between_chunks_ms = 3000, total_ms = 3000",
    );
    provider.replies(Reply::usual().drips(40, std::time::Duration::from_millis(20)));
    let answer = gateway.post(PATH, &streamed_chat("hasty", "hi"));
    assert_eq!((answer.status, answer.end), (200, End::Broken));
    assert_eq!(provider.await_fate(), Fate::PeerGone);
}

#[test]
fn a_deployments_own_limit_wins_over_its_providers() {
    let provider = SimulatedProvider::start();
    let keyed = "api_key = { file = \"upstream.key\" }\ntimeouts = { first_byte_ms = 60000 }";
    let own = "timeouts = { first_byte_ms = 50 }";
    let setup = Setup::in_front_of(&provider).model("hasty", &format!("{}/v1", provider.url()), keyed, own);
    let gateway = TestGateway::with(setup).start();
    provider.replies(Reply::usual().hangs());
    gateway.post(PATH, &chat("hasty", "hi")).expect_error(504, "upstream_timeout");
}

#[test]
fn a_request_head_that_never_ends_is_cut_off() {
    let gateway = TestGateway::with(Setup::bare().server("head_timeout_ms = 50")).start();
    let mut connection = gateway.connect();
    connection.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n");
    assert!(ends(&mut connection));
}

#[test]
fn a_request_body_that_never_ends_is_cut_off() {
    let provider = SimulatedProvider::start();
    let limits = "body_read_timeout_ms = 50\nbody_total_timeout_ms = 5000";
    let gateway = TestGateway::with(Setup::in_front_of(&provider).server(limits)).start();
    let mut connection = gateway.connect();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        gateway.key()
    );
    connection.write(head.as_bytes());
    assert!(ends(&mut connection));
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"], json!(null), "{outcome:#}");
    assert!(provider.requests().is_empty());
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let provider = SimulatedProvider::start();
    let gateway =
        TestGateway::with(Setup::in_front_of(&provider).server("keepalive_timeout_ms = 500")).start();
    let mut connection = gateway.connect();
    connection.call(&gateway.signed(Call::post(PATH, &chat("support-bot", "hi")))).expect(200);
    assert!(connection.is_closed());
}

/// Whether the server closes, with an answer of 408 before or with none.
fn ends(connection: &mut crate::support::Connection) -> bool {
    match connection.last_words() {
        None => true,
        Some(answer) => {
            assert!(matches!(answer.status, 400 | 408), "{}: {}", answer.status, answer.text());
            connection.is_closed()
        }
    }
}
