//! `/admin/v1/keys`.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::gateway::TUNEGATE;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

const KEYS: &str = "/admin/v1/keys";
const CHAT: &str = "/v1/chat/completions";

/// Makes a key; returns the whole answer.
fn make(gateway: &TestGateway, alias: &str) -> Value {
    let answer = gateway.admin(Call::post(KEYS, &json!({"alias": alias})));
    assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text());
    answer.json()
}

/// The value that is shown once.
fn shown(made: &Value) -> String {
    let key = made["key"].as_str().unwrap_or_else(|| panic!("no key in {made}"));
    assert!(key.starts_with("sk-tg-") && key.len() == 49, "{made}");
    key.to_owned()
}

#[test]
fn a_new_key_is_good_at_once_and_shown_only_once() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let made = make(&gateway, "team-a");
    let key = shown(&made);
    let answer = gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(&key)).expect(200);
    assert_eq!(gateway.outcome_of(&answer.request_id())["key"], "team-a");
    let list = gateway.admin(Call::get(KEYS)).expect(200);
    assert!(!list.text().contains(&key), "a list shows a key");
    let rows = list.json()["data"].as_array().cloned().expect("rows");
    let row = rows.iter().find(|row| row["alias"] == "team-a").expect("the new key is listed");
    assert_eq!(row["last_four"], &key[key.len() - 4..]);
    assert_eq!(row["id"], made["id"]);
    assert!(!gateway.log().contains(&key), "the log shows a key");
}

#[test]
fn a_revoked_key_is_refused_at_once_and_the_others_are_not() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let made = make(&gateway, "leaver");
    let (key, id) = (shown(&made), made["id"].as_str().expect("an id").to_owned());
    let ask = || gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(&key));
    ask().expect(200);
    let gone = gateway.admin(Call::new("DELETE", &format!("{KEYS}/{id}")));
    assert!(matches!(gone.status, 200 | 204), "{}: {}", gone.status, gone.text());
    ask().expect_error(401, "invalid_api_key");
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    let again = gateway.admin(Call::new("DELETE", &format!("{KEYS}/{id}")));
    assert!(matches!(again.status, 200 | 204 | 404 | 409), "{}: {}", again.status, again.text());
    gateway.admin(Call::new("DELETE", &format!("{KEYS}/key_unknown"))).expect(404);
}

#[test]
fn an_alias_is_needed_once_among_live_keys() {
    let gateway = TestGateway::with(Setup::bare()).start();
    make(&gateway, "team-a");
    let twice = gateway.admin(Call::post(KEYS, &json!({"alias": "team-a"})));
    assert!(matches!(twice.status, 400 | 409), "{}: {}", twice.status, twice.text());
    for body in [json!({"alias": 1}), json!({"alias": "a", "nonsense": 1}), json!([1])] {
        let refused = gateway.admin(Call::post(KEYS, &body));
        assert!(matches!(refused.status, 400 | 422), "{body}: {} {}", refused.status, refused.text());
        assert!(refused.json()["error"]["message"].is_string(), "{}", refused.text());
    }
}

#[test]
fn only_the_admin_key_opens_the_admin_address() {
    let gateway = TestGateway::with(Setup::bare()).start();
    for path in [KEYS, "/admin/v1/requests"] {
        for value in ["Bearer wrong".to_owned(), format!("Bearer {}", gateway.key()), "Basic x".to_owned()] {
            gateway.admin(Call::get(path).header("authorization", &value)).expect(401);
        }
        let bare = crate::support::Connection::to(gateway.admin_address()).call(&Call::get(path));
        assert_eq!(bare.status, 401, "{}", bare.text());
    }
    let admin_key = std::fs::read_to_string(gateway.folder().join("state/admin_key")).expect("the admin key");
    let answer = gateway.call(Call::get("/v1/models").bearer(admin_key.trim()));
    answer.expect_error(401, "invalid_api_key");
}

#[test]
fn keys_outlive_the_process_and_the_first_is_shown_once() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = shown(&make(&gateway, "keeper"));
    gateway.stop();
    gateway.start_again();
    gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(&key)).expect(200);
    gateway.post(CHAT, &chat("support-bot", "hi")).expect(200);
    assert!(!gateway.log().contains(gateway.key()), "the first key is shown again:\n{}", gateway.log());
}

#[test]
fn secrets_in_the_state_folder_are_their_owners_alone() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let state = gateway.folder().join("state");
    for name in ["admin_key", "pepper"] {
        let mode = std::fs::metadata(state.join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    for entry in std::fs::read_dir(&state).expect("the state folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("a readable file");
            let found = bytes.windows(gateway.key().len()).any(|window| window == gateway.key().as_bytes());
            assert!(!found, "{} holds a key in plain text", path.display());
        }
    }
}

#[test]
fn what_another_gateway_on_the_same_state_revokes_is_refused_after_sighup() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = shown(&make(&gateway, "leaver"));
    let ask = || gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(&key)).status;
    assert_eq!(ask(), 200);
    let another = TestGateway::with(Setup::bare()).start();
    let (listen, admin_listen) = (another.address().to_string(), another.admin_address().to_string());
    drop(another); // its ports are free now
    let mut another = std::process::Command::new(TUNEGATE)
        .args(["serve", "--config", "tunegate.toml"])
        .current_dir(gateway.folder())
        .env("TUNEGATE__SERVER__LISTEN", &listen)
        .env("TUNEGATE__ADMIN__LISTEN", &admin_listen)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary under test starts");
    eventually("a key revoked by the other gateway", || {
        let revoke = std::process::Command::new(TUNEGATE)
            .args(["key", "revoke", "--config", "tunegate.toml", "leaver"])
            .current_dir(gateway.folder())
            .env("TUNEGATE__ADMIN__LISTEN", &admin_listen)
            .output()
            .expect("it runs");
        revoke.status.success().then_some(())
    });
    another.kill().and_then(|()| another.wait()).expect("its end");
    gateway.signal(libc::SIGHUP);
    eventually("a refusal", || (ask() == 401).then_some(()));
}

#[test]
fn every_mistake_in_a_body_is_told_with_its_path() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let body = json!({"alias": "key_x", "team": "nobody", "limits": {"tokens_per_minute": 0}, "rpm": 3});
    let refused = gateway.admin(Call::post(KEYS, &body)).expect(422).json();
    let paths: Vec<&str> = refused["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|problem| problem["path"].as_str())
        .collect();
    assert_eq!(paths, ["alias", "limits.tokens_per_minute", "rpm", "team"], "{refused}");
    assert_eq!(refused["error"]["code"], "invalid_body");
    let listed = gateway.admin(Call::get(KEYS)).expect(200).json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "only the first key: {listed}");
    gateway.admin(Call::new("POST", KEYS).body("application/json", b"{")).expect(400);
}

#[test]
fn a_key_asks_only_the_models_it_is_allowed() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"alias": "narrow", "models": ["support-bot", "openai/gpt-4*"]});
    let key = shown(&gateway.admin(Call::post(KEYS, &body)).expect(201).json());
    let ask = |model: &str| gateway.call(Call::post(CHAT, &chat(model, "hi")).bearer(&key));
    ask("support-bot").expect(200);
    ask("openai/gpt-4.1").expect(200);
    for model in ["azure-bot", "openai/o3", "no-such-model"] {
        let error = ask(model).expect_error(404, "model_not_found");
        let words = error["message"].as_str().unwrap_or_default();
        assert!(words.contains("does not exist or you do not have access to it"), "{words}");
    }
    let list = gateway.call(Call::get("/v1/models").bearer(&key)).expect(200).json();
    let names: Vec<&Value> =
        list["data"].as_array().into_iter().flatten().map(|model| &model["id"]).collect();
    assert_eq!(names, ["support-bot"]);
    gateway.call(Call::get("/v1/models/azure-bot").bearer(&key)).expect_error(404, "model_not_found");
    gateway.call(Call::get("/v1/models/support-bot").bearer(&key)).expect(200);
    assert_eq!(gateway.get("/v1/models").json()["data"].as_array().map(|all| all.len() > 3), Some(true));
}

#[test]
fn a_change_counts_from_the_next_request_on() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let key = shown(&make(&gateway, "app"));
    let ask = || gateway.call(Call::post(CHAT, &chat("support-bot", "hi")).bearer(&key));
    let change = |body: &Value| {
        let call =
            Call::new("PATCH", &format!("{KEYS}/app")).body("application/json", body.to_string().as_bytes());
        gateway.admin(call).expect(200).json()
    };
    ask().expect(200);
    assert_eq!(change(&json!({"models": ["azure-bot"], "tags": ["a"]}))["models"], json!(["azure-bot"]));
    ask().expect_error(404, "model_not_found");
    let changed = change(&json!({"models": null}));
    assert_eq!((&changed["models"], &changed["tags"]), (&json!([]), &json!(["a"])));
    ask().expect(200);
}

#[test]
fn an_expired_key_is_refused_with_its_date() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let body = json!({"alias": "short", "expires_at": now + 10});
    let made = gateway.admin(Call::post(KEYS, &body)).expect(201).json();
    let key = shown(&made);
    let ask = || gateway.call(Call::get("/v1/models").bearer(&key));
    ask().expect(200);
    let refused = eventually("its end", || Some(ask()).filter(|answer| answer.status == 401));
    let error = refused.expect_error(401, "invalid_api_key");
    assert!(error["message"].as_str().is_some_and(|words| words.contains("expired on 20")), "{error}");
    let shown = gateway.admin(Call::get(&format!("{KEYS}/short"))).expect(200).json();
    assert_eq!(shown["state"], "expired");
    gateway.admin(Call::post(KEYS, &json!({"alias": "past", "expires_at": now - 1}))).expect(422);
}

#[test]
fn a_rotated_key_has_two_secrets_for_its_grace() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let old = shown(&make(&gateway, "app"));
    let ask = |key: &str| gateway.call(Call::get("/v1/models").bearer(key)).status;
    let rotate = |grace_ms: u64| {
        let call = Call::post(&format!("{KEYS}/app/rotate"), &json!({"grace_ms": grace_ms}));
        gateway.admin(call).expect(200).json()
    };
    let rotated = rotate(600_000);
    let new = shown(&rotated);
    assert!(rotated["old_secret_until"].is_number(), "{rotated}");
    assert_eq!((ask(&old), ask(&new)), (200, 200));
    let newest = shown(&rotate(0));
    assert_eq!((ask(&old), ask(&new), ask(&newest)), (401, 401, 200));
    gateway.admin(Call::new("DELETE", &format!("{KEYS}/app"))).expect(200);
    assert_eq!(ask(&newest), 401);
    let refused = gateway
        .admin(Call::new("POST", &format!("{KEYS}/{}/rotate", rotated["id"].as_str().expect("an id"))));
    assert_eq!(refused.expect(409).json()["error"]["code"], "key_revoked");
}

#[test]
fn every_change_is_in_the_audit_log_newest_first() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let key = shown(&make(&gateway, "app"));
    gateway.admin(Call::post("/admin/v1/teams", &json!({"alias": "ops"}))).expect(201);
    gateway.admin(Call::new("DELETE", &format!("{KEYS}/app"))).expect(200);
    let audit = |query: &str| gateway.admin(Call::get(&format!("/admin/v1/audit{query}")));
    let all = audit("").expect(200);
    assert!(!all.text().contains(&key), "the audit log shows a key");
    let told: Vec<Value> = all.json()["data"].as_array().cloned().unwrap_or_default();
    let actions: Vec<&Value> = told.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["key.revoke", "team.create", "key.create", "key.create"]);
    assert_eq!((&told[3]["actor"], &told[2]["actor"]), (&json!("gateway"), &json!("admin")));
    let first = audit("?limit=2").expect(200).json();
    assert_eq!((&first["has_more"], &first["data"][1]), (&json!(true), &told[1]));
    let rest = audit(&format!("?limit=2&before={}", told[1]["id"].as_str().expect("an id"))).json();
    assert_eq!((&rest["has_more"], &rest["data"]), (&json!(false), &json!(told[2..])));
    audit("?limit=0").expect(400);
    audit("?page=2").expect(400);
}

#[test]
fn another_pepper_is_refused_at_the_start_in_words() {
    let mut gateway = TestGateway::with(Setup::bare()).start();
    gateway.stop();
    let pepper = gateway.folder().join("state/pepper");
    let old = std::fs::read(&pepper).expect("the pepper");
    std::fs::write(&pepper, "another pepper, just as good\n").expect("written");
    let start = std::process::Command::new(TUNEGATE)
        .args(["serve", "--config", "tunegate.toml"])
        .current_dir(gateway.folder())
        .output()
        .expect("it runs");
    let words = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(!start.status.success() && words.contains("put the old file `pepper` back"), "{words}");
    std::fs::write(&pepper, old).expect("written");
    gateway.start_again();
    gateway.get("/v1/models").expect(200);
}

#[test]
fn the_command_line_makes_shows_and_changes_keys() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let run = |arguments: &[&str]| {
        let done = std::process::Command::new(TUNEGATE)
            .args(arguments)
            .args(["--config", "tunegate.toml"])
            .current_dir(gateway.folder())
            .output()
            .expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), out.trim().to_owned(), err.into_owned())
    };
    assert!(run(&["teams", "create", "--alias", "ops", "--rpm", "100"]).0);
    let (ok, key, words) =
        run(&["keys", "create", "--alias", "app", "--team", "ops", "--model", "a", "--tpm", "500"]);
    assert!(ok && key.starts_with("sk-tg-") && key.len() == 49, "{key} {words}");
    let (_, table, _) = run(&["keys", "list"]);
    assert!(
        table.lines().any(|line| line.starts_with("app ") && line.contains("ops") && line.contains("500")),
        "{table}"
    );
    let (ok, changed, words) = run(&["keys", "update", "app", "--clear", "models", "--tag", "a=b", "--json"]);
    assert!(ok, "{words}");
    let changed: Value = serde_json::from_str(&changed).expect("JSON");
    assert_eq!(
        (&changed["models"], &changed["tags"], &changed["team"]),
        (&json!([]), &json!(["a=b"]), &json!("ops"))
    );
    let (ok, _, words) = run(&["keys", "create", "--alias", "b c", "--rpm", "0"]);
    assert!(!ok && words.contains("alias: ") && words.contains("limits.requests_per_minute: "), "{words}");
    let (ok, rotated, _) = run(&["key", "rotate", "app", "--grace-hours", "0"]);
    assert!(ok && rotated != key, "{rotated}");
    let (ok, _, words) = run(&["teams", "archive", "ops"]);
    assert!(!ok && words.contains("owns live keys (app)"), "{words}");
    assert!(run(&["keys", "revoke", "app"]).0 && run(&["teams", "archive", "ops"]).0);
}
