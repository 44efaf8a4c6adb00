//! A recorded stream, cut at every byte position on its way to the gateway: what the client reads must not depend on
//! where the network cut it.

use std::time::Duration;

use serde_json::json;

use crate::support::{Call, Connection, Reply, Setup, SimulatedProvider, TestGateway, streamed_chat};

/// As the provider sends it: both kinds of line ends, comments, an event in several data lines, characters of two and
/// four bytes, `usage` in the middle and at the end of a chunk, the usage chunk, and the end.
const SENT: &str = concat!(
    ": hello\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Zürich\"}}],\"usage\":null,\"obfuscation\":\"x\"}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" 🚚 \\\"usage\\\":null\"}}],\"usage\":null}\r\n\r\n",
    ": still here\r\n\r\n",
    "data:{\"id\":\"c\",\"choices\":\ndata: [{\"index\":0,\"delta\":{\"content\":\"!\"}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\n",
    "data: [DONE]\n\n",
);

/// What a client reads who did not ask for usage.
const WITHHELD: &str = concat!(
    ": hello\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Zürich\"}}],\"obfuscation\":\"x\"}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" 🚚 \\\"usage\\\":null\"}}]}\r\n\r\n",
    ": still here\r\n\r\n",
    "data:{\"id\":\"c\",\"choices\":\ndata: [{\"index\":0,\"delta\":{\"content\":\"!\"}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
);

/// Long enough that the gateway reads the first part by itself, short enough for hundreds of cuts.
const BETWEEN: Duration = Duration::from_micros(150);

fn follow(include_usage: bool, expected: &str) {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut body = streamed_chat("support-bot", "hi");
    if include_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    let call = gateway.signed(Call::post("/v1/chat/completions", &body));
    let mut connection: Connection = gateway.connect();
    let mut read = |pieces: Vec<Vec<u8>>, case: &str| {
        provider.replies(Reply::stream(pieces, 3, 4).drips(usize::MAX, BETWEEN));
        let answer = connection.call(&call).expect(200);
        assert_eq!(answer.text(), expected, "{case}");
    };
    let sent = SENT.as_bytes();
    read(vec![sent.to_vec()], "in one piece");
    for at in 1..sent.len() {
        read(vec![sent[..at].to_vec(), sent[at..].to_vec()], &format!("cut at {at}"));
    }
    read(sent.iter().map(|byte| vec![*byte]).collect(), "byte by byte");
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"]["source"], "reported", "{outcome:#}");
}

#[test]
fn a_client_who_asked_for_usage_reads_the_providers_bytes_and_the_cost_wherever_they_are_cut() {
    // 3 tokens at 0.80 USD and 4 at 3.20 USD per 1M
    let usage = "\"usage\":{\"prompt_tokens\"";
    let told = SENT.replace(usage, "\"usage\":{\"cost\":0.0000152,\"prompt_tokens\"");
    follow(true, &told);
}

#[test]
fn a_client_who_did_not_ask_reads_the_same_without_usage_wherever_it_is_cut() {
    follow(false, WITHHELD);
}
