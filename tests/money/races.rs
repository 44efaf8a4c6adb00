//! A thousand requests at once on one budget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ANSWER_NANOS, ANSWER_TOKENS, CHAT, TOKEN_NANOS, all_decided, budget, capped, nanos, paid};
use crate::support::{Answer, Connection, Gate, Reply, SimulatedProvider, TestGateway, eventually};

const REQUESTS: usize = 1_000;
/// What the budget is good for.
const AFFORDED: i64 = 100;

/// Sends all requests before any answer is read, and counts those that are answered.
#[track_caller]
fn all_at_once(gateway: &TestGateway, body: &Value, answered: &AtomicUsize) -> Vec<Answer> {
    let connections: Vec<Connection> = (0..REQUESTS).map(|_| gateway.send(CHAT, body)).collect();
    let answers = std::thread::scope(|scope| {
        let read = |mut connection: Connection| {
            scope.spawn(move || {
                let answer = connection.answer();
                answered.fetch_add(1, Ordering::Relaxed);
                answer
            })
        };
        let reading: Vec<_> = connections.into_iter().map(read).collect();
        reading.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    all_decided(gateway, answers, || gateway.post(CHAT, body))
}

/// Those that were served, and the `budget` object of each that was refused: its figures must be a reason.
#[track_caller]
fn sorted(answers: &[Answer]) -> (usize, Vec<Value>) {
    let (served, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 200);
    let refusals: Vec<Value> = refused
        .iter()
        .map(|answer| {
            let error = answer.expect_error(429, "project_spend_limit_exceeded");
            assert_eq!(error["type"], "insufficient_quota");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            let budget = error["budget"].clone();
            let figure = |name: &str| nanos(&budget[name]);
            assert!(
                figure("spent_usd") + figure("reserved_usd") + figure("wanted_usd") > figure("limit_usd"),
                "no reason to refuse: {budget}"
            );
            assert!(figure("spent_usd") + figure("reserved_usd") <= figure("limit_usd"), "{budget}");
            budget
        })
        .collect();
    (served.len(), refusals)
}

#[test]
fn pain_01_of_a_thousand_at_once_just_the_hundred_that_can_be_paid_are_served() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    let open = usize::try_from(AFFORDED / 2).expect("few");
    for _ in 0..open {
        // half of them stay open until all others have their answer: holds refuse as well as costs
        provider.replies(Reply::usual().waits_for(&gate));
    }
    let limit = AFFORDED * ANSWER_NANOS;
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    let body = capped("paid", ANSWER_TOKENS);
    let answered = AtomicUsize::new(0);
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("all other answers", || {
                (answered.load(Ordering::Relaxed) >= REQUESTS - open).then_some(())
            });
            gate.open();
        });
        all_at_once(&gateway, &body, &answered)
    });
    let (served, refusals) = sorted(&answers);
    assert_eq!((served, refusals.len()), (100, 900));
    assert_eq!(provider.requests().len(), 100, "nobody else was asked");
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 100);
    assert_eq!(journal.spent(), limit, "all of it, and no cent more");
    let is_refused =
        |id: &str| answers.iter().any(|answer| answer.status == 429 && answer.request_id() == id);
    assert!(!journal.0.iter().any(|entry| is_refused(&entry.request_id)), "a refusal is no row");
    let last = gateway.post(CHAT, &body);
    let figures = &last.expect_error(429, "project_spend_limit_exceeded")["budget"];
    assert_eq!((nanos(&figures["spent_usd"]), nanos(&figures["reserved_usd"])), (limit, 0), "{figures}");
}

#[test]
fn holds_ten_times_the_cost_use_the_budget_up_where_they_may_wait() {
    let provider = SimulatedProvider::start();
    let limit = AFFORDED * ANSWER_NANOS;
    let hold = 10 * ANSWER_NANOS;
    let waiting = "[ledger]\nhold_wait_ms = 10000\n";
    // none has waited for all of that by then
    let in_time = Duration::from_secs(8);
    let setup = paid(&provider).and(&budget("all", limit, "")).and(waiting);
    let gateway = TestGateway::with(setup).start();
    let body = capped("paid", 10 * ANSWER_TOKENS);
    let begun = Instant::now();
    let (served, refusals) = sorted(&all_at_once(&gateway, &body, &AtomicUsize::new(0)));
    let took = begun.elapsed();
    assert_eq!(served + refusals.len(), REQUESTS);
    let spent = gateway.settled_journal(|journal| journal.usages().len() == served).spent();
    assert_eq!(spent, i64::try_from(served).expect("few") * ANSWER_NANOS);
    assert!(spent <= limit, "{spent} of {limit} is spent");
    if took < in_time {
        assert!(limit - spent < hold, "{spent} of {limit} is spent: less than {hold} is left");
    } else {
        println!("{spent} of {limit} is spent: too slow to tell whether the rest was waited for, {took:?}");
    }
    for budget in refusals {
        assert_eq!(nanos(&budget["wanted_usd"]), hold, "{budget}");
    }
}

#[test]
fn without_waiting_holds_ten_times_the_cost_are_refused_at_once_but_never_overspend() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    for _ in 0..10 {
        provider.replies(Reply::usual().waits_for(&gate));
    }
    let limit = AFFORDED * ANSWER_NANOS;
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", limit, ""))).start();
    let body = capped("paid", 10 * ANSWER_TOKENS);
    let open: Vec<Connection> = (0..10).map(|_| gateway.send(CHAT, &body)).collect();
    provider.await_requests(10);
    let refused = gateway.post(CHAT, &body);
    let figures = refused.expect_error(429, "project_spend_limit_exceeded")["budget"].clone();
    assert_eq!((&figures["name"], nanos(&figures["reserved_usd"])), (&json!("all"), limit), "{figures}");
    gate.open();
    for mut connection in open {
        connection.answer().expect(200);
    }
    gateway.settled_journal(|journal| journal.usages().len() == 10);
    let answer = gateway.post(CHAT, &body).expect(200);
    let left = answer.header("x-tunegate-budget-left-usd").expect("what is left");
    assert_eq!(super::nanos_of(left), limit - 11 * ANSWER_NANOS, "each hold has become its cost");
    assert_eq!(answer.header("x-tunegate-cost-usd").map(super::nanos_of), Some(ANSWER_NANOS));
    assert_eq!(ANSWER_NANOS, ANSWER_TOKENS * TOKEN_NANOS);
}
