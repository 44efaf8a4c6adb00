//! `/admin/v1/teams`, and teams that the configuration declares.

use serde_json::{Value, json};

use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat};

const TEAMS: &str = "/admin/v1/teams";
const KEYS: &str = "/admin/v1/keys";

fn patch(name: &str, body: &Value) -> Call {
    Call::new("PATCH", &format!("{TEAMS}/{name}")).body("application/json", body.to_string().as_bytes())
}

#[test]
fn a_team_from_create_to_archive() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let body = json!({"alias": "support", "tags": ["b", "a"], "limits": {"requests_per_minute": 5}});
    let made = gateway.admin(Call::post(TEAMS, &body)).expect(201).json();
    assert_eq!(
        (&made["tags"], &made["live_keys"], &made["declared"]),
        (&json!(["a", "b"]), &json!(0), &json!(false))
    );
    gateway.admin(Call::post(TEAMS, &body)).expect(409);
    let key = json!({"alias": "app", "team": "support"});
    let key = gateway.admin(Call::post(KEYS, &key)).expect(201).json();
    assert_eq!((&key["team"], &key["team_id"]), (&json!("support"), &made["id"]));
    let changed =
        gateway.admin(patch("support", &json!({"alias": "helpers", "limits": null}))).expect(200).json();
    assert_eq!((&changed["alias"], &changed["live_keys"]), (&json!("helpers"), &json!(1)));
    assert_eq!(changed["limits"]["requests_per_minute"], Value::Null);
    let refused = gateway.admin(Call::new("DELETE", &format!("{TEAMS}/helpers"))).expect(409);
    assert!(refused.text().contains("owns live keys (app)"), "{}", refused.text());
    gateway.admin(Call::new("DELETE", &format!("{KEYS}/app"))).expect(200);
    let archived = gateway.admin(Call::new("DELETE", &format!("{TEAMS}/helpers"))).expect(200).json();
    assert!(archived["archived_at"].is_number(), "{archived}");
    gateway.admin(Call::get(&format!("{TEAMS}/helpers"))).expect(404);
    gateway.admin(Call::get(&format!("{TEAMS}/{}", made["id"].as_str().expect("an id")))).expect(200);
    let wrong = gateway.admin(Call::post(TEAMS, &json!({"alias": "team_x", "tags": ["a b"], "keys": []})));
    assert_eq!(wrong.expect(422).json()["errors"].as_array().map(Vec::len), Some(3));
    for taken in ["other", "none"] {
        let wrong = gateway.admin(Call::post(TEAMS, &json!({"alias": taken}))).expect(422).json();
        assert!(wrong["errors"][0].to_string().contains("labels of metrics"), "{wrong}");
    }
}

#[test]
fn a_declared_team_is_read_only_and_changes_by_reload() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider);
    let with_limit = |limit: u32| {
        setup
            .clone()
            .and(&format!("[teams.ops]\ntags = [\"x=y\"]\nlimits = {{ requests_per_minute = {limit} }}\n"))
    };
    let gateway = TestGateway::with(with_limit(1)).start();
    let team = gateway.admin(Call::get(&format!("{TEAMS}/ops"))).expect(200).json();
    assert_eq!((&team["declared"], &team["id"]), (&json!(true), &json!("team_ops")));
    for refused in [
        gateway.admin(patch("ops", &json!({"tags": []}))),
        gateway.admin(Call::new("DELETE", &format!("{TEAMS}/ops"))),
    ] {
        let text = refused.expect(409).text();
        assert!(text.contains("declared in the configuration: change [teams.ops] there"), "{text}");
    }
    let made = gateway.admin(Call::post(KEYS, &json!({"alias": "app", "team": "ops"}))).expect(201).json();
    let key = made["key"].as_str().expect("a key").to_owned();
    let ask =
        || gateway.call(Call::post("/v1/chat/completions", &chat("support-bot", "hi")).bearer(&key)).status;
    assert_eq!((ask(), ask()), (200, 429));
    gateway.rewrite(&with_limit(1_000));
    gateway.reload().expect(200);
    assert_eq!(ask(), 200, "another limit is seen at once");
    gateway.rewrite(&setup);
    let refused = gateway.reload().expect(400).text();
    assert!(refused.contains("teams.ops: gone, but 1 live keys belong to it"), "{refused}");
    assert_eq!(ask(), 200);
}
