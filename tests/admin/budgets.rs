//! `/admin/v1/budgets`, budgets that the configuration declares, `tunegate budgets`, alerts, and the API's own document.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::gateway::TUNEGATE;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

const BUDGETS: &str = "/admin/v1/budgets";

const DECLARED: &str = "\n[budgets.everything]\nlimit_usd = \"500.00\"\nwindow = \"month\"\n\
                        time_zone = \"Europe/Zurich\"\n\n[budgets.users]\nlimit_usd = \"0.50\"\n\
                        window = \"rolling 24h\"\nscope = { model = \"support-bot\", each = \"end_user\" }\n";

fn put(name: &str, body: &Value) -> Call {
    Call::new("PUT", &format!("{BUDGETS}/{name}")).body("application/json", body.to_string().as_bytes())
}

fn delete(path: &str) -> Call {
    Call::new("DELETE", &format!("{BUDGETS}/{path}"))
}

fn names(gateway: &TestGateway) -> Vec<String> {
    let listed = gateway.admin(Call::get(BUDGETS)).expect(200).json();
    let budgets = listed["data"].as_array().cloned().expect("budgets");
    budgets.iter().map(|budget| budget["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_budget_from_create_to_delete() {
    let mut gateway = TestGateway::with(Setup::bare()).start();
    let body = json!({"name": "ops", "limit_usd": "12.50", "window": "day", "scope": {"team": "ops"}});
    let made = gateway.admin(Call::post(BUDGETS, &body)).expect(201).json();
    assert_eq!(
        (&made["limit_usd"], &made["declared"], &made["in_force"]),
        (&json!(12.5), &json!(false), &json!(true))
    );
    assert_eq!((&made["time_zone"], &made["alert_at_percent"]), (&json!("UTC"), &json!([50, 80, 100])));
    let standing = &made["standing"];
    assert_eq!((&standing["spent_usd"], &standing["left_usd"]), (&json!(0.0), &json!(12.5)));
    assert!(standing["resets_at"].is_i64(), "{made}");
    gateway.admin(Call::post(BUDGETS, &body)).expect_error(409, "name_taken");

    let raise = json!({"by_usd": 2.5, "until": "2099-01-01T00:00:00Z"});
    let raised = gateway.admin(Call::post(&format!("{BUDGETS}/ops/raise"), &raise)).expect(200).json();
    assert_eq!((&raised["limit_usd"], &raised["standing"]["limit_usd"]), (&json!(12.5), &json!(15.0)));
    let change = json!({"limit_usd": "20", "window": "day", "scope": {"team": "ops"}, "action": "clamp"});
    let changed = gateway.admin(put("ops", &change)).expect(200).json();
    assert_eq!((&changed["action"], &changed["standing"]["limit_usd"]), (&json!("clamp"), &json!(22.5)));

    gateway.stop();
    gateway.start_again();
    let kept = gateway.admin(Call::get(&format!("{BUDGETS}/ops"))).expect(200).json();
    assert_eq!(kept, changed, "after a restart");
    let ended = gateway.admin(delete("ops/raise")).expect(200).json();
    assert_eq!((&ended["raise"], &ended["standing"]["limit_usd"]), (&Value::Null, &json!(20.0)));
    gateway.admin(delete("ops/raise")).expect_error(409, "not_raised");
    gateway.admin(delete("ops")).expect(200);
    gateway.admin(delete("ops")).expect_error(404, "budget_not_found");
    assert_eq!(names(&gateway), Vec::<String>::new());

    let log = gateway.admin(Call::get("/admin/v1/audit")).expect(200).json();
    let log = log["data"].as_array().cloned().expect("entries");
    let of_budgets = log.iter().filter(|entry| entry["subject"] == "ops");
    let actions: Vec<&str> = of_budgets.filter_map(|entry| entry["action"].as_str()).collect();
    let want = ["delete", "end_raise", "replace", "raise", "create"].map(|verb| format!("budget.{verb}"));
    assert_eq!(actions, want);
}

#[test]
fn bad_bodies_are_refused_with_every_problem_and_change_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider).and(DECLARED)).start();
    let wrong = json!({
        "name": "a b", "limit_usd": "1e9", "window": "day", "time_zone": "Mars/Base", "limit": 5,
        "scope": {"model": "unheard-of"},
    });
    let refused = gateway.admin(Call::post(BUDGETS, &wrong)).expect(422).json();
    let paths: Vec<&str> = refused["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["path"].as_str())
        .collect();
    assert_eq!(paths, ["limit", "limit_usd", "name", "scope.model", "time_zone"]);
    // the month in the same zone has a limit already
    let clash = json!({"name": "b", "limit_usd": "5", "window": "month", "time_zone": "Europe/Zurich"});
    let words = gateway.admin(Call::post(BUDGETS, &clash)).expect(422).text();
    assert!(words.contains("counts the same money in the same windows as the budget everything"), "{words}");
    gateway
        .admin(Call::new("POST", BUDGETS).body("application/json", b"{"))
        .expect_error(400, "invalid_json");
    gateway.admin(Call::get(&format!("{BUDGETS}/users/standings?limit=0"))).expect_error(400, "invalid_page");
    gateway.admin(Call::get(&format!("{BUDGETS}/nobody/standings"))).expect_error(404, "budget_not_found");
    assert_eq!(names(&gateway), ["everything", "users"]);
}

#[test]
fn a_declared_budget_is_read_only_and_changes_by_reload() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let gateway = TestGateway::with(setup.clone().and(DECLARED)).start();
    let show = || gateway.admin(Call::get(&format!("{BUDGETS}/everything"))).expect(200).json();
    assert_eq!((&show()["declared"], &show()["standing"]["limit_usd"]), (&json!(true), &json!(500.0)));
    let body = json!({"limit_usd": "1", "window": "month"});
    let raise = json!({"by_usd": "1", "until": "2099-01-01T00:00:00Z"});
    for refused in [
        gateway.admin(put("everything", &body)),
        gateway.admin(delete("everything")),
        gateway.admin(Call::post(&format!("{BUDGETS}/everything/raise"), &raise)),
    ] {
        let text = refused.expect(409).text();
        assert!(text.contains("change [budgets.everything] there, then reload"), "{text}");
    }
    let users = gateway.admin(Call::get(&format!("{BUDGETS}/users"))).expect(200).json();
    assert_eq!((&users["standing"], &users["scope"]["each"]), (&Value::Null, &json!("end_user")));

    gateway.rewrite(&setup.clone().and(&DECLARED.replace("500.00", "600.00")));
    gateway.reload().expect(200);
    assert_eq!(show()["standing"]["limit_usd"], json!(600.0), "in force when the reload is answered");

    gateway
        .admin(Call::post(BUDGETS, &json!({"name": "mine", "limit_usd": "1", "window": "day"})))
        .expect(201);
    let clash = format!("{DECLARED}\n[budgets.mine]\nlimit_usd = \"2\"\nwindow = \"hour\"\n");
    gateway.rewrite(&setup.and(&clash));
    let refused = gateway.reload().expect(400).text();
    assert!(refused.contains("budgets.mine: there is a stored budget of that name"), "{refused}");
    assert_eq!(names(&gateway), ["everything", "users", "mine"]);
}

#[test]
fn the_command_line_says_what_the_api_says() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let run = |line: &str| {
        let done = std::process::Command::new(TUNEGATE)
            .arg("budgets")
            .args(line.split(' '))
            .args(["--config", "tunegate.toml"])
            .current_dir(gateway.folder())
            .output()
            .expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.success(), text(&done.stdout), text(&done.stderr))
    };
    let (good, _, words) = run("create ops --limit 5 --window day --team ops --alert-at 90");
    assert!(good, "{words}");
    let (_, table, _) = run("list");
    assert!(table.contains("ops") && table.contains("team=ops") && table.contains("day UTC"), "{table}");
    let (_, shown, _) = run("show ops --json");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["alert_at_percent"], &shown["standings"]["object"]), (&json!([90]), &json!("list")));
    let (good, _, words) = run("set ops --limit five --window moon");
    assert!(!good && words.contains("limit_usd") && words.contains("window"), "{words}");
    assert!(run("raise ops --by 2 --until 2099-01-01T00:00:00Z").0);
    let (_, table, _) = run("list");
    assert!(table.contains("raised"), "{table}");
    assert!(run("raise ops --end").0 && run("delete ops").0);
    assert!(!run("delete ops").0);
}

#[test]
fn the_document_is_served_and_tells_the_truth() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let document = gateway.admin(Call::get("/admin/v1/openapi.json")).expect(200).json();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item[method].is_null() {
                continue;
            }
            let target = path.replace(['{', '}'], "");
            let call = Call::new(&method.to_uppercase(), &target).body("application/json", b"{}");
            let answer = gateway.admin(call);
            let text = answer.text();
            let unrouted = ["\"unsupported_endpoint\"", "\"method_not_allowed\""];
            let is_routed = answer.status < 400 || !unrouted.iter().any(|code| text.contains(code));
            assert!(is_routed, "{method} {path}: {text}");
            let status = answer.status.to_string();
            assert!(
                !item[method]["responses"][&status].is_null(),
                "{method} {path}: {status} is not told: {text}"
            );
        }
    }
    let members = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let told = |schema: &str| members(&document["components"]["schemas"][schema]["properties"]);
    let budget = json!({"name": "b", "limit_usd": 1, "window": "day"});
    let made = gateway.admin(Call::post(BUDGETS, &budget)).expect(201).json();
    assert_eq!(members(&made), told("Budget"));
    assert_eq!(members(&made["standing"]), told("Standing"));
    let team = gateway.admin(Call::post("/admin/v1/teams", &json!({"alias": "t"}))).expect(201).json();
    assert_eq!(members(&team), told("Team"));
    let keys = gateway.admin(Call::get("/admin/v1/keys")).expect(200).json();
    assert_eq!(members(&keys["data"][0]), told("VirtualKey"));
}

/// Takes one alert; returns the head of its request and what it says.
fn take_alert(listener: &TcpListener) -> (String, Value) {
    let (mut stream, _) = listener.accept().expect("a client");
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        let body = text
            .split_once("\r\n\r\n")
            .and_then(|(head, body)| Some((head, serde_json::from_str(body).ok()?)));
        if let Some((head, alert)) = body {
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").expect("answered");
            return (head.to_owned(), alert);
        }
        let read = stream.read(&mut chunk).expect("a request");
        assert!(read > 0, "cut off: {text}");
        request.extend_from_slice(&chunk[..read]);
    }
}

#[test]
fn a_threshold_is_told_once_to_log_metrics_and_webhook() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hook = format!("http://{}/hook?token=t0ken", listener.local_addr().expect("an address"));
    let provider = SimulatedProvider::start();
    let sections = format!(
        "\n[alerts]\nwebhook_url = \"{hook}\"\nwebhook_secret = {{ file = \"hook.key\" }}\n\n\
         [budgets.everything]\nlimit_usd = \"0.001\"\nwindow = \"total\"\nalert_at_percent = [1]\n"
    );
    let setup = Setup::in_front_of(&provider).file("hook.key", "a-secret-of-our-own").and(&sections);
    let gateway = TestGateway::with(setup).start();
    let told = std::thread::spawn(move || take_alert(&listener));
    let mut body = chat("support-bot", "hi");
    body["max_tokens"] = json!(20);
    for _ in 0..3 {
        gateway.post("/v1/chat/completions", &body).expect(200);
    }
    let (head, alert) = told.join().expect("an alert");
    assert!(head.starts_with("POST /hook?token=t0ken HTTP/1.1"), "{head}");
    assert!(head.to_ascii_lowercase().contains("x-tunegate-signature: sha256="), "{head}");
    assert_eq!(
        (&alert["kind"], &alert["budget"], &alert["percent"], &alert["limit_usd"]),
        (&json!("budget_threshold"), &json!("everything"), &json!(1), &json!(0.001))
    );
    assert!(alert["spent_usd"].as_f64().is_some_and(|spent| spent >= 0.000_01), "{alert}");
    let metrics = || gateway.admin(Call::get("/metrics")).text();
    eventually("one alert in the metrics", || {
        metrics().contains("tunegate_budget_alerts_total{percent=\"1\"} 1").then_some(())
    });
    let said = "a budget has reached a threshold";
    let log = eventually("one alert in the log", || Some(gateway.log()).filter(|log| log.contains(said)));
    assert_eq!(log.matches(said).count(), 1, "{log}");
    assert!(!log.contains("t0ken") && !log.contains("a-secret-of-our-own"), "{log}");
}
