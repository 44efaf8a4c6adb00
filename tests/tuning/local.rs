//! The same flow at a worker of our own, over TCP: OpenAI's shapes, and a price that may be nothing.

use serde_json::json;

use super::{JOBS, QUICK, Tuner, id};
use crate::support::provider::UPSTREAM_KEY;
use crate::support::provider::tuning::Status;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, chat};

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
