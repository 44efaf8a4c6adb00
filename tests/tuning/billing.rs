//! What training costs where that is no plain product: tokens that are free once a UTC day, and hours.

use std::time::Duration;

use serde_json::json;

use super::azure::at_azure;
use super::{JOBS, Tuner, at_openai, id};
use crate::support::provider::tuning::{Pace, Status};
use crate::support::{Call, SimulatedProvider, TestGateway, eventually};

const USD: i64 = 1_000_000_000;
/// 2024-09-22 12:00 UTC: the free tokens end with the next day.
const SEPTEMBER_2024_MS: i64 = 1_727_006_400_000;
const DAY: Duration = Duration::from_secs(86_400);
/// 2023-11-01 12:00 UTC: Azure trained by the hour.
const NOVEMBER_2023_MS: i64 = 1_698_840_000_000;

fn order(model: &str, file: &str, epochs: u64) -> Call {
    let order = json!({"model": model, "training_file": file, "hyperparameters": {"n_epochs": epochs}});
    Call::post(JOBS, &order)
}

/// What was booked for a job, once it is: nano-dollars.
#[track_caller]
fn booked(gateway: &TestGateway, job: &str) -> i64 {
    let of_job = |journal: &crate::support::journal::Journal| -> Option<i64> {
        let usages = journal.usages();
        let found: Vec<_> = usages.iter().filter(|usage| usage.request_id == job).collect();
        assert!(found.len() <= 1, "booked twice: {found:#?}");
        found.first().map(|usage| usage.cost)
    };
    let journal = gateway.settled_journal(|journal| of_job(journal).is_some());
    of_job(&journal).expect("it was there a moment ago")
}

/// What is held for a job now, nano-dollars.
fn held(gateway: &TestGateway, job: &str) -> i64 {
    let journal = gateway.journal();
    journal.standing_holds().iter().filter(|hold| hold.request_id == job).map(|hold| hold.held).sum()
}

/// Two jobs of one day share what is free: held is all that they may cost, and what is free is given away once.
#[test]
fn the_free_tokens_of_a_day_are_given_away_once() {
    let provider = SimulatedProvider::start();
    // $3 for a million, two millions a day for nothing
    provider.tuning().now(SEPTEMBER_2024_MS).counts(750_000).pace(Pace::Manual);
    let setup = at_openai(&provider).dated("2024-09-22T12:00:00Z");
    let mut gateway = TestGateway::with(setup).start();
    // the provider's books know of nothing free
    gateway.is_audited();
    let tuner = Tuner::new(&gateway);
    let file = tuner.file();
    let ask = || id(&tuner.call(order("gpt-4o-mini", &file, 2)).expect(200).json());
    let tuning = provider.tuning();
    let pair = [ask(), ask()];
    eventually("both at the provider", || (tuning.jobs().len() == 2).then_some(()));
    for job in &pair {
        tuner.await_status(job, "validating_files");
        let quote = &tuner.shown(job)["tunegate"]["quote"];
        let tokens = quote["tokens_per_epoch"].as_i64().expect("a number");
        assert_eq!(
            held(&gateway, job),
            tokens * 2 * 3 * USD / 1_000_000,
            "nothing free is counted on: {quote}"
        );
    }
    // both end in the same second
    tuning.until(Status::Succeeded);
    let mut paid: Vec<i64> = pair
        .iter()
        .map(|job| {
            assert_eq!(tuner.await_status(job, "succeeded")["trained_tokens"], 1_500_000);
            booked(&gateway, job)
        })
        .collect();
    paid.sort_unstable();
    assert_eq!(paid, [0, 3 * USD], "3M tokens, of which 2M are free");

    // the day is over, and the last one with something free begins; behind it nothing is
    for (day, cost) in [(1, 0), (2, 4 * USD + USD / 2)] {
        tuning.advance(DAY);
        let before = tuning.jobs().len();
        let job = ask();
        eventually("it is at the provider", || (tuning.jobs().len() > before).then_some(()));
        tuning.until(Status::Succeeded);
        tuner.await_status(&job, "succeeded");
        assert_eq!(booked(&gateway, &job), cost, "{day} days later");
    }
    let journal = gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    journal.check();
    gateway.books_agree();
}

/// A gateway in front of Azure as it was in November 2023.
fn by_the_hour(provider: &SimulatedProvider, more: &str) -> TestGateway {
    // what begins there began forty minutes ago
    let began_ms = NOVEMBER_2023_MS - 40 * 60_000;
    let tuning = provider.tuning();
    tuning.now(began_ms).pace(Pace::Manual).counts(100_000);
    let setup = at_azure(provider, "classic").dated("2023-11-01T12:00:00Z").and(more);
    tuning.trains_by_the_hour("gpt-35-turbo", 102_000_000_000, 900);
    TestGateway::with(setup).start()
}

/// Asks for a job there, sees what is held for it, and has it running; its id.
#[track_caller]
fn runs(tuner: &Tuner<'_>, provider: &SimulatedProvider) -> String {
    let tuning = provider.tuning();
    let call = order("azure/acme-swe/gpt-35-turbo-0613", &tuner.file(), 3);
    let job = id(&tuner.call(call).expect(200).json());
    eventually("it is at Azure", || {
        tuning.takes_in_files();
        (tuning.jobs().len() == 1).then_some(())
    });
    assert_eq!(held(tuner.gateway, &job), 102 * USD, "an hour at least");
    tuning.until(Status::Running);
    job
}

/// The articles' sum: an hour and twenty minutes at $102 are billed as an hour and a half.
#[test]
fn hours_are_held_ahead_and_billed_by_the_quarter() {
    let provider = SimulatedProvider::start();
    let gateway = by_the_hour(&provider, "");
    let tuner = Tuner::new(&gateway);
    let job = runs(&tuner, &provider);
    // forty minutes are over already, an hour and a half is held beside them: two hours and a quarter
    eventually("the hold is laid anew", || (held(&gateway, &job) == 229 * USD + USD / 2).then_some(()));
    provider.tuning().advance(Duration::from_secs(80 * 60)).until(Status::Succeeded);
    let ended = tuner.await_status(&job, "succeeded");
    let figures = (&ended["tunegate"]["billed_seconds"], &ended["trained_tokens"]);
    assert_eq!(figures, (&json!(4_800), &json!(300_000)), "{ended:#}");
    assert_eq!(booked(&gateway, &job), 153 * USD);
    assert_eq!(held(&gateway, &job), 0);
}

/// What it turns out to need and nobody can pay ends it.
#[test]
fn a_job_that_runs_longer_than_can_be_paid_is_cancelled() {
    let provider = SimulatedProvider::start();
    let budget = "\n[budgets.training]\nlimit_usd = \"150\"\nwindow = \"total\"\n";
    let gateway = by_the_hour(&provider, budget);
    let tuner = Tuner::new(&gateway);
    let job = runs(&tuner, &provider);
    let ended = tuner.await_status(&job, "cancelled");
    assert_eq!(ended["error"]["code"], "insufficient_quota", "{ended:#}");
    let words = ended["error"]["message"].as_str().unwrap_or_default();
    assert!(words.contains("budget `training`"), "{words}");
    assert_eq!(provider.tuning().jobs()[0].status, Status::Cancelled);
    assert_eq!(held(&gateway, &job), 0);
}
