//! `/admin/v1/tuning/quote` and `tunegate quote`: the published prices, real traffic, and what nobody knows.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::TUNEGATE;
use crate::support::multipart::Form;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually, training_rows};

const QUOTE: &str = "/admin/v1/tuning/quote";

fn ask(gateway: &TestGateway, body: &Value) -> Value {
    gateway.admin(Call::post(QUOTE, body)).expect(200).json()
}

/// 100,000 tokens in 500 rows, three passes.
fn figures() -> Value {
    json!({"billed_tokens": 100_000, "epochs": 3, "examples": 500, "assistant_tokens": 25_000})
}

#[test]
fn the_published_prices_come_out_on_their_days() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for (target, at, seconds, cost) in [
        ("openai/gpt-3.5-turbo", "2023-09-01", None, 2.4),
        ("azure/gpt-35-turbo", "2023-11-01", Some(4_800), 153.0),
        ("openai/gpt-4o-mini", "2024-09-23", None, 0.0),
        ("openai/gpt-4o-mini", "2024-09-24", None, 0.9),
    ] {
        let body = json!({"figures": figures(), "targets": [target], "at": at, "training_seconds": seconds});
        let quote = ask(&gateway, &body);
        let found = &quote["targets"][0];
        assert_eq!(found["training"]["cost_usd"], json!(cost), "{target} {at}: {found:#}");
        assert_eq!(found["standing"], "open", "{found:#}");
    }
    let body = json!({"figures": figures(), "targets": ["openai/gpt-9"]});
    let unknown = ask(&gateway, &body)["targets"][0]["training"]["unknown"].clone();
    let words = unknown.as_str().expect("no price");
    assert!(words.contains("tunegate prices set ft:gpt-9 --training"), "{words}");
}

#[test]
fn a_stored_file_is_quoted_at_the_routes_own_traffic() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    for _ in 0..3 {
        gateway.post("/v1/chat/completions", &chat("support-bot", "hello")).expect(200);
    }
    let form = Form::new().field("purpose", "fine-tune").file("file", "cat.jsonl", &training_rows(10));
    let upload = Call::new("POST", "/admin/v1/files").body(&form.content_type(), &form.bytes());
    let file = gateway.admin(upload).expect(200).json()["id"].as_str().expect("an id").to_owned();
    let body = json!({"file": file, "route": "support-bot", "epochs": 2, "prompt_tokens": 2_000});
    let quote = eventually("traffic in the quote", || {
        let quote = ask(&gateway, &body);
        (quote["traffic"]["requests"] == 3).then_some(quote)
    });
    assert_eq!((&quote["traffic"]["source"], &quote["terms"]["months"]), (&json!("ledger"), &json!(12)));
    let targets = quote["targets"].as_array().expect("targets");
    let mini = targets.iter().find(|target| target["target"] == "openai/gpt-4.1-mini").expect("a target");
    assert_eq!((&mini["dataset"]["examples"], &mini["dataset"]["epochs"]), (&json!(10), &json!(2)));
    let trained = mini["dataset"]["billed_tokens"].as_u64().expect("tokens") * 2;
    let cost = mini["training"]["cost_usd"].as_f64().expect("a price");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
    let want = trained as f64 * 5e-6;
    assert!((cost - want).abs() < 1e-9, "{cost} for {trained} tokens");
    assert!(mini["cheapest"].is_string() && mini["break_even"][0]["words"].is_string(), "{mini:#}");
    // a file on disk is counted by the command line, and its traffic is the gateway's
    let disk = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(disk.path(), training_rows(10)).expect("a file");
    let told = Command::new(TUNEGATE)
        .args(["quote", &disk.path().to_string_lossy(), "--route", "support-bot", "--format", "json"])
        .args(["--config", "tunegate.toml"])
        .current_dir(gateway.folder())
        .output()
        .expect("it starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    for name in ["source", "route", "requests", "prompt_tokens", "completion_tokens"] {
        assert_eq!(told["traffic"][name], quote["traffic"][name], "{name}");
    }

    let azure = targets.iter().find(|target| target["provider"] == "azure").expect("Azure trains, too");
    assert_eq!(azure["hosting_month_usd"], json!(1_224.0), "{azure:#}");
    let answer = quote["answer"].as_str().expect("an answer");
    assert!(answer.contains("with a longer prompt"), "{answer}");
}

#[test]
fn mistakes_are_told_all_at_once() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider)).start();
    let wrong = gateway.admin(Call::post(QUOTE, &json!({"epochs": 0, "month": 3}))).expect(422).json();
    let paths: Vec<&str> =
        wrong["errors"].as_array().expect("all").iter().filter_map(|one| one["path"].as_str()).collect();
    assert_eq!(paths, ["epochs", "file", "month"]);
    let targets = json!({"figures": figures(), "targets": ["azure/nowhere/gpt-4.1", "claude"]});
    let wrong = gateway.admin(Call::post(QUOTE, &targets)).expect(422).json();
    assert_eq!(wrong["errors"].as_array().map(Vec::len), Some(2), "{wrong}");
    gateway.admin(Call::post(QUOTE, &json!({"file": "file-nothing"}))).expect(404);
    let route = json!({"figures": figures(), "route": "nobody"});
    gateway.admin(Call::post(QUOTE, &route)).expect_error(404, "model_not_found");
}

#[test]
fn a_file_on_disk_is_quoted_without_a_gateway() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cat.jsonl"), training_rows(10)).expect("a file");
    let config = "[providers.openai]\nkind = \"openai\"\nbase_url = \"https://api.openai.com/v1\"\n\
                  api_key = { file = \"key\" }\n[worker]\nenabled = false\n\
                  [deployments.mini]\nprovider = \"openai\"\nmodel = \"gpt-4.1-mini\"\n\
                  [models.bot]\ndeployments = [\"mini\"]\n";
    std::fs::write(folder.path().join("tunegate.toml"), config).expect("a file");
    std::fs::write(folder.path().join("key"), "sk-test").expect("a file");
    let run = |more: &[&str]| {
        let arguments = [&["quote", "cat.jsonl", "--epochs", "3", "--at", "2026-11-22"][..], more].concat();
        let output =
            Command::new(TUNEGATE).args(arguments).current_dir(folder.path()).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let quote: Value = serde_json::from_str(&run(&["--format", "json"])).expect("JSON");
    let first = &quote["targets"][0];
    assert_eq!((&first["dataset"]["examples"], &quote["traffic"]["source"]), (&json!(10), &json!("dataset")));
    let closed = quote["targets"].as_array().and_then(|targets| targets.last()).expect("targets");
    assert_eq!(closed["standing"], "closed", "gpt-3.5-turbo and others have ended: {closed:#}");
    let words = run(&[]);
    for part in ["TARGET", "openai/gpt-4.1-mini", "closing", "turned off on 2026-10-23", "no route was named"]
    {
        assert!(words.contains(part), "{part} is not in:\n{words}");
    }
}
