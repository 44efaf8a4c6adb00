//! `/admin/v1/ledger`, `/admin/v1/spend`, and the commands that ask them.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::TUNEGATE;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

const CHAT: &str = "/v1/chat/completions";
const LEDGER: &str = "/admin/v1/ledger";
const SPEND: &str = "/admin/v1/spend";

fn rows(gateway: &TestGateway, target: &str) -> Vec<Value> {
    let list = gateway.admin(Call::get(target)).expect(200).json();
    list["data"].as_array().cloned().unwrap_or_else(|| panic!("{list}"))
}

/// What was booked, once as many settlements are.
fn booked(gateway: &TestGateway, count: usize) -> Vec<Value> {
    eventually("the settlements", || {
        let entries = rows(gateway, &format!("{LEDGER}?kind=usage"));
        (entries.len() >= count).then_some(entries)
    })
}

fn tunegate(gateway: &TestGateway, arguments: &[&str]) -> Output {
    Command::new(TUNEGATE)
        .args(arguments)
        .args(["--config", "tunegate.toml"])
        .current_dir(gateway.folder())
        .stdin(Stdio::null())
        .output()
        .expect("the binary under test starts")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_request_is_in_the_ledger_in_the_spend_and_in_sound_books() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let ids: Vec<String> =
        (0..3).map(|_| gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id()).collect();
    let entries = booked(&gateway, 3);
    assert_eq!(entries[0]["request_id"], ids[2], "the latest first");
    assert_eq!(
        (&entries[0]["model"], &entries[0]["deployment"]),
        (&json!("support-bot"), &json!("support-v3"))
    );
    let cost = entries[0]["cost_usd"].as_f64().expect("a number");
    assert!(cost > 0.0, "{}", entries[0]);

    let of_one = rows(&gateway, &format!("{LEDGER}/{}", ids[0]));
    let kinds: Vec<&str> = of_one.iter().filter_map(|entry| entry["kind"].as_str()).collect();
    assert_eq!(kinds, ["hold", "usage"]);
    assert_eq!(of_one[1]["of"], of_one[0]["seq"]);
    let one = rows(&gateway, &format!("{LEDGER}/{}", of_one[1]["seq"]));
    assert_eq!(one, [of_one[1].clone()]);

    let page = gateway.admin(Call::get(&format!("{LEDGER}?kind=usage&limit=2"))).expect(200).json();
    assert_eq!(page["has_more"], true);
    let before = &page["data"][1]["seq"];
    assert_eq!(rows(&gateway, &format!("{LEDGER}?kind=usage&before={before}")), entries[2..]);
    assert!(rows(&gateway, &format!("{LEDGER}?model=nobody")).is_empty());
    assert!(rows(&gateway, &format!("{LEDGER}/unconfirmed")).is_empty());

    let spend = rows(&gateway, &format!("{SPEND}?by=key,model"));
    assert_eq!(spend.len(), 1);
    assert_eq!((&spend[0]["model"], &spend[0]["requests"]), (&json!("support-bot"), &json!(3)));
    let total = spend[0]["cost_usd"].as_f64().expect("a number");
    assert!((total - 3.0 * cost).abs() < 1e-12, "{total} for 3 × {cost}");
    assert!(rows(&gateway, &format!("{SPEND}?until=2020-01-01")).is_empty());

    let audit = gateway.admin(Call::get(&format!("{LEDGER}/audit"))).expect(200).json();
    assert_eq!((&audit["difference_count"], &audit["open_holds"]), (&json!(0), &json!(0)), "{audit}");

    for (arguments, words) in [
        (&["spend", "--by", "model"][..], &["BY", "support-bot"][..]),
        (&["spend", "--csv"], &["key,model,cost_usd,", "support-bot,"]),
        (&["spend", "--json"], &["\"requests\":3"]),
        (&["ledger", "list"], &["NUMBER", "usage", &ids[0]]),
        (&["ledger", "show", &ids[1]], &["hold", "usage"]),
        (&["ledger", "unconfirmed"], &["NUMBER"]),
        (&["ledger", "audit"], &["difference_count"]),
    ] {
        let text = said(&tunegate(&gateway, arguments));
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
}

#[test]
fn tables_come_as_csv_too() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let id = gateway.post(CHAT, &chat("support-bot", "hi")).expect(200).request_id();
    booked(&gateway, 1);
    for (target, head) in [
        (format!("{LEDGER}?format=csv"), "seq,kind,at_ms,"),
        (format!("{LEDGER}/unconfirmed?format=csv"), "seq,kind,at_ms,"),
        (format!("{SPEND}?format=csv&by=day,tag"), "day,tag,cost_usd,"),
    ] {
        let answer = gateway.admin(Call::get(&target)).expect(200);
        assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"), "{target}");
        assert!(answer.text().starts_with(head), "{target}: {}", answer.text());
    }
    let all = gateway.admin(Call::get(&format!("{LEDGER}?format=csv"))).expect(200).text();
    assert!(all.contains(&id) && all.ends_with("\r\n"), "{all}");
}

#[test]
fn every_mistake_in_a_question_is_told() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let answer = gateway.admin(Call::get(&format!("{LEDGER}?kind=gift&limit=0&from=tomorrow&odd=1")));
    let text = answer.expect_error(400, "invalid_query").to_string();
    for word in ["kind", "limit", "from", "odd"] {
        assert!(text.contains(&format!("{word}: ")), "{word}: {text}");
    }
    let by = gateway.admin(Call::get(&format!("{SPEND}?by=colour")));
    assert!(by.expect_error(400, "invalid_query").to_string().contains("none of key, key_id, team"));
    for nobody in ["req_0", "99", "%ff"] {
        gateway.admin(Call::get(&format!("{LEDGER}/{nobody}"))).expect_error(404, "entry_not_found");
    }
    gateway.call(Call::get(LEDGER)).expect(404);
    let without_key = Call::get(&format!("{LEDGER}/audit")).bearer("sk-tg-wrong");
    gateway.admin(without_key).expect_error(401, "invalid_admin_key");
}
