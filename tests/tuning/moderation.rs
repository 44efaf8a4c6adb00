//! Moderation of a training file: off unless the operator wants it, and then before a byte of it leaves us.

use serde_json::{Value, json};

use super::{FILES, JOBS, Tuner, at_openai, id};
use crate::support::provider::Trouble;
use crate::support::provider::tuning::Route;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, eventually, training_rows};

/// What moderation flags here.
const WORD: &str = "dogs forever";
const PATH: &str = "/v1/moderations";

/// A provider that flags the word, and a gateway that asks it before each upload.
fn moderated(provider: &SimulatedProvider) -> Setup {
    provider.flags(WORD);
    // behind the section `[tuning]`
    at_openai(provider).and("moderate = true\n")
}

/// Forty rows, of which the flagged ones are bad: more than one call has.
fn rows(flagged: &[usize]) -> Vec<u8> {
    let text = String::from_utf8(training_rows(40)).expect("text");
    let line = |(at, line): (usize, &str)| match flagged.contains(&(at + 1)) {
        true => line.replace("Meow!", WORD) + "\n",
        false => line.to_owned() + "\n",
    };
    text.lines().enumerate().map(line).collect::<String>().into_bytes()
}

/// The books of training are in order. Questions of our own are no requests: they are in no Outcome.
#[track_caller]
fn is_booked(gateway: &mut TestGateway) {
    gateway.is_audited();
    let journal = gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    journal.check();
    gateway.books_agree();
    let costs: Vec<i64> = journal.usages().iter().map(|usage| usage.cost).collect();
    let charges: Vec<i64> =
        gateway.training_charges().iter().map(|charge| i64::try_from(charge.nanos).expect("small")).collect();
    assert_eq!(costs, charges);
}

/// Asks for a job on those rows; its id.
#[track_caller]
fn job(tuner: &Tuner<'_>, rows: &[u8]) -> String {
    let file = id(&tuner.upload(rows).expect(200).json());
    let order = json!({"model": "gpt-4.1-mini", "training_file": file, "hyperparameters": {"n_epochs": 1}});
    id(&tuner.call(Call::post(JOBS, &order)).expect(200).json())
}

/// The texts that moderation was asked about, call by call.
fn asked(provider: &SimulatedProvider) -> Vec<usize> {
    let calls = provider.requests().into_iter().filter(|request| request.path() == PATH);
    let texts = |body: &[u8]| {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(body["model"], "omni-moderation-latest");
        body["input"].as_array().expect("a list").len()
    };
    calls.map(|request| texts(&request.body)).collect()
}

#[test]
fn nobody_moderates_unless_the_operator_says_so() {
    let provider = SimulatedProvider::start();
    provider.flags(WORD);
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = job(&tuner, &rows(&[3]));
    tuner.await_status(&job, "succeeded");
    assert_eq!(asked(&provider), Vec::<usize>::new());
}

#[test]
fn a_flagged_row_ends_the_job_before_any_file_goes_out() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(moderated(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let refused = job(&tuner, &rows(&[3, 39]));
    let failed = tuner.await_status(&refused, "failed");
    let error = &failed["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!("unsafe_file"), &json!("training_file")));
    let words = error["message"].as_str().unwrap_or_default();
    assert!(words.contains("in the lines 3, 39:"), "{words}");
    assert_eq!(failed["tunegate"]["cost_usd"], 0.0, "{failed:#}");
    assert_eq!(provider.tuning().calls().len(), 0, "{:#?}", provider.tuning().calls());
    assert_eq!(asked(&provider).iter().sum::<usize>(), 40, "each row once");
    gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    // what is wrong is for its owner to mend
    let file = failed["training_file"].as_str().expect("an id");
    assert_eq!(tuner.get(&format!("{FILES}/{file}"))["status"], "processed");

    let sound = job(&tuner, &rows(&[]));
    tuner.await_status(&sound, "succeeded");
    assert_eq!(asked(&provider).iter().sum::<usize>(), 80);
    is_booked(&mut gateway);
}

/// Nothing goes out unlooked at: it waits, says why, and goes on.
#[test]
fn while_moderation_is_away_the_job_waits_and_says_so() {
    let provider = SimulatedProvider::start();
    for _ in 0..4 {
        provider.fails(Trouble::overloaded());
    }
    let mut gateway = TestGateway::with(moderated(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = job(&tuner, &rows(&[]));
    let said = eventually("it says why it waits", || {
        let events = tuner.get(&format!("{JOBS}/{job}/events?limit=100"));
        let told = events["data"].as_array()?.iter().find(|event| event["level"] == "warn")?.clone();
        Some(told["message"].as_str()?.to_owned())
    });
    assert!(said.starts_with("its rows can't be moderated: it answered 503"), "{said}");
    if asked(&provider).len() < 4 {
        assert_eq!(tuner.shown(&job)["status"], "validating_files");
    }
    tuner.await_status(&job, "succeeded");
    assert!(asked(&provider).len() >= 6, "{:?}", asked(&provider));
    assert_eq!(provider.tuning().count(Route::UploadFile), 1);
    is_booked(&mut gateway);
}

/// A no for good ends the job in the provider's words.
#[test]
fn who_may_not_moderate_is_told_in_the_provider_s_words() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(moderated(&provider)).start();
    let tuner = Tuner::new(&gateway);
    provider.fails(Trouble::forbidden());
    let job = job(&tuner, &rows(&[]));
    let failed = tuner.await_status(&job, "failed");
    let words = failed["error"]["message"].as_str().unwrap_or_default();
    assert!(words.starts_with("the rows can't be moderated: the provider says: "), "{words}");
    assert_eq!(provider.tuning().count(Route::UploadFile), 0);
    is_booked(&mut gateway);
}
