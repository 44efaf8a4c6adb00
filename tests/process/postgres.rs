//! The gateway on PostgreSQL, and what it does while that hangs.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::postgres::Server;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

const CHAT: &str = "/v1/chat/completions";

/// PAINS 24: a paused database hung all requests of a sibling, or good keys got 401.
#[test]
fn a_database_that_hangs_is_503_within_the_limits_and_never_401() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let provider = SimulatedProvider::start();
    let limits = "acquire_timeout_ms = 3000\nstatement_timeout_ms = 3000\n";
    let setup = Setup::in_front_of(&provider).on(&server.url("postgres")).and(limits);
    let gateway = TestGateway::with(setup).start();
    let ask = || gateway.post(CHAT, &chat("support-bot", "hi"));
    eventually("an answer", || (ask().status == 200).then_some(()));
    server.freeze();
    let begun = Instant::now();
    let answer = ask();
    let waited = begun.elapsed();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    gateway.get("/v1/models").expect(200);
    server.thaw();
    eventually("answers again", || (ask().status == 200).then_some(()));
    let settled = || {
        let audit = gateway.admin(Call::get("/admin/v1/ledger/audit")).expect(200).json();
        assert_eq!(audit["difference_count"], json!(0), "{audit}");
        (audit["open_holds"] == json!(0)).then_some(())
    };
    eventually("no hold is open", settled);
}
