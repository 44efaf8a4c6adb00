//! Registered models: whose they are, how they come into a route and out of it, and their end.

use serde_json::{Value, json};

use super::{JOBS, Tuner, at_openai, id, key_of};
use crate::support::journal::Session;
use crate::support::provider::tuning::Route;
use crate::support::{Answer, Call, Gate, Setup, SimulatedProvider, TestGateway, chat, eventually};

const MODELS: &str = "/admin/v1/models";

/// A route with one deployment of the configuration.
fn with_route(provider: &SimulatedProvider) -> Setup {
    at_openai(provider).and(
        "\n[deployments.mini]\nprovider = \"openai\"\nmodel = \"gpt-4.1-mini-2025-04-14\"\n\
         \n[models.support-bot]\ndeployments = [\"mini\"]\naliases = [\"helpdesk\"]\n",
    )
}

/// A model's place in paths.
fn place(model: &str) -> String {
    format!("{MODELS}/{}", model.replace(':', "%3A"))
}

fn promote(gateway: &TestGateway, model: &str, body: &Value) -> Answer {
    gateway.admin(Call::post(&format!("{}/promote", place(model)), body))
}

/// Who would be asked for a name.
fn order(gateway: &TestGateway, name: &str) -> Vec<String> {
    let route =
        gateway.admin(Call::get(&format!("/admin/v1/routes/{}", name.replace(':', "%3A")))).expect(200);
    let deployments = route.json()["deployments"].as_array().cloned().unwrap_or_default();
    deployments.iter().map(|one| one["deployment"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn trained(tuner: &Tuner<'_>) -> String {
    let job = tuner.job("gpt-4.1-mini-2025-04-14");
    let ended = tuner.await_status(&job, "succeeded");
    ended["fine_tuned_model"].as_str().expect("a model").to_owned()
}

#[test]
fn a_job_makes_a_model_that_only_its_owner_can_ask() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(with_route(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let model = trained(&tuner);
    let shown = gateway.admin(Call::get(&place(&model))).expect(200).json();
    for (name, want) in
        [("object", "registered_model"), ("stage", "candidate"), ("provider", "openai"), ("name", &model)]
    {
        assert_eq!(shown[name], want, "{shown:#}");
    }
    assert!(shown["training_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{shown:#}");
    assert!(shown["curve"].as_array().is_some_and(|curve| !curve.is_empty()), "{shown:#}");

    // the moments are those of the job
    let job = &tuner.get(JOBS)["data"][0];
    let made = tuner.get(&format!("{JOBS}/{}/checkpoints", id(job)))["data"][0].clone();
    let created = |name: &Value| {
        let name = name.as_str().expect("a name").replace(':', "%3A");
        tuner.get(&format!("/v1/models/{name}"))["created"].clone()
    };
    assert_eq!(created(&job["fine_tuned_model"]), job["finished_at"]);
    assert_eq!(created(&made["fine_tuned_model_checkpoint"]), made["created_at"]);
    assert_eq!(created(&json!("support-bot")), 0, "nobody knows");

    let ask =
        |key: &str| gateway.call(Call::post("/v1/chat/completions", &chat(&model, "hello")).bearer(key));
    ask(&tuner.key).expect(200);
    let foreign = key_of(&gateway, "sales", "delete_models");
    ask(&foreign).expect_error(404, "model_not_found");
    let listed = |key: &str| gateway.call(Call::get("/v1/models").bearer(key)).expect(200).text();
    assert!(listed(&tuner.key).contains(&model) && !listed(&foreign).contains(&model));
    let delete = |key: &str| gateway.call(Call::new("DELETE", &format!("/v1/models/{model}")).bearer(key));
    delete(&foreign).expect_error(404, "model_not_found");
    delete(&key_of(&gateway, "support", "write")).expect_error(403, "tuning_not_allowed");
    assert_eq!(provider.tuning().count(Route::DeleteModel), 0);
    let deleted = delete(&tuner.key).expect(200).json();
    assert_eq!(deleted, json!({"id": model, "object": "model", "deleted": true}));
    ask(&tuner.key).expect_error(404, "model_not_found");
    assert!(!provider.tuning().models().contains(&model));
}

#[test]
fn a_model_is_registered_with_all_that_is_known_of_it_or_later() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(with_route(&provider)).start();
    let (tuner, tuning, held) = (Tuner::new(&gateway), provider.tuning(), Gate::new());
    tuning.holds_next_answer(Route::FileContent, &held);
    let job = tuner.job("gpt-4.1-mini-2025-04-14");
    eventually("its results are fetched", || (tuning.count(Route::FileContent) == 1).then_some(()));
    // what was found in its file can't be read for a while
    let url = gateway.database_url();
    Session::on(&url).run("ALTER TABLE files RENAME COLUMN report TO away");
    held.open();
    eventually("it is tried again", || {
        let events = tuner.get(&format!("{JOBS}/{job}/events")).to_string();
        events.contains("can't be used right now").then_some(())
    });
    Session::on(&url).run("ALTER TABLE files RENAME COLUMN away TO report");
    let ended = tuner.await_status(&job, "succeeded");
    let model = ended["fine_tuned_model"].as_str().expect("a model");
    let shown = gateway.admin(Call::get(&place(model))).expect(200).json();
    assert_eq!(shown["system_prompt"], "You are a cat.", "{shown:#}");
    assert_eq!(shown["dataset_sha256"].as_str().map(str::len), Some(64), "{shown:#}");
}

#[test]
fn a_model_comes_into_a_route_and_out_of_it_over_a_reload_and_a_restart() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(with_route(&provider)).start();
    let model = trained(&Tuner::new(&gateway));
    let moved = promote(&gateway, &model, &json!({"route": "helpdesk", "note": "try it"})).expect(200).json();
    assert_eq!(
        (&moved["route"], &moved["candidate_is_asked_by"]),
        (&json!("support-bot"), &json!("support-bot@candidate"))
    );
    gateway.post("/v1/chat/completions", &chat("support-bot@candidate", "hello")).expect(200);
    assert_eq!(gateway.last_outcome()["deployment"], model.as_str());
    let moved = promote(&gateway, &model, &json!({"route": "support-bot", "percent": 30})).expect(200).json();
    assert!(moved["plan"].as_str().is_some_and(|plan| plan.contains("30 %")), "{moved:#}");
    promote(&gateway, &model, &json!({"route": "support-bot"})).expect(200);
    assert_eq!(order(&gateway, "support-bot"), [model.as_str(), "mini"]);
    gateway.post("/v1/chat/completions", &chat("support-bot", "hello")).expect(200);
    assert_eq!(gateway.last_outcome()["deployment"], model.as_str());
    let explained = gateway
        .admin(Call::post("/admin/v1/routes/support-bot/explain", &chat("support-bot", "hello")))
        .expect(200);
    assert_eq!(explained.json()["order"][0]["deployment"], model.as_str(), "{}", explained.text());
    let in_use = gateway.admin(Call::new("DELETE", &place(&model))).expect_error(409, "conflict");
    assert!(in_use.to_string().contains("models retire"), "{in_use}");

    assert_eq!(gateway.reload().expect(200).json()["changed"], false);
    assert_eq!(order(&gateway, "support-bot"), [model.as_str(), "mini"]);
    gateway.stop();
    gateway.start_again();
    assert_eq!(order(&gateway, "support-bot"), [model.as_str(), "mini"]);

    let rollback =
        Call::post("/admin/v1/model-moves/rollback", &json!({"route": "support-bot", "author": "ann"}));
    let back = gateway.admin(rollback).expect(200).json();
    assert_eq!((&back["undoes"], &back["author"]), (&json!(3), &json!("ann")));
    assert_eq!(order(&gateway, "support-bot"), ["mini", model.as_str()], "a canary again");
    gateway.admin(Call::post(&format!("{}/retire", place(&model)), &json!({}))).expect(200);
    assert_eq!(order(&gateway, "support-bot"), ["mini"]);
    let history = gateway.admin(Call::get("/admin/v1/model-moves?route=support-bot")).expect(200).json();
    let kinds: Vec<&str> =
        history["data"].as_array().into_iter().flatten().filter_map(|row| row["kind"].as_str()).collect();
    assert_eq!(kinds, ["retire", "rollback", "promote", "promote", "promote"]);
    gateway.admin(Call::new("DELETE", &place(&model))).expect(200);
    gateway.admin(Call::get(&place(&model))).expect_error(404, "model_not_found");
}

#[test]
fn every_mistake_of_a_move_is_named() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(with_route(&provider)).start();
    promote(&gateway, "ft:nobody", &json!({"route": "support-bot"})).expect_error(404, "model_not_found");
    let model = trained(&Tuner::new(&gateway));
    promote(&gateway, &model, &json!({"route": "nowhere"})).expect_error(404, "route_not_found");
    let refused = promote(&gateway, &model, &json!({"to": "top", "percent": 100, "x": 1}));
    refused.expect_error(422, "invalid_body");
    let paths: Vec<Value> =
        refused.json()["errors"].as_array().into_iter().flatten().map(|one| one["path"].clone()).collect();
    assert_eq!(paths, ["percent", "route", "to", "x"], "{}", refused.text());
    let deploy = json!({"name": "support-ft", "tier": "developer"});
    let refused = gateway.admin(Call::post(&format!("{}/deploy", place(&model)), &deploy));
    refused.expect_error(409, "not_possible");
    let nothing = Call::post("/admin/v1/model-moves/rollback", &json!({"route": "support-bot"}));
    gateway.admin(nothing).expect_error(409, "nothing_to_undo");
}
