//! What requests, keys and operators say about the cache.

use serde_json::{Value, json};

use super::{CHAT, did, keeping, key, question, streamed};
use crate::support::{Call, SimulatedProvider, TestGateway};

#[test]
fn a_request_may_want_it_new_or_leave_nothing() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let ask = |words: &str, header: Option<&str>, cache: Option<Value>| {
        let mut body = question(words);
        if let Some(cache) = cache {
            body["cache"] = cache;
        }
        let call = Call::post(CHAT, &body);
        let call = if let Some(header) = header { call.header("cache-control", header) } else { call };
        let answer = gateway.call(gateway.signed(call)).expect(200);
        let (result, reason) = did(&answer);
        (result.to_owned(), reason.map(str::to_owned))
    };
    let what = |result: &str, reason: Option<&str>| (result.to_owned(), reason.map(str::to_owned));
    assert_eq!(ask("a", Some("no-store"), None), what("bypass", Some("no_store")));
    assert_eq!(ask("a", None, None), what("miss", None), "nothing was left there");
    assert_eq!(ask("a", Some("no-store"), None), what("hit", None), "but what is there will do");
    assert_eq!(ask("a", Some("no-cache"), None), what("bypass", Some("no_cache")));
    assert_eq!(ask("a", None, Some(json!({"no-cache": true}))), what("bypass", Some("no_cache")));
    assert_eq!(ask("a", Some("max-age=600"), None), what("hit", None));
    assert_eq!(ask("a", Some("max-age=0"), None), what("bypass", Some("no_cache")));
    assert_eq!(ask("a", None, Some(json!({"namespace": "mine"}))), what("miss", None));
    assert_eq!(ask("a", None, Some(json!({"namespace": "mine", "ttl": 5}))), what("hit", None));
    assert_eq!(ask("a", None, Some(json!({"s-maxage": 100}))), what("hit", None));
    for request in provider.requests() {
        assert_eq!(request.json().get("cache"), None, "it is ours to know");
    }
    let mut wrong = question("a");
    wrong["cache"] = json!({"ttl": "long"});
    let error = gateway.post(CHAT, &wrong).expect_error(400, "invalid_cache_control");
    assert_eq!(error["param"], "cache.ttl");
    let wrong = Call::post(CHAT, &question("a")).header("cache-control", "max-age=soon");
    gateway.call(gateway.signed(wrong)).expect_error(400, "invalid_cache_control");
}

#[test]
fn a_new_answer_takes_the_place_of_the_one_before() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    provider.says("the first");
    gateway.post(CHAT, &question("a")).expect(200);
    provider.says("the second");
    let fresh = gateway.signed(Call::post(CHAT, &question("a")).header("cache-control", "no-cache"));
    assert!(gateway.call(fresh).expect(200).text().contains("the second"));
    let hit = gateway.post(CHAT, &question("a")).expect(200);
    assert_eq!(did(&hit).0, "hit");
    assert!(hit.text().contains("the second"));
}

#[test]
fn a_new_stream_takes_the_place_of_the_one_before() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    provider.says("the first");
    gateway.post(CHAT, &streamed("a")).expect(200);
    provider.says("the second");
    let fresh = gateway.signed(Call::post(CHAT, &streamed("a")).header("cache-control", "no-cache"));
    assert_eq!(did(&gateway.call(fresh).expect(200)), ("bypass", Some("no_cache")));
    let hit = gateway.post(CHAT, &question("a")).expect(200);
    assert_eq!(did(&hit).0, "hit");
    assert!(hit.text().contains("the second"), "{}", hit.text());
}

#[test]
fn requests_whose_answers_are_drawn_anew_are_left_alone() {
    let provider = SimulatedProvider::start();
    let any = "[models.any]\ndeployments = [\"keeper\"]\n\
               cache = { ttl_s = 60, any_temperature = true, tool_calls = true }\n";
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60").and(any)).start();
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for (changes, reason) in [
        (json!({"temperature": 0.7}), Some("temperature")),
        (json!({"temperature": null}), Some("temperature")),
        (json!({"tools": tools}), Some("tools")),
        (json!({"store": true}), Some("stored_state")),
        (json!({"model": "support-bot"}), Some("off")),
        (json!({"model": "any", "temperature": 0.7}), None),
        (json!({"model": "any", "tools": tools}), None),
    ] {
        let mut body = question("a");
        for (name, value) in changes.as_object().expect("members") {
            body[name] = value.clone();
        }
        for expected in [("miss", None), ("hit", None)] {
            let answer = gateway.post(CHAT, &body).expect(200);
            match reason {
                Some(reason) => assert_eq!(did(&answer), ("bypass", Some(reason)), "{changes}"),
                None => assert_eq!(did(&answer), expected, "{changes}"),
            }
        }
    }
}

#[test]
fn a_key_may_be_kept_from_it() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60, scope = \"shared\"")).start();
    let keys: Vec<String> = ["on", "read_only", "off"]
        .iter()
        .map(|used| key(&gateway, &json!({"alias": used, "cache": used})))
        .collect();
    let ask = |key: &str| gateway.call(Call::post(CHAT, &question("a")).bearer(key)).expect(200);
    assert_eq!(did(&ask(&keys[1])), ("miss", None));
    assert_eq!(did(&ask(&keys[0])), ("miss", None), "who only reads leaves nothing");
    assert_eq!(did(&ask(&keys[1])), ("hit", None));
    assert_eq!(did(&ask(&keys[2])), ("bypass", Some("key")));
}

#[test]
fn operators_see_it_and_empty_it() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    for words in ["a", "b"] {
        gateway.post(CHAT, &question(words)).expect(200);
    }
    let standing = gateway.admin(Call::get("/admin/v1/cache")).expect(200).json();
    assert_eq!(standing["entries"], 2, "{standing}");
    assert_eq!(did(&gateway.post(CHAT, &streamed("a")).expect(200)).0, "hit");
    let other = gateway.admin(Call::new("DELETE", "/admin/v1/cache?model=support-bot")).expect(200).json();
    assert_eq!(other["purged"], 0);
    let gone = gateway.admin(Call::new("DELETE", "/admin/v1/cache?model=kept")).expect(200).json();
    assert_eq!(gone["purged"], 2, "{gone}");
    assert_eq!(did(&gateway.post(CHAT, &question("a")).expect(200)).0, "miss");
}
