//! The simulated fine-tuning by itself: a state that is not reached, or a fault that does not happen, would prove nothing.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::multipart::Form;
use crate::support::provider::tuning::{Account, Dialect, Pace, Provisioning, Route, Status};
use crate::support::provider::{Gate, SimulatedProvider, Trouble, UPSTREAM_KEY};
use crate::support::{Answer, Call, Connection, chat, eventually, training_rows};

const JOBS: &str = "/v1/fine_tuning/jobs";
const CLASSIC_JOBS: &str = "/openai/fine_tuning/jobs?api-version=2024-10-21";
const DEPLOYMENTS: &str =
    "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.CognitiveServices/accounts/a1/deployments";
const ARM_VERSION: &str = "?api-version=2025-09-01";

struct Client {
    provider: SimulatedProvider,
    key: String,
}

impl Client {
    fn new() -> Self {
        let provider = SimulatedProvider::start();
        provider.tuning().pace(Pace::Manual);
        Self { provider, key: UPSTREAM_KEY.to_owned() }
    }

    fn connect(&self) -> Connection {
        Connection::to(self.provider.url().trim_start_matches("http://").parse().expect("an address"))
    }

    fn call(&self, call: Call) -> Answer {
        self.connect().call(&call.bearer(&self.key))
    }

    fn get(&self, target: &str) -> Value {
        self.call(Call::get(target)).expect(200).json()
    }

    fn post(&self, target: &str, body: &Value) -> Answer {
        self.call(Call::post(target, body))
    }

    fn upload(&self, target: &str, purpose: &str, filename: &str, bytes: &[u8]) -> Answer {
        let form = Form::new().field("purpose", purpose).file("file", filename, bytes);
        self.call(Call::new("POST", target).body(&form.content_type(), &form.bytes()))
    }

    fn uploaded(&self, target: &str) -> String {
        id(&self.upload(target, "fine-tune", "train.jsonl", &training_rows(10)).json())
    }

    fn job(&self, more: Value) -> Value {
        let mut order = more;
        order["training_file"] = self.uploaded("/v1/files").into();
        if order["model"].is_null() {
            order["model"] = "gpt-4.1-mini".into();
        }
        self.post(JOBS, &order).expect(200).json()
    }

    fn status(&self, job: &str) -> Value {
        self.get(&format!("{JOBS}/{job}"))["status"].clone()
    }
}

fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap_or_else(|| panic!("no id in {shown}")).to_owned()
}

#[test]
fn an_openai_job_goes_from_its_file_to_its_model_and_is_billed_by_the_word() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let job = id(&client.job(json!({"suffix": "cat", "metadata": {"tunegate_job": "ours"}})));
    let shown = client.get(&format!("{JOBS}/{job}"));
    assert_eq!(
        (&shown["status"], &shown["model"]),
        (&json!("validating_files"), &json!("gpt-4.1-mini-2025-04-14"))
    );
    assert_eq!(shown["hyperparameters"]["n_epochs"], "auto");
    assert_eq!(shown["error"], json!({"code": null, "message": null, "param": null}));
    tuning.step();
    let shown = client.get(&format!("{JOBS}/{job}"));
    assert_eq!((&shown["status"], &shown["hyperparameters"]["n_epochs"]), (&json!("queued"), &json!(3)));
    assert_eq!(shown["method"]["supervised"]["hyperparameters"]["n_epochs"], 3);
    tuning.step();
    assert!(client.get(&format!("{JOBS}/{job}"))["estimated_finish"].is_i64());
    assert_eq!(tuning.training_bill(), [], "nothing is billed while it runs");
    tuning.until(Status::Succeeded);
    let shown = client.get(&format!("{JOBS}/{job}"));
    assert_eq!(shown["trained_tokens"], 8 * 10 * 3);
    let name = shown["fine_tuned_model"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("ft:gpt-4.1-mini-2025-04-14:acme:cat:"), "{name}");
    let bill = tuning.training_bill();
    assert_eq!((bill[0].tokens, bill[0].nanos, bill[0].is_told), (240, 240 * 5_000, true));
    assert_eq!((bill[0].job.as_str(), bill[0].tagged.as_deref()), (job.as_str(), Some("ours")));
    let result = client.get(&format!("{JOBS}/{job}"))["result_files"][0].as_str().expect("an id").to_owned();
    let content = client.call(Call::get(&format!("/v1/files/{result}/content"))).expect(200);
    let csv = base64::engine::general_purpose::STANDARD.decode(content.body).expect("base64");
    assert!(csv.starts_with(b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,"));
    assert_eq!(client.provider.requests().len(), 0, "calls of the tuning API are kept apart");
    client.post("/v1/chat/completions", &chat(&name, "hi")).expect(200);
    assert_eq!(client.provider.exchanges()[0].owed_nanos(), Some(800 + 6 * 3_200));
    let model = format!("/v1/models/{}", name.replace(':', "%3A"));
    assert_eq!(client.get(&model)["owned_by"], "org-acme");
    assert_eq!(client.call(Call::new("DELETE", &model)).expect(200).json()["deleted"], true);
    assert!(!tuning.models().contains(&name));
    client.post("/v1/chat/completions", &chat(&name, "hi")).expect_status_and_code(404, "model_not_found");
}

#[test]
fn events_are_newest_first_in_pages_and_checkpoints_are_the_last_three() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let job = id(&client.job(json!({"hyperparameters": {"n_epochs": 4, "batch_size": 5}})));
    tuning.until(Status::Succeeded);
    let (mut messages, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{JOBS}/{job}/events?limit=5{after}"));
        let events = page["data"].as_array().expect("events").clone();
        assert!(events.len() <= 5);
        after = format!("&after={}", id(events.last().expect("an event")));
        messages.extend(events);
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(messages[0]["message"], "The job has successfully completed");
    assert_eq!(messages.last().expect("one")["message"], format!("Created fine-tuning job: {job}"));
    let steps: Vec<&Value> = messages.iter().filter(|event| event["type"] == "metrics").collect();
    assert_eq!(steps.len(), 8, "two steps an epoch");
    assert_eq!((&steps[0]["data"]["step"], &steps[0]["data"]["total_steps"]), (&json!(8), &json!(8)));
    assert!(messages.iter().any(|event| event["type"] == "moderation_checks"));
    let checkpoints = client.get(&format!("{JOBS}/{job}/checkpoints"));
    let steps: Vec<&Value> =
        checkpoints["data"].as_array().expect("a list").iter().map(|found| &found["step_number"]).collect();
    assert_eq!(steps, [8, 6, 4]);
    assert_eq!(checkpoints["has_more"], false);
}

#[test]
fn a_paused_job_waits_and_a_cancelled_one_is_billed_for_what_was_done() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let job = id(&client.job(json!({})));
    client.post(&format!("{JOBS}/{job}/pause"), &json!({})).expect(400);
    tuning.until(Status::Running).step();
    client.post(&format!("{JOBS}/{job}/pause"), &json!({})).expect(200);
    assert_eq!(client.status(&job), "pausing");
    tuning.step().step();
    assert_eq!(client.status(&job), "paused");
    client.post(&format!("{JOBS}/{job}/resume"), &json!({})).expect(200);
    tuning.step();
    client.post(&format!("{JOBS}/{job}/cancel"), &json!({})).expect(200);
    let shown = client.get(&format!("{JOBS}/{job}"));
    assert_eq!((&shown["status"], &shown["trained_tokens"]), (&json!("cancelled"), &Value::Null));
    let bill = tuning.training_bill();
    assert_eq!((bill[0].tokens, bill[0].is_told), (160, false), "two epochs of three");
    client.post(&format!("{JOBS}/{job}/cancel"), &json!({})).expect(400);
    client.call(Call::new("DELETE", &format!("{JOBS}/{job}"))).expect(404);
}

#[test]
fn what_cannot_be_trained_is_refused_or_fails_with_its_reason() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    client.upload("/v1/files", "fine_tune", "train.jsonl", b"{}").expect(400);
    client.upload("/v1/files", "fine-tune", "train.txt", b"{}").expect(400);
    let file = client.uploaded("/v1/files");
    let order = |model: &str, more: Value| {
        let mut order = json!({"model": model, "training_file": file});
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            order[name] = value;
        }
        client.post(JOBS, &order)
    };
    let model = "gpt-4.1-mini";
    order("gpt-6-luna", json!({})).expect_status_and_code(400, "model_not_available");
    order(model, json!({"suffix": "x".repeat(65)})).expect(400);
    order(model, json!({"hyperparameters": {"n_epochs": 51}})).expect(400);
    client.post(JOBS, &json!({"model": model, "training_file": "file-none"})).expect(400);
    let fails = [
        (b"{\"messages\": []}\nno json\n".to_vec(), "Line 2 is not a dictionary"),
        (training_rows(9), "has 9 example(s), but must have at least 10 examples"),
    ];
    for (rows, reason) in fails {
        let file = id(&client.upload("/v1/files", "fine-tune", "bad.jsonl", &rows).expect(200).json());
        let job = id(&client.post(JOBS, &json!({"model": model, "training_file": file})).expect(200).json());
        tuning.until(Status::Failed);
        let error = client.get(&format!("{JOBS}/{job}"))["error"].clone();
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("invalid_training_file"), &json!("training_file"))
        );
        assert!(error["message"].as_str().is_some_and(|text| text.contains(reason)), "{error}");
    }
    tuning.next_job_fails(Status::Running, "server_error", "The machine broke.");
    let job = id(&client.job(json!({})));
    tuning.until(Status::Failed);
    assert_eq!(client.get(&format!("{JOBS}/{job}"))["error"]["message"], "The machine broke.");
    assert_eq!(tuning.training_bill(), [], "a failure is free at OpenAI");
    tuning.closes_training();
    order(model, json!({})).expect_status_and_code(403, "training_not_available");
}

#[test]
fn answers_are_lost_and_held_and_errors_come_as_the_test_says() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let order = json!({"model": "gpt-4.1-mini", "training_file": client.uploaded("/v1/files")});
    let call = Call::post(JOBS, &order).bearer(&client.key);
    tuning.fails_next(Route::CreateJob, Trouble::rate_limited(1)).loses_next_question(Route::CreateJob);
    assert_eq!(client.connect().call(&call).status, 429);
    assert!(client.connect().try_call(&call).is_none());
    assert_eq!(tuning.jobs().len(), 0, "nothing was done");
    tuning.loses_next_answer(Route::CreateJob);
    assert!(client.connect().try_call(&call).is_none());
    assert_eq!(tuning.jobs().len(), 1, "the work is done");
    let gate = Gate::new();
    tuning.holds_next_answer(Route::CreateJob, &gate);
    let mut connection = client.connect();
    connection.send(&call);
    eventually("the second job", || (tuning.jobs().len() == 2).then_some(()));
    gate.open();
    assert_eq!(connection.answer().status, 200);
    assert_eq!(tuning.count(Route::CreateJob), 4);
    let last = tuning.calls().pop().expect("a call");
    assert_eq!((last.method.as_str(), last.target.as_str(), last.body), ("POST", JOBS, order));
    let statuses: Vec<u16> =
        tuning.calls().iter().filter(|call| call.route == Route::CreateJob).map(|call| call.status).collect();
    assert_eq!(statuses, [429, 0, 200, 200]);
}

#[test]
fn lists_have_pages_and_filters() {
    let client = Client::new();
    let jobs: Vec<String> =
        ["a", "b", "c"].iter().map(|tag| id(&client.job(json!({"metadata": {"tag": tag}})))).collect();
    let ids = |list: &Value| list["data"].as_array().expect("a list").iter().map(id).collect::<Vec<_>>();
    let page = client.get(&format!("{JOBS}?limit=2"));
    assert_eq!((ids(&page), &page["has_more"]), (vec![jobs[2].clone(), jobs[1].clone()], &json!(true)));
    let page = client.get(&format!("{JOBS}?limit=2&after={}", jobs[1]));
    assert_eq!((ids(&page), &page["has_more"]), (vec![jobs[0].clone()], &json!(false)));
    assert_eq!(ids(&client.get(&format!("{JOBS}?metadata%5Btag%5D=b"))), [jobs[1].clone()]);
    assert_eq!(ids(&client.get("/v1/files?purpose=batch")), Vec::<String>::new());
    let files = client.get("/v1/files?limit=1&order=asc");
    assert_eq!((ids(&files).len(), &files["has_more"]), (1, &json!(true)));
    assert_eq!(files["first_id"], files["last_id"]);
    let file = ids(&files)[0].clone();
    assert_eq!(client.call(Call::get(&format!("/v1/files/{file}/content"))).body, training_rows(10));
    client.call(Call::new("DELETE", &format!("/v1/files/{file}"))).expect(200);
    client.call(Call::get(&format!("/v1/files/{file}"))).expect(404);
    let left = client.provider.tuning().files();
    assert_eq!((left.len(), left[0].filename.as_str(), left[0].account), (2, "train.jsonl", Account::OpenAi));
}

#[test]
fn a_file_may_come_in_parts() {
    let client = Client::new();
    let rows = training_rows(10);
    let begin = json!({"filename": "big.jsonl", "purpose": "fine-tune", "bytes": rows.len(),
        "mime_type": "application/jsonl"});
    let upload = id(&client.post("/v1/uploads", &begin).expect(200).json());
    let (first, second) = rows.split_at(100);
    let part = |bytes: &[u8]| {
        let form = Form::new().file("data", "blob", bytes);
        let call = Call::new("POST", &format!("/v1/uploads/{upload}/parts"));
        id(&client.call(call.body(&form.content_type(), &form.bytes())).expect(200).json())
    };
    let (second, first) = (part(second), part(first));
    let complete = format!("/v1/uploads/{upload}/complete");
    client.post(&complete, &json!({"part_ids": [second]})).expect(400);
    let whole = client.post(&complete, &json!({"part_ids": [first, second]})).expect(200).json();
    assert_eq!((&whole["status"], &whole["file"]["bytes"]), (&json!("completed"), &json!(rows.len())));
    client.post(&format!("/v1/uploads/{upload}/cancel"), &json!({})).expect(400);
}

#[test]
fn in_august_2023_it_spoke_otherwise() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    tuning.now(1_693_526_400_000).speaks(Dialect::August2023).counts(1_000).tells_no_tokens();
    let job = client.job(json!({"model": "gpt-3.5-turbo"}));
    assert_eq!((&job["status"], &job["model"]), (&json!("created"), &json!("gpt-3.5-turbo-0613")));
    assert_eq!(job["created_at"], 1_693_526_400);
    assert!(job.get("error").is_none() && job.get("seed").is_none() && job.get("method").is_none());
    tuning.step();
    assert_eq!(client.status(&id(&job)), "pending");
    tuning.until(Status::Succeeded);
    let job = client.get(&format!("{JOBS}/{}", id(&job)));
    assert_eq!(job["result_files"][0]["object"], "file");
    assert_eq!(job["trained_tokens"], Value::Null);
    let bill = tuning.training_bill();
    assert_eq!((bill[0].nanos, bill[0].is_told), (3 * 1_000 * 8_000, false));
}

#[test]
fn each_state_lasts_as_long_as_the_pace_says() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    tuning.now(1_000_000).pace(Pace::Every(Duration::from_secs(10))).chooses_epochs(1);
    let job = id(&client.job(json!({})));
    tuning.advance(Duration::from_secs(9));
    assert_eq!(client.status(&job), "validating_files");
    tuning.advance(Duration::from_secs(11));
    assert_eq!(client.status(&job), "running");
    assert_eq!(tuning.time_ms(), 1_020_000);
    tuning.pace(Pace::EveryPoll(2));
    let statuses: Vec<Value> = (0..4).map(|_| client.status(&job)).collect();
    assert_eq!(statuses, ["running", "running", "running", "succeeded"]);
}

#[test]
fn azures_classic_api_imports_first_and_has_words_of_its_own() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let files = "/openai/files?api-version=2024-10-21";
    let created = client.upload(files, "fine-tune", "train.jsonl", &training_rows(10)).expect(201);
    let file = id(&created.json());
    assert!(created.header("location").is_some_and(|at| at.contains(&file)), "{:?}", created.headers);
    assert_eq!((&created.json()["status"], &created.json()["bytes"]), (&json!("pending"), &Value::Null));
    let order = |more: Value| {
        let mut order = json!({"model": "gpt-4.1-mini-2025-04-14", "training_file": file, "suffix": "eu",
            "trainingType": "globalstandard"});
        order["hyperparameters"] = more;
        client.post(CLASSIC_JOBS, &order)
    };
    let early = order(json!({})).expect(400).json();
    assert_eq!((&early["error"]["code"], early["error"].get("type")), (&json!("invalidPayload"), None));
    tuning.step().step();
    order(json!({"n_epochs": "auto"})).expect(400);
    let created = order(json!({})).expect(201);
    assert!(created.header("location").is_some());
    let job = created.json();
    assert_eq!((&job["status"], &job["hyperparameters"]["n_epochs"]), (&json!("pending"), &json!(-1)));
    assert_eq!(
        (&job["organisation_id"], job.get("error"), job.get("finished_at")),
        (&json!("acme"), None, None)
    );
    let one = format!("/openai/fine_tuning/jobs/{}", id(&job));
    let at = |more: &str| format!("{one}{more}?api-version=2024-10-21");
    tuning.step();
    assert_eq!(client.get(&at(""))["status"], "notRunning");
    client.post(&at("/pause"), &json!({})).expect(404);
    client.call(Call::new("DELETE", &at(""))).expect(409);
    tuning.until(Status::Succeeded);
    let job = client.get(&at(""));
    let model = job["fine_tuned_model"].as_str().expect("a name").to_owned();
    assert!(model.starts_with("gpt-4.1-mini-2025-04-14.ft-") && model.ends_with("-eu"), "{model}");
    assert_eq!((&job["trainingType"], &job["trained_tokens"]), (&json!("globalstandard"), &json!(240)));
    let result = job["result_files"][0].as_str().expect("an id");
    let content = format!("/openai/files/{result}/content?api-version=2024-10-21");
    let csv = client.call(Call::get(&content)).expect(200).text();
    assert!(csv.starts_with("step,train_loss,train_mean_token_accuracy,valid_loss,validation_mean"), "{csv}");
    let events = client.get(&at("/events"));
    assert!(
        events["data"][0]["message"].as_str().is_some_and(|text| text.starts_with("Created")),
        "{events}"
    );
    let shown = client.get(&format!("/openai/models/{model}?api-version=2024-10-21"));
    assert_eq!(
        (&shown["fine_tune"], &shown["lifecycle_status"]),
        (&job["id"], &json!("generally-available"))
    );
    assert_eq!(
        client.call(Call::get(&format!("{JOBS}/{}", id(&job)))).status,
        404,
        "OpenAI knows nothing of it"
    );
    client.call(Call::new("DELETE", &at(""))).expect(204);
    client.call(Call::get(&one)).expect(404);
    client.call(Call::get("/openai/fine_tuning/jobs")).expect(404);
}

#[test]
fn azure_refuses_a_broken_file_at_its_import_and_bills_a_failure_to_its_last_checkpoint() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    let bad = client.upload("/openai/v1/files", "fine-tune", "bad.jsonl", b"nothing").expect(200).json();
    tuning.step().step();
    let bad = client.get(&format!("/openai/v1/files/{}", id(&bad)));
    assert_eq!(bad["status"], "error");
    assert!(bad["status_details"].as_str().is_some_and(|text| text.starts_with("jsonlValidationFailed")));
    let file = client.uploaded("/openai/v1/files");
    tuning.step().step();
    tuning.next_job_fails(Status::Paused, "internalFailure", "It broke.");
    let order =
        json!({"model": "gpt-4.1-mini", "training_file": file, "hyperparameters": {"n_epochs": "auto"}});
    let job = client.post("/openai/v1/fine_tuning/jobs", &order).expect(200).json();
    assert_eq!((&job["status"], job.get("organization_id")), (&json!("validating_files"), None));
    tuning.until(Status::Running).step();
    client.post(&format!("/openai/v1/fine_tuning/jobs/{}/pause", id(&job)), &json!({})).expect(200);
    tuning.until(Status::Failed);
    assert_eq!((tuning.training_bill()[0].tokens, tuning.training_bill()[0].account), (80, Account::Azure));
    let events = client.get(&format!("/openai/v1/fine_tuning/jobs/{}/events", id(&job)));
    let last = events["data"].as_array().expect("events").last().expect("one").clone();
    assert_eq!((&last["level"], &last["message"]), (&json!("warning"), &json!("The job failed: It broke.")));
}

/// A client of the control plane, with a token of its own.
fn control_plane(provider: &SimulatedProvider) -> Client {
    let mut client = Client { provider: provider.clone(), key: "none".to_owned() };
    client.call(Call::get(&format!("{DEPLOYMENTS}{ARM_VERSION}"))).expect(401);
    let form = "grant_type=client_credentials&client_id=c&client_secret=s&scope=";
    let token = |scope: &str| {
        let call = Call::new("POST", "/tenant/oauth2/v2.0/token");
        let body = format!("{form}{scope}");
        let answer = client.connect().call(&call.body("application/x-www-form-urlencoded", body.as_bytes()));
        answer.expect(200).json()["access_token"].as_str().expect("a token").to_owned()
    };
    assert!(token("https%3A%2F%2Fcognitiveservices.azure.com%2F.default").starts_with("data-token-"));
    client.key = token("https%3A%2F%2Fmanagement.azure.com%2F.default");
    client
}

fn deployment(model: &str, sku: &str) -> Value {
    json!({"sku": {"name": sku, "capacity": 10},
        "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}}})
}

#[test]
fn a_deployment_comes_stands_and_goes() {
    let client = Client::new();
    let tuning = client.provider.tuning();
    tuning.now(1_767_225_600_000).deployments_lag(1).deployments_per_page(1);
    let file = client.uploaded("/openai/v1/files");
    tuning.step().step();
    let order = json!({"model": "gpt-4.1-mini", "training_file": file});
    client.post("/openai/v1/fine_tuning/jobs", &order).expect(200);
    tuning.until(Status::Succeeded);
    let model = tuning.jobs()[0].fine_tuned_model.clone().expect("a model");
    let arm = control_plane(&client.provider);
    let at = |name: &str| format!("{DEPLOYMENTS}/{name}{ARM_VERSION}");
    let put = |name: &str, model: &str, sku: &str| {
        let body = deployment(model, sku).to_string();
        arm.call(Call::new("PUT", &at(name)).body("application/json", body.as_bytes()))
    };
    put("cat", "gpt-4.1-mini.ft-unknown", "Standard").expect(400);
    let created = put("cat", &model, "GlobalStandard").expect(201);
    assert_eq!(created.json()["systemData"]["createdAt"], "2026-01-01T00:00:00Z");
    assert_eq!(created.json()["properties"]["provisioningState"], "Creating");
    let operation = created.header("azure-asyncoperation").expect("where it is polled").to_owned();
    let operation = &operation[operation.find("/subscriptions").expect("a path")..];
    assert_eq!(arm.get(operation)["status"], "InProgress");
    assert_eq!(put("dog", &model, "DeveloperTier").expect(409).json()["error"]["code"], "RequestConflict");
    let ask = || client.post("/openai/v1/chat/completions", &chat("cat", "hi"));
    ask().expect_status_and_code(404, "DeploymentNotFound");
    tuning.step();
    assert_eq!(arm.get(operation)["status"], "Succeeded");
    ask().expect_status_and_code(404, "DeploymentNotFound");
    let probe = json!({"model": "cat", "messages": []});
    client.post("/openai/v1/chat/completions", &probe).expect(400);
    assert_eq!(ask().expect(200).json()["model"], model.as_str());
    assert_eq!(client.provider.exchanges().last().expect("one").owed_nanos(), Some(400 + 6 * 1_600));
    let delete_model = Call::new("DELETE", &format!("/openai/v1/models/{model}"));
    client.call(delete_model).expect(409);
    put("dog", &model, "DeveloperTier").expect(201);
    tuning.next_deployment_fails().step();
    put("pig", &model, "Standard").expect(201);
    tuning.step();
    assert_eq!(arm.get(&at("pig"))["properties"]["provisioningState"], "Failed");
    let scale = json!({"sku": {"name": "GlobalStandard", "capacity": 20}}).to_string();
    let scale = Call::new("PATCH", &at("cat")).body("application/json", scale.as_bytes());
    assert_eq!(arm.call(scale).expect(200).json()["sku"]["capacity"], 20);
    let (mut names, mut next) = (Vec::new(), format!("{DEPLOYMENTS}{ARM_VERSION}"));
    loop {
        let page = arm.get(&next);
        names.push(page["value"][0]["name"].clone());
        let Some(link) = page["nextLink"].as_str() else { break };
        next = link[link.find("/subscriptions").expect("a path")..].to_owned();
    }
    assert_eq!(names, ["cat", "dog", "pig"]);
    tuning.advance(Duration::from_secs(24 * 3_600));
    arm.call(Call::get(&at("dog"))).expect(404);
    ask().expect(200);
    tuning.advance(Duration::from_secs(15 * 24 * 3_600));
    ask().expect_status_and_code(404, "DeploymentNotFound");
    arm.call(Call::new("DELETE", &at("cat"))).expect(204);
    put("cow", &model, "Standard").expect(201);
    tuning.step();
    arm.call(Call::new("DELETE", &at("cow"))).expect(202);
    tuning.step();
    arm.call(Call::get(&at("cow"))).expect(404);
    let all = tuning.deployments();
    assert!(all.iter().all(|deployment| deployment.state == Provisioning::Gone), "{all:#?}");
    let (cat, dog) = (&all[0], &all[1]);
    assert_eq!((cat.model.as_str(), cat.sku.as_str(), cat.capacity), (model.as_str(), "GlobalStandard", 20));
    assert_eq!(cat.gone_ms, Some(cat.created_ms + (1 + 15) * 24 * 3_600_000));
    assert_eq!(dog.gone_ms, Some(dog.created_ms + 24 * 3_600_000));
}
