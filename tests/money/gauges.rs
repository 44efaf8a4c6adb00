//! Money in the metrics: counters are the ledger since the process began, gauges are the ledger, whoever wrote it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{ANSWER_NANOS, ANSWER_TOKENS, CHAT, TOKEN_NANOS, budget, capped, nanos_of, of_user, paid};
use crate::support::exposition::Exposition;
use crate::support::wait::within_limit;
use crate::support::{Call, Connection, Gate, Reply, SimulatedProvider, TestGateway, eventually};

const BUDGETS: &str = "/admin/v1/budgets";
const WINDOWS: [&str; 4] = ["today", "7d", "30d", "month"];

fn scraped(admin_address: SocketAddr) -> Exposition {
    Exposition::read(&Connection::to(admin_address).call(&Call::get("/metrics")).expect(200).text())
}

fn metrics(gateway: &TestGateway) -> Exposition {
    scraped(gateway.admin_address())
}

/// What the counters say was spent since the process began, nano-dollars.
fn counted(metrics: &Exposition) -> i128 {
    metrics.nanos("tunegate_cost_usd_total", &[]) - metrics.nanos("tunegate_credit_usd_total", &[])
}

/// What the gauges say was spent in a window, nano-dollars.
fn spent(metrics: &Exposition, window: &str) -> i128 {
    metrics.nanos("tunegate_spend_usd", &[("window", window)])
}

fn number(metrics: &Exposition, name: &str, labels: &[(&str, &str)]) -> f64 {
    match metrics.samples(name, labels)[..] {
        [sample] => sample.value(),
        ref others => panic!("{name} {labels:?}: {others:?}"),
    }
}

/// Waits for the gauges of spending: they are read every 15 s.
#[track_caller]
fn await_spend(admin_address: SocketAddr, nanos: i64) -> Exposition {
    let look = || {
        let metrics = scraped(admin_address);
        (spent(&metrics, "today") == nanos.into()).then_some(metrics)
    };
    within_limit(look).unwrap_or_else(|| eventually("the ledger's sums in the metrics", look))
}

/// Answers, a stream, a refusal, and two answers that say nothing of their tokens and are charged whole.
fn traffic(provider: &SimulatedProvider, gateway: &TestGateway) {
    for user in ["ann", "bob", "ann"] {
        gateway.post(CHAT, &of_user(capped("paid", ANSWER_TOKENS), user)).expect(200);
    }
    let mut stream = of_user(capped("paid", ANSWER_TOKENS), "bob");
    stream["stream"] = true.into();
    gateway.post(CHAT, &stream).expect(200);
    gateway.post(CHAT, &of_user(capped("paid", 50), "ann")).expect_error(429, "project_spend_limit_exceeded");
    let silent = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Four."}}]});
    for user in ["eve", "dan"] {
        provider.replies(Reply::json(200, &silent).billed(1, ANSWER_TOKENS.unsigned_abs()).without_usage());
        gateway.post(CHAT, &of_user(capped("paid", 2 * ANSWER_TOKENS), user)).expect(200);
    }
}

#[test]
fn what_the_metrics_say_is_what_the_ledger_has() {
    let provider = SimulatedProvider::start();
    let users = budget("users", 2 * ANSWER_NANOS + 1, "scope = { each = \"end_user\" }");
    let setup = paid(&provider).and(&budget("all", 1_000 * ANSWER_NANOS, "")).and(&users);
    let mut gateway = TestGateway::with(setup).start();
    traffic(&provider, &gateway);
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 6);
    let doubtful = gateway.admin(Call::get("/admin/v1/ledger/unconfirmed")).expect(200).json();
    let doubtful = doubtful["data"].as_array().cloned().expect("entries");
    assert_eq!(doubtful.len(), 2, "{doubtful:?}");
    assert_eq!(journal.spent(), 8 * ANSWER_NANOS, "two are charged whole");

    // the provider's bill says less of one of them
    let seq = &doubtful[0]["seq"];
    let bill = json!({"cost_usd": super::usd(ANSWER_NANOS)});
    gateway.admin(Call::post(&format!("/admin/v1/ledger/{seq}/resolve"), &bill)).expect(200);
    let before = gateway.settled_journal(|journal| journal.spent() == 7 * ANSWER_NANOS).spent();
    let told = eventually("the correction in the counters", || {
        let told = metrics(&gateway);
        (counted(&told) == before.into()).then_some(told)
    });
    assert_eq!(told.nanos("tunegate_credit_usd_total", &[]), ANSWER_NANOS.into());
    assert_eq!(told.nanos("tunegate_cost_usd_total", &[]), (8 * ANSWER_NANOS).into());
    assert_eq!(told.nanos("tunegate_unconfirmed_cost_usd_total", &[]), (4 * ANSWER_NANOS).into());
    at_rest(&told);
    budgets_stand(&told, before);
    let writes = number(&told, "tunegate_ledger_writes_total", &[]);
    assert!(writes > 0.0 && writes <= told.sum("tunegate_ledger_entries_total", &[]), "{writes}");
    let timed = told.sum("tunegate_ledger_write_duration_seconds_count", &[]);
    assert!((timed - writes).abs() < 0.5, "{timed} of {writes}");

    // another process: its counters begin at 0, the gauges know all
    gateway.stop();
    gateway.start_again();
    let told = await_spend(gateway.admin_address(), before);
    assert_eq!(counted(&told), 0);
    for window in WINDOWS {
        assert_eq!(spent(&told, window), before.into(), "{window}");
    }
    let of_usage = [("window", "today"), ("team", "none"), ("model", "paid"), ("kind", "usage")];
    assert_eq!(told.nanos("tunegate_spend_usd", &of_usage), before.into());
    let list = gateway.admin(Call::get("/admin/v1/spend?by=model")).expect(200).json();
    let of_api =
        list["data"].as_array().expect("rows").iter().map(|row| nanos_of(&row["cost_usd"].to_string()));
    assert_eq!(of_api.sum::<i64>(), before, "the admin API says the same");
    // read behind the spend: what is resolved does not count
    eventually("one unconfirmed entry", || {
        let unconfirmed = number(&metrics(&gateway), "tunegate_ledger_unconfirmed_entries", &[]);
        ((unconfirmed - 1.0).abs() < 0.5).then_some(())
    });
    budgets_stand(&told, before);
    gateway.post(CHAT, &of_user(capped("paid", ANSWER_TOKENS), "last")).expect(200);
    eventually("the new one alone in the counters", || {
        (counted(&metrics(&gateway)) == ANSWER_NANOS.into()).then_some(())
    });
    await_spend(gateway.admin_address(), before + ANSWER_NANOS);
    gateway.is_audited();
    gateway.books_agree();
}

/// Nothing is held and nothing waits.
#[track_caller]
fn at_rest(told: &Exposition) {
    for name in [
        "tunegate_ledger_held_usd",
        "tunegate_ledger_open_holds",
        "tunegate_ledger_lag_seconds",
        "tunegate_ledger_waiting",
    ] {
        let samples = told.samples(name, &[]);
        assert!(!samples.is_empty() && samples.iter().all(|sample| sample.text == "0"), "{samples:?}");
    }
}

#[track_caller]
fn budgets_stand(told: &Exposition, spent: i64) {
    let of = |name: &str| {
        told.nanos(&format!("tunegate_budget_{name}_usd"), &[("budget", "all"), ("subject", "")])
    };
    let limit = 1_000 * ANSWER_NANOS;
    let found = [of("limit"), of("spent"), of("reserved"), of("left"), of("projected")];
    assert_eq!(found, [limit, spent, 0, limit - spent, spent].map(i128::from));
    let users = [("budget", "users")];
    assert_eq!(told.samples("tunegate_budget_spent_usd", &users), [] as [&_; 0], "no end user is a label");
    let above = |percent| number(told, "tunegate_budget_counters_above", &[users[0], ("percent", percent)]);
    let found = [number(told, "tunegate_budget_counters", &users), above("80"), above("100")];
    // ann, bob and one of the two that were charged whole
    assert_eq!(found.map(|value| value.to_string()), ["4", "3", "0"]);
    let worst = number(told, "tunegate_budget_worst_ratio", &users);
    assert!((0.99..1.0).contains(&worst), "{worst}");
}

#[test]
fn what_is_held_is_seen_while_it_is_and_budgets_that_go_leave_no_trace() {
    let provider = SimulatedProvider::start();
    let gate = Gate::new();
    let gateway = TestGateway::with(paid(&provider).and(&budget("all", 1_000 * ANSWER_NANOS, ""))).start();
    eventually("the catalog's sums, at nothing", || {
        let told = metrics(&gateway);
        let born =
            told.samples("tunegate_spend_usd", &[("model", "paid"), ("team", "none"), ("kind", "usage")]);
        (born.len() == WINDOWS.len() && born.iter().all(|sample| sample.text == "0")).then_some(())
    });
    let day = json!({"name": "daily", "limit_usd": "5", "window": "day"});
    gateway.admin(Call::post(BUDGETS, &day)).expect(201);
    provider.replies(Reply::usual().waits_after_events(3, &gate));
    let mut body = capped("paid", 2 * ANSWER_TOKENS);
    body["stream"] = true.into();
    let mut open = gateway.open(CHAT, &body);
    open.await_events(3);
    let told = metrics(&gateway);
    let held = i128::from(2 * ANSWER_TOKENS * TOKEN_NANOS);
    assert_eq!(told.nanos("tunegate_ledger_held_usd", &[]), held);
    for budget in ["all", "daily"] {
        assert_eq!(told.nanos("tunegate_budget_reserved_usd", &[("budget", budget)]), held, "{budget}");
    }
    assert_eq!(told.nanos("tunegate_ledger_open_holds", &[]), 1_000_000_000);
    let resets = number(&told, "tunegate_budget_reset_timestamp_seconds", &[("budget", "daily")]);
    assert!(resets.rem_euclid(86_400.0) < 0.5 && resets > 0.0, "midnight UTC: {resets}");
    gate.open();
    open.finish();
    gateway.settled_journal(|journal| journal.usages().len() == 1);
    eventually("nothing held", || {
        (metrics(&gateway).nanos("tunegate_ledger_held_usd", &[]) == 0).then_some(())
    });
    gateway.admin(Call::new("DELETE", &format!("{BUDGETS}/daily"))).expect(200);
    let told = metrics(&gateway);
    let left: Vec<_> = told.0.iter().flat_map(|family| &family.samples).collect();
    let left: Vec<_> = left.iter().filter(|sample| sample.label("budget") == "daily").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn all_gateways_on_one_postgresql_show_the_same_spend() {
    let provider = SimulatedProvider::start();
    let Some((server, name)) = super::postgres() else { return };
    let mut gateway = TestGateway::with(paid(&provider).on(&server.url(&name))).start();
    let replica = gateway.replica();
    let body: Value = capped("paid", ANSWER_TOKENS);
    let call = gateway.signed(Call::post(CHAT, &body));
    for address in [gateway.address(), replica.address(), replica.address()] {
        Connection::to(address).call(&call).expect(200);
    }
    gateway.settled_journal(|journal| journal.usages().len() == 3);
    let both = [gateway.admin_address(), replica.admin_address()];
    let told = both.map(|address| await_spend(address, 3 * ANSWER_NANOS));
    assert_eq!(told.map(|told| counted(&told)), [1, 2].map(|answers| i128::from(answers * ANSWER_NANOS)));
    replica.stop();
}
