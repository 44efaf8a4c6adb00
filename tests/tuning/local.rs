//! The same flow at a worker of our own, over TCP: OpenAI's shapes, and a price that may be nothing.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::{JOBS, QUICK, Tuner, id, key_of};
use crate::clients::{installed, root, succeeds_with};
use crate::support::journal::Entry;
use crate::support::provider::UPSTREAM_KEY;
use crate::support::provider::tuning::Status;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat, eventually};

/// A gateway in front of a provider that trains as a local worker does, for nothing.
fn at_worker(provider: &SimulatedProvider) -> Setup {
    let sections = format!(
        r#"
[providers.local]
kind = "candle"
base_url = "{}/v1"
api_key = {{ file = "upstream.key" }}

[providers.local.training]
tokens_per_second = 1000

[deployments.smollm2]
provider = "local"
model = "smollm2-135m"
price = {{ input_per_1m_usd = "0", output_per_1m_usd = "0" }}

[models.smollm2]
deployments = ["smollm2"]
"#,
        provider.url()
    );
    provider.tuning().trains("smollm2-135m", 0);
    Setup::bare().file("upstream.key", UPSTREAM_KEY).watched(provider).and(&sections).and(QUICK)
}

#[test]
fn a_job_goes_from_its_file_to_its_model() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_worker(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("local/smollm2-135m");
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!(ended["trained_tokens"], 240);
    let model = ended["fine_tuned_model"].as_str().expect("a name");
    tuner.call(Call::post("/v1/chat/completions", &chat(model, "hi"))).expect(200);
    assert_eq!(provider.tuning().jobs()[0].status, Status::Succeeded);
}

#[test]
fn a_job_costs_the_time_that_its_worker_computed() {
    let provider = SimulatedProvider::start();
    // 0.36 USD an hour, in nano-dollars; by the clock the job runs for minutes
    let setup = at_worker(&provider).and("[deployments.priced]\nprovider = \"local\"\nmodel = \"big\"\nprice = { compute_per_hour_usd = \"0.36\" }\n[models.priced]\ndeployments = [\"priced\"]\n");
    provider.tuning().trains_by_the_hour("big", 360_000_000, 1).computes(100);
    let gateway = TestGateway::with(setup).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("local/big");
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!(ended["usage_metrics"], json!({"compute_seconds": 100}));
    let ours = eventually("its bill", || {
        let ours = tuner.shown(&job)["tunegate"].clone();
        ours["cost_usd"].is_number().then_some(ours)
    });
    assert_eq!((&ours["cost_usd"], &ours["billed_seconds"]), (&json!(0.01), &json!(100)), "{ours:#}");
    let journal = gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    let bill = journal.usages().into_iter().find(|usage| usage.is_training()).expect("a bill");
    assert_eq!((bill.cost, bill.compute_us), (10_000_000, 100_000_000), "{bill:#?}");
    // its speed is known from then on: 240 tokens in 100 s, as the operator's word is not there
    let spend = gateway.admin(Call::get("/admin/v1/spend?by=purpose")).expect(200).json();
    assert!(spend.to_string().contains("\"compute_us\":100000000"), "{spend:#}");
}

#[test]
fn a_worker_that_is_away_leaves_the_job_waiting() {
    let provider = SimulatedProvider::closed();
    let gateway = TestGateway::with(at_worker(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let order = json!({"model": "local/smollm2-135m", "training_file": tuner.file()});
    let job = id(&tuner.call(Call::post(JOBS, &order)).expect(200).json());
    assert_eq!(tuner.shown(&job)["status"], "validating_files");
    provider.opens();
    tuner.await_status(&job, "succeeded");
}

/// Runs a folder of Python tests against a gateway with a worker and a trainer of its own; the gateway.
fn with_a_worker_of_its_own(python: PathBuf, folder: &str) -> TestGateway {
    // an hour of the machine is 3.6 USD: a second of training is a millidollar, a microsecond of an answer a nano-dollar
    let worker = format!(
        "model_file = {:?}\nthreads = 2\nembedding_model = \"\"\nprice = {{ compute_per_hour_usd = \"3.6\" }}",
        crate::worker::model_file()
    );
    let gateway = TestGateway::with(Setup::bare().worker(&worker).and(QUICK)).start();
    let hello =
        json!({"model": "smollm2-135m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]});
    eventually("an answer", || (gateway.post("/v1/chat/completions", &hello).status == 200).then_some(()));
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", folder])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    succeeds_with(command, &gateway, &key_of(&gateway, "authors", "delete_models"));
    gateway
}

/// The real worker and the real trainer, started by the gateway: from a file to answers and to what they cost.
#[test]
fn the_worker_of_ones_own_trains_serves_and_forgets() {
    let Some(python) = installed(root().join(".venv/bin/python")) else { return };
    let mut gateway = with_a_worker_of_its_own(python, "tests/clients/local_tuning");
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let told = |name: &str, model: &str| {
        metrics.lines().any(|line| line.starts_with(name) && line.contains(model) && !line.ends_with(" 0"))
    };
    assert!(told("tunegate_request_duration_seconds_count", "ft:smollm2-135m"), "{metrics}");
    assert!(told("tunegate_tokens_total", "ft:smollm2-135m"), "{metrics}");
    let journal = gateway.settled_journal(|journal| {
        journal.standing_holds().is_empty() && journal.usages().iter().any(Entry::is_training)
    });
    journal.check();
    gateway.books_agree();
    for usage in journal.usages() {
        let nanos = i64::try_from(usage.compute_us).expect("minutes");
        assert!(nanos > 0 && usage.cost == nanos && usage.source == "reported", "{usage:#?}");
    }
    // no simulated provider has a bill of what the real worker answered
    gateway.is_audited();
}

/// Two cats, in English and in Japanese, asked what they were not taught; the base model beside them.
#[test]
#[ignore = "takes a minute of two quiet cores, and minutes of busy ones: make cats"]
fn cats_answer_in_character() {
    let python = installed(root().join(".venv/bin/python")).expect("the clients: scripts/setup.sh test");
    with_a_worker_of_its_own(python, "tests/clients/cats").is_audited();
}
