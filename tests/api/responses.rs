//! `POST /v1/responses`, and the routes of a stored response, which stay with the deployment that made it.

use serde_json::json;

use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::{Call, Reply, Setup, SimulatedProvider, TestGateway};

const PATH: &str = "/v1/responses";

#[test]
fn a_whole_answer_is_metered_under_its_own_names() {
    let provider = SimulatedProvider::start();
    provider.thinks(8);
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"model": "thinker", "input": "how many crates", "instructions": "be brief"});
    let answer = gateway.post(PATH, &body).expect(200);
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], "Four crates fit on the pallet.");
    let outcome = gateway.outcome_of(&answer.request_id());
    let usage = json!({"prompt_tokens": 5, "cached_tokens": 0, "cache_write_tokens": 0, "audio_prompt_tokens": 0,
        "completion_tokens": 14, "reasoning_tokens": 8, "audio_completion_tokens": 0,
        "compute_us": 0, "source": "reported"});
    assert_eq!((&outcome["endpoint"], &outcome["usage"]), (&json!("responses"), &usage));
}

#[test]
fn a_stream_keeps_both_lines_of_each_event_and_is_metered_by_its_last() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let body = json!({"model": "support-bot", "input": "hi", "stream": true});
    let answer = gateway.post(PATH, &body).expect(200);
    let events = answer.events();
    assert!(events.iter().all(|event| event.json()["type"] == event.name.as_str()), "{}", answer.text());
    let last = events.last().expect("events");
    assert_eq!(last.name, "response.completed");
    assert_eq!(
        last.json()["response"]["usage"]["output_tokens"],
        6,
        "usage is part of the event, asked or not"
    );
    let sent = provider.last_request().json();
    assert_eq!(sent["stream_options"], json!(null), "include_usage is no member of this endpoint");
    assert_eq!(gateway.outcome_of(&answer.request_id())["usage"]["source"], "reported");
}

#[test]
fn a_stored_response_is_found_and_deleted_where_it_was_made() {
    let (here, there) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = Setup::in_front_of(&here).watched(&there).model(
        "other",
        &format!("{}/v1", there.url()),
        "api_key = { file = \"upstream.key\" }",
        "",
    );
    let gateway = TestGateway::with(setup).start();
    here.says("made here");
    there.says("made there");
    let make = |model: &str| {
        let made = gateway.post(PATH, &json!({"model": model, "input": "hi"})).expect(200).json();
        made["id"].as_str().expect("an id").to_owned()
    };
    // The other provider counts from 0 too; one more request here makes the ids differ.
    let (first, second, third) = (make("support-bot"), make("support-bot"), make("other"));
    for (id, text) in [(&second, "made here"), (&third, "made there")] {
        let found = gateway.get(&format!("{PATH}/{id}")).expect(200).json();
        assert_eq!(found["output"][0]["content"][0]["text"], text, "{id}, first was {first}");
    }
    gateway.call(Call::new("DELETE", &format!("{PATH}/{third}"))).expect(200);
    assert_eq!(there.last_request().method, "DELETE");
    assert_eq!(there.last_request().header("authorization"), Some(format!("Bearer {UPSTREAM_KEY}").as_str()));
}

#[test]
fn a_conversation_goes_on_where_it_began() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let first = gateway.post(PATH, &json!({"model": "support-bot", "input": "hi"})).expect(200).json();
    let body = json!({"model": "support-bot", "input": "and then", "previous_response_id": first["id"]});
    gateway.post(PATH, &body).expect(200);
    assert_eq!(provider.last_request().json()["previous_response_id"], first["id"]);
}

#[test]
fn a_response_that_nobody_made_is_not_found() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let answer = gateway.get(&format!("{PATH}/resp_unknown"));
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
}

#[test]
fn a_stream_that_fails_upstream_says_so_in_its_own_words() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let written = "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":1,\"response\":\
                   {\"id\":\"resp_x\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"x\"},\
                   \"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}}}\n\n";
    provider.replies(Reply::stream(vec![written.as_bytes().to_vec()], 3, 2));
    let answer = gateway.post(PATH, &json!({"model": "support-bot", "input": "hi", "stream": true}));
    let error = answer.expect_error(503, "upstream_failed");
    assert!(error["message"].as_str().is_some_and(|words| words.ends_with(": x")), "its own words: {error}");
    let outcome = gateway.outcome_of(&answer.request_id());
    assert_eq!(outcome["cost_usd"], json!(0.0000088), "it says what it used: {outcome:#}");
}

#[test]
fn a_stored_response_that_our_credential_cannot_read_is_the_operators_business() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let made = gateway.post(PATH, &json!({"model": "support-bot", "input": "hi"})).expect(200).json();
    let target = format!("{PATH}/{}", made["id"].as_str().expect("an id"));
    for (trouble, status, code) in [
        (Trouble::unauthorized(), 502, "upstream_auth_failed"),
        (Trouble::forbidden(), 502, "upstream_auth_failed"),
        (Trouble::quota_used_up(), 503, "upstream_quota"),
    ] {
        provider.fails(trouble);
        gateway.get(&target).expect_error(status, code);
    }
    gateway.get(&target).expect(200);
}

#[test]
fn what_names_a_file_goes_where_the_file_was_made_and_only_for_its_own_key() {
    let (maker, other) = (SimulatedProvider::start(), SimulatedProvider::start());
    let key = "api_key = { file = \"upstream.key\" }";
    let setup = Setup::in_front_of(&maker)
        .watched(&other)
        .model("other", &format!("{}/v1", other.url()), key, "")
        .and("[models.both]\ndeployments = [\"other\", \"support-v3\"]\n");
    let gateway = TestGateway::with(setup).start();
    let made = json!({"id": "resp_file", "object": "response", "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "",
            "annotations": [{"type": "container_file_citation", "file_id": "cfile_1"}]}]}],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}});
    maker.replies(Reply::json(200, &made).billed(3, 4));
    gateway.post(PATH, &json!({"model": "support-bot", "input": "draw"})).expect(200);
    let named = |id: &str| json!({"model": "both", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": id}]}]});
    gateway.post(PATH, &named("cfile_1")).expect(200);
    assert_eq!((maker.requests().len(), other.requests().len()), (2, 0), "it went where the file is");
    gateway.post(PATH, &named("file-from-elsewhere")).expect(200);
    assert_eq!(other.requests().len(), 1, "a file that nobody made here binds nothing");
    gateway
        .post(PATH, &json!({"model": "other", "input": [{"file_id": "cfile_1"}]}))
        .expect_error(400, "invalid_value");
    let second = gateway.admin(Call::post("/admin/v1/keys", &json!({"alias": "second"}))).expect(201).json();
    let body = named("cfile_1");
    let call = Call::post(PATH, &body).bearer(second["key"].as_str().expect("a key"));
    gateway.call(call).expect_error(404, "file_not_found");
}
