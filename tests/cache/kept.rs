//! What is kept, under which deployment, and how it is told again.

use serde_json::{Value, json};

use super::{CHAT, did, keeping, question, streamed};
use crate::support::provider::Trouble;
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway, sse};

#[test]
fn an_answer_that_was_paid_for_is_not_paid_for_again() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let first = gateway.post(CHAT, &question("how many crates fit")).expect(200);
    assert_eq!(did(&first), ("miss", None));
    // other members' order, other spaces, and members that change no answer
    let same = br#"{ "messages":[ {"content":"how many crates f\u0069t","role":"user"} ], "user": "ada",
        "temperature" :0.0, "model":"kept", "metadata": {"a": "b"} }"#;
    let second = gateway.call(Call::new("POST", CHAT).body("application/json", same)).expect(200);
    assert_eq!(did(&second), ("hit", None));
    assert_eq!(second.body, first.body);
    assert_eq!(second.header("content-type"), first.header("content-type"));
    assert_eq!(second.header("x-tunegate-deployment"), Some("keeper"));
    assert_eq!(second.header("x-tunegate-cache-key"), first.header("x-tunegate-cache-key"));
    assert_eq!(second.header("x-tunegate-cost-usd"), Some("0.00"));
    assert_eq!(second.header("x-tunegate-saved-usd"), first.header("x-tunegate-cost-usd"));
    assert!(second.header("age").is_some_and(|age| age.parse::<u64>().is_ok()));
    assert_ne!(second.request_id(), first.request_id());
    assert_eq!(provider.requests().len(), 1);

    let outcome = gateway.outcome_of(&second.request_id());
    assert_eq!(outcome["cache"]["result"], "hit");
    assert_eq!((&outcome["usage"], &outcome["deployment"]), (&Value::Null, &json!("keeper")));
    let paid = gateway.outcome_of(&first.request_id());
    assert_eq!(outcome["cache"]["saved_usd"], paid["cost_usd"]);
    let journal = gateway.settled_journal(|journal| journal.0.iter().any(|entry| entry.kind == "cache_hit"));
    let hits: Vec<_> = journal.0.iter().filter(|entry| entry.kind == "cache_hit").collect();
    assert_eq!(hits.len(), 1);
    assert_eq!((hits[0].cost, &*hits[0].request_id), (0, &*second.request_id()));
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    for line in [
        "tunegate_cache_requests_total{model=\"kept\",result=\"hit\"} 1",
        "tunegate_cache_requests_total{model=\"kept\",result=\"miss\"} 1",
        "tunegate_cache_stores_total{result=\"kept\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn whole_answers_and_streams_are_each_told_as_either() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let whole = gateway.post(CHAT, &question("whole first")).expect(200);
    let replayed = gateway.post(CHAT, &streamed("whole first")).expect(200);
    assert_eq!(did(&replayed).0, "hit");
    let said = whole.json()["choices"][0]["message"]["content"].clone();
    assert_eq!(sse::spoken(&replayed.events()), said);
    assert!(replayed.events().last().is_some_and(sse::Event::is_done));
    assert!(!replayed.text().contains("\"usage\":{"), "nobody asked for it");

    let live = gateway.post(CHAT, &streamed("stream first")).expect(200);
    assert_eq!(did(&live).0, "miss");
    let again = gateway.post(CHAT, &streamed("stream first")).expect(200);
    assert_eq!(did(&again).0, "hit");
    assert_eq!(again.text(), live.text(), "byte for byte");
    let mut with_usage = streamed("stream first");
    with_usage["stream_options"] = json!({"include_usage": true});
    let told = gateway.post(CHAT, &with_usage).expect(200);
    assert_eq!(did(&told).0, "hit");
    let usage = told.events().iter().rfind(|event| !event.is_done()).expect("events").json();
    assert_eq!(usage["usage"]["cost"], json!(0.0), "what it cost this client: {usage}");
    assert!(usage["usage"]["prompt_tokens"].as_u64() > Some(0));
    let whole = gateway.post(CHAT, &question("stream first")).expect(200);
    assert_eq!(did(&whole).0, "hit");
    assert_eq!(whole.json()["choices"][0]["message"]["content"], sse::spoken(&live.events()));
    assert_eq!(whole.json()["object"], "chat.completion");
    assert_eq!(provider.requests().len(), 2);
}

#[test]
fn what_is_no_good_answer_is_not_kept() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    provider.fails(Trouble::server_error());
    gateway.post(CHAT, &question("an error")).expect(500);
    provider.fails(Trouble::bad_request());
    let told = gateway.post(CHAT, &question("an error")).expect(400);
    assert_eq!(did(&told).0, "miss");
    assert_eq!(did(&gateway.post(CHAT, &question("an error")).expect(200)).0, "miss");
    provider.replies(Reply::usual().closes_after_events(3));
    let broken = gateway.send(CHAT, &streamed("a broken stream")).last_words();
    assert!(broken.is_some_and(|answer| answer.text().contains("upstream_broke")));
    assert_eq!(did(&gateway.post(CHAT, &streamed("a broken stream")).expect(200)).0, "miss");
    let cut = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Four"}, "finish_reason": "content_filter"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
    provider.replies(Reply::json(200, &cut).billed(1, 1));
    gateway.post(CHAT, &question("filtered")).expect(200);
    assert_eq!(did(&gateway.post(CHAT, &question("filtered")).expect(200)).0, "miss");
}

/// Two deployments behind one model: the second answers where the first fails.
fn with_fallback(first: &SimulatedProvider, second: &SimulatedProvider, order: &str) -> Setup {
    let provider = |name: &str, provider: &SimulatedProvider| {
        format!(
            "[providers.{name}]\nkind = \"openai\"\nbase_url = \"{}/v1\"\napi_key = {{ file = \"upstream.key\" }}\n\
             [deployments.{name}]\nprovider = \"{name}\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n",
            provider.url()
        )
    };
    Setup::bare()
        .file("upstream.key", crate::support::provider::UPSTREAM_KEY)
        .watched(first)
        .watched(second)
        .patient()
        .and(&provider("one", first))
        .and(&provider("two", second))
        .and(&format!("[models.kept]\ndeployments = [{order}]\ncache = {{ ttl_s = 60 }}\n"))
}

#[test]
fn a_fallbacks_answer_is_its_own() {
    let (one, two) = (SimulatedProvider::start(), SimulatedProvider::start());
    one.says("one speaks");
    two.says("two speaks");
    let setup = with_fallback(&one, &two, "\"one\", \"two\"");
    let gateway = TestGateway::with(setup).start();
    for _ in 0..2 {
        one.fails(Trouble::server_error());
    }
    let fallback = gateway.post(CHAT, &question("who speaks")).expect(200);
    assert_eq!((did(&fallback).0, fallback.header("x-tunegate-deployment")), ("miss", Some("two")));
    let first = gateway.post(CHAT, &question("who speaks")).expect(200);
    assert_eq!((did(&first).0, first.header("x-tunegate-deployment")), ("miss", Some("one")));
    assert!(first.text().contains("one speaks"));
    // promoted: what was kept of the other is its own answer to this very request
    gateway.rewrite(&with_fallback(&one, &two, "\"two\", \"one\""));
    gateway.reload().expect(200);
    let promoted = gateway.post(CHAT, &question("who speaks")).expect(200);
    assert_eq!((did(&promoted).0, promoted.header("x-tunegate-deployment")), ("hit", Some("two")));
    assert!(promoted.text().contains("two speaks"));
    assert_eq!(two.requests().len(), 1);
}

#[test]
fn another_version_of_a_model_never_serves_what_the_one_before_said() {
    let (one, two) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = |version: &str| {
        with_fallback(&one, &two, "\"one\"")
            .and(&format!("[deployments.one.timeouts]\nconnect_ms = 5000\n{version}"))
    };
    let gateway = TestGateway::with(setup("")).start();
    gateway.post(CHAT, &question("hello")).expect(200);
    assert_eq!(did(&gateway.post(CHAT, &question("hello")).expect(200)).0, "hit");
    gateway.rewrite(&with_fallback(&one, &two, "\"two\""));
    gateway.reload().expect(200);
    assert_eq!(did(&gateway.post(CHAT, &question("hello")).expect(200)).0, "miss", "promoted");
    gateway.rewrite(&setup(""));
    gateway.reload().expect(200);
    assert_eq!(did(&gateway.post(CHAT, &question("hello")).expect(200)).0, "hit", "and back");
}

#[test]
fn a_canary_draws_among_answers_as_among_deployments() {
    let (one, two) = (SimulatedProvider::start(), SimulatedProvider::start());
    one.says("one speaks");
    two.says("two speaks");
    let setup = with_fallback(&one, &two, "\"one\", \"two\"").and(
        "[models.canary]\ncache = { ttl_s = 60 }\n[models.canary.plan]\nweighted = [{ share = 50, to = \"one\" }, \
         { share = 50, to = \"two\" }]\n",
    );
    let gateway = TestGateway::with(setup).start();
    let mut body = question("who speaks");
    body["model"] = "canary".into();
    let mut said = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let answer = gateway.post(CHAT, &body).expect(200);
        let from = answer.header("x-tunegate-deployment").expect("told").to_owned();
        assert!(answer.text().contains(&format!("{from} speaks")), "another's answer: {}", answer.text());
        said.insert(from);
    }
    assert_eq!(said.len(), 2, "both are drawn");
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1), "each was asked once");
}
