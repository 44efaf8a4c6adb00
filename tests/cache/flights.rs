//! Equal requests at the same time: one call, as many answers, whoever leaves meanwhile.

use serde_json::json;

use super::{CHAT, did, keeping, key, question, streamed};
use crate::support::provider::Trouble;
use crate::support::{Call, Connection, Gate, Reply, SimulatedProvider, TestGateway, eventually, sse};

const MANY: usize = 500;

/// Waits until so many requests are in flight.
fn await_in_flight(gateway: &TestGateway, count: usize) {
    eventually("all have arrived", || {
        let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
        metrics.contains(&format!("\ntunegate_in_flight_requests {count}\n")).then_some(())
    });
}

#[test]
fn five_hundred_at_once_are_one_call() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let connections: Vec<Connection> =
        (0..MANY).map(|_| gateway.send(CHAT, &question("one for all"))).collect();
    await_in_flight(&gateway, MANY);
    gate.open();
    let answers: Vec<_> =
        connections.into_iter().map(|mut connection| connection.answer().expect(200)).collect();
    assert_eq!(provider.requests().len(), 1);
    let mut results = std::collections::BTreeMap::new();
    for answer in &answers {
        assert_eq!(answer.body, answers[0].body);
        *results.entry(did(answer).0.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(results["miss"], 1, "{results:?}");
    assert_eq!(results["joined"], MANY - 1, "{results:?}");
    let journal = gateway
        .settled_journal(|journal| journal.0.iter().filter(|e| e.kind == "cache_hit").count() == MANY - 1);
    assert_eq!(journal.usages().len(), 1, "one row each, and one that costs");
}

#[test]
fn five_hundred_streams_are_one_call_whoever_leaves() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open: Vec<_> = Vec::new();
    for number in 0..MANY {
        let mut stream = gateway.open(CHAT, &streamed("one for all"));
        stream.await_events(2);
        open.push((number, stream));
    }
    // the first of them, and every third
    let (leave, stay): (Vec<_>, Vec<_>) = open.into_iter().partition(|(number, _)| number % 3 == 0);
    let left = leave.len();
    drop(leave);
    gateway.notice_departures();
    gate.open();
    let answers: Vec<_> = stay.into_iter().map(|(_, stream)| stream.finish()).collect();
    assert_eq!(provider.requests().len(), 1);
    assert_eq!(answers.len(), MANY - left);
    for answer in &answers {
        assert_eq!(did(answer).0, "joined", "the leader has left");
        assert_eq!(answer.text(), answers[0].text());
        assert!(answer.events().last().is_some_and(sse::Event::is_done));
    }
    // what was paid for is there for who comes later
    assert_eq!(did(&gateway.post(CHAT, &streamed("one for all")).expect(200)).0, "hit");
}

#[test]
fn late_ones_get_what_has_passed_and_then_follow() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(4, &gate));
    let mut first = gateway.open(CHAT, &streamed("tell me"));
    first.await_events(4);
    let mut late = gateway.open(CHAT, &streamed("tell me"));
    late.await_events(4);
    let whole = gateway.send(CHAT, &question("tell me"));
    await_in_flight(&gateway, 3);
    gate.open();
    let (first, late) = (first.finish(), late.finish());
    assert_eq!(first.text(), late.text());
    let whole = { whole }.answer().expect(200);
    assert_eq!(did(&whole).0, "joined", "told whole, once all has come");
    assert_eq!(whole.json()["choices"][0]["message"]["content"], sse::spoken(&first.events()));
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn when_all_have_left_the_call_is_stopped() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    provider.replies(Reply::usual().hangs_after_events(3));
    let mut streams: Vec<_> = (0..3).map(|_| gateway.open(CHAT, &streamed("nobody waits"))).collect();
    streams.iter_mut().for_each(|stream| stream.await_events(3));
    drop(streams);
    assert_eq!(provider.await_fate(), crate::support::provider::Fate::PeerGone);
    gateway.notice_departures();
    assert_eq!(
        did(&gateway.post(CHAT, &streamed("nobody waits")).expect(200)).0,
        "miss",
        "half an answer is none"
    );
}

#[test]
fn where_the_first_fails_the_next_leads() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let gate = Gate::new();
    provider.replies(Reply::trouble(Trouble::bad_request()).waits_for(&gate));
    let first = gateway.send(CHAT, &question("will it"));
    provider.await_requests(1);
    let others: Vec<Connection> = (0..5).map(|_| gateway.send(CHAT, &question("will it"))).collect();
    await_in_flight(&gateway, 6);
    gate.open();
    let failed = { first }.answer().expect(400);
    assert_eq!(did(&failed).0, "miss");
    let results: Vec<String> =
        others.into_iter().map(|mut connection| did(&connection.answer().expect(200)).0.to_owned()).collect();
    assert_eq!(results.iter().filter(|result| *result == "miss").count(), 1, "{results:?}");
    assert_eq!(provider.requests().len(), 2, "{results:?}");
}

#[test]
fn our_own_refusal_of_the_first_is_nobody_elses() {
    let provider = SimulatedProvider::start();
    let poor = "[budgets.poor]\nlimit_usd = \"0\"\nwindow = \"total\"\nscope = { key = \"poor\" }\n";
    let setup = keeping(&provider, "ttl_s = 60, scope = \"shared\"").and(poor);
    let gateway = TestGateway::with(setup).start();
    let (poor, rich) = (key(&gateway, &json!({"alias": "poor"})), key(&gateway, &json!({"alias": "rich"})));
    let ask = |key: &str| Call::post(CHAT, &question("who pays")).bearer(key);
    let connections: Vec<(bool, Connection)> = (0..40)
        .map(|number| {
            let is_poor = number % 2 == 0;
            let mut connection = gateway.connect();
            connection.send(&ask(if is_poor { &poor } else { &rich }));
            (is_poor, connection)
        })
        .collect();
    for (is_poor, mut connection) in connections {
        let answer = connection.answer();
        match is_poor {
            // it pays nothing for what another has paid
            true if answer.status == 200 => assert_ne!(did(&answer).0, "miss"),
            true => drop(answer.expect_error(429, "project_spend_limit_exceeded")),
            false => drop(answer.expect(200)),
        }
    }
}

#[test]
fn those_who_share_the_cost_pay_it_together() {
    let provider = SimulatedProvider::start();
    let setup = keeping(&provider, "ttl_s = 60, joiners = \"share\"")
        .and("[budgets.all]\nlimit_usd = \"100\"\nwindow = \"total\"\n");
    let mut gateway = TestGateway::with(setup).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let first = gateway.send(CHAT, &question("together"));
    provider.await_requests(1);
    let others: Vec<Connection> = (0..6).map(|_| gateway.send(CHAT, &question("together"))).collect();
    await_in_flight(&gateway, 7);
    eventually("all hold their share", || {
        let holds = gateway.journal().0.iter().filter(|entry| entry.kind == "hold").count();
        (holds == 7).then_some(())
    });
    gate.open();
    let mut answers = vec![{ first }.answer().expect(200)];
    answers.extend(others.into_iter().map(|mut connection| connection.answer().expect(200)));
    let owed: u64 =
        provider.exchanges().iter().filter_map(crate::support::provider::Exchange::owed_nanos).sum();
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 7);
    journal.check();
    let costs: Vec<i64> = journal.usages().iter().map(|usage| usage.cost).collect();
    assert_eq!(costs.iter().sum::<i64>(), i64::try_from(owed).expect("small"), "{costs:?}");
    let (least, most) = (costs.iter().min().expect("some"), costs.iter().max().expect("some"));
    assert!(most - least < 7, "what can't be divided is the first one's: {costs:?}");
    for answer in &answers[1..] {
        let cost = answer.header("x-tunegate-cost-usd").expect("told");
        assert_ne!(cost, "0.00");
    }
    gateway.books_agree();
    gateway.is_audited();
}

#[test]
fn what_a_budget_has_cut_is_its_leaders_alone() {
    let provider = SimulatedProvider::start();
    // less than the usual cap: the output is clamped. The other has a budget, too: both would be asked with that cap
    let poor = "[budgets.poor]\nlimit_usd = \"0.0005\"\nwindow = \"total\"\naction = \"clamp\"\n\
                scope = { key = \"poor\" }\n\
                [budgets.rich]\nlimit_usd = \"100\"\nwindow = \"total\"\nscope = { key = \"rich\" }\n";
    let setup = keeping(&provider, "ttl_s = 60, scope = \"shared\"").and(poor);
    let gateway = TestGateway::with(setup).start();
    let (poor, rich) = (key(&gateway, &json!({"alias": "poor"})), key(&gateway, &json!({"alias": "rich"})));
    let gate = Gate::new();
    let half = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Four"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}});
    provider.replies(Reply::json(200, &half).billed(9, 1).waits_for(&gate));
    let send = |key: &str, body: &serde_json::Value| {
        let mut connection = gateway.connect();
        connection.send(&Call::post(CHAT, body).bearer(key));
        connection
    };
    let cut = send(&poor, &question("how far does it go"));
    provider.await_requests(1);
    let others =
        [question("how far does it go"), streamed("how far does it go")].map(|body| send(&rich, &body));
    await_in_flight(&gateway, 3);
    gate.open();
    let cut = { cut }.answer().expect(200);
    let usual = Some("4096");
    assert_ne!(cut.header("x-tunegate-output-cap").or(usual), usual, "it was cut");
    let results = others.map(|mut connection| {
        let answer = connection.answer().expect(200);
        assert!(matches!(answer.header("x-tunegate-output-cap"), None | Some("4096")));
        assert!(!answer.text().contains("length"), "half an answer: {}", answer.text());
        did(&answer).0.to_owned()
    });
    assert!(results.iter().all(|result| result == "miss" || result == "joined"), "{results:?}");
    assert_eq!(provider.requests().len(), 2, "the others ask together: {results:?}");
}

#[test]
fn who_wants_a_broken_stream_whole_asks_anew_and_is_booked_once() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate).closes_after_events(4));
    let mut first = gateway.open(CHAT, &streamed("will it hold"));
    first.await_events(3);
    let whole = gateway.send(CHAT, &question("will it hold"));
    await_in_flight(&gateway, 2);
    gate.open();
    let whole = { whole }.answer().expect(200);
    assert_eq!(did(&whole).0, "miss");
    drop(first);
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 2);
    assert_eq!(journal.0.iter().filter(|entry| entry.kind == "cache_hit").count(), 0);
}

#[test]
fn who_leaves_before_it_got_anything_owes_nothing() {
    let provider = SimulatedProvider::start();
    let setup = keeping(&provider, "ttl_s = 60, joiners = \"share\"")
        .and("[budgets.all]\nlimit_usd = \"100\"\nwindow = \"total\"\n");
    let gateway = TestGateway::with(setup).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let first = gateway.send(CHAT, &question("together"));
    provider.await_requests(1);
    let other = gateway.send(CHAT, &question("together"));
    eventually("it holds its share", || {
        let holds = gateway.journal().0.iter().filter(|entry| entry.kind == "hold").count();
        (holds == 2).then_some(())
    });
    drop(other);
    gateway.notice_departures();
    await_in_flight(&gateway, 1);
    gate.open();
    let paid = { first }.answer().expect(200);
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 1);
    journal.check();
    assert_eq!(journal.0.iter().filter(|entry| entry.kind == "release").count(), 1);
    assert_ne!(paid.header("x-tunegate-cost-usd"), Some("0.00"));
}
