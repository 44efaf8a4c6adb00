//! A client that leaves: what becomes of the upstream, and what is booked.

use serde_json::{Value, json};

use crate::support::provider::Fate;
use crate::support::{Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat};

const PATH: &str = "/v1/chat/completions";

fn usage_source(outcome: &Value) -> (&Value, &Value) {
    (&outcome["ending"], &outcome["usage"]["source"])
}

#[test]
fn a_stream_that_nobody_reads_is_aborted_at_once_and_counted() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().hangs_after_events(4).runs_ahead_by(20));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "how many crates fit"));
    open.await_events(4);
    let id = open.request_id();
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    let outcome = gateway.outcome_of(&id);
    assert_eq!(usage_source(&outcome), (&json!("client_gone"), &json!("estimated")), "{outcome:#}");
    assert!(outcome["usage"]["prompt_tokens"].as_u64() >= Some(4), "{outcome:#}");
    assert!(outcome["usage"]["completion_tokens"].as_u64() >= Some(3), "{outcome:#}");
}

#[test]
fn a_client_that_leaves_before_the_first_event_is_noticed() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().hangs());
    let connection = gateway.send(PATH, &streamed_chat("support-bot", "hi"));
    provider.await_requests(1);
    drop(connection);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["ending"], "client_gone", "{outcome:#}");
}

#[test]
fn a_drained_stream_is_read_to_its_usage() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("drainer", "hi"));
    open.await_events(3);
    let id = open.request_id();
    drop(open);
    gateway.notice_departures();
    gate.open();
    assert_eq!(provider.await_fate(), Fate::Answered);
    let outcome = gateway.outcome_of(&id);
    assert_eq!(usage_source(&outcome), (&json!("client_gone"), &json!("reported")), "{outcome:#}");
    assert_eq!(outcome["usage"]["completion_tokens"], 6);
}

#[test]
fn hidden_thoughts_are_waited_for() {
    let provider = SimulatedProvider::start();
    provider.thinks(500);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    // The first event has the role and no word: nothing visible yet.
    provider.replies(Reply::usual().waits_after_events(1, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("thinker", "hi"));
    open.await_events(1);
    let id = open.request_id();
    drop(open);
    gateway.notice_departures();
    gate.open();
    assert_eq!(provider.await_fate(), Fate::Answered);
    let outcome = gateway.outcome_of(&id);
    assert_eq!(usage_source(&outcome), (&json!("client_gone"), &json!("reported")), "{outcome:#}");
    assert_eq!(outcome["usage"]["reasoning_tokens"], 500);
}

#[test]
fn hidden_thoughts_that_take_too_long_are_booked_as_unconfirmed() {
    let provider = SimulatedProvider::start();
    provider.thinks(500);
    let setup = Setup::in_front_of(&provider).and(
        "[deployments.hasty-thinker]\nprovider = \"openai\"\nmodel = \"o4-mini-2025-04-16\"\ndrain_ms = 50\n\
         [models.hasty-thinker]\ndeployments = [\"hasty-thinker\"]\n",
    );
    let gateway = TestGateway::with(setup).start();
    provider.replies(Reply::usual().hangs_after_events(1));
    let mut open = gateway.open(PATH, &streamed_chat("hasty-thinker", "hi"));
    open.await_events(1);
    let id = open.request_id();
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    let outcome = gateway.outcome_of(&id);
    assert_eq!(usage_source(&outcome), (&json!("client_gone"), &json!("unconfirmed")), "{outcome:#}");
}

#[test]
fn thoughts_before_the_first_word_are_not_forgotten_when_the_stream_is_stopped() {
    let provider = SimulatedProvider::start();
    provider.thinks(500);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().hangs_after_events(3));
    let mut open = gateway.open(PATH, &streamed_chat("thinker", "hi"));
    open.await_events(3);
    let id = open.request_id();
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone, "words are visible: it is stopped at once");
    let outcome = gateway.outcome_of(&id);
    assert_eq!(usage_source(&outcome), (&json!("client_gone"), &json!("unconfirmed")), "{outcome:#}");
    assert!(
        outcome["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens >= 500),
        "{outcome:#}"
    );
}

#[test]
fn a_whole_answer_is_read_to_its_end_because_it_is_billed_anyway() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let connection = gateway.send(PATH, &chat("support-bot", "hi"));
    provider.await_requests(1);
    drop(connection);
    gateway.notice_departures();
    gate.open();
    assert_eq!(provider.await_fate(), Fate::Answered);
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"]["source"], "reported", "{outcome:#}");
    assert_eq!(outcome["ending"], "client_gone", "{outcome:#}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_request_costs_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut connection = gateway.connect();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\n{{\"model\":",
        gateway.key()
    );
    connection.write(head.as_bytes());
    drop(connection);
    let outcome = eventually("its Outcome", || gateway.outcomes().into_iter().next());
    assert!(matches!(outcome["ending"].as_str(), Some("client_gone" | "refused")), "{outcome:#}");
    assert_eq!(outcome["usage"], json!(null), "{outcome:#}");
    assert!(provider.requests().is_empty());
}

#[test]
fn many_that_leave_leave_nothing_behind() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let streams: Vec<_> = (0..30)
        .map(|_| {
            provider.replies(Reply::usual().hangs_after_events(3));
            let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
            open.await_events(3);
            open
        })
        .collect();
    drop(streams);
    eventually("30 aborted exchanges", || {
        let gone = provider.exchanges().iter().filter(|exchange| exchange.fate == Fate::PeerGone).count();
        (gone == 30).then_some(())
    });
    let outcomes = gateway.outcomes();
    assert_eq!(outcomes.len(), 30);
    assert!(outcomes.iter().all(|outcome| outcome["ending"] == "client_gone"), "{outcomes:#?}");
    gateway.post(PATH, &chat("support-bot", "still there")).expect(200);
}
