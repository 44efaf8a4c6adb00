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
