//! Limits: requests and tokens in a minute, and requests at once; and what one process takes.

use serde_json::{Value, json};

use crate::support::{
    Answer, Call, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat,
};

const CHAT: &str = "/v1/chat/completions";

fn key(gateway: &TestGateway, body: &Value) -> String {
    let made = gateway.admin(Call::post("/admin/v1/keys", body)).expect(201).json();
    made["key"].as_str().expect("a key").to_owned()
}

fn limited(gateway: &TestGateway, limits: &Value) -> String {
    key(gateway, &json!({"alias": "limited", "limits": limits}))
}

fn ask(gateway: &TestGateway, key: &str) -> Answer {
    gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(key))
}

fn number(answer: &Answer, header: &str) -> u64 {
    let value = answer.header(header).unwrap_or_else(|| panic!("no {header} in {:?}", answer.headers));
    value.parse().unwrap_or_else(|_| panic!("{header}: {value}"))
}

#[test]
fn requests_per_minute_with_the_headers_clients_read() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = limited(&gateway, &json!({"requests_per_minute": 3}));
    for left in [2, 1, 0] {
        let answer = ask(&gateway, &key).expect(200);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 3);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), left);
        let reset = answer.header("x-ratelimit-reset-requests").expect("a reset");
        assert!(reset.ends_with('s'), "{reset}");
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), None, "tokens have no limit");
    }
    let refused = ask(&gateway, &key);
    let error = refused.expect_error(429, "rate_limit_exceeded");
    assert_eq!(error["type"], "requests");
    let words = error["message"].as_str().unwrap_or_default();
    let start = "Rate limit reached for key `limited` on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in ";
    assert!(words.starts_with(start), "{words}");
    let (seconds, ms) = (number(&refused, "retry-after"), number(&refused, "retry-after-ms"));
    assert!((1..=20_000).contains(&ms) && seconds == ms.div_ceil(1_000), "{seconds} s, {ms} ms");
    assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
    let azure = Call::post("/openai/v1/chat/completions", &chat("support-bot", "hi")).header("api-key", &key);
    let refused = gateway.call(azure);
    refused.expect_error(429, "rate_limit_exceeded");
    assert!(
        (40..=60).contains(&number(&refused, "x-ratelimit-reset-requests")),
        "bare seconds on Azure's paths"
    );
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    assert_eq!(gateway.outcome_of(&refused.request_id())["code"], "rate_limit_exceeded");
}

#[test]
fn tokens_are_corrected_when_the_answer_has_told_its_usage() {
    let provider = SimulatedProvider::start();
    provider.says(&"word ".repeat(200));
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = limited(&gateway, &json!({"tokens_per_minute": 1_000}));
    let first = ask(&gateway, &key).expect(200);
    assert!(number(&first, "x-ratelimit-remaining-tokens") > 950, "only the estimate is taken yet");
    gateway.outcome_of(&first.request_id());
    let second = ask(&gateway, &key).expect(200);
    let left = number(&second, "x-ratelimit-remaining-tokens");
    assert!((700..850).contains(&left), "200 tokens of the first answer are taken: {left}");
    let long = chat("support-bot", &"long ".repeat(2_000));
    let refused = gateway.call(Call::post(CHAT, &long).bearer(&key));
    let error = refused.expect_error(429, "rate_limit_exceeded");
    assert_eq!((&error["type"], refused.header("x-should-retry")), (&json!("tokens"), Some("false")));
    assert_eq!(refused.header("retry-after"), None, "it will never fit");
}

#[test]
fn what_an_upstream_refused_gives_its_tokens_back() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = limited(&gateway, &json!({"tokens_per_minute": 100_000}));
    provider.fails(crate::support::provider::Trouble::rate_limited(1));
    let body = chat("support-bot", &"x".repeat(200_000));
    let failed = gateway.call(Call::post(CHAT, &body).bearer(&key)).expect(429);
    assert_eq!(failed.header("retry-after"), Some("1"), "the upstream's own");
    assert_eq!(number(&failed, "x-ratelimit-limit-tokens"), 100_000, "our limit, not the upstream's");
    gateway.outcome_of(&failed.request_id());
    let elsewhere = gateway.call(Call::post(CHAT, &chat("azure-bot", "hi")).bearer(&key)).expect(200);
    let left = number(&elsewhere, "x-ratelimit-remaining-tokens");
    assert!(left > 99_000, "{left}");
}

#[test]
fn an_unlimited_key_sees_the_upstreams_limits() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let plain = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    assert_eq!(plain.header("x-ratelimit-remaining-requests"), Some("4999"), "as the provider says it");
    let key = limited(&gateway, &json!({"tokens_per_minute": 100_000}));
    let ours = ask(&gateway, &key).expect(200);
    assert_eq!(ours.header("x-ratelimit-remaining-requests"), None, "another account's");
    assert!(ours.header("x-ratelimit-remaining-tokens").is_some());
}

#[test]
fn requests_at_once_end_with_their_stream_or_their_client() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = limited(&gateway, &json!({"concurrent": 1}));
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let call = Call::post(CHAT, &streamed_chat("support-bot", "hi")).bearer(&key);
    let mut open = gateway.connect().open(&call);
    open.await_events(3);
    let error = ask(&gateway, &key).expect_error(429, "rate_limit_exceeded");
    assert!(
        error["message"].as_str().is_some_and(|words| words.contains("requests at once: Limit 1, Used 1")),
        "{error}"
    );
    gate.open();
    open.finish();
    eventually("the end of the first", || (ask(&gateway, &key).status == 200).then_some(()));
    provider.replies(Reply::usual().hangs_after_events(3));
    let mut open = gateway.connect().open(&call);
    open.await_events(3);
    assert_eq!(ask(&gateway, &key).status, 429);
    drop(open);
    eventually("the end of the second", || (ask(&gateway, &key).status == 200).then_some(()));
}

#[test]
fn a_model_limits_all_who_ask_for_it() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider)
        .and("[models.scarce]\ndeployments = [\"support-v3\"]\nlimits = { requests_per_minute = 2 }\n");
    let gateway = TestGateway::with(setup).start();
    let other = key(&gateway, &json!({"alias": "other"}));
    let ask = |key: &str| gateway.call(Call::post(CHAT, &chat("scarce", "hi")).bearer(key));
    ask(gateway.key()).expect(200);
    ask(&other).expect(200);
    let error = ask(gateway.key()).expect_error(429, "rate_limit_exceeded");
    assert!(error["message"].as_str().is_some_and(|words| words.contains("for model `scarce`")), "{error}");
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
}

#[test]
fn of_many_at_once_exactly_the_limit_is_served() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = limited(&gateway, &json!({"requests_per_minute": 10}));
    let began = std::time::Instant::now();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(&gateway, &key).status)).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    let served = statuses.iter().filter(|status| **status == 200).count() as u64;
    let more = began.elapsed().as_millis() as u64 / 6_000;
    assert!((10..=10 + more).contains(&served), "{served} of 10, and {more} for the time that it took");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count() as u64, 40 - served);
}

#[test]
fn a_process_takes_so_much_at_once_and_says_when_to_come_again() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).and("[limits]\nmax_in_flight = 1\n");
    let gateway = TestGateway::with(setup).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(CHAT, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    let refused = gateway.post(CHAT, &chat("support-bot", "hi"));
    refused.expect_error(503, "overloaded");
    assert_eq!((number(&refused, "retry-after"), number(&refused, "retry-after-ms")), (1, 1_000));
    gateway.get("/v1/models").expect(200);
    gate.open();
    open.finish();
    eventually("room", || (gateway.post(CHAT, &chat("support-bot", "hi")).status == 200).then_some(()));
}

#[test]
fn bodies_in_flight_have_a_bound_together() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider)
        .server("max_body_bytes = 1048576")
        .and("[limits]\nmax_body_bytes_in_flight = 1048576\n");
    let gateway = TestGateway::with(setup).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(CHAT, &streamed_chat("support-bot", &"x".repeat(700_000)));
    open.await_events(3);
    let large = chat("support-bot", &"x".repeat(700_000));
    gateway.post(CHAT, &large).expect_error(503, "overloaded");
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    gate.open();
    open.finish();
    eventually("room", || (gateway.post(CHAT, &large).status == 200).then_some(()));
}
