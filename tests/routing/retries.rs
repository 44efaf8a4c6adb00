//! What bounds a retry: the wait that was asked for, the retry budget, the client's patience, and whose fault it was.

use std::time::Duration;

use serde_json::json;

use super::{CHAT, deployment, lab, metric, model, question, streamed};
use crate::support::provider::Trouble;
use crate::support::{Answer, End, Gate, Reply, Setup, SimulatedProvider, TestGateway, eventually};

/// One deployment, `only`, of the model `bot`.
fn alone(provider: &SimulatedProvider, lines: &str, retry: &str) -> TestGateway {
    let setup = lab()
        .and(&deployment("only", &format!("{}/v1", provider.url()), lines))
        .and(&model("bot", &format!("deployments = [\"only\"]\n{retry}")))
        .watched(provider);
    TestGateway::with(setup).start()
}

/// Two deployments, `first` and `second`, of the model `bot`.
fn in_turn(first: &SimulatedProvider, second: &SimulatedProvider, lines: &str) -> Setup {
    lab()
        .and(&deployment("first", &format!("{}/v1", first.url()), lines))
        .and(&deployment("second", &format!("{}/v1", second.url()), lines))
        .and(&model("bot", "deployments = [\"first\", \"second\"]"))
        .watched(first)
        .watched(second)
}

fn by(answer: &Answer) -> Option<&str> {
    answer.header("x-tunegate-deployment")
}

#[test]
fn a_wait_that_is_too_long_is_the_clients() {
    let provider = SimulatedProvider::start();
    let gateway = alone(&provider, "", "");
    provider.fails(Trouble::rate_limited(40));
    let told = gateway.post(CHAT, &question("bot", "first")).expect(429);
    assert_eq!(told.json(), Trouble::rate_limited(40).body);
    assert_eq!((told.header("retry-after"), told.header("retry-after-ms")), (Some("40"), Some("40000")));
    // those that come meanwhile are told the rest of it, and the provider is left alone
    let later = gateway.post(CHAT, &question("bot", "second")).expect(429);
    let seconds: u64 = later.header("retry-after").and_then(|text| text.parse().ok()).expect("a wait");
    assert!((30..=40).contains(&seconds), "{seconds}");
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn an_answer_says_how_many_attempts_it_took() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_turn(&first, &second, "")).start();
    first.fails(Trouble::rate_limited_silently());
    let answer = gateway.post(CHAT, &question("bot", "one")).expect(200);
    assert_eq!((by(&answer), answer.header("x-tunegate-attempts")), (Some("second"), Some("2")));
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["failed_attempts"][0]["deployment"], "first", "{outcome:#}");
    let answer = gateway.post(CHAT, &question("bot", "two")).expect(200);
    assert_eq!((by(&answer), answer.header("x-tunegate-attempts")), (Some("first"), None));
}

/// Retries that a model has before any request has paid for one.
const RESERVE: usize = 10;

#[test]
fn retries_are_a_tenth_of_the_requests() {
    let provider = SimulatedProvider::start();
    let tough = "breaker = { consecutive_failures = 1000, failure_percent = 100, least_requests = 1000 }";
    let gateway = alone(&provider, tough, "retry = { attempts = 5, first_wait_ms = 1, longest_wait_ms = 1 }");
    provider.always(Reply::trouble(Trouble::server_error()));
    let requests = 40;
    for _ in 0..requests {
        gateway.post(CHAT, &question("bot", "somebody")).expect(500);
    }
    let retries = provider.requests().len() - requests;
    assert!((RESERVE..=RESERVE + requests / 10).contains(&retries), "{retries} retries");
}

#[test]
fn a_client_that_leaves_during_a_wait_is_not_asked_for_again() {
    let provider = SimulatedProvider::start();
    let gateway = alone(&provider, "", "retry = { first_wait_ms = 3000, longest_wait_ms = 5000 }");
    provider.fails(Trouble::server_error());
    let leaves = gateway.send(CHAT, &question("bot", "leaves"));
    eventually("a failed attempt", || {
        metric(&gateway, "tunegate_upstream_errors_total", "only").filter(|n| *n > 0)
    });
    drop(leaves);
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["ending"], "client_gone", "{outcome:#}");
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn nobody_else_is_asked_for_a_client_that_has_left() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_turn(&first, &second, "")).start();
    let wrong = Reply::body(200, "text/html", b"<html>".to_vec()).billed(1, 0).without_usage();
    for (at, (reply, source)) in [
        (Reply::trouble(Trouble::server_error()), json!(null)),
        (wrong, json!("unconfirmed")),
        (Reply::json(200, &Trouble::overloaded().body), json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        let gate = Gate::new();
        first.replies(reply.waits_for(&gate));
        let leaves = gateway.send(CHAT, &question("bot", "leaves"));
        first.await_requests(at + 1);
        drop(leaves);
        gateway.notice_departures();
        gate.open();
        let outcome = eventually("its Outcome", || {
            let all = gateway.outcomes();
            (all.len() > at).then(|| all[0].clone())
        });
        assert_eq!(outcome["ending"], "client_gone", "{outcome:#}");
        assert_eq!(outcome["usage"]["source"], source, "{outcome:#}");
        assert_eq!(outcome["failed_attempts"].as_array().map(Vec::len), Some(1), "{outcome:#}");
    }
    assert_eq!((first.requests().len(), second.requests().len()), (3, 0));
}

#[test]
fn a_client_that_leaves_is_no_fault_of_the_deployment() {
    let provider = SimulatedProvider::start();
    let lines = "reasoning = true\ndrain_ms = 50\nbreaker = { consecutive_failures = 1 }";
    let gateway = alone(&provider, lines, "");
    provider.replies(Reply::usual().hangs());
    let leaves = gateway.send(CHAT, &streamed("bot", "leaves"));
    provider.await_requests(1);
    drop(leaves);
    let outcome = gateway.last_outcome();
    assert_eq!(
        (&outcome["ending"], &outcome["usage"]["source"]),
        (&json!("client_gone"), &json!("unconfirmed"))
    );
    gateway.post(CHAT, &question("bot", "stays")).expect(200);
}

/// An event of a stream as Python's `json` writes it: blanks between.
fn error_event(code: &str) -> Vec<u8> {
    format!(
        "data: {{\"error\": {{\"message\": \"not now\", \"type\": \"{code}\", \"code\": \"{code}\"}}}}\n\n"
    )
    .into_bytes()
}

#[test]
fn an_error_in_what_comes_first_of_a_stream_goes_to_the_next() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_turn(&first, &second, "")).start();
    let done = b"data: [DONE]\n\n".to_vec();
    for pieces in [
        vec![error_event("server_is_overloaded"), done.clone()],
        // in one read
        vec![[error_event("server_is_overloaded"), done].concat()],
        vec![[b": hello\n\n".to_vec(), error_event("server_is_overloaded")].concat()],
    ] {
        first.replies(Reply::stream(pieces, 1, 0).without_usage());
        let answer = gateway.post(CHAT, &streamed("bot", "somebody")).expect(200);
        assert_eq!(by(&answer), Some("second"), "{}", answer.text());
        assert!(!answer.text().contains("not now"), "{}", answer.text());
    }
}

#[test]
fn comments_before_an_error_are_no_answer_yet() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_turn(&first, &second, "")).start();
    let gate = Gate::new();
    let pieces = vec![b": hello\n\n".to_vec(), error_event("server_is_overloaded")];
    first.replies(Reply::stream(pieces, 1, 0).without_usage().waits_after_events(1, &gate));
    let mut open = gateway.send(CHAT, &streamed("bot", "somebody"));
    first.await_requests(1);
    // the comment is read by then
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    let answer = open.answer().expect(200);
    assert_eq!(by(&answer), Some("second"), "{}", answer.text());
    // before an answer they belong to it
    let word = br#"data: {"choices":[{"index":0,"delta":{"content":"Yes"},"finish_reason":"stop"}]}"#;
    let pieces = vec![b": hello\n\n".to_vec(), [&word[..], b"\n\ndata: [DONE]\n\n"].concat()];
    let gate = Gate::new();
    first.replies(Reply::stream(pieces.clone(), 1, 1).without_usage().waits_after_events(1, &gate));
    let mut open = gateway.send(CHAT, &streamed("bot", "somebody"));
    first.await_requests(2);
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    let answer = open.answer().expect(200);
    assert_eq!((by(&answer), answer.text().as_bytes()), (Some("first"), &*pieces.concat()));
}

#[test]
fn an_account_without_money_is_left_alone_whatever_the_status_says() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(in_turn(&first, &second, "")).start();
    first.replies(Reply::json(200, &Trouble::quota_used_up().body));
    for body in [question("bot", "one"), question("bot", "two"), streamed("bot", "three")] {
        let answer = gateway.post(CHAT, &body).expect(200);
        assert_eq!(by(&answer), Some("second"), "{}", answer.text());
    }
    assert_eq!(first.requests().len(), 1);
}

#[test]
fn what_is_wrong_with_requests_opens_no_breaker() {
    let provider = SimulatedProvider::start();
    let gateway = alone(&provider, "breaker = { consecutive_failures = 2 }", "");
    let wrong = Trouble::openai(400, "invalid_request_error", None, "your temperature is too high");
    for _ in 0..4 {
        provider.fails(wrong.clone());
        assert_eq!(gateway.post(CHAT, &question("bot", "one")).expect(400).json(), wrong.body);
        provider.replies(Reply::stream(vec![error_event("invalid_request_error")], 1, 0).without_usage());
        assert!(gateway.post(CHAT, &streamed("bot", "two")).text().contains("not now"));
    }
    gateway.post(CHAT, &question("bot", "three")).expect(200);
}

#[test]
fn a_request_that_nobody_can_serve_hears_of_each_and_why() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = in_turn(&first, &second, "breaker = { consecutive_failures = 1, cooldown_ms = 60000 }");
    let gateway = TestGateway::with(setup).start();
    for provider in [&first, &second] {
        provider.always(Reply::trouble(Trouble::server_error()));
    }
    gateway.post(CHAT, &question("bot", "opens both")).expect(500);
    let asked = (first.requests().len(), second.requests().len());
    let answer = gateway.post(CHAT, &question("bot", "finds nobody")).expect(503);
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("`first`") && message.contains("`second`"), "{message}");
    let seconds: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a wait");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!((first.requests().len(), second.requests().len()), asked);
}

#[test]
fn a_retry_must_end_in_time() {
    let provider = SimulatedProvider::start();
    let lines = "timeouts = { connect_ms = 10000, first_byte_ms = 10000, between_chunks_ms = 10000, total_ms = 10000 }";
    let gateway = alone(&provider, lines, "retry = { first_wait_ms = 15000, longest_wait_ms = 20000 }");
    provider.always(Reply::trouble(Trouble::server_error()));
    let began = std::time::Instant::now();
    gateway.post(CHAT, &question("bot", "one")).expect(500);
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for nothing");
    assert_eq!(provider.requests().len(), 1);
    assert_eq!(gateway.last_outcome()["usage"], json!(null));
}

#[test]
fn a_response_that_is_translated_falls_back_to_one_that_is_not() {
    let (chat, native) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = lab()
        .and(&deployment("chat", &format!("{}/v1", chat.url()), "endpoints = [\"chat.completions\"]"))
        .and(&deployment("native", &format!("{}/v1", native.url()), ""))
        .and(&model("bot", "deployments = [\"chat\", \"native\"]\nretry = { same = 0 }"))
        .watched(&chat)
        .watched(&native);
    let gateway = TestGateway::with(setup).start();
    let body = |stream: bool| json!({"model": "bot", "input": "hi", "stream": stream, "store": false, "max_output_tokens": 20});
    let ask = |stream: bool| gateway.post("/v1/responses", &body(stream)).expect(200);
    for stream in [false, true] {
        assert_eq!(by(&ask(stream)), Some("chat"));
        for ill in [
            Reply::trouble(Trouble::server_error()),
            Reply::body(200, "application/json", b"{\"id\": ".to_vec()).billed(1, 0).without_usage(),
            Reply::body(200, "text/html", b"<html>".to_vec()).billed(1, 0).without_usage(),
        ] {
            chat.replies(ill);
            let answer = ask(stream);
            assert_eq!(by(&answer), Some("native"), "{}", answer.text());
            assert!(answer.text().contains("Four crates fit on the pallet."), "{}", answer.text());
            // well again, for the breaker's sake
            assert_eq!(by(&ask(stream)), Some("chat"));
        }
    }
    // some servers write an empty error beside each answer
    let whole = json!({
        "id": "c", "object": "chat.completion", "model": "m", "error": {},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    });
    chat.replies(Reply::json(200, &whole).billed(1, 1));
    let answer = ask(false);
    assert_eq!((by(&answer), &answer.json()["object"]), (Some("chat"), &json!("response")));
    // what has begun ends with its failure, in the words of responses
    chat.replies(Reply::usual().resets_after_events(3));
    let answer = gateway.post("/v1/responses", &body(true)).expect(200);
    assert_eq!((by(&answer), answer.end), (Some("chat"), End::Broken));
    let last = answer.events().pop().expect("an event");
    assert_eq!(last.name, "response.failed", "{}", answer.text());
}

#[test]
fn an_attempt_that_nobody_confirms_is_paid_for_before_the_next_is_made() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    // enough to hold one of our questions, not two
    let limit = 100_000;
    let budget = "\n[budgets.all]\nlimit_usd = \"0.0001\"\nwindow = \"total\"\n";
    let gateway = TestGateway::with(in_turn(&first, &second, "").and(budget)).start();
    first.replies(Reply::body(200, "text/html", b"<html>".to_vec()).billed(1, 0).without_usage());
    let answer = gateway.post(CHAT, &question("bot", "one"));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.text().contains("budget"), "the reason is ours to tell: {}", answer.text());
    assert_eq!((first.requests().len(), second.requests().len()), (1, 0));
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 1);
    let usage = &journal.usages()[0];
    assert_eq!((usage.source.as_str(), usage.cost), ("unconfirmed", usage.held));
    assert!((limit / 2..limit).contains(&journal.spent()), "{}", journal.spent());
}

#[test]
fn one_at_a_time_finds_out_whether_a_deployment_is_well_again() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = in_turn(&first, &second, "breaker = { consecutive_failures = 1, cooldown_ms = 200 }");
    let gateway = TestGateway::with(setup).start();
    first.fails(Trouble::overloaded());
    assert_eq!(by(&gateway.post(CHAT, &question("bot", "opens it")).expect(200)), Some("second"));
    let half_open = || metric(&gateway, "tunegate_breaker_state", "first").filter(|state| *state == 1);
    eventually("a breaker that is half open", half_open);
    let gate = Gate::new();
    first.replies(Reply::usual().waits_for(&gate));
    let mut probe = gateway.send(CHAT, &question("bot", "probes"));
    first.await_requests(2);
    for at in 0..10 {
        let answer = gateway.post(CHAT, &question("bot", &format!("meanwhile-{at}"))).expect(200);
        assert_eq!(by(&answer), Some("second"));
    }
    gate.open();
    assert_eq!(by(&probe.answer().expect(200)), Some("first"));
    // the second probe closes it
    assert_eq!(by(&gateway.post(CHAT, &question("bot", "closes it")).expect(200)), Some("first"));
    assert_eq!(metric(&gateway, "tunegate_breaker_state", "first"), Some(0));
    assert_eq!(first.requests().len(), 3);
}

#[test]
fn what_names_stored_state_stays_where_it_is() {
    let (first, second) = (SimulatedProvider::start(), SimulatedProvider::start());
    let plan = "plan = { weighted = [{ share = 1, to = \"first\" }, { share = 1, to = \"second\" }] }";
    let setup = lab()
        .and(&deployment("first", &format!("{}/v1", first.url()), ""))
        .and(&deployment("second", &format!("{}/v1", second.url()), ""))
        .and(&model("bot", &format!("{plan}\nretry = {{ attempts = 1 }}")))
        .watched(&first)
        .watched(&second);
    let gateway = TestGateway::with(setup).start();
    let body = |conversation: &str, stream: bool| {
        let conversation = json!({"id": conversation});
        json!({"model": "bot", "input": "hi", "conversation": conversation, "stream": stream})
    };
    for conversation in ["conv_1", "conv_2", "conv_3"] {
        let ask = |stream: bool| gateway.post("/v1/responses", &body(conversation, stream));
        let home = by(&ask(false).expect(200)).map(str::to_owned);
        for turn in 0..8 {
            assert_eq!(by(&ask(turn % 2 == 0).expect(200)), home.as_deref(), "{conversation}");
        }
        let (its, other) =
            if home.as_deref() == Some("first") { (&first, &second) } else { (&second, &first) };
        let asked = other.requests().len();
        its.replies(Reply::trouble(Trouble::server_error()));
        ask(false).expect(500);
        assert_eq!(other.requests().len(), asked, "the other has never heard of it");
    }
}
