//! The simulated provider by itself: a fault that does not happen would prove nothing.

mod tuning;

use std::net::SocketAddr;
use std::time::Duration;

use super::provider::{Bill, Fate, Trouble, UPSTREAM_KEY};
use super::tokens::TokenEndpoint;
use super::*;

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

fn ask(provider: &SimulatedProvider, target: &str, body: &serde_json::Value) -> Answer {
    connect(provider).call(&Call::post(target, body).bearer(UPSTREAM_KEY))
}

fn connect(provider: &SimulatedProvider) -> Connection {
    Connection::to(address(&provider.url()))
}

fn streamed_with_usage() -> serde_json::Value {
    let mut body = streamed_chat("m", "one two three");
    body["stream_options"] = serde_json::json!({"include_usage": true});
    body
}

#[test]
fn a_usual_answer_is_billed_by_the_word() {
    let provider = SimulatedProvider::start();
    provider.says("one two").thinks(5);
    let answer = ask(&provider, "/v1/chat/completions", &chat("m", "how many crates fit")).expect(200);
    assert_eq!(answer.json()["usage"]["total_tokens"], 4 + 2 + 5);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "one two");
    assert_eq!(provider.bill(), [Bill { prompt: 4, completion: 7, reasoning: 5 }]);
}

#[test]
fn a_stream_tells_its_usage_only_when_asked() {
    let provider = SimulatedProvider::start();
    let quiet = ask(&provider, "/v1/chat/completions", &streamed_chat("m", "hi")).expect(200);
    assert!(!quiet.text().contains("usage"), "{}", quiet.text());
    assert_eq!(sse::spoken(&quiet.events()), "Four crates fit on the pallet.");
    let asked = ask(&provider, "/v1/chat/completions", &streamed_with_usage()).expect(200);
    let events = asked.events();
    assert_eq!(events[events.len() - 2].json()["usage"]["completion_tokens"], 6);
    assert!(events[events.len() - 1].is_done());
    let told: Vec<bool> = provider.exchanges().iter().map(|exchange| exchange.usage_sent).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_wrong_key_is_refused_in_the_manner_of_the_house() {
    let provider = SimulatedProvider::start();
    let openai = connect(&provider).call(&Call::post("/v1/chat/completions", &chat("m", "hi")).bearer("x"));
    assert_eq!(openai.expect(401).json()["error"]["code"], "invalid_api_key");
    let call = Call::post("/openai/v1/chat/completions", &chat("m", "hi")).header("api-key", "x");
    let azure = connect(&provider).call(&call);
    assert_eq!(azure.expect(401).json()["error"]["code"], "401");
    assert_eq!(provider.bill(), []);
}

#[test]
fn a_provider_refuses_connections_until_it_opens_and_tls_always() {
    let provider = SimulatedProvider::closed();
    assert!(Connection::reach(address(&provider.url())).is_none());
    provider.opens();
    ask(&provider, "/v1/chat/completions", &chat("m", "hi")).expect(200);
    let mut tls = connect(&provider);
    tls.write(&[0x16, 3, 1]);
    assert_eq!(tls.answer().status, 400);
    assert_eq!(provider.requests().len(), 1, "a handshake is no request");
}

#[test]
fn what_always_comes_comes_behind_what_is_queued() {
    let provider = SimulatedProvider::start();
    provider.always(Reply::trouble(Trouble::unavailable())).replies(Reply::usual());
    let ask = || ask(&provider, "/v1/chat/completions", &chat("m", "hi")).status;
    assert_eq!([ask(), ask(), ask()], [200, 503, 503]);
}

#[test]
fn scripted_replies_come_in_order_then_the_usual_ones() {
    let provider = SimulatedProvider::start();
    provider.fails(Trouble::rate_limited(7)).replies(Reply::usual().with_header("x-odd", "1"));
    let ask_again = || ask(&provider, "/v1/completions", &serde_json::json!({"prompt": "hi"}));
    let limited = ask_again().expect(429);
    assert_eq!(limited.header("retry-after"), Some("7"));
    assert_eq!(ask_again().expect(200).header("x-odd"), Some("1"));
    assert_eq!(ask_again().expect(200).header("x-odd"), None);
}

#[test]
fn a_peer_that_leaves_is_noticed_and_pays_for_what_was_made() {
    let provider = SimulatedProvider::start();
    provider.replies(Reply::usual().hangs_after_events(4).runs_ahead_by(10));
    let call = Call::post("/v1/chat/completions", &streamed_chat("m", "hi")).bearer(UPSTREAM_KEY);
    let mut open = connect(&provider).open(&call);
    open.await_events(4);
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    assert_eq!(provider.bill(), [Bill { prompt: 1, completion: 3 + 10, reasoning: 0 }]);
}

#[test]
fn each_way_of_breaking_off_shows() {
    let provider = SimulatedProvider::start();
    let body = streamed_chat("m", "hi");
    provider.replies(Reply::usual().closes_after_events(2));
    let closed = ask(&provider, "/v1/chat/completions", &body);
    assert_eq!((closed.events().len(), closed.end), (2, End::Broken));
    provider.replies(Reply::usual().resets_after_bytes(100));
    let reset = ask(&provider, "/v1/chat/completions", &body);
    assert_eq!((reset.body.len(), reset.end), (100, End::Broken));
    provider.replies(Reply::usual().states_length_off_by(3));
    let short = ask(&provider, "/v1/chat/completions", &chat("m", "hi"));
    assert_eq!(short.end, End::Broken);
    short.json();
    provider.replies(Reply::usual().states_length_off_by(-3));
    let long = ask(&provider, "/v1/chat/completions", &chat("m", "hi"));
    assert_eq!(long.end, End::Clean);
    assert!(serde_json::from_slice::<serde_json::Value>(&long.body).is_err());
    provider.replies(Reply::usual().ends_after_events(2));
    let cut = ask(&provider, "/v1/chat/completions", &body);
    assert_eq!((cut.events().len(), cut.end), (2, End::Clean));
    for early in [Reply::usual().resets(), Reply::usual().resets_after_events(2)] {
        provider.replies(early);
        let mut stream = std::net::TcpStream::connect(address(&provider.url())).expect("it listens");
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer {UPSTREAM_KEY}\r\n");
        let text = format!("{head}content-length: {}\r\n\r\n{body}", body.to_string().len());
        std::io::Write::write_all(&mut stream, text.as_bytes()).expect("a few bytes");
        let end = std::io::Read::read_to_end(&mut stream, &mut Vec::new()).expect_err("no proper end");
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    }
    provider.replies(Reply::usual().hangs_up());
    let mut connection = connect(&provider);
    connection.send(&Call::post("/v1/chat/completions", &body).bearer(UPSTREAM_KEY));
    assert!(connection.is_closed());
}

#[test]
fn gates_drips_and_gzip() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(2, &gate).drips(7, Duration::from_micros(10)));
    let call = Call::post("/v1/chat/completions", &streamed_chat("m", "hi")).bearer(UPSTREAM_KEY);
    let mut open = connect(&provider).open(&call);
    open.await_events(2);
    assert_eq!(open.events().len(), 2);
    gate.open();
    assert_eq!(sse::spoken(&open.finish().events()), "Four crates fit on the pallet.");
    provider.replies(Reply::usual().gzipped());
    let zipped = ask(&provider, "/v1/chat/completions", &chat("m", "hi")).expect(200);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.body[..3], [0x1f, 0x8b, 8]);
}

#[test]
fn a_kept_connection_can_close_unannounced() {
    let provider = SimulatedProvider::start();
    provider.replies(Reply::usual().then_closes());
    let mut connection = connect(&provider);
    connection.call(&Call::post("/v1/chat/completions", &chat("m", "hi")).bearer(UPSTREAM_KEY)).expect(200);
    assert!(connection.is_closed());
}

#[test]
fn tokens_are_counted_and_can_fail() {
    let endpoint = TokenEndpoint::start();
    endpoint.fails(1);
    let form = b"grant_type=client_credentials&client_id=a&client_secret=b&scope=c";
    let call = Call::new("POST", "/tenant/oauth2/v2.0/token").body("application/x-www-form-urlencoded", form);
    let mut connection = Connection::to(address(&endpoint.url()));
    connection.call(&call).expect(503);
    assert_eq!(connection.call(&call).expect(200).json()["access_token"], "entra-token-2");
    assert_eq!(endpoint.calls().len(), 2);
}
