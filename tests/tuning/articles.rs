//! The flow that articles show, with the client of their days, with today's and with bare bytes. The gateway's date is
//! of then: catalog, prices and retirements with it.

use std::process::Command;

use serde_json::json;

use super::{JOBS, Tuner, at_openai, key_of};
use crate::clients::{installed, root, succeeds_with};
use crate::support::provider::tuning::{Dialect, Status};
use crate::support::{Call, SimulatedProvider, TestGateway, chat};

/// 2023-09-01 00:00 UTC.
const SEPTEMBER_2023_MS: i64 = 1_693_526_400_000;

/// A gateway and a provider of September 2023.
fn in_2023(provider: &SimulatedProvider) -> TestGateway {
    provider.tuning().now(SEPTEMBER_2023_MS).speaks(Dialect::August2023);
    provider.charges("ft:gpt-3.5-turbo-0613:", 12_000, 16_000);
    TestGateway::with(at_openai(provider).dated("2023-09-01T00:00:00Z")).start()
}

#[test]
fn the_client_of_2023_does_all_of_it_with_its_base_changed() {
    let Some(python) = installed(root().join(".venv/bin/python")) else { return };
    let Some(packages) = installed(root().join(".venv/articles/openai")) else { return };
    let provider = SimulatedProvider::start();
    let gateway = in_2023(&provider);
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients/articles"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", packages.parent().unwrap_or(&packages))
        .env("OPENAI_API_BASE", format!("{}/v1", gateway.url()))
        .current_dir(root());
    succeeds_with(command, &gateway, &key_of(&gateway, "authors", "delete_models"));
    let tuning = provider.tuning();
    // the third was cancelled, perhaps before it came here
    assert_eq!(tuning.jobs().iter().filter(|job| job.status == Status::Succeeded).count(), 2);
    assert_eq!(tuning.models(), Vec::<String>::new(), "each was deleted at the provider too");
}

#[test]
fn bare_bytes_do_it_too_and_the_price_is_of_then() {
    let provider = SimulatedProvider::start();
    // the articles' sum: 100,000 tokens, 3 epochs, $0.008 for 1,000
    provider.tuning().counts(100_000).chooses_epochs(3);
    let gateway = in_2023(&provider);
    let tuner = Tuner::new(&gateway);
    let order = json!({"model": "gpt-3.5-turbo", "training_file": tuner.file()});
    let job = super::id(&tuner.call(Call::post(JOBS, &order)).expect(200).json());
    let ended = tuner.await_status(&job, "succeeded");
    assert_eq!(ended["trained_tokens"], 300_000);
    assert_eq!(provider.tuning().training_bill()[0].nanos, 2_400_000_000, "$2.40");
    let booked = gateway.settled_journal(|journal| journal.usages().len() == 1);
    assert_eq!(booked.spent(), 2_400_000_000);
    let model = ended["fine_tuned_model"].as_str().expect("a model");
    tuner.call(Call::post("/v1/chat/completions", &chat(model, "hi"))).expect(200);
    let events = tuner.get(&format!("{JOBS}/{job}/events?limit=100"));
    assert!(events["data"].as_array().is_some_and(|events| events.len() > 10), "{events:#}");
}

fn todays_client() -> Option<Command> {
    let python = installed(root().join(".venv/bin/python"))?;
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients/tuning"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    Some(command)
}

#[test]
fn todays_client_reads_everything_into_its_types() {
    let Some(mut command) = todays_client() else { return };
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    command.env("TUNEGATE_TEST_BASE_MODEL", "gpt-4.1-mini");
    succeeds_with(command, &gateway, &key_of(&gateway, "authors", "delete_models"));
    let jobs = provider.tuning().jobs();
    assert_eq!(jobs.iter().filter(|job| job.status == Status::Succeeded).count(), 1);
}

#[test]
fn the_client_for_node_reads_them_too() {
    let folder = root().join("tests/clients/node");
    let Some(node) = installed(folder.join("node_modules/.bin/node")) else { return };
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let mut command = Command::new(node);
    command
        .args(["--test", "tuning.mjs"])
        .env("TUNEGATE_TEST_BASE_MODEL", "gpt-4.1-mini")
        .current_dir(folder);
    succeeds_with(command, &gateway, &key_of(&gateway, "authors", "delete_models"));
}
