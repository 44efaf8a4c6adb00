//! `/admin/v1/prompts`, and prompts that are kept in files.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Call, Setup, TestGateway};

const PROMPTS: &str = "/admin/v1/prompts";

fn put(gateway: &TestGateway, target: &str, body: &Value) -> crate::support::Answer {
    let call = Call::new("PUT", target).body("application/json", body.to_string().as_bytes());
    gateway.admin(call)
}

#[test]
fn a_prompt_from_its_first_version_to_the_archive() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let first = json!({"name": "support", "text": "Be kind.", "label": "production", "author": "ann"});
    let made = gateway.admin(Call::post(PROMPTS, &first)).expect(201).json();
    assert_eq!(
        (&made["version"], &made["labels"], &made["made"]),
        (&json!(1), &json!(["production"]), &json!(true))
    );
    let again = gateway.admin(Call::post(PROMPTS, &first)).expect(200).json();
    assert_eq!((&again["version"], &again["made"]), (&json!(1), &json!(false)));
    let second = json!({"name": "support", "text": "Be brief.", "note": "shorter"});
    gateway.admin(Call::post(PROMPTS, &second)).expect(201);

    let label = format!("{PROMPTS}/support/labels/production");
    put(&gateway, &label, &json!({"version": 2, "expected": 2})).expect_error(409, "label_moved");
    put(&gateway, &label, &json!({"version": 3})).expect_error(404, "prompt_version_not_found");
    let refused = put(&gateway, &label, &json!({"versoin": 2}));
    refused.expect_error(422, "invalid_body");
    assert_eq!(refused.json()["errors"].as_array().map(Vec::len), Some(2), "{}", refused.text());
    let moved =
        put(&gateway, &label, &json!({"version": 2, "expected": 1, "note": "better"})).expect(200).json();
    assert_eq!(moved["labels"]["production"]["version"], 2);

    let version =
        gateway.admin(Call::get(&format!("{PROMPTS}/support/versions/production"))).expect(200).json();
    assert_eq!((&version["text"], &version["note"]), (&json!("Be brief."), &json!("shorter")));
    let diff = gateway.admin(Call::get(&format!("{PROMPTS}/support/diff?from=1&to=production"))).expect(200);
    assert!(diff.text().contains("-Be kind.") && diff.text().contains("+Be brief."), "{}", diff.text());
    let history = gateway.admin(Call::get(&format!("{PROMPTS}/support/history"))).expect(200).json();
    assert_eq!((&history["moves"][0]["from"], &history["moves"][0]["note"]), (&json!(1), &json!("better")));
    assert_eq!(history["versions"].as_array().map(Vec::len), Some(2));
    let render = format!("{PROMPTS}/support/render");
    let rendered = gateway.admin(Call::post(&render, &json!({"version": 1}))).expect(200).json();
    assert_eq!(rendered["text"], "Be kind.");
    let cost =
        gateway.admin(Call::get(&format!("{PROMPTS}/support/cost?from=2026-11-01"))).expect(200).json();
    assert_eq!((&cost["requests"], &cost["days"]), (&json!(0), &json!([])));
    gateway.admin(Call::get(&format!("{PROMPTS}/support/cost?form=1"))).expect_error(400, "invalid_query");
    let list = gateway.admin(Call::get(PROMPTS)).expect(200).json();
    assert_eq!((&list["data"][0]["name"], &list["data"][0]["last_version"]), (&json!("support"), &json!(2)));
    let log = gateway.admin(Call::get("/admin/v1/audit")).expect(200).json();
    assert!(log.to_string().contains("prompt.move_label"), "{log}");

    gateway.admin(Call::new("DELETE", &format!("{PROMPTS}/support"))).expect(200);
    gateway.admin(Call::get(&format!("{PROMPTS}/support"))).expect_error(404, "prompt_not_found");
}

#[test]
fn every_mistake_in_a_prompt_is_named_and_nothing_is_kept() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let wrong = json!({"name": "a@b", "text": "{{ who }}", "labl": "x", "variables": [{"name": 1}]});
    let refused = gateway.admin(Call::post(PROMPTS, &wrong));
    refused.expect_error(422, "invalid_body");
    let paths: Vec<Value> =
        refused.json()["errors"].as_array().into_iter().flatten().map(|one| one["path"].clone()).collect();
    assert_eq!(paths, ["labl", "name", "variables[0].name"], "{}", refused.text());
    let list = json!({"prompts": [{"name": "fine", "text": "x"}, {"name": "bad", "text": "{% if"}]});
    put(&gateway, PROMPTS, &list).expect_error(422, "invalid_body");
    assert_eq!(gateway.admin(Call::get(PROMPTS)).expect(200).json()["data"], json!([]));
}

#[test]
fn a_folder_is_carried_out_at_the_start_and_at_each_reload() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| fs::write(folder.path().join("support.md"), text).expect("written");
    write("+++\nnote = \"first\"\n+++\nBe kind.\n");
    let setup = Setup::bare().and(&format!("[prompts]\nfolder = {:?}\n", folder.path()));
    let gateway = TestGateway::with(setup).start();
    let production =
        || gateway.admin(Call::get(&format!("{PROMPTS}/support/versions/production"))).expect(200).json();
    assert_eq!((&production()["text"], &production()["author"]), (&json!("Be kind."), &json!("file")));
    let label = format!("{PROMPTS}/support/labels/production");
    let error = put(&gateway, &label, &json!({"version": 1}));
    assert_eq!(error.status, 200, "it is there: {}", error.text());
    gateway.admin(Call::post(PROMPTS, &json!({"name": "support", "text": "Other."}))).expect(201);
    let refused = put(&gateway, &label, &json!({"version": 2})).expect_error(409, "declared_in_file");
    assert!(refused.to_string().contains("support.md"), "{refused}");

    write("Be brief.\n");
    gateway.reload().expect(200);
    assert_eq!((&production()["text"], &production()["version"]), (&json!("Be brief."), &json!(3)));
    write("Be {{ nobody }}.\n");
    let refused = gateway.reload();
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("support.md: text: line 1"), "{}", refused.text());
    assert_eq!(production()["version"], 3, "as before");
}
