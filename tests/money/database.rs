//! A database that is locked, full, gone or silent: what would have to be paid for is refused with 503 within seconds,
//! never with 401 and never served unmetered; what costs nothing is served on, and all goes on by itself afterwards.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load::Load;
use super::{ANSWER_TOKENS, CHAT, KEY, budget, capped, decided, paid, pairs};
use crate::support::journal::Session;
use crate::support::postgres::Server;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

/// How often a database fails under load.
const FAILURES: usize = 5;
/// How long a refusal may take. The limits below are shorter than the usual ones.
const PATIENCE: Duration = Duration::from_secs(15);

/// With limits for the database that a test can wait for, and a model that costs nothing.
fn hasty(provider: &SimulatedProvider, postgres: Option<&str>) -> Setup {
    let free = "model = \"acme-free\"\nprice = { input_per_1m_usd = \"0\", output_per_1m_usd = \"0\" }";
    provider.charges("acme-free", 0, 0);
    let setup = paid(provider).model_as("free", &format!("{}/v1", provider.url()), KEY, free).and(&budget(
        "all",
        1_000_000_000_000,
        "",
    ));
    let setup = match postgres {
        Some(url) => setup.on(url),
        None => setup.and("\n[database]\n"),
    };
    setup.and("acquire_timeout_ms = 3000\nstatement_timeout_ms = 3000\n")
}

/// One request is served while all is well.
#[track_caller]
fn begins_well(gateway: &TestGateway) {
    decided(|| gateway.post(CHAT, &capped("paid", ANSWER_TOKENS))).expect(200);
}

/// What must be so while the database is away.
#[track_caller]
fn is_refused_in_time(gateway: &TestGateway, provider: &SimulatedProvider) {
    let asked = provider.requests().len();
    for _ in 0..3 {
        let started = Instant::now();
        let answer = gateway.post(CHAT, &capped("paid", ANSWER_TOKENS));
        let took = started.elapsed();
        let error = answer.expect_error(503, "ledger_unavailable");
        assert_eq!(error["type"], "server_error");
        assert!(took < PATIENCE, "after {took:?}");
    }
    assert_eq!(provider.requests().len(), asked, "nothing is served unpaid for");
    gateway.get("/v1/models").expect(200);
    gateway.post(CHAT, &chat("free", "hi")).expect(200);
    let stranger = Call::post(CHAT, &capped("paid", ANSWER_TOKENS)).bearer("sk-tg-nobody");
    gateway.call(stranger).expect_error(401, "invalid_api_key");
}

/// As a server that was made a replica of another: all of its connections are new, and none can write.
fn only_reads(operator: &mut Session, name: &str, only_reads: bool) {
    operator.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {only_reads}"));
    operator.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
}

/// It goes on by itself, and what was served meanwhile is booked.
#[track_caller]
fn recovers(gateway: &TestGateway) {
    eventually("a paid request that is served again", || {
        let answer = gateway.post(CHAT, &capped("paid", ANSWER_TOKENS));
        (answer.status == 200).then_some(())
    });
    gateway.audit_ledger();
}

#[test]
fn pain_24_a_sqlite_file_that_another_writer_has_locked() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(hasty(&provider, None)).start();
    begins_well(&gateway);
    gateway.settled_journal(|journal| journal.usages().len() == 1);
    let mut other = Session::on(&gateway.database_url());
    other.run("BEGIN IMMEDIATE");
    gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).expect_error(503, "ledger_unavailable");
    let said = "the ledger can be written again";
    let begun = Instant::now();
    // for longer than the ledger looks for others' entries
    while begun.elapsed() < Duration::from_millis(1_500) {
        assert!(!gateway.log().contains(said), "it can be read, and no more: {}", gateway.log());
    }
    is_refused_in_time(&gateway, &provider);
    other.run("ROLLBACK");
    recovers(&gateway);
    eventually("a word about it", || gateway.log().contains(said).then_some(()));
}

#[test]
fn pain_24_a_disk_that_is_full() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(hasty(&provider, None)).start();
    begins_well(&gateway);
    gateway.settled_journal(|journal| journal.usages().len() == 1);
    gateway.disk_is_full(true);
    is_refused_in_time(&gateway, &provider);
    gateway.disk_is_full(false);
    recovers(&gateway);
}

#[test]
fn pain_24_a_database_file_that_was_taken_away() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(hasty(&provider, None)).start();
    begins_well(&gateway);
    let before = gateway.settled_journal(|journal| journal.usages().len() == 1);
    let (here, away) = (gateway.folder().join("state"), gateway.folder().join("away"));
    std::fs::rename(&here, &away).expect("moved");
    eventually("that it is noticed", || {
        (gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).status == 503).then_some(())
    });
    is_refused_in_time(&gateway, &provider);
    std::fs::rename(&away, &here).expect("moved back");
    recovers(&gateway);
    assert!(gateway.journal().0.starts_with(&before.0));
}

#[test]
fn pain_24_a_postgresql_that_is_paused() {
    let provider = SimulatedProvider::start();
    if super::postgres().is_none() {
        return;
    }
    let server = Server::start().expect("a server of its own");
    let url = server.url(&super::new_database(&server));
    let gateway = TestGateway::with(hasty(&provider, Some(&url))).start();
    begins_well(&gateway);
    server.freeze();
    is_refused_in_time(&gateway, &provider);
    server.thaw();
    recovers(&gateway);
}

#[test]
fn pain_24_a_postgresql_that_has_become_read_only() {
    let provider = SimulatedProvider::start();
    let Some((server, name)) = super::postgres() else { return };
    let gateway = TestGateway::with(hasty(&provider, Some(&server.url(&name)))).start();
    begins_well(&gateway);
    gateway.settled_journal(|journal| journal.usages().len() == 1);
    let mut operator = Session::on(&server.url("postgres"));
    only_reads(&mut operator, &name, true);
    is_refused_in_time(&gateway, &provider);
    only_reads(&mut operator, &name, false);
    recovers(&gateway);
}

/// Lets the database fail again and again under load. No process dies, so that all is known in the end: what was served
/// is booked at what it cost, what was refused has cost nothing.
#[track_caller]
fn balances(gateway: &TestGateway, mut fail: impl FnMut(&TestGateway)) {
    let load = Load::on(gateway);
    for _ in 0..FAILURES {
        load.goes_on_for(30);
        fail(gateway);
    }
    load.goes_on_for(30);
    load.ends();
    gateway.outcomes();
    let pairs = pairs(gateway);
    assert!(pairs.len() > 30, "only {} were served", pairs.len());
    let odd: Vec<_> = pairs.iter().filter(|pair| pair.source != "reported").collect();
    assert!(odd.is_empty(), "{odd:#?}");
    gateway.audit_ledger();
}

#[test]
fn a_postgresql_that_drops_its_connections_under_load_loses_nothing() {
    let provider = SimulatedProvider::start();
    let Some((server, name)) = super::postgres() else { return };
    let gateway = TestGateway::with(hasty(&provider, Some(&server.url(&name)))).start();
    let mut operator = Session::on(&server.url("postgres"));
    balances(&gateway, |_| {
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        operator.run(&all);
    });
}

#[test]
fn a_postgresql_that_is_paused_under_load_loses_nothing() {
    let provider = SimulatedProvider::start();
    if super::postgres().is_none() {
        return;
    }
    let server = Server::start().expect("a server of its own");
    let url = server.url(&super::new_database(&server));
    let gateway = TestGateway::with(hasty(&provider, Some(&url))).start();
    balances(&gateway, |gateway| {
        server.freeze();
        eventually("a refusal", || {
            (gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).status == 503).then_some(())
        });
        server.thaw();
    });
}

#[test]
fn a_sqlite_file_that_is_locked_under_load_loses_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(hasty(&provider, None)).start();
    let mut other = Session::on(&gateway.database_url());
    balances(&gateway, |gateway| {
        other.run("BEGIN IMMEDIATE");
        eventually("a refusal", || {
            (gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).status == 503).then_some(())
        });
        other.run("ROLLBACK");
    });
}

#[test]
fn a_disk_that_is_full_under_load_loses_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(hasty(&provider, None)).start();
    balances(&gateway, |gateway| {
        gateway.disk_is_full(true);
        eventually("a refusal", || {
            (gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).status == 503).then_some(())
        });
        gateway.disk_is_full(false);
    });
}

#[test]
fn a_gateway_whose_database_is_away_at_its_start_says_so_and_ends() {
    let missing = "postgres://tunegate@localhost/books?host=/nowhere";
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "[database]\nurl = {{ file = \"url\" }}\nacquire_timeout_ms = 1000\n{}",
        "[worker]\nenabled = false\n"
    );
    std::fs::write(folder.path().join("url"), missing).expect("written");
    std::fs::write(folder.path().join("tunegate.toml"), config).expect("written");
    let output = std::process::Command::new(crate::support::gateway::TUNEGATE)
        .args(["serve", "--config", "tunegate.toml"])
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("database"), "{said}");
    assert_eq!(json!(said.contains("books")), json!(false), "no URL is repeated: {said}");
}
