//! What probes hear: `/livez`, `/readyz` and their other names, and `/health` for a key.

use serde_json::{Value, json};

use super::CHAT;
use crate::support::journal::Session;
use crate::support::{
    Call, Connection, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually, streamed_chat,
};

const ALIVE: [&str; 4] = ["/livez", "/healthz", "/health/liveliness", "/health/liveness"];
const READY: [&str; 2] = ["/readyz", "/health/readiness"];

fn ready(gateway: &TestGateway) -> (u16, Value) {
    let answer = Connection::to(gateway.admin_address()).call(&Call::get("/readyz"));
    (answer.status, answer.json())
}

#[test]
fn probes_need_no_key_and_find_all_names_on_both_addresses() {
    let gateway = TestGateway::with(Setup::bare()).start();
    for address in [gateway.address(), gateway.admin_address()] {
        let call = |path: &str| Connection::to(address).call(&Call::get(path)).expect(200);
        for path in ALIVE {
            assert_eq!(call(path).json(), json!({"status": "ok"}), "{path}");
        }
        for path in READY {
            assert_eq!(call(path).json(), json!({"status": "ok", "checks": {"database": "ok"}}), "{path}");
        }
        assert_eq!(call("/health/backlog").json(), json!({"in_flight_requests": 0}));
        assert_eq!(call("/livez?verbose").text(), "status: ok\n");
        assert_eq!(call("/readyz?verbose=1").text(), "[+]database ok\nstatus: ok\n");
    }
    assert!(gateway.outcomes().is_empty(), "a probe is no request");
}

#[test]
fn a_gateway_that_drains_wants_no_more_but_lives() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate));
    let mut waiting = gateway.send(CHAT, &chat("support-bot", "hi"));
    provider.await_requests(1);
    let backlog = |connection: &mut Connection| connection.call(&Call::get("/health/backlog")).json();
    let mut open = Connection::to(gateway.admin_address());
    assert_eq!(backlog(&mut open), json!({"in_flight_requests": 1}));
    gateway.signal(libc::SIGTERM);
    let address = gateway.admin_address();
    eventually("a gateway that wants no more", || {
        let answer = Connection::reach(address).map(|mut probe| probe.try_call(&Call::get("/readyz")));
        match answer.flatten() {
            None => Some(()),
            Some(answer) if answer.status == 503 => {
                assert_eq!(answer.json()["status"], "draining");
                Some(())
            }
            Some(_) => None,
        }
    });
    gate.open();
    waiting.answer().expect(200);
    assert!(gateway.await_exit().success());
}

#[test]
fn a_database_that_is_away_degrades_and_pulls_no_gateway() {
    let provider = SimulatedProvider::start();
    let hasty = "\n[database]\nacquire_timeout_ms = 3000\nstatement_timeout_ms = 3000\n";
    let gateway = TestGateway::with(Setup::in_front_of(&provider).and(hasty)).start();
    let well = (200, json!({"status": "ok", "checks": {"database": "ok"}}));
    eventually("a gateway that is well", || (ready(&gateway) == well).then_some(()));
    let mut other = Session::on(&gateway.database_url());
    other.run("BEGIN IMMEDIATE");
    gateway.post(CHAT, &chat("support-bot", "hi")).expect_error(503, "ledger_unavailable");
    let degraded = json!({"status": "degraded", "checks": {"database": "unavailable"}});
    assert_eq!(ready(&gateway), (200, degraded));
    let verbose = Connection::to(gateway.address()).call(&Call::get("/readyz?verbose")).expect(200).text();
    assert_eq!(verbose, "[-]database unavailable\nstatus: degraded\n");
    Connection::to(gateway.address()).call(&Call::get("/livez")).expect(200);
    other.run("ROLLBACK");
    // nobody asks anything meanwhile: it is found by itself
    eventually("that it is back", || (ready(&gateway).1["status"] == "ok").then_some(()));
    eventually("an answer", || (gateway.post(CHAT, &chat("support-bot", "hi")).status == 200).then_some(()));
}

#[test]
fn a_worker_without_its_model_degrades() {
    let gateway = TestGateway::with(Setup::bare().worker("model_file = \"nowhere.gguf\"")).start();
    eventually("that it is missed", || (ready(&gateway).1["checks"]["worker"] == "no_model").then_some(()));
    assert_eq!(ready(&gateway).0, 200);
    assert_eq!(ready(&gateway).1["status"], "degraded");
    let config = gateway.folder().join("tunegate.toml");
    let check = std::process::Command::new(crate::support::gateway::TUNEGATE)
        .args(["healthcheck", "--config"])
        .arg(config)
        .current_dir(gateway.folder())
        .output()
        .expect("it runs");
    assert!(check.status.success(), "degraded is ready: {check:?}");
}

#[test]
fn health_tells_a_key_how_its_models_stand_and_asks_nobody() {
    let provider = SimulatedProvider::start();
    let breaker = "breaker = { consecutive_failures = 1 }";
    let credential = "api_key = { file = \"upstream.key\" }";
    let setup =
        Setup::in_front_of(&provider).model("frail", &format!("{}/v1", provider.url()), credential, breaker);
    let gateway = TestGateway::with(setup).start();
    gateway.call(Call::get("/health").bearer("sk-tg-nobody")).expect_error(401, "invalid_api_key");
    Connection::to(gateway.address()).call(&Call::get("/health")).expect(401);
    let report = || gateway.get("/health").expect(200).json();
    let rows = |report: &Value, list: &str| -> Vec<String> {
        let rows = report[list].as_array().cloned().unwrap_or_default();
        assert_eq!(report[list.replace("endpoints", "count")], rows.len());
        rows.iter().filter_map(|row| Some(row["model"].as_str()?.to_owned())).collect()
    };
    let before = report();
    assert!(rows(&before, "healthy_endpoints").contains(&"frail".to_owned()), "{before:#}");
    assert!(rows(&before, "unhealthy_endpoints").is_empty(), "{before:#}");
    assert!(provider.requests().is_empty(), "it costs nothing");
    provider.replies(Reply::usual().hangs_up());
    gateway.post(CHAT, &streamed_chat("frail", "hi")).expect(502);
    let after = report();
    assert_eq!(rows(&after, "unhealthy_endpoints"), ["frail"], "{after:#}");
    assert!(!rows(&after, "healthy_endpoints").contains(&"frail".to_owned()));
    assert_eq!(after["unhealthy_endpoints"][0]["breaker"], "open");
    // a key that may use one model hears of that one
    let made = gateway
        .admin(Call::post("/admin/v1/keys", &json!({"alias": "one", "models": ["thinker"]})))
        .expect(201);
    let key = made.json()["key"].as_str().expect("shown once").to_owned();
    let narrow = gateway.call(Call::get("/health").bearer(&key)).expect(200).json();
    assert_eq!(rows(&narrow, "healthy_endpoints"), ["thinker"]);
    assert!(rows(&narrow, "unhealthy_endpoints").is_empty());
}
