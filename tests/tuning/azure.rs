//! The same flow at Azure, on both of its APIs: a file is imported first, words and numbers differ, and a model needs a
//! deployment before it answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{JOBS, QUICK, Tuner, id};
use crate::support::journal::Entry;
use crate::support::provider::tuning::{Account, Rounding, Route, Status};
use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, eventually};

/// What Azure charges in the provider's books: no list of ours has its regional prices.
const TOKEN_NANOS: u64 = 5_000;

/// What is trained there, as a client asks for it.
pub(super) const AZURE_MODEL: &str = "azure/acme-swe/gpt-4.1-mini-2025-04-14";

/// A gateway in front of a provider that trains at Azure's paths.
pub(super) fn at_azure(provider: &SimulatedProvider, api: &str) -> Setup {
    provider.tuning().trains("gpt-4.1-mini", TOKEN_NANOS);
    let version = if api == "classic" { "api_version = \"2024-10-21\"\n" } else { "" };
    let sections = format!(
        r#"
[providers.azure]
kind = "azure"
base_url = "{0}"
api = "{api}"
{version}api_key = {{ file = "upstream.key" }}

[providers.azure.training]
resource = "acme-swe"
training_type = "globalstandard"

[providers.azure.training.arm]
subscription_id = "11111111-2222-3333-4444-555555555555"
resource_group = "tuning"
account = "acme-swe"
endpoint = "{0}"
poll_ms = 100
entra = {{ kind = "client_secret", tenant_id = "tenant-1", client_id = "client-1", client_secret = {{ file = "secret" }}, authority = "{0}" }}
"#,
        provider.url()
    );
    Setup::bare()
        .file("upstream.key", UPSTREAM_KEY)
        .file("secret", "s3cret")
        .watched(provider)
        .and(&sections)
        .and(QUICK)
}

/// Starts it, and sets the price of training as the refusal without one says.
#[track_caller]
fn start(provider: &SimulatedProvider, api: &str) -> TestGateway {
    let gateway = TestGateway::with(at_azure(provider, api)).start();
    price_training(&gateway);
    gateway
}

/// Sets what training costs there.
#[track_caller]
pub(super) fn price_training(gateway: &TestGateway) {
    let price = json!({"input_per_1m_usd": "0.4", "output_per_1m_usd": "1.6", "training_per_1m_usd": "5",
        "hosting_per_hour_usd": "1.7", "hosting_billing": "started_hours"});
    let call = Call::new("PUT", "/admin/v1/prices/azure/gpt-4.1-mini-2025-04-14.ft-0");
    gateway.admin(call.body("application/json", price.to_string().as_bytes())).expect(200);
}

fn flow(api: &str) {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, api);
    let tuner = Tuner::new(&gateway);
    let job = tuner.job(AZURE_MODEL);
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!((&ended["trained_tokens"], &ended["object"]), (&json!(240), &json!("fine_tuning.job")));
    assert!(ended.get("organisation_id").is_none() && ended["method"]["type"] == "supervised", "{ended:#}");
    let at_provider = provider.tuning().jobs();
    assert_eq!(at_provider.len(), 1);
    assert_eq!(at_provider[0].order["trainingType"], "globalstandard");
    assert_eq!((at_provider[0].account, at_provider[0].status), (Account::Azure, Status::Succeeded));
    let events = tuner.get(&format!("{JOBS}/{job}/events?limit=100"));
    let times: Vec<i64> = events["data"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["created_at"].as_i64().expect("a time"))
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] >= pair[1]), "newest first, whatever Azure does: {events:#}");
    let result = ended["result_files"][0].as_str().expect("a result").to_owned();
    // OpenAI's form, whatever Azure's is: base64, and its names for the columns
    let content = tuner.call(Call::get(&format!("/v1/files/{result}/content"))).expect(200).text();
    let table = STANDARD.decode(content.trim()).expect("base64");
    assert!(table.starts_with(b"step,train_loss"), "{content}");
}

#[test]
fn a_job_goes_from_its_file_to_its_model_on_the_v1_api() {
    flow("v1");
}

#[test]
fn and_on_the_classic_one() {
    flow("classic");
}

#[test]
fn a_refusal_comes_in_azures_words_and_ours() {
    let provider = SimulatedProvider::start();
    let words = "The fine-tuning job quota of this resource is used up.";
    provider.tuning().fails_next(Route::CreateJob, Trouble::azure(400, "quotaExceeded", words));
    let gateway = start(&provider, "classic");
    let tuner = Tuner::new(&gateway);
    let order = json!({"model": AZURE_MODEL, "training_file": tuner.file()});
    let answer = tuner.call(Call::post(JOBS, &order));
    if answer.status == 200 {
        let failed = tuner.await_status(&id(&answer.json()), "failed");
        assert!(failed["error"]["message"].as_str().is_some_and(|text| text.contains(words)), "{failed:#}");
    } else {
        assert!(
            answer.status == 400 && answer.text().contains(words),
            "{}: {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(provider.tuning().jobs().len(), 0);
}

#[test]
fn a_file_that_azure_does_not_import_fails_its_job() {
    let provider = SimulatedProvider::start();
    let gateway = start(&provider, "v1");
    let tuner = Tuner::new(&gateway);
    provider.tuning().next_job_fails(Status::Validating, "jsonlValidationFailed", "Row 3 is not liked.");
    let job = tuner.job(AZURE_MODEL);
    let failed = tuner.await_status(&job, "failed");
    assert_eq!(failed["error"]["code"], "jsonlValidationFailed");
    assert!(
        failed["error"]["message"].as_str().is_some_and(|text| text.contains("Row 3 is not liked.")),
        "{failed:#}"
    );
}

/// Nothing is trained at a price that nobody knows.
#[test]
fn without_a_price_the_refusal_says_what_to_set() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_azure(&provider, "v1")).start();
    let tuner = Tuner::new(&gateway);
    let order = json!({"model": AZURE_MODEL, "training_file": tuner.file()});
    let refused = tuner.call(Call::post(JOBS, &order)).expect_error(403, "unpriced_model");
    let words = refused["message"].as_str().unwrap_or_default();
    assert!(words.contains("tunegate prices set gpt-4.1-mini-2025-04-14.ft-* --provider azure"), "{words}");
    // the hosting clock may have read the list of deployments meanwhile
    assert_eq!((provider.tuning().jobs().len(), provider.tuning().files().len()), (0, 0));
}

/// Deployed on request, warned of what an hour costs, answering once Azure knows it; charged by the hour until it is
/// taken away.
#[test]
fn a_model_is_deployed_and_answers() {
    let provider = SimulatedProvider::start();
    provider.tuning().deployments_lag(1).hosts("cat", 1_700_000_000, Rounding::StartedHours);
    let gateway = start(&provider, "v1");
    let tuner = Tuner::new(&gateway);
    let job = tuner.job(AZURE_MODEL);
    let model =
        tuner.await_status(&job, "succeeded")["fine_tuned_model"].as_str().expect("a name").to_owned();
    let deploy = json!({"name": "cat", "tier": "globalstandard"});
    let answer = gateway.admin(Call::post(&format!("/admin/v1/models/{model}/deploy"), &deploy));
    assert!(matches!(answer.status, 200..=202), "{}: {}", answer.status, answer.text());
    assert!(answer.text().contains("hour"), "a warning of what an hour costs: {}", answer.text());
    eventually("the deployment", || {
        let deployments = provider.tuning().deployments();
        deployments.iter().any(|deployment| deployment.model == model).then_some(())
    });
    let answered: Value = eventually("an answer of the new model", || {
        let answer = tuner.call(Call::post("/v1/chat/completions", &crate::support::chat(&model, "hi")));
        (answer.status == 200).then(|| answer.json())
    });
    assert!(answered["choices"][0]["message"]["content"].is_string());
    assert_eq!(provider.tuning().count(Route::PutDeployment), 1);
    gateway.admin(Call::new("DELETE", "/admin/v1/model-deployments/cat")).expect(202);
    let told = || gateway.admin(Call::get("/admin/v1/hosting")).expect(200).json()["data"][0].clone();
    let gone = eventually("the end of its hours", || Some(told()).filter(|told| told["until_ms"].is_i64()));
    let at_provider = &provider.tuning().deployments()[0];
    assert_eq!((&gone["deployment"], &gone["since_ms"]), (&json!("cat"), &json!(at_provider.created_ms)));
    // by our look, in whose midst it went
    let apart =
        gone["until_ms"].as_i64().zip(at_provider.gone_ms).map(|(ours, theirs)| (ours - theirs).abs());
    assert!(apart.is_some_and(|apart_ms| apart_ms < 10_000), "{gone:#}");
    let is_hosting = |entry: &&Entry| entry.purpose == "hosting";
    let journal = gateway.settled_journal(|journal| journal.0.iter().any(|entry| is_hosting(&entry)));
    let hours = journal.0.iter().filter(is_hosting).map(|entry| entry.cost);
    let billed: u64 = provider.tuning().hosting_bill().iter().map(|stood| stood.nanos).sum();
    assert_eq!((hours.sum::<i64>(), billed), (1_700_000_000, 1_700_000_000));
}

/// A model that is deleted there goes here too; where Azure has no call for it, it stays until the portal has.
#[test]
fn a_model_is_deleted_where_azure_has_a_call_for_it() {
    for api in ["v1", "classic"] {
        let provider = SimulatedProvider::start();
        let gateway = start(&provider, api);
        let tuner = Tuner::new(&gateway);
        let job = tuner.job(AZURE_MODEL);
        let ended = tuner.await_status(&job, "succeeded");
        let model = ended["fine_tuned_model"].as_str().expect("a name").to_owned();
        let delete = || tuner.call(Call::new("DELETE", &format!("/v1/models/{model}")));
        let there = || provider.tuning().models().contains(&model);
        // it was not answered: nobody knows
        provider.tuning().fails_next(Route::DeleteModel, Trouble::unavailable());
        delete().expect(502);
        assert!(there() && tuner.shown_model(&model) == 200, "{api}");
        if api == "v1" {
            // gone there, and the answer lost: asked again, by whomever, it is gone here too
            provider.tuning().loses_next_answer(Route::DeleteModel);
            let first = delete();
            let last = if first.status == 502 { delete() } else { first };
            assert_eq!(last.expect(200).json()["deleted"], true);
            assert!(!there(), "{api}");
        } else {
            let refused = delete().expect_error(409, "conflict");
            let words = refused["message"].as_str().unwrap_or_default();
            assert!(words.contains("delete it in the portal, then here"), "{words}");
            assert!(there() && tuner.shown_model(&model) == 200, "{api}");
            provider.tuning().portal_deletes(&model);
            assert_eq!(delete().expect(200).json()["deleted"], true);
        }
        assert_eq!(tuner.shown_model(&model), 404, "{api}");
    }
}

impl Tuner<'_> {
    /// The status of a look at a registered model.
    fn shown_model(&self, model: &str) -> u16 {
        self.gateway.admin(Call::get(&format!("/admin/v1/models/{model}"))).status
    }
}
