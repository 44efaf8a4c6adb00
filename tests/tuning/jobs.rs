//! Jobs: what is refused before any provider is asked, the money that is held and settled, wishes, and OpenAI's shapes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{FILES, JOBS, Tuner, at_openai, id, upload};
use crate::support::provider::Trouble;
use crate::support::provider::tuning::{Pace, Route, Status};
use crate::support::{Answer, Call, SimulatedProvider, TestGateway, eventually};

/// A budget for training alone.
fn budget(limit_usd: &str) -> String {
    format!(
        "\n[budgets.training]\nlimit_usd = \"{limit_usd}\"\nwindow = \"total\"\n\
         scope = {{ purpose = \"training\" }}\n"
    )
}

impl Tuner<'_> {
    /// A file of ten rows that has been checked; its id.
    #[track_caller]
    fn checked_file(&self) -> String {
        let file = self.file();
        self.await_file(&file, "processed");
        file
    }

    #[track_caller]
    fn await_file(&self, file: &str, status: &str) {
        eventually(&format!("{file} is {status}"), || {
            (self.get(&format!("{FILES}/{file}"))["status"] == status).then_some(())
        });
    }

    fn order(&self, order: &Value) -> Answer {
        self.call(Call::post(JOBS, order))
    }

    fn wish(&self, job: &str, word: &str) -> Answer {
        self.call(Call::post(&format!("{JOBS}/{job}/{word}"), &json!({})))
    }

    #[track_caller]
    fn messages(&self, job: &str) -> Vec<String> {
        let events = self.get(&format!("{JOBS}/{job}/events?limit=100"));
        let list = events["data"].as_array().cloned().unwrap_or_default();
        list.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn supervised(model: &str, file: &str, epochs: impl Into<Value>) -> Value {
    json!({"model": model, "training_file": file, "method": {"type": "supervised", "supervised":
        {"hyperparameters": {"n_epochs": epochs.into()}}}})
}

#[test]
fn a_job_has_openais_shape_from_its_first_answer_to_its_results() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let (training, validation) = (tuner.checked_file(), tuner.checked_file());
    let order = json!({"model": "gpt-4.1-mini", "training_file": training, "validation_file": validation,
        "suffix": "cat", "seed": 7, "metadata": {"for": "tests"},
        "integrations": [{"type": "wandb", "wandb": {"project": "cats"}}],
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}});
    let made = tuner.order(&order).expect(200).json();
    let job = id(&made);
    assert!(job.starts_with("ftjob-"));
    for (name, want) in [
        ("object", json!("fine_tuning.job")),
        ("model", json!("gpt-4.1-mini")),
        ("status", json!("validating_files")),
        ("finished_at", Value::Null),
        ("fine_tuned_model", Value::Null),
        ("training_file", json!(training)),
        ("validation_file", json!(validation)),
        ("result_files", json!([])),
        ("trained_tokens", Value::Null),
        ("seed", json!(7)),
        ("metadata", json!({"for": "tests"})),
        ("integrations", order["integrations"].clone()),
        ("error", json!({"code": null, "message": null, "param": null})),
        ("user_provided_suffix", json!("cat")),
    ] {
        assert_eq!(made[name], want, "{name} of {made:#}");
    }
    assert_eq!(made["hyperparameters"]["n_epochs"], 2);
    assert!(made["tunegate"]["held_usd"].as_f64().is_some_and(|held| held > 0.0), "{made:#}");

    provider.tuning().pace(Pace::EveryPoll(1));
    let ended = tuner.await_status(&job, "succeeded");
    let at_provider = provider.tuning().jobs();
    assert_eq!(at_provider[0].order["metadata"]["tunegate_job"], job.as_str());
    assert_eq!(at_provider[0].order["suffix"], "cat");
    assert!(at_provider[0].validation_file.is_some());
    assert_eq!(ended["trained_tokens"], at_provider[0].tokens_per_epoch * 2);
    let model = ended["fine_tuned_model"].as_str().expect("a model");
    assert!(ended["finished_at"].is_i64() && model.contains(":cat:"), "{ended:#}");
    assert_eq!(ended["tunegate"]["held_usd"], 0.0);

    let events = tuner.get(&format!("{JOBS}/{job}/events?limit=100"));
    let list = events["data"].as_array().expect("events");
    assert!(list.iter().all(|event| event["object"] == "fine_tuning.job.event"));
    let is_step = |event: &Value| event["type"] == "metrics" && event["data"]["step"].is_u64();
    assert!(list.iter().any(is_step), "{events:#}");
    let first = list.last().expect("the first");
    assert_eq!(first["message"], format!("Created fine-tuning job: {job}"));
    let page = tuner.get(&format!("{JOBS}/{job}/events?limit=2"));
    assert_eq!((&page["data"][0], &page["has_more"]), (&list[0], &json!(true)));
    let next = tuner.get(&format!("{JOBS}/{job}/events?limit=1&after={}", id(&list[1])));
    assert_eq!(next["data"][0], list[2]);

    let checkpoints = tuner.get(&format!("{JOBS}/{job}/checkpoints"));
    let made = &checkpoints["data"][0];
    assert_eq!(made["object"], "fine_tuning.job.checkpoint");
    assert_eq!((&made["fine_tuning_job_id"], &checkpoints["first_id"]), (&json!(job), &made["id"]));
    let result = ended["result_files"][0].as_str().expect("a result file");
    assert_eq!(tuner.get(&format!("{FILES}/{result}"))["purpose"], "fine-tune-results");
    let content = tuner.call(Call::get(&format!("{FILES}/{result}/content"))).expect(200).text();
    let table = STANDARD.decode(content.trim()).expect("base64, as at OpenAI");
    let table = String::from_utf8(table).expect("text");
    assert!(table.starts_with("step,train_loss"), "{table}");
    eventually("no copy is left at the provider", || {
        provider.tuning().files().iter().all(|file| file.purpose != "fine-tune").then_some(())
    });
}

#[test]
fn what_is_wrong_is_refused_before_any_provider_is_asked() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let file = tuner.checked_file();
    let broken = id(&tuner.call(upload(FILES, b"{\"messages\": 3}\n")).expect(200).json());
    tuner.await_file(&broken, "error");
    let mut refusals = Vec::new();
    for (order, status, param) in [
        (json!({"training_file": file}), 400, json!("model")),
        (json!({"model": "gpt-4.1-mini"}), 400, json!("training_file")),
        (json!({"model": "gpt-4.1-mini", "training_file": "file-none"}), 404, Value::Null),
        (supervised("gpt-4.1-mini", &file, 51), 400, json!("method.supervised.hyperparameters.n_epochs")),
        (supervised("nobody-trains-this", &file, 1), 400, json!("model")),
        (json!({"model": "gpt-4.1-mini", "training_file": file, "n_epoch": 1}), 400, json!("n_epoch")),
        (supervised("openai/no-price-is-known", &file, 1), 403, json!("model")),
        (supervised("gpt-4.1-mini", &broken, 1), 400, json!("training_file")),
    ] {
        let answer = tuner.order(&order);
        assert_eq!(answer.status, status, "{order}: {}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(error["param"], param, "{order}: {error}");
        refusals.push(error["message"].as_str().expect("words").to_owned());
    }
    assert!(refusals[6].contains("tunegate prices set"), "{refusals:#?}");
    assert!(refusals[7].contains("messages"), "the check's reason: {refusals:#?}");
    assert_eq!(provider.tuning().calls().len(), 0);
    assert_eq!(tuner.get(JOBS)["data"], json!([]));
}

#[test]
fn a_job_on_a_file_that_turns_out_bad_never_comes_to_the_provider() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let broken = id(&tuner.call(upload(FILES, b"{\"messages\": 3}\n")).expect(200).json());
    let answer = tuner.order(&supervised("gpt-4.1-mini", &broken, 1));
    match answer.status {
        200 => {
            let failed = tuner.await_status(&id(&answer.json()), "failed");
            assert_eq!(failed["error"]["param"], "training_file");
            assert_eq!(failed["error"]["code"], "invalid_training_file");
        }
        // it was checked already
        status => assert_eq!(status, 400, "{}", answer.text()),
    }
    assert_eq!(provider.tuning().count(Route::UploadFile), 0);
}

#[test]
fn a_budget_that_can_t_pay_refuses_the_job_and_nothing_comes_of_it() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider).and(&budget("0.0001"))).start();
    let tuner = Tuner::new(&gateway);
    let refused = tuner.order(&supervised("gpt-4.1-mini", &tuner.checked_file(), 3));
    assert_eq!(refused.status, 429, "{}", refused.text());
    let error = refused.json()["error"].clone();
    assert_eq!(
        (&error["type"], &error["budget"]["name"]),
        (&json!("insufficient_quota"), &json!("training"))
    );
    assert_eq!(tuner.get(JOBS)["data"], json!([]));
    assert_eq!(provider.tuning().calls().len(), 0);
}

#[test]
fn auto_epochs_are_held_anew_or_end_the_job() {
    let provider = SimulatedProvider::start();
    // ten rows: the recipe guesses ten epochs
    provider.tuning().chooses_epochs(2).pace(Pace::EveryPoll(2));
    let gateway = TestGateway::with(at_openai(&provider).and(&budget("0.03"))).start();
    let tuner = Tuner::new(&gateway);
    let file = tuner.checked_file();
    let job = id(&tuner.order(&supervised("gpt-4.1-mini", &file, "auto")).expect(200).json());
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!(ended["hyperparameters"]["n_epochs"], 2);
    let held = tuner.messages(&job).iter().filter(|message| message.contains("are held for it")).count();
    assert_eq!(held, 2, "{:#?}", tuner.messages(&job));

    provider.tuning().chooses_epochs(49);
    let job = id(&tuner.order(&supervised("gpt-4.1-mini", &file, "auto")).expect(200).json());
    let ended = tuner.await_status(&job, "cancelled");
    assert_eq!(ended["error"]["code"], "insufficient_quota", "{ended:#}");
    assert_eq!(provider.tuning().jobs()[1].status, Status::Cancelled);
}

#[test]
fn a_job_is_cancelled_wherever_it_is_and_once_is_enough() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    for (before, status) in [Status::Validating, Status::Queued, Status::Running].into_iter().enumerate() {
        let job = tuner.job("gpt-4.1-mini");
        eventually("it is there", || (provider.tuning().jobs().len() > before).then_some(()));
        provider.tuning().until(status);
        // the answer may be faster than the provider's
        tuner.wish(&job, "cancel").expect(200);
        tuner.await_status(&job, "cancelled");
        assert_eq!(tuner.wish(&job, "cancel").expect(200).json()["status"], "cancelled");
        tuner.wish(&job, "resume").expect_error(409, "conflict");
    }
    assert!(provider.tuning().jobs().iter().all(|job| job.status == Status::Cancelled));
}

#[test]
fn a_job_pauses_and_goes_on() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("gpt-4.1-mini");
    eventually("it is there", || (provider.tuning().jobs().len() == 1).then_some(()));
    provider.tuning().until(Status::Running).step();
    tuner.await_status(&job, "running");
    tuner.wish(&job, "pause").expect(200);
    // only what was told there goes on to a pause
    eventually("a pause", || {
        matches!(tuner.shown(&job)["status"].as_str(), Some("pausing" | "paused")).then_some(())
    });
    provider.tuning().until(Status::Paused);
    tuner.await_status(&job, "paused");
    assert_eq!(tuner.wish(&job, "pause").expect(200).json()["status"], "paused", "once is enough");
    tuner.wish(&job, "resume").expect(200);
    provider.tuning().pace(Pace::EveryPoll(1));
    tuner.await_status(&job, "succeeded");
}

#[test]
fn checkpoints_of_a_job_that_trains_are_told_meanwhile() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("gpt-4.1-mini");
    eventually("it is there", || (provider.tuning().jobs().len() == 1).then_some(()));
    let passed = |epochs: u64| {
        while provider.tuning().jobs()[0].epochs_done < epochs {
            provider.tuning().step();
        }
    };
    let fetched = || provider.tuning().count(Route::JobCheckpoints);
    provider.tuning().until(Status::Running);
    tuner.await_status(&job, "running");
    assert_eq!(fetched(), 0, "nobody has asked, and no epoch has passed");
    // that one has passed is seen without a client; this time in vain
    provider.tuning().fails_next(Route::JobCheckpoints, Trouble::openai(503, "server_error", None, "Busy."));
    passed(1);
    eventually("its checkpoints are asked for", || (fetched() == 1).then_some(()));
    let listed =
        || tuner.get(&format!("{JOBS}/{job}/checkpoints"))["data"].as_array().expect("a list").clone();
    // whoever asks makes us ask again
    let first = eventually("the first is told", || listed().first().cloned());
    passed(2);
    let both = eventually("the second is told", || Some(listed()).filter(|listed| listed.len() == 2));
    assert_eq!(both[1], first, "under the same id");
    assert_eq!(tuner.shown(&job)["status"], "running");
    provider.tuning().pace(Pace::EveryPoll(1));
    tuner.await_status(&job, "succeeded");
    assert_eq!(listed()[1..], both[..]);
}

/// Where they can't be had at the job's end, the model has those that were fetched on the way.
#[test]
fn checkpoints_that_are_known_outlive_a_provider_that_tells_them_no_more() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("gpt-4.1-mini");
    eventually("it is there", || (provider.tuning().jobs().len() == 1).then_some(()));
    while provider.tuning().jobs()[0].epochs_done < 1 {
        provider.tuning().step();
    }
    let listed =
        || tuner.get(&format!("{JOBS}/{job}/checkpoints"))["data"].as_array().expect("a list").clone();
    let first = eventually("the first is told", || listed().first().cloned());
    for _ in 0..100 {
        let busy = Trouble::openai(503, "server_error", None, "Busy.");
        provider.tuning().fails_next(Route::JobCheckpoints, busy);
    }
    provider.tuning().pace(Pace::EveryPoll(1));
    let ended = tuner.await_status(&job, "succeeded");
    let model = ended["fine_tuned_model"].as_str().expect("a model");
    let place = format!("/admin/v1/models/{}", model.replace(':', "%3A"));
    let shown = eventually("it is registered", || {
        Some(gateway.admin(Call::get(&place))).filter(|answer| answer.status == 200)
    });
    let kept = &shown.json()["checkpoints"];
    assert_eq!(kept[0]["name"], first["fine_tuned_model_checkpoint"], "{kept:#}");
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "{kept:#}");
}

#[test]
fn what_the_provider_does_not_say_is_estimated() {
    let provider = SimulatedProvider::start();
    provider.tuning().tells_no_tokens();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("gpt-4.1-mini");
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!(ended["trained_tokens"], Value::Null);
    assert_eq!(ended["tunegate"]["source"], "estimated");
    assert!(ended["tunegate"]["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{ended:#}");
}

#[test]
fn the_provider_s_no_comes_in_its_words_and_ours() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let error = Trouble::openai(400, "invalid_request_error", Some("model_not_available"), "No such base.");
    provider.tuning().fails_next(Route::CreateJob, error);
    let job = tuner.job("gpt-4.1-mini");
    let failed = tuner.await_status(&job, "failed");
    assert_eq!(failed["error"]["message"], "the provider says: No such base.");
    provider.tuning().closes_training();
    let job = tuner.job("gpt-4.1-mini");
    let failed = tuner.await_status(&job, "failed");
    assert_eq!(failed["error"]["code"], "training_not_available");
    let words = failed["error"]["message"].as_str().expect("words");
    assert!(words.starts_with("the provider says: ") && words.contains("azure/RESOURCE/MODEL"), "{words}");
    assert_eq!(failed["tunegate"]["cost_usd"], 0.0);
}

#[test]
fn the_same_key_makes_the_same_job() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let file = tuner.checked_file();
    let order = |epochs: u64| {
        let order = supervised("gpt-4.1-mini", &file, epochs);
        tuner.call(Call::post(JOBS, &order).header("Idempotency-Key", "k1"))
    };
    let first = id(&order(2).expect(200).json());
    assert_eq!(id(&order(2).expect(200).json()), first);
    order(3).expect_error(409, "conflict");
    tuner.await_status(&first, "succeeded");
    assert_eq!(provider.tuning().jobs().len(), 1);
}

#[test]
fn jobs_are_listed_in_pages_and_by_metadata() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let file = tuner.checked_file();
    let mut jobs = Vec::new();
    for metadata in [json!({"name": "a"}), json!({"name": "b"}), json!({"name": "a"}), Value::Null] {
        let mut order = supervised("gpt-4.1-mini", &file, 1);
        order["metadata"] = metadata;
        jobs.insert(0, id(&tuner.order(&order).expect(200).json()));
    }
    let ids = |query: &str| -> (Vec<String>, bool) {
        let page = tuner.get(&format!("{JOBS}{query}"));
        let ids = page["data"].as_array().expect("a list").iter().map(id).collect();
        (ids, page["has_more"].as_bool().expect("said"))
    };
    assert_eq!(ids(""), (jobs.clone(), false));
    assert_eq!(ids("?limit=3"), (jobs[..3].to_vec(), true));
    assert_eq!(ids(&format!("?limit=3&after={}", jobs[2])), (jobs[3..].to_vec(), false));
    assert_eq!(ids("?metadata%5Bname%5D=a"), (vec![jobs[1].clone(), jobs[3].clone()], false));
    assert_eq!(ids("?metadata=null"), (vec![jobs[0].clone()], false));
    tuner.call(Call::get(&format!("{JOBS}?limit=0"))).expect(400);
    tuner.call(Call::get(&format!("{JOBS}?after=ftjob-none"))).expect(400);
    let kept = tuner.call(Call::new("DELETE", &format!("{JOBS}/{}", jobs[0])));
    assert!(kept.status == 404 && kept.text().contains("DELETE /v1/models/"), "{}", kept.text());
    for job in &jobs {
        tuner.await_status(job, "succeeded");
    }
}
