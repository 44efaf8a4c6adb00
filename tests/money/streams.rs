//! Streams that are killed, upstreams that break, say no usage or nothing at all, and clients that leave: dollars lost are
//! none, except in rows that say they are estimated or unconfirmed, whose error is printed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ANSWER_NANOS, ANSWER_TOKENS, CHAT, KEY, budget, capped, of_user, paid, pairs};
use crate::support::provider::Fate;
use crate::support::{Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat};

const RESPONSES: &str = "/v1/responses";
/// Events that a client sees of a usual streamed answer: its role, six words, its end and `[DONE]`.
const EVENTS: usize = 9;

/// The usual catalog under a budget that nobody uses up: caps are written, and all is held.
fn budgeted(provider: &SimulatedProvider) -> Setup {
    Setup::in_front_of(provider).and(&budget("all", 1_000_000_000_000, ""))
}

fn streamed(model: &str, user: &str) -> Value {
    of_user(streamed_chat(model, "how many crates fit"), user)
}

#[test]
fn pain_05_a_stream_that_is_killed_at_any_chunk_is_booked_at_what_was_made() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(budgeted(&provider)).start();
    for events in 0..EVENTS {
        let user = format!("killed-{events}");
        provider.replies(Reply::usual().hangs_after_events(events));
        let connection = gateway.send(CHAT, &streamed("support-bot", &user));
        if events > 0 {
            let mut open = connection.opened();
            open.await_events(events);
            drop(open);
        } else {
            provider.await_requests(1);
            drop(connection);
        }
        assert_eq!(provider.await_fate(), Fate::PeerGone, "{user}");
    }
    for pair in pairs(&gateway) {
        assert_eq!(pair.source, "estimated", "{pair:?}");
        assert!(pair.booked >= pair.owed, "lost: {pair:?}");
        assert!(pair.booked <= pair.owed + 40_000, "neither free nor in full: {pair:?}");
    }
}

#[test]
fn pain_05_a_stream_that_is_read_on_to_its_usage_costs_what_it_costs() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(budgeted(&provider)).start();
    for events in 0..EVENTS {
        let gate = Gate::new();
        provider.replies(Reply::usual().waits_after_events(events, &gate));
        let connection = gateway.send(CHAT, &streamed("drainer", &format!("drained-{events}")));
        if events > 0 {
            let mut open = connection.opened();
            open.await_events(events);
            drop(open);
        } else {
            provider.await_requests(1);
            drop(connection);
        }
        gateway.notice_departures();
        gate.open();
        assert_eq!(provider.await_fate(), Fate::Answered);
    }
    for pair in pairs(&gateway) {
        assert_eq!(pair.source, "reported", "{pair:?}");
    }
}

#[test]
fn an_upstream_that_breaks_anywhere_is_booked_at_what_it_made() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(budgeted(&provider)).start();
    for events in 0..EVENTS {
        provider.replies(Reply::usual().closes_after_events(events));
        gateway.post(CHAT, &streamed("support-bot", &format!("closed-{events}")));
    }
    for bytes in (1..2_400).step_by(101) {
        provider.replies(Reply::usual().resets_after_bytes(bytes));
        gateway.post(CHAT, &streamed("support-bot", &format!("reset-{bytes}")));
    }
    for pair in pairs(&gateway) {
        assert!(pair.booked >= pair.owed, "lost: {pair:?}");
        assert!(pair.booked <= pair.owed + 40_000, "neither free nor in full: {pair:?}");
    }
}

#[test]
fn a_whole_answer_that_breaks_is_held_to_be_spent() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", 1_000_000_000_000, ""))).start();
    let replies = [Reply::usual().resets_after_bytes(20), Reply::usual().states_length_off_by(50)];
    for (at, reply) in replies.into_iter().enumerate() {
        provider.replies(reply);
        let body = of_user(capped("paid", 20), &format!("broke-{at}"));
        gateway.post(CHAT, &body).expect_error(502, "upstream_broke");
    }
    for pair in pairs(&gateway) {
        assert_eq!(pair.source, "unconfirmed", "{pair:?}");
        assert_eq!(pair.booked, 20 * super::TOKEN_NANOS, "all that was held: {pair:?}");
    }
}

#[test]
fn upstreams_that_tell_no_usage_are_counted() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", 1_000_000_000_000, ""))).start();
    let chunk = |words: &str| {
        let delta = json!({"choices": [{"index": 0, "delta": {"content": words}, "finish_reason": null}]});
        format!("data: {delta}\n\n").into_bytes()
    };
    let pieces = vec![chunk("Four crates"), chunk(" fit."), b"data: [DONE]\n\n".to_vec()];
    provider.replies(Reply::stream(pieces, 1, 3).without_usage());
    let mut body = capped("paid", 50);
    body["stream"] = true.into();
    gateway.post(CHAT, &body).expect(200);
    let whole =
        json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Four crates fit."}}]});
    provider.replies(Reply::json(200, &whole).billed(1, 3).without_usage());
    gateway.post(CHAT, &capped("paid", 50)).expect(200);
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 2);
    let usages = journal.usages();
    let told: Vec<_> = usages.iter().map(|usage| (usage.source.as_str(), usage.cost)).collect();
    let nanos = super::TOKEN_NANOS;
    assert_eq!(told[1], ("unconfirmed", 50 * nanos), "a whole answer that says nothing is charged whole");
    assert!(told[0].0 == "estimated" && (3 * nanos..8 * nanos).contains(&told[0].1), "{told:?}");
}

#[test]
fn time_outs_lose_nothing() {
    let provider = SimulatedProvider::start();
    let url = format!("{}/v1", provider.url());
    let hasty = |limits: &str| format!("{KEY}\ntimeouts = {{ {limits} }}");
    let setup = budgeted(&provider)
        .model("no-byte", &url, &hasty("first_byte_ms = 60"), "")
        .model("silent", &url, &hasty("between_chunks_ms = 60"), "")
        .model(
            "slow",
            &url,
            &hasty("connect_ms = 100, first_byte_ms = 200, between_chunks_ms = 200, total_ms = 250"),
            "",
        );
    let gateway = TestGateway::with(setup).start();
    for stream in [false, true] {
        provider.replies(Reply::usual().hangs());
        let mut body = of_user(capped("no-byte", 30), &format!("no-byte-{stream}"));
        body["stream"] = stream.into();
        gateway.post(CHAT, &body).expect_error(504, "upstream_timeout");
    }
    for events in [1, 3, 8] {
        provider.replies(Reply::usual().hangs_after_events(events));
        gateway.post(CHAT, &streamed("silent", &format!("silent-{events}")));
    }
    provider.replies(Reply::usual().drips(40, Duration::from_millis(20)));
    gateway.post(CHAT, &streamed("slow", "slow"));
    for pair in pairs(&gateway) {
        assert!(matches!(pair.source.as_str(), "estimated" | "unconfirmed"), "{pair:?}");
        assert!(pair.booked >= pair.owed, "lost: {pair:?}");
    }
}

/// A kept connection may be closed by its upstream just as we use it again. What dies later was worked on.
#[test]
fn a_connection_that_is_hung_up_after_a_while_is_not_asked_again_for_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(budgeted(&provider)).start();
    for (at, used) in [false, true, true].into_iter().enumerate() {
        if used {
            gateway.post(CHAT, &of_user(capped("support-bot", 30), &format!("before-{at}"))).expect(200);
        }
        provider.replies(Reply::usual().hangs_up_after(Duration::from_millis(700)));
        let body = of_user(capped("support-bot", 30), &format!("hung-up-{at}"));
        gateway.post(CHAT, &body).expect_error(502, "upstream_broke");
    }
    for pair in pairs(&gateway) {
        assert!(pair.booked >= pair.owed, "lost: {pair:?}");
        assert_eq!(pair.source == "unconfirmed", pair.user.starts_with("hung-up"), "{pair:?}");
    }
}

#[test]
fn a_client_that_leaves_while_its_hold_waits_costs_nothing() {
    let provider = SimulatedProvider::start();
    let limit = 10 * ANSWER_NANOS;
    let setup = paid(&provider).and(&budget("all", limit, "")).and("[ledger]\nhold_wait_ms = 10000\n");
    let gateway = TestGateway::with(setup).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let mut first = gateway.send(CHAT, &of_user(capped("paid", 10 * ANSWER_TOKENS), "first"));
    provider.await_requests(1);
    let waiting: Vec<_> = (0..5)
        .map(|number| gateway.send(CHAT, &of_user(capped("paid", ANSWER_TOKENS), &format!("left-{number}"))))
        .collect();
    eventually("all of them in flight", || {
        let books = gateway.admin(crate::support::Call::get("/admin/v1/requests")).expect(200).json();
        (books["in_flight"] == json!(6)).then_some(())
    });
    drop(waiting);
    gateway.notice_departures();
    gate.open();
    first.answer().expect(200);
    gateway.outcomes();
    let pairs = pairs(&gateway);
    assert_eq!(pairs.len(), 1, "only the first was asked for: {pairs:?}");
    assert_eq!(provider.requests().len(), 1);
    assert_eq!(gateway.journal().spent(), ANSWER_NANOS);
}

#[test]
fn clients_that_leave_at_once_leave_no_hold_behind() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(budgeted(&provider)).start();
    for number in 0..40 {
        let connection = gateway.send(CHAT, &of_user(chat("support-bot", "hi"), &format!("whole-{number}")));
        drop(connection);
        let connection = gateway.send(CHAT, &streamed("support-bot", &format!("stream-{number}")));
        drop(connection);
        drop(
            gateway.send(
                RESPONSES,
                &json!({"model": "support-bot", "input": "hi", "user": format!("r-{number}")}),
            ),
        );
    }
    gateway.notice_departures();
    gateway.outcomes();
    for pair in pairs(&gateway) {
        // what was made between the last word that we saw and the end of the stream is nobody's to know
        assert!(pair.booked > 0 || pair.owed == 0, "what was asked for is booked: {pair:?}");
    }
}
