//! Streams as their clients see them.

use serde_json::json;

use crate::support::provider::Fate;
use crate::support::{
    End, Gate, Reply, Setup, SimulatedProvider, TestGateway, eventually, sse, streamed_chat,
};

const PATH: &str = "/v1/chat/completions";

fn asking_usage(model: &str) -> serde_json::Value {
    let mut body = streamed_chat(model, "how many crates");
    body["stream_options"] = json!({"include_usage": true});
    body
}

#[test]
fn usage_is_asked_for_upstream_and_withheld_from_a_client_who_did_not_ask() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut declining = streamed_chat("support-bot", "hi");
    declining["stream_options"] = json!({"include_usage": false, "include_obfuscation": false});
    for body in [streamed_chat("support-bot", "hi"), declining] {
        let answer = gateway.post(PATH, &body).expect(200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(answer.end, End::Clean);
        assert!(!answer.text().contains("\"usage\""), "{}", answer.text());
        let events = answer.events();
        assert_eq!(sse::spoken(&events), "Four crates fit on the pallet.");
        assert!(events.last().is_some_and(sse::Event::is_done), "{}", answer.text());
        let empty = events.iter().filter(|event| !event.is_done()).any(|e| e.json()["choices"] == json!([]));
        assert!(!empty, "strict clients break on empty choices: {}", answer.text());
        let sent = provider.last_request().json();
        assert_eq!(sent["stream_options"]["include_usage"], true, "{sent}");
        assert_eq!(
            sent["stream_options"]["include_obfuscation"],
            body["stream_options"]["include_obfuscation"]
        );
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!(outcome["usage"]["source"], "reported", "{outcome:#}");
        assert_eq!(outcome["usage"]["completion_tokens"], 6);
    }
}

#[test]
fn a_client_who_asked_gets_the_usage_chunk() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.post(PATH, &asking_usage("support-bot")).expect(200);
    let events = answer.events();
    let last = events[events.len() - 2].json();
    assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &json!(9)));
    assert_eq!(events[0].json().get("usage"), Some(&json!(null)), "the members come as they were");
}

#[test]
fn each_event_comes_as_soon_as_it_is_made() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    assert_eq!(open.status, 200);
    open.await_events(3);
    assert_eq!(
        sse::spoken(&open.events()),
        "Four crates",
        "nothing is held back while the provider is silent"
    );
    gate.open();
    assert_eq!(sse::spoken(&open.finish().events()), "Four crates fit on the pallet.");
}

#[test]
fn half_an_event_is_finished_when_its_rest_comes() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    // In the middle of the second event.
    provider.replies(Reply::usual().waits_after_bytes(400, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(1);
    gate.open();
    assert_eq!(sse::spoken(&open.finish().events()), "Four crates fit on the pallet.");
}

#[test]
fn tool_calls_and_several_choices_stream() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut body = streamed_chat("support-bot", "hi");
    body["tools"] =
        json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    let events = gateway.post(PATH, &body).expect(200).events();
    let arguments: String = events
        .iter()
        .filter(|event| !event.is_done())
        .filter_map(|event| {
            let call = &event.json()["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(arguments, "{\"city\":\"Zürich\"}");
    let mut body = streamed_chat("support-bot", "hi");
    body["n"] = json!(2);
    let answer = gateway.post(PATH, &body).expect(200);
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["completion_tokens"], 12);
}

#[test]
fn a_break_in_mid_stream_is_said_aloud_and_the_end_is_unclean() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for reply in [
        Reply::usual().closes_after_events(3),
        // In the middle of the third event.
        Reply::usual().resets_after_bytes(700),
    ] {
        provider.replies(reply);
        let answer = gateway.post(PATH, &streamed_chat("support-bot", "hi"));
        assert_eq!((answer.status, answer.end), (200, End::Broken), "{}", answer.text());
        let events = answer.events();
        let last = events.last().expect("events").json();
        assert_eq!(last["error"]["code"], "upstream_broke", "{}", answer.text());
        assert!(last["error"]["message"].as_str().is_some_and(|text| text.contains("support-v3")), "{last}");
        assert!(!events.iter().any(sse::Event::is_done), "{}", answer.text());
        for event in &events {
            event.json();
        }
        let outcome = gateway.outcome_of(&answer.request_id());
        assert_eq!(outcome["ending"], "upstream_broke", "{outcome:#}");
        assert_ne!(outcome["usage"]["source"], "reported", "{outcome:#}");
        assert!(outcome["usage"]["prompt_tokens"].as_u64() > Some(0), "{outcome:#}");
    }
}

#[test]
fn a_break_at_any_byte_never_passes_for_an_end() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let whole = gateway.post(PATH, &asking_usage("support-bot")).expect(200).body.len();
    for at in (0..whole - "data: [DONE]\n\n".len()).step_by(37) {
        provider.replies(Reply::usual().resets_after_bytes(at).without_usage());
        let answer = gateway.post(PATH, &asking_usage("support-bot"));
        if answer.status != 200 {
            answer.expect_error(502, "upstream_broke");
            continue;
        }
        assert_eq!(answer.end, End::Broken, "cut at {at}: {}", answer.text());
        let last = answer.events().pop().expect("an event").json();
        assert_eq!(last["error"]["code"], "upstream_broke", "cut at {at}: {}", answer.text());
    }
}

#[test]
fn a_stream_without_done_is_passed_on_as_it_is() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let written =
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n"
            .to_vec();
    provider.replies(Reply::stream(vec![written.clone()], 1, 1).without_usage());
    let answer = gateway.post(PATH, &asking_usage("support-bot")).expect(200);
    assert_eq!(answer.body, written);
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["usage"]["source"], "estimated", "{outcome:#}");
}

#[test]
fn an_error_event_of_the_provider_reaches_the_client() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let first = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n".to_vec();
    let error = b"data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":null,\"param\":null}}\n\n";
    let gate = Gate::new();
    provider.replies(
        Reply::stream(vec![first, error.to_vec()], 1, 1).without_usage().waits_after_events(1, &gate),
    );
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(1);
    gate.open();
    let answer = open.finish();
    assert_eq!(answer.events()[1].json()["error"]["message"], "overloaded");
    assert_eq!(gateway.last_outcome()["ending"], "upstream_broke");
}

#[test]
fn an_answer_that_is_no_stream_though_one_was_asked_for_comes_whole() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"id": "chatcmpl-1", "choices": [],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}});
    provider.replies(Reply::json(200, &body).billed(2, 1));
    let answer = gateway.post(PATH, &streamed_chat("support-bot", "hi")).expect(200);
    assert_eq!(answer.json(), body);
}

#[test]
fn a_compressed_stream_is_undone_though_it_comes_late() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().gzipped());
    let answer = gateway.post(PATH, &asking_usage("support-bot")).expect(200);
    assert_eq!(sse::spoken(&answer.events()), "Four crates fit on the pallet.");
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["source"], "reported");
    provider.replies(Reply::usual().gzipped());
    let answer = gateway.post(PATH, &streamed_chat("support-bot", "hi")).expect(200);
    assert!(!answer.text().contains("\"usage\""), "nobody asked for it: {}", answer.text());
}

#[test]
fn a_slow_provider_is_followed_byte_by_byte() {
    let provider = SimulatedProvider::start();
    provider.says("Grüezi 🚚 Zürich");
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().drips(5, std::time::Duration::from_micros(50)));
    let answer = gateway.post(PATH, &streamed_chat("support-bot", "hi")).expect(200);
    assert_eq!(sse::spoken(&answer.events()), "Grüezi 🚚 Zürich");
    assert_eq!(provider.await_fate(), Fate::Answered);
}

#[test]
fn silence_is_filled_with_comments_when_the_operator_wants_it() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider).server("sse_keepalive_ms = 20")).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(2, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_body(|body| {
        String::from_utf8_lossy(body).lines().filter(|line| line.starts_with(':')).count() >= 2
    });
    gate.open();
    let answer = open.finish();
    assert_eq!(sse::spoken(&answer.events()), "Four crates fit on the pallet.");
    assert_eq!(answer.end, End::Clean);
}

#[test]
fn a_client_that_does_not_read_holds_the_provider_back_and_loses_nothing() {
    const WORDS: u64 = 6_000;
    let provider = SimulatedProvider::start();
    // 24 MB, more than the buffers of all sockets between us.
    let word = "x".repeat(4_000);
    provider.says(&vec![word.as_str(); 6_000].join(" "));
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(1);
    let mut made = u64::MAX;
    eventually("a provider that is held back", || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let before = std::mem::replace(&mut made, provider.bill()[0].completion);
        (before == made).then_some(())
    });
    assert!(made < WORDS, "everything was taken in, though nobody reads");
    let answer = open.finish();
    assert_eq!(sse::spoken(&answer.events()).split_whitespace().count() as u64, WORDS);
    assert_eq!(answer.end, End::Clean);
}
