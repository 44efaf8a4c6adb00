//! `kill -9` under load, upgrades and several gateways on one ledger: all holds end, the books balance against the
//! provider's bill, nothing is settled twice, and there is one ceiling.

use std::time::{Duration, Instant};

use super::load::Load;
use super::{ANSWER_NANOS, ANSWER_TOKENS, CHAT, all_decided, budget, capped, decided, of_user, paid, pairs};
use crate::support::gateway::Unstarted;
use crate::support::journal::Journal;
use crate::support::{Call, Connection, Gate, Reply, SimulatedProvider, TestGateway, eventually};

/// Kills in the usual suite; `make kills` sets `TUNEGATE_TEST_KILLS` to 50.
const KILLS: usize = 5;
/// Answers between two kills.
const BETWEEN_KILLS: usize = 40;
/// The shortest lease there is.
const SHORT_LEASE: &str = "[ledger]\nlease_ms = 1000\n";
/// One that a process keeps up on a busy machine, too.
const LEASE: Duration = Duration::from_secs(5);

fn kills() -> usize {
    std::env::var("TUNEGATE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// Kills it again and again under load, then looks at the books.
fn survives_kills(provider: &SimulatedProvider, unstarted: Unstarted) {
    // slow enough that a kill finds some in each of their stages
    for _ in 0..200 * kills() {
        provider.replies(Reply::usual().drips(400, Duration::from_millis(3)));
    }
    let mut gateway = unstarted.start();
    let load = Load::on(&gateway);
    for _ in 0..kills() {
        load.goes_on_for(BETWEEN_KILLS);
        gateway.kill();
        gateway.start_again();
    }
    load.goes_on_for(BETWEEN_KILLS);
    load.ends();
    gateway.outcomes();
    gateway.is_audited();
    let pairs = pairs(&gateway);
    let lost: Vec<_> = pairs.iter().filter(|pair| pair.booked < pair.owed).collect();
    assert!(lost.is_empty(), "lost: {lost:#?}");
    let unconfirmed: Vec<_> = pairs.iter().filter(|pair| pair.source == "unconfirmed").collect();
    for pair in &unconfirmed {
        assert_eq!(pair.booked, 2 * ANSWER_NANOS, "charged whole: {pair:?}");
    }
    println!("{} requests booked, {} of them unconfirmed", pairs.len(), unconfirmed.len());
    assert!(!unconfirmed.is_empty(), "no kill has hit anything: {}", pairs.len());
    assert!(pairs.iter().filter(|pair| pair.source == "reported").count() > BETWEEN_KILLS);
    gateway.books_agree();
    // the counters that the last process has built from the ledger agree with it
    let spent = gateway.journal().spent();
    let answer = gateway.post(CHAT, &of_user(capped("paid", ANSWER_TOKENS), "last")).expect(200);
    let left = answer.header("x-tunegate-budget-left-usd").map(super::nanos_of).expect("what is left");
    assert_eq!(left, AMPLE_NANOS - spent - ANSWER_NANOS, "the budget is the ledger's fold");
}

/// A limit that nothing here reaches.
const AMPLE_NANOS: i64 = 10_000_000_000_000;

#[test]
fn pain_02_kill_9_under_load_leaves_no_hold_and_loses_no_cent() {
    let provider = SimulatedProvider::start();
    let setup = paid(&provider).and(&budget("all", AMPLE_NANOS, "")).and(SHORT_LEASE);
    survives_kills(&provider, TestGateway::with(setup));
}

#[test]
fn an_upgrade_with_a_hundred_streams_open_stays_under_one_ceiling() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    for _ in 0..100 {
        provider.replies(Reply::usual().waits_after_events(3, &gate));
    }
    let limit = 150 * ANSWER_NANOS;
    let lease = format!("[ledger]\nlease_ms = {}\n", LEASE.as_millis());
    let setup = paid(&provider).and(&budget("all", limit, "")).and(&lease);
    let mut gateway = TestGateway::with(setup).start();
    let streams: Vec<_> = (0..100)
        .map(|number| {
            let mut body = of_user(capped("paid", ANSWER_TOKENS), &format!("stream-{number}"));
            body["stream"] = true.into();
            let mut open = gateway.open(CHAT, &body);
            open.await_events(3);
            open
        })
        .collect();
    let mut old = gateway.upgrade();
    eventually("the successor's banner", || gateway.log().contains("data   http").then_some(()));
    let asked: Vec<Connection> = (0..100)
        .map(|number| gateway.send(CHAT, &of_user(capped("paid", ANSWER_TOKENS), &format!("new-{number}"))))
        .collect();
    let statuses: Vec<u16> = asked.into_iter().map(|mut connection| connection.answer().status).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((served, refused), (50, 50), "a hundred holds of the old process count: {statuses:?}");
    eventually("the settlements of the new ones", || {
        (gateway.journal().open_holds().len() == 100).then_some(())
    });
    // for longer than a lease: the old process lives, and nobody settles its holds for it
    let begun = Instant::now();
    while begun.elapsed() < LEASE + Duration::from_secs(1) {
        assert_eq!(gateway.journal().open_holds().len(), 100);
    }
    gate.open();
    for open in streams {
        open.finish();
    }
    let status = eventually("the end of the old process", || old.has_ended());
    assert!(status.success(), "{status}:\n{}", old.log());
    let pairs = pairs(&gateway);
    assert_eq!(pairs.len(), 150);
    assert!(pairs.iter().all(|pair| pair.source == "reported"), "{pairs:#?}");
    assert_eq!(gateway.journal().spent(), limit);
    gateway.post(CHAT, &capped("paid", ANSWER_TOKENS)).expect_error(429, "project_spend_limit_exceeded");
}

/// A machine that sleeps, a process that is stopped: another gateway charges its holds whole, and is corrected when it
/// comes back.
#[test]
fn a_gateway_that_was_taken_for_dead_corrects_the_books_when_it_comes_back() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    let setup = paid(&provider).and(&budget("all", AMPLE_NANOS, "")).and(SHORT_LEASE);
    let mut gateway = TestGateway::with(setup).start();
    let replica = gateway.replica();
    let streams: Vec<_> = (0..5)
        .map(|number| {
            provider.replies(Reply::usual().waits_after_events(3, &gate));
            let mut body = of_user(capped("paid", 2 * ANSWER_TOKENS), &format!("asleep-{number}"));
            body["stream"] = true.into();
            let mut open = gateway.open(CHAT, &body);
            open.await_events(3);
            open
        })
        .collect();
    gateway.signal(libc::SIGSTOP);
    let charged = gateway.settled_journal(|journal| journal.usages().len() == 5);
    assert!(charged.usages().iter().all(|usage| usage.source == "unconfirmed"), "{charged:#?}");
    assert_eq!(charged.spent(), 5 * 2 * ANSWER_NANOS, "all that was held");
    gateway.signal(libc::SIGCONT);
    gate.open();
    for open in streams {
        open.finish();
    }
    let corrected = |journal: &Journal| journal.0.iter().filter(|entry| entry.kind == "adjustment").count();
    gateway.settled_journal(|journal| corrected(journal) == 5);
    let pairs = pairs(&gateway);
    assert!(pairs.iter().all(|pair| pair.source == "corrected" && pair.booked == pair.owed), "{pairs:#?}");
    // both have the same counters
    let call = |user: &str| Call::post(CHAT, &of_user(capped("paid", ANSWER_TOKENS), user));
    let mut left = Vec::new();
    for (address, user) in [(gateway.address(), "one"), (replica.address(), "another")] {
        let answer = Connection::to(address).call(&gateway.signed(call(user))).expect(200);
        left.push(answer.header("x-tunegate-budget-left-usd").map(super::nanos_of).expect("what is left"));
        gateway.settled_journal(|journal| journal.usages().len() == 5 + left.len());
    }
    assert_eq!(left, [AMPLE_NANOS - 6 * ANSWER_NANOS, AMPLE_NANOS - 7 * ANSWER_NANOS]);
    gateway.books_agree();
    replica.stop();
}

/// Three gateways on one ledger, and a thousand requests at once.
fn one_ceiling_for_three(setup: crate::support::Setup, provider: &SimulatedProvider) {
    let limit = 100 * ANSWER_NANOS;
    let mut gateway = TestGateway::with(setup.and(&budget("all", limit, ""))).start();
    let replicas = [gateway.replica(), gateway.replica()];
    let addresses = [gateway.address(), replicas[0].address(), replicas[1].address()];
    let call = gateway.signed(Call::post(CHAT, &capped("paid", ANSWER_TOKENS)));
    // each has served one, whoever is quickest then
    for address in addresses {
        decided(|| Connection::to(address).call(&call)).expect(200);
    }
    let connections: Vec<Connection> = (0..997)
        .map(|number| {
            let mut connection = Connection::to(addresses[number % 3]);
            connection.send(&call);
            connection
        })
        .collect();
    let mut statuses: std::collections::BTreeMap<u16, usize> = std::collections::BTreeMap::new();
    let answers = connections.into_iter().map(|mut connection| connection.answer()).collect();
    for answer in all_decided(&gateway, answers, || Connection::to(addresses[0]).call(&call)) {
        *statuses.entry(answer.status).or_default() += 1;
    }
    assert_eq!(statuses, [(200, 97), (429, 900)].into());
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 100);
    assert_eq!(journal.spent(), limit);
    let writers: std::collections::BTreeSet<_> = journal.0.iter().map(|entry| &entry.instance).collect();
    assert_eq!(writers.len(), 3, "all have served: {writers:?}");
    assert_eq!(provider.requests().len(), 100);
    gateway.audit_ledger();
    for replica in replicas {
        replica.stop();
    }
}

#[test]
fn pain_08_three_gateways_on_one_sqlite_file_have_one_ceiling() {
    let provider = SimulatedProvider::start();
    one_ceiling_for_three(paid(&provider), &provider);
}

#[test]
fn pain_08_three_gateways_on_postgresql_have_one_ceiling() {
    let provider = SimulatedProvider::start();
    let Some((server, name)) = super::postgres() else { return };
    one_ceiling_for_three(paid(&provider).on(&server.url(&name)), &provider);
}

#[test]
fn pain_02_kill_9_on_postgresql_loses_no_cent_either() {
    let provider = SimulatedProvider::start();
    let Some((server, name)) = super::postgres() else { return };
    let setup = paid(&provider).on(&server.url(&name)).and(&budget("all", AMPLE_NANOS, "")).and(SHORT_LEASE);
    survives_kills(&provider, TestGateway::with(setup));
}
