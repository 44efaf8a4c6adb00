//! A machine of one's own that is paid for by its time: what its worker says it computed is held for, booked and reported
//! like tokens are; and nobody else is believed that.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CHAT, KEY, budget, nanos_of};
use crate::support::provider::{Fate, UPSTREAM_KEY};
use crate::support::{
    Call, Connection, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat,
};

/// An hour of the machine: a second is a millidollar, a microsecond a nano-dollar.
const PER_HOUR: &str = "3.6";
/// A second, in microseconds and in nano-dollars.
const SECOND: i64 = 1_000_000;
/// No request takes longer: what is held for.
const TOTAL: i64 = 20 * SECOND;

/// A gateway with one model, `own`, behind a provider of a kind.
fn behind(kind: &str, provider: &SimulatedProvider, more: &str) -> Setup {
    let sections = format!(
        "[providers.node]\nkind = \"{kind}\"\nbase_url = \"{}/v1\"\n{KEY}\n\
         [deployments.own]\nprovider = \"node\"\nmodel = \"our-own\"\ntimeouts.total_ms = 20000\n{more}\n\
         [models.own]\ndeployments = [\"own\"]\n",
        provider.url()
    );
    Setup::bare().file("upstream.key", UPSTREAM_KEY).and(&sections).watched(provider)
}

/// The worker's model, paid for by the hour.
fn own(provider: &SimulatedProvider) -> Setup {
    behind("candle", provider, &format!("price = {{ compute_per_hour_usd = \"{PER_HOUR}\" }}"))
}

/// What one request came to in the ledger: held, its cost, microseconds, and how they are known.
#[track_caller]
fn booked(gateway: &TestGateway, request: &str) -> (i64, i64, i64, String) {
    let of = |kind: &str| {
        let journal = gateway.settled_journal(|journal| {
            journal.0.iter().any(|entry| entry.request_id == request && entry.kind == "usage")
        });
        let entry = journal.0.into_iter().find(|entry| entry.request_id == request && entry.kind == kind);
        entry.unwrap_or_else(|| panic!("no {kind} of {request}"))
    };
    let (hold, usage) = (of("hold"), of("usage"));
    assert_eq!(i64::try_from(hold.compute_us).ok(), Some(TOTAL), "a hold says what it is for");
    (hold.held, usage.cost, i64::try_from(usage.compute_us).expect("a short time"), usage.source)
}

fn metric(gateway: &TestGateway, source: &str) -> Option<f64> {
    let series = format!("tunegate_compute_seconds_total{{deployment=\"own\",source=\"{source}\"}} ");
    let text = gateway.admin(Call::get("/metrics")).expect(200).text();
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[test]
fn time_is_held_booked_and_reported() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(2_500_000));
    let gateway = TestGateway::with(own(&provider)).start();
    assert_eq!(metric(&gateway, "reported"), Some(0.0), "it begins at 0");
    let whole = gateway.post(CHAT, &chat("own", "how many crates")).expect(200);
    assert_eq!(whole.header("x-tunegate-cost-usd"), Some("0.0025"));
    assert_eq!(whole.json()["usage"]["tunegate_compute_us"], 2_500_000, "as the worker told it");
    let reported = || "reported".to_owned();
    assert_eq!(booked(&gateway, &whole.request_id()), (TOTAL, 2_500_000, 2_500_000, reported()));
    let mut asking = streamed_chat("own", "how many crates");
    asking["stream_options"] = json!({"include_usage": true});
    let stream = gateway.post(CHAT, &asking).expect(200);
    let last = stream.text().lines().rfind(|line| line.contains("\"usage\":{")).expect("a usage").to_owned();
    assert!(last.contains("\"cost\":0.0025,"), "{last}");
    assert_eq!(booked(&gateway, &stream.request_id()), (TOTAL, 2_500_000, 2_500_000, reported()));
    let outcome = gateway.last_outcome();
    assert_eq!(outcome["usage"]["compute_us"], 2_500_000, "{outcome:#}");
    // beyond all time that it can have taken: a worker is believed, but not that
    provider.computes(Some(90_000_000));
    let lie = gateway.post(CHAT, &chat("own", "how many crates fit")).expect(200);
    assert_eq!(lie.header("x-tunegate-cost-usd"), Some("0.02"));
    assert_eq!(booked(&gateway, &lie.request_id()), (TOTAL, TOTAL, TOTAL, reported()));
    assert_eq!(metric(&gateway, "reported"), Some(25.0));
    let spend = eventually("the sums", || {
        let spend = gateway.admin(Call::get("/admin/v1/spend?by=deployment")).expect(200).json();
        (spend["data"][0]["requests"] == 3).then(|| spend["data"][0].clone())
    });
    assert_eq!((&spend["compute_us"], &spend["cost_usd"]), (&json!(25_000_000), &json!(0.025)), "{spend:#}");
    let csv = gateway.admin(Call::get("/admin/v1/spend?by=deployment&format=csv")).expect(200).text();
    assert!(csv.contains(",compute_us\r\n") && csv.contains(",25000000\r\n"), "{csv}");
    // and what a stream tells its client is what is booked
    let stream = gateway.post(CHAT, &asking).expect(200);
    let last = stream.text().lines().rfind(|line| line.contains("\"usage\":{")).expect("a usage").to_owned();
    assert!(last.contains("\"cost\":0.02,"), "{last}");
    assert_eq!(booked(&gateway, &stream.request_id()), (TOTAL, TOTAL, TOTAL, reported()));
}

#[test]
fn time_is_metered_where_it_costs_nothing() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(2_500_000));
    let free = "price = { input_per_1m_usd = \"0\", output_per_1m_usd = \"0\" }";
    let gateway = TestGateway::with(behind("candle", &provider, free)).start();
    let answer = gateway.post(CHAT, &chat("own", "how many")).expect(200);
    assert_eq!(answer.header("x-tunegate-cost-usd"), Some("0.00"));
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 1);
    assert_eq!((journal.0.len(), journal.0[0].cost, journal.0[0].compute_us), (1, 0, 2_500_000), "no hold");
    assert_eq!(metric(&gateway, "reported"), Some(2.5));
}

#[test]
fn no_other_server_is_believed_how_long_it_computed() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(2_500_000));
    let price = "price = { input_per_1m_usd = \"0\", output_per_1m_usd = \"1\" }";
    let gateway = TestGateway::with(behind("openai", &provider, price)).start();
    let forged = Reply::usual().with_header("x-tunegate-compute-us", "2500000");
    provider.replies(forged.clone());
    let whole = gateway.post(CHAT, &chat("own", "how many")).expect(200);
    assert_eq!(whole.header("x-tunegate-compute-us"), None, "the worker's header is nobody else's");
    assert_eq!(whole.header("x-tunegate-cost-usd"), Some("0.000006"));
    provider.replies(forged);
    gateway.post(CHAT, &streamed_chat("own", "how many")).expect(200);
    let journal = gateway.settled_journal(|journal| journal.usages().len() == 2);
    for usage in journal.usages() {
        assert_eq!((usage.compute_us, usage.cost), (0, 6_000), "{usage:#?}");
    }
    assert_eq!(metric(&gateway, "reported"), None);
}

#[test]
fn a_worker_that_tells_no_time_is_booked_at_the_time_that_it_was_waited_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(own(&provider)).start();
    provider.replies(Reply::usual().begins_after(Duration::from_millis(120)));
    let answer = gateway.post(CHAT, &chat("own", "how many")).expect(200);
    let (held, cost, compute_us, source) = booked(&gateway, &answer.request_id());
    assert_eq!((held, cost, source.as_str()), (TOTAL, compute_us, "estimated"));
    assert!((120_000..TOTAL).contains(&compute_us), "{compute_us}");
}

#[test]
fn a_client_that_leaves_pays_for_what_was_told_and_the_time_since() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(own(&provider)).start();
    // its prompt was read for three seconds
    let told = Reply::usual().with_header("x-tunegate-compute-us", "3000000");
    provider.replies(told.hangs_after_events(3));
    let mut open = gateway.open(CHAT, &streamed_chat("own", "how many crates"));
    open.await_events(3);
    let id = open.request_id();
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    let outcome = gateway.outcome_of(&id);
    assert_eq!(
        (&outcome["ending"], &outcome["usage"]["source"]),
        (&json!("client_gone"), &json!("estimated"))
    );
    let (held, cost, compute_us, source) = booked(&gateway, &id);
    assert_eq!((held, cost, source.as_str()), (TOTAL, compute_us, "estimated"));
    assert!((3 * SECOND..TOTAL).contains(&compute_us), "what was told, and a moment: {compute_us}");
}

#[test]
fn each_piece_of_a_stream_says_what_was_computed_so_far() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(own(&provider)).start();
    let piece = |compute_us: i64| {
        let chunk = json!({"choices": [{"index": 0, "delta": {"content": "One"}, "finish_reason": null}]});
        format!(": tunegate-compute-us {compute_us}\ndata: {chunk}\n\n").into_bytes()
    };
    let told = Reply::stream(vec![piece(4 * SECOND), piece(5 * SECOND), piece(6 * SECOND)], 1, 3);
    provider
        .replies(told.without_usage().with_header("x-tunegate-compute-us", "3000000").hangs_after_events(2));
    let mut open = gateway.open(CHAT, &streamed_chat("own", "how many crates"));
    open.await_events(2);
    let id = open.request_id();
    drop(open);
    assert_eq!(provider.await_fate(), Fate::PeerGone);
    let (_, cost, compute_us, source) = booked(&gateway, &id);
    assert_eq!((cost, source.as_str()), (compute_us, "estimated"));
    assert!((5 * SECOND..TOTAL).contains(&compute_us), "what was told last, and a moment: {compute_us}");
}

#[test]
fn a_worker_that_dies_costs_no_more_than_the_time_that_it_was_waited_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(own(&provider)).start();
    provider.replies(Reply::usual().resets_after_bytes(40));
    let answer = gateway.post(CHAT, &chat("own", "how many")).expect(502);
    let (held, cost, compute_us, source) = booked(&gateway, &answer.request_id());
    assert_eq!((held, source.as_str()), (TOTAL, "unconfirmed"));
    assert_eq!(cost, compute_us, "the rest of the hold is for time that was not");
    assert!(cost < TOTAL / 2, "{cost}");
    let corrected = gateway.admin(by_tokens(&answer.request_id())).expect(200).json();
    assert_eq!(corrected["cost_usd"], 0.0, "no token costs anything, and the time stays: {corrected:#}");
}

/// Says of a request's unconfirmed entry how many tokens it used.
fn by_tokens(request: &str) -> Call {
    let tokens = json!({"tokens": {"input": 2, "output": 3}});
    Call::post(&format!("/admin/v1/ledger/{request}/resolve"), &tokens)
}

#[test]
fn a_gateway_that_was_taken_for_dead_pays_for_the_time_that_it_waited() {
    let provider = SimulatedProvider::start();
    let impatient =
        format!("price = {{ compute_per_hour_usd = \"{PER_HOUR}\" }}\ntimeouts.first_byte_ms = 3000");
    let setup = behind("candle", &provider, &impatient)
        .and("[models.own.retry]\nattempts = 1\n\n[ledger]\nlease_ms = 1000\n");
    let mut gateway = TestGateway::with(setup).start();
    let replica = gateway.replica();
    provider.replies(Reply::usual().hangs());
    let mut open = gateway.send(CHAT, &chat("own", "how many"));
    provider.await_requests(1);
    gateway.signal(libc::SIGSTOP);
    let charged = gateway.settled_journal(|journal| journal.usages().len() == 1);
    assert_eq!(charged.spent(), TOTAL, "all that it may have computed");
    let request = charged.usages()[0].request_id.clone();
    let resolve = gateway.signed_admin(by_tokens(&request));
    let refused = Connection::to(replica.admin_address()).call(&resolve);
    let error = refused.expect_error(409, "not_resolvable");
    assert!(error["message"].as_str().is_some_and(|words| words.contains("cost_usd")), "{error}");
    gateway.signal(libc::SIGCONT);
    open.answer().expect(504);
    let corrected = gateway.settled_journal(|journal| journal.0.len() == 3);
    assert!((3 * SECOND..TOTAL - SECOND).contains(&corrected.spent()), "{corrected:#?}");
    replica.stop();
}

#[test]
fn a_kept_answer_costs_no_time() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(2_500_000));
    let gateway = TestGateway::with(own(&provider).and("[models.own.cache]\nttl_s = 600\n")).start();
    let asking = json!({"model": "own", "temperature": 0,
        "messages": [{"role": "user", "content": "how many crates fit"}]});
    let first = gateway.post(CHAT, &asking).expect(200);
    let second = gateway.post(CHAT, &asking).expect(200);
    assert_eq!(first.header("x-tunegate-cache"), Some("miss"));
    assert_eq!(second.header("x-tunegate-cache"), Some("hit"));
    assert_eq!(first.header("x-tunegate-cost-usd"), Some("0.0025"));
    assert_eq!(second.header("x-tunegate-cost-usd"), Some("0.00"));
    assert_eq!(second.header("x-tunegate-saved-usd"), Some("0.0025"));
    let journal = gateway.settled_journal(|journal| journal.0.iter().any(|entry| entry.kind == "cache_hit"));
    let hit = journal.0.iter().find(|entry| entry.kind == "cache_hit").expect("a hit");
    assert_eq!((hit.compute_us, hit.cost, hit.saved), (0, 0, 2_500_000), "{hit:#?}");
    assert_eq!(metric(&gateway, "reported"), Some(2.5), "once");
}

#[test]
fn a_budget_must_have_what_the_longest_request_would_cost() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(3_000_000));
    let limit = TOTAL + 2 * SECOND;
    let setup = own(&provider).and(&budget("all", limit, "scope = { deployment = \"own\" }"));
    let gateway = TestGateway::with(setup).start();
    let asking = chat("own", "how many");
    let first = gateway.post(CHAT, &asking).expect(200);
    assert_eq!(first.header("x-tunegate-budget-left-usd").map(nanos_of), Some(limit - 3 * SECOND));
    // 19 s are left: one of 20 may begin no more
    let refused = gateway.post(CHAT, &asking);
    refused.expect_error(429, "project_spend_limit_exceeded");
    assert_eq!(provider.requests().len(), 1, "nobody was asked");
    let told: Value = gateway.admin(Call::get("/admin/v1/budgets")).expect(200).json();
    assert!(told.to_string().contains("0.003"), "{told:#}");
}

#[test]
fn an_operator_prices_the_machine_while_it_runs() {
    let provider = SimulatedProvider::start();
    provider.computes(Some(2_500_000));
    let gateway = TestGateway::with(behind("candle", &provider, "")).start();
    let asking = chat("own", "how many");
    gateway.post(CHAT, &asking).expect_error(403, "unpriced_model");
    let at = |provider: &str, body: &Value| {
        let call = Call::new("PUT", &format!("/admin/v1/prices/{provider}/our-own"));
        gateway.admin(call.body("application/json", body.to_string().as_bytes()))
    };
    let hour = json!({"compute_per_hour_usd": PER_HOUR});
    let wrong = at("openai", &hour).expect(422).json();
    assert_eq!(wrong["error"]["errors"][0]["path"], "compute_per_hour_usd", "{wrong:#}");
    let set = at("candle", &hour);
    assert!(matches!(set.status, 200 | 201), "{}", set.text());
    assert_eq!(set.json()["periods"][0]["hours"]["compute_per_hour_usd"], "3.60");
    let answer = gateway.post(CHAT, &asking).expect(200);
    assert_eq!(answer.header("x-tunegate-cost-usd"), Some("0.0025"));
}
