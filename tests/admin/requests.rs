//! `/admin/v1/requests`.

use serde_json::json;

use crate::support::{Call, Gate, Reply, Setup, SimulatedProvider, TestGateway, chat, eventually};

const PATH: &str = "/v1/chat/completions";
const REQUESTS: &str = "/admin/v1/requests";

#[test]
fn recent_requests_come_newest_first_and_as_many_as_asked_for() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let ids: Vec<String> = (0..5)
        .map(|_| {
            let id = gateway.post(PATH, &chat("support-bot", "hi")).expect(200).request_id();
            gateway.outcome_of(&id);
            id
        })
        .collect();
    let list = gateway.admin(Call::get(&format!("{REQUESTS}?limit=2"))).expect(200).json();
    assert_eq!((&list["object"], &list["in_flight"]), (&json!("list"), &json!(0)));
    let newest: Vec<&str> =
        list["data"].as_array().expect("rows").iter().filter_map(|row| row["request_id"].as_str()).collect();
    assert_eq!(newest, [ids[4].as_str(), ids[3].as_str()]);
}

#[test]
fn no_word_of_a_prompt_or_an_answer_is_kept_or_logged() {
    let provider = SimulatedProvider::start();
    provider.says("Xylophonanswer");
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    gateway.post(PATH, &chat("support-bot", "Xylophonprompt")).expect(200);
    gateway.outcomes();
    let list = gateway.admin(Call::get(REQUESTS)).expect(200).text();
    for text in [list, gateway.log()] {
        assert!(!text.contains("Xylophon"), "{text}");
    }
}

#[test]
fn requests_in_flight_are_counted() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let gate = Gate::new();
    provider.replies(Reply::usual().waits_for(&gate)).replies(Reply::usual().waits_for(&gate));
    let mut waiting =
        [gateway.send(PATH, &chat("support-bot", "a")), gateway.send(PATH, &chat("support-bot", "b"))];
    provider.await_requests(2);
    let in_flight = || gateway.admin(Call::get(REQUESTS)).expect(200).json()["in_flight"].clone();
    eventually("two in flight", || (in_flight() == json!(2)).then_some(()));
    gate.open();
    for connection in &mut waiting {
        connection.answer().expect(200);
    }
    eventually("none in flight", || (in_flight() == json!(0)).then_some(()));
}

#[test]
fn unknown_admin_paths_and_odd_limits_are_refused() {
    let gateway = TestGateway::with(Setup::bare()).start();
    gateway.admin(Call::get("/admin/v1/nonsense")).expect(404);
    gateway.admin(Call::get("/v1/models")).expect(404);
    for odd in ["limit=many", "limit=-1", "limit=99999999999999999999", "limit=1&limit=2"] {
        gateway.admin(Call::get(&format!("{REQUESTS}?{odd}"))).expect_error(400, "invalid_limit");
    }
    gateway.admin(Call::new("DELETE", "/admin/v1/keys/%ff")).expect_error(404, "key_not_found");
}
