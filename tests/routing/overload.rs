//! More than an upstream takes: so many requests at once, a bounded queue, and a plain no beyond. What waits, waits in
//! a known amount of memory.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CHAT, deployment, lab, metric, model, question};
use crate::support::{
    Answer, Call, Connection, Gate, Reply, Setup, SimulatedProvider, TestGateway, eventually,
};

/// A deployment of a model of the same name, before this provider.
fn narrow(setup: Setup, name: &str, provider: &SimulatedProvider, lines: &str) -> Setup {
    let url = format!("{}/v1", provider.url());
    setup.and(&deployment(name, &url, lines)).and(&model(name, &format!("deployments = [\"{name}\"]")))
}

/// Two at once, and a queue of three that waits so long.
fn queue(wait_ms: u64) -> String {
    format!("limits = {{ concurrent = 2 }}\nqueue = {{ places = 3, wait_ms = {wait_ms} }}")
}

/// A provider that answers nobody before the gate is open.
fn gated() -> (SimulatedProvider, Gate) {
    let (provider, gate) = (SimulatedProvider::start(), Gate::new());
    provider.always(Reply::usual().waits_for(&gate));
    (provider, gate)
}

/// Waits until so many are in a deployment's queue.
#[track_caller]
fn await_waiting(gateway: &TestGateway, deployment: &str, count: u64) {
    eventually(&format!("{count} that wait for {deployment}"), || {
        (metric(gateway, "tunegate_deployment_waiting", deployment) == Some(count)).then_some(())
    });
}

/// Sends requests that are answered later, each as another end user.
fn send(gateway: &TestGateway, model: &str, count: usize) -> Vec<Connection> {
    (0..count).map(|at| gateway.send(CHAT, &question(model, &format!("{model}-{at}")))).collect()
}

/// 429 with a wait of a second at least.
#[track_caller]
fn is_shed(answer: &Answer) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.json()["error"]["code"].is_string(), "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a wait");
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn two_are_served_three_wait_and_the_others_are_told_to_come_again() {
    let (provider, gate) = gated();
    let setup = narrow(lab(), "narrow", &provider, &queue(300)).watched(&provider);
    let gateway = TestGateway::with(setup).start();
    let inside = send(&gateway, "narrow", 2);
    provider.await_requests(2);
    let sent_at = Instant::now();
    let waiting = send(&gateway, "narrow", 3);
    let beyond: Vec<Answer> = (0..4).map(|_| gateway.post(CHAT, &question("narrow", "late"))).collect();
    beyond.iter().for_each(is_shed);
    for mut connection in waiting {
        is_shed(&connection.answer());
        assert!(sent_at.elapsed() >= Duration::from_millis(300), "they waited");
    }
    gate.open();
    for mut connection in inside {
        connection.answer().expect(200);
    }
    gateway.post(CHAT, &question("narrow", "next")).expect(200);
    assert_eq!(provider.requests().len(), 3, "those who were sent away never reached it");
}

#[test]
fn who_waits_is_served_when_a_place_is_free_first_come_first_served() {
    let (provider, gate) = gated();
    let setup = narrow(lab(), "narrow", &provider, &queue(20_000)).watched(&provider);
    let gateway = TestGateway::with(setup).start();
    let mut connections = send(&gateway, "narrow", 2);
    provider.await_requests(2);
    for at in 0..3 {
        connections.push(gateway.send(CHAT, &question("narrow", &format!("waits-{at}"))));
        await_waiting(&gateway, "narrow", at + 1);
    }
    gate.open();
    for mut connection in connections {
        connection.answer().expect(200);
    }
    let users: Vec<Value> =
        provider.requests().iter().skip(2).map(|request| request.json()["user"].clone()).collect();
    assert_eq!(users, ["waits-0", "waits-1", "waits-2"]);
    await_waiting(&gateway, "narrow", 0);
}

#[test]
fn a_client_that_leaves_the_queue_leaves_its_place_to_another() {
    let (provider, gate) = gated();
    let lines = "limits = { concurrent = 1 }\nqueue = { places = 1, wait_ms = 20000 }";
    let setup = narrow(lab(), "narrow", &provider, lines).watched(&provider);
    let gateway = TestGateway::with(setup).start();
    let mut inside = gateway.send(CHAT, &question("narrow", "inside"));
    provider.await_requests(1);
    let leaves = gateway.send(CHAT, &question("narrow", "leaves"));
    await_waiting(&gateway, "narrow", 1);
    is_shed(&gateway.post(CHAT, &question("narrow", "too-many")));
    drop(leaves);
    await_waiting(&gateway, "narrow", 0);
    let mut stays = gateway.send(CHAT, &question("narrow", "stays"));
    await_waiting(&gateway, "narrow", 1);
    gate.open();
    inside.answer().expect(200);
    stays.answer().expect(200);
    let users: Vec<Value> =
        provider.requests().iter().map(|request| request.json()["user"].clone()).collect();
    assert_eq!(users, ["inside", "stays"]);
}

#[test]
fn a_full_deployment_leaves_the_request_to_one_with_room() {
    let ((full, gate), free) = (gated(), SimulatedProvider::start());
    let lines = "limits = { concurrent = 1 }\nqueue = { places = 5, wait_ms = 20000 }";
    let setup = narrow(lab(), "full", &full, lines).watched(&full);
    let setup = narrow(setup, "free", &free, "").watched(&free);
    let setup = setup.and(&model("either", "deployments = [\"full\", \"free\"]"));
    let gateway = TestGateway::with(setup).start();
    let mut inside = gateway.send(CHAT, &question("either", "first"));
    full.await_requests(1);
    for at in 0..3 {
        let answer = gateway.post(CHAT, &question("either", &format!("next-{at}"))).expect(200);
        assert_eq!(answer.header("x-tunegate-deployment"), Some("free"));
    }
    gate.open();
    inside.answer().expect(200);
    assert_eq!((full.requests().len(), free.requests().len()), (1, 3));
}

#[test]
fn who_has_waited_in_vain_is_served_by_the_next_that_has_room() {
    let ((first, shut), (second, gate)) = (gated(), gated());
    let one = |wait_ms: u64| {
        format!("limits = {{ concurrent = 1 }}\nqueue = {{ places = 1, wait_ms = {wait_ms} }}")
    };
    let setup = narrow(lab(), "first", &first, &one(200)).watched(&first);
    let setup = narrow(setup, "second", &second, &one(20_000)).watched(&second);
    let setup = setup.and(&model("either", "deployments = [\"first\", \"second\"]"));
    let gateway = TestGateway::with(setup).start();
    let mut inside = send(&gateway, "either", 2);
    first.await_requests(1);
    second.await_requests(1);
    let mut waits = gateway.send(CHAT, &question("either", "waits"));
    // it has waited for the first by then
    await_waiting(&gateway, "second", 1);
    gate.open();
    let answer = waits.answer().expect(200);
    assert_eq!(answer.header("x-tunegate-deployment"), Some("second"));
    shut.open();
    inside.iter_mut().for_each(|connection| drop(connection.answer().expect(200)));
}

/// Clients that ask at once.
const CROWD: usize = 2_000;
/// Bytes of each one's question.
const QUESTION_BYTES: usize = 64 * 1024;
/// What the process may grow by meanwhile: a quarter of what all questions together are. Those inside and in the queue
/// are 70.
const MOST_GROWTH: usize = CROWD * QUESTION_BYTES / 4;

#[test]
fn a_dead_upstream_makes_no_memory_grow() {
    let (provider, gate) = gated();
    let lines = "limits = { concurrent = 20 }\nqueue = { places = 50, wait_ms = 120000 }";
    let setup = narrow(lab(), "dead", &provider, lines).watched(&provider);
    let gateway = TestGateway::with(setup).start();
    let asked = |model: &str| {
        let mut body = question(model, "crowd");
        body["messages"][0]["content"] = "x ".repeat(QUESTION_BYTES / 2).into();
        gateway.signed(Call::post(CHAT, &body))
    };
    // what a connection needs is not what is measured: each has been used once
    let (nobody, dead) = (asked("nobody"), asked("dead"));
    let connect = |_| {
        let mut connection = gateway.connect();
        connection.call(&nobody).expect_error(404, "model_not_found");
        connection
    };
    let mut crowd: Vec<Connection> = (0..CROWD).map(connect).collect();
    let before = gateway.resident_bytes();

    crowd.iter_mut().for_each(|connection| connection.send(&dead));
    await_waiting(&gateway, "dead", 50);
    eventually("everybody else sent away", || {
        (metric(&gateway, "tunegate_sheds_total", "dead") == Some(CROWD as u64 - 70)).then_some(())
    });
    let grown = gateway.resident_bytes().saturating_sub(before);
    println!("{CROWD} clients before a dead upstream: {} KiB more", grown / 1024);
    assert!(grown < MOST_GROWTH, "{grown} bytes more");

    gate.open();
    let statuses: Vec<u16> = crowd.iter_mut().map(|connection| connection.answer().status).collect();
    let of = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((of(200), of(429)), (70, CROWD - 70));
}
