//! No tenant ever sees another's answer, unless the operator says so.

use serde_json::json;

use super::{CHAT, did, keeping, key, question};
use crate::support::{Call, SimulatedProvider, TestGateway};

#[test]
fn answers_are_shared_as_far_as_the_scope_says() {
    for (scope, shared_by) in [
        // of all pairs of `ada` and `bob` of one team, `eve` of another, `max` and `may` of none
        ("key", &[][..]),
        ("team", &[("ada", "bob")][..]),
        (
            "shared",
            &[
                ("ada", "bob"),
                ("ada", "eve"),
                ("ada", "max"),
                ("ada", "may"),
                ("bob", "eve"),
                ("bob", "max"),
                ("bob", "may"),
                ("eve", "max"),
                ("eve", "may"),
                ("max", "may"),
            ][..],
        ),
    ] {
        let provider = SimulatedProvider::start();
        let gateway =
            TestGateway::with(keeping(&provider, &format!("ttl_s = 60, scope = \"{scope}\""))).start();
        for team in ["red", "blue"] {
            gateway.admin(Call::post("/admin/v1/teams", &json!({"alias": team}))).expect(201);
        }
        let people =
            [("ada", Some("red")), ("bob", Some("red")), ("eve", Some("blue")), ("max", None), ("may", None)]
                .map(|(alias, team)| (alias, key(&gateway, &json!({"alias": alias, "team": team}))));
        let ask = |words: &str, key: &str| {
            did(&gateway.call(Call::post(CHAT, &question(words)).bearer(key)).expect(200)).0.to_owned()
        };
        for (at, (one, key)) in people.iter().enumerate() {
            for (other, others_key) in &people[at + 1..] {
                let words = format!("{one} and {other}");
                assert_eq!(ask(&words, key), "miss");
                let expected = if shared_by.contains(&(one, other)) { "hit" } else { "miss" };
                assert_eq!(ask(&words, others_key), expected, "{scope}: {words}");
                assert_eq!(ask(&words, key), "hit", "{scope}: its own");
            }
        }
    }
}
