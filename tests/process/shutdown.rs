//! SIGTERM: running answers finish, new ones are not taken, and the exit status is 0.

use std::net::TcpStream;

use crate::support::{
    Call, End, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, sse, streamed_chat,
};

const PATH: &str = "/v1/chat/completions";

#[test]
fn an_idle_gateway_ends_at_once() {
    let mut gateway = TestGateway::with(Setup::bare()).start();
    gateway.stop();
    let log = gateway.folder().join("state/tunegate.db-wal");
    assert!(!log.exists(), "the database is one file again, which a copy of it has all of");
}

#[test]
fn a_running_stream_is_finished_first() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    gateway.signal(libc::SIGTERM);
    let address = gateway.address();
    eventually("a door that no longer takes requests", || match TcpStream::connect(address) {
        Err(_) => Some(()),
        Ok(_) => {
            let answer = crate::support::Connection::to(address).try_call(&Call::get("/readyz"))?;
            (answer.status == 503).then_some(())
        }
    });
    gate.open();
    let answer = open.finish();
    assert_eq!(sse::spoken(&answer.events()), "Four crates fit on the pallet.");
    assert_eq!(answer.end, End::Clean);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
}

#[test]
fn a_stream_that_outlasts_the_limit_is_told_and_the_exit_is_still_clean() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).server("drain_timeout_ms = 100");
    let mut gateway = TestGateway::with(setup).start();
    provider.replies(Reply::usual().hangs_after_events(3));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    gateway.signal(libc::SIGTERM);
    let answer = open.finish();
    assert_eq!(answer.end, End::Broken, "a cut stream must not look finished: {}", answer.text());
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
    let log = gateway.log();
    let outcome = log.lines().find(|line| line.contains("interrupted")).expect("an outcome all the same");
    assert!(outcome.contains("estimated"), "what was streamed is settled: {outcome}");
}

#[test]
fn a_whole_answer_that_outlasts_the_limit_is_booked_all_the_same() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).server("drain_timeout_ms = 100");
    let mut gateway = TestGateway::with(setup).start();
    provider.replies(Reply::usual().hangs());
    let connection = gateway.send(PATH, &chat("support-bot", "hi"));
    provider.await_requests(1);
    gateway.signal(libc::SIGTERM);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}:\n{}", gateway.log());
    let log = gateway.log();
    let outcome = log.lines().find(|line| line.contains("interrupted")).expect("an outcome all the same");
    assert!(outcome.contains("unconfirmed"), "it may have cost something: {outcome}");
    drop(connection);
}

#[test]
fn an_idle_kept_connection_does_not_hold_the_process() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let mut idle = gateway.connect();
    idle.call(&gateway.signed(Call::post(PATH, &chat("support-bot", "hi")))).expect(200);
    let silent = gateway.connect();
    gateway.stop();
    assert!(idle.is_closed());
    drop(silent);
}

#[test]
fn sigint_ends_the_process_too() {
    let mut gateway = TestGateway::with(Setup::bare()).start();
    gateway.audit();
    gateway.signal(libc::SIGINT);
    gateway.await_exit();
}

#[test]
fn a_second_sigint_does_not_wait_for_a_stream_and_its_outcome_is_written() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    provider.replies(Reply::usual().hangs_after_events(3));
    let mut open = gateway.open(PATH, &streamed_chat("support-bot", "hi"));
    open.await_events(3);
    gateway.signal(libc::SIGINT);
    eventually("the first signal to be heard", || {
        gateway.log().contains("running answers may finish").then_some(())
    });
    gateway.signal(libc::SIGINT);
    let status = gateway.await_exit();
    assert!(status.success(), "{status}");
    assert!(gateway.log().contains("ending=\"interrupted\""), "{}", gateway.log());
}
