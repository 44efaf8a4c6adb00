//! `/admin/v1/cache`: how much is kept, and letting it go.

use serde_json::{Value, json};

use super::{CHAT, did, keeping, question};
use crate::support::{Call, SimulatedProvider, TestGateway};

const CACHE: &str = "/admin/v1/cache";

fn purge(query: &str) -> Call {
    Call::new("DELETE", &format!("{CACHE}?{query}"))
}

#[test]
fn what_is_purged_is_asked_for_again_at_once() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    let ask = |words: &str| gateway.post(CHAT, &question(words)).expect(200);
    let entry = ask("one").header("x-tunegate-cache-key").expect("told").to_owned();
    ask("two");
    let standing = gateway.admin(Call::get(CACHE)).expect(200).json();
    assert_eq!(
        (&standing["entries"], &standing["limit_bytes"]),
        (&json!(2), &json!(256 << 20)),
        "{standing}"
    );
    let model = &standing["models"][0];
    assert_eq!(
        (&model["model"], &model["entries"], &model["bytes"]),
        (&json!("kept"), &json!(2), &standing["bytes"])
    );
    let purged = |query: &str| gateway.admin(purge(query)).expect(200).json()["purged"].clone();
    for query in ["model=other", "deployment=other", "prompt=support", "older_than_s=3600"] {
        assert_eq!(purged(query), json!(0), "{query}");
    }
    assert_eq!(purged(&format!("entry={entry}&model=kept")), json!(1));
    assert_eq!((did(&ask("one")).0, did(&ask("two")).0), ("miss", "hit"));
    assert_eq!(purged("deployment=keeper"), json!(2));
    assert_eq!((did(&ask("one")).0, did(&ask("two")).0), ("miss", "miss"));
    let keys = gateway.admin(Call::get("/admin/v1/keys")).expect(200).json();
    let alias = keys["data"][0]["alias"].as_str().expect("an alias").to_owned();
    assert_eq!(purged(&format!("key={alias}")), json!(2));
    ask("one");
    assert_eq!(purged("all=true"), json!(1));
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    assert!(metrics.contains("tunegate_cache_evictions_total{cause=\"purged\"} 6\n"), "{metrics}");
    assert!(metrics.contains("tunegate_cache_entries 0\n"), "{metrics}");
    let audit = gateway.admin(Call::get("/admin/v1/audit")).expect(200).json();
    let row = &audit["data"][0];
    assert_eq!((&row["action"], &row["detail"]["purged"]), (&json!("cache.purge"), &json!(1)), "{row}");
}

#[test]
fn a_purge_says_which_answers_it_means() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(keeping(&provider, "ttl_s = 60")).start();
    for (query, words) in [
        ("", "say which answers go"),
        ("all=true&model=kept", "say which answers go"),
        ("all=yes", "all: \"yes\" is none of true"),
        ("entry=abc", "entry: \"abc\" is no key of an answer"),
        ("older_than_s=0", "older_than_s: \"0\" is no number"),
        ("route=kept", "route: there is no such parameter"),
    ] {
        let refused = gateway.admin(purge(query)).expect(400).json();
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with(words), "{query}: {message}");
    }
    let unknown = gateway.admin(purge("key=nobody")).expect(404).json();
    assert_eq!(unknown["error"]["code"], json!("key_not_found"));
    let standing = gateway.admin(Call::get(CACHE)).expect(200).json();
    assert_eq!((&standing["entries"], &standing["models"]), (&json!(0), &Value::Array(Vec::new())));
}
