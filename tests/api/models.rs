//! `GET /v1/models` and `GET /v1/models/{id}`.

use crate::support::setup::FINE_TUNED;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway};

#[test]
fn the_list_has_the_names_that_clients_may_ask_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for path in ["/v1/models", "/models"] {
        let list = gateway.get(path).expect(200).json();
        assert_eq!(list["object"], "list");
        let rows = list["data"].as_array().expect("rows");
        let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        for name in ["support-bot", "azure-bot", FINE_TUNED] {
            assert!(ids.contains(&name), "{name} in {ids:?}");
        }
        assert!(!ids.contains(&"openai/*"), "a pattern is no model: {ids:?}");
        for row in rows {
            assert_eq!(row["object"], "model");
            assert!(row["created"].is_u64() && row["owned_by"].is_string(), "{row}");
        }
    }
    assert!(provider.requests().is_empty(), "the list is the gateway's own");
}

#[test]
fn one_model_is_found_with_its_colons_written_either_way() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for id in [FINE_TUNED.to_owned(), FINE_TUNED.replace(':', "%3A")] {
        let found = gateway.get(&format!("/v1/models/{id}")).expect(200).json();
        assert_eq!(found["id"], FINE_TUNED);
    }
    gateway.get("/v1/models/nobody").expect_error(404, "model_not_found");
}

#[test]
fn a_model_behind_a_pattern_is_found_though_its_name_has_a_slash() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for id in ["openai/gpt-4.1-nano", "openai%2Fgpt-4.1-nano"] {
        let found = gateway.get(&format!("/v1/models/{id}")).expect(200).json();
        assert_eq!(found["id"], "openai/gpt-4.1-nano");
    }
}

#[test]
fn the_list_needs_a_key() {
    let gateway = TestGateway::with(Setup::bare()).start();
    gateway.call(Call::get("/v1/models").bearer("sk-tg-wrong")).expect_error(401, "invalid_api_key");
    let empty = gateway.get("/v1/models").expect(200).json();
    assert_eq!(empty["data"], serde_json::json!([]));
}
