//! Jobs that wait for others: for a provider that hangs, for a process that ends, for a database that is locked.

use std::time::{Duration, Instant};

use serde_json::json;

use super::files::on_disk;
use super::{FILES, JOBS, QUICK, Tuner, at_openai};
use crate::money::postgres;
use crate::support::journal::Session;
use crate::support::provider::UPSTREAM_KEY;
use crate::support::provider::tuning::{Pace, Route, Status};
use crate::support::{Call, Connection, Gate, Setup, SimulatedProvider, TestGateway, eventually};

/// More jobs than are stepped at once.
const MANY: usize = 9;

fn section(name: &str, provider: &SimulatedProvider) -> String {
    format!(
        "\n[providers.{name}]\nkind = \"openai\"\nbase_url = \"{}/v1\"\napi_key = {{ file = \"upstream.key\" }}\n",
        provider.url()
    )
}

/// A provider that hangs takes no place of another's jobs.
#[test]
fn a_provider_that_hangs_keeps_no_other_from_its_jobs() {
    let (slow, quick) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = Setup::bare()
        .file("upstream.key", UPSTREAM_KEY)
        .watched(&slow)
        .watched(&quick)
        .and(&section("slow", &slow))
        .and(&section("quick", &quick))
        .and(QUICK);
    let gateway = TestGateway::with(setup).start();
    let tuner = Tuner::new(&gateway);
    let gate = Gate::new();
    for _ in 0..MANY {
        slow.tuning().holds_next_answer(Route::UploadFile, &gate);
    }
    let waiting: Vec<String> = (0..MANY).map(|_| tuner.job("slow/gpt-4.1-mini")).collect();
    eventually("some of them hang", || (slow.tuning().count(Route::UploadFile) >= 4).then_some(()));
    for _ in 0..2 {
        let job = tuner.job("quick/gpt-4.1-mini");
        tuner.await_status(&job, "succeeded");
    }
    assert_eq!(slow.tuning().jobs().len(), 0, "the gate is closed");
    assert_eq!(slow.tuning().count(Route::UploadFile), 4, "so many of one provider at once");
    gate.open();
    for job in &waiting {
        tuner.await_status(job, "succeeded");
    }
    assert_eq!(slow.tuning().jobs().len(), MANY);
}

/// A process that ends gives back who steps jobs: nobody waits a minute for the next one.
#[test]
fn who_comes_after_a_clean_end_goes_on_at_once() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let mut gateway = TestGateway::with(at_openai(&provider).and("\n[ledger]\nlease_ms = 120000\n")).start();
    let key = {
        let tuner = Tuner::new(&gateway);
        let job = tuner.job("gpt-4.1-mini");
        eventually("it is there", || (provider.tuning().jobs().len() == 1).then_some(()));
        provider.tuning().until(Status::Running);
        tuner.await_status(&job, "running");
        tuner.key
    };
    gateway.stop();
    provider.tuning().pace(Pace::EveryPoll(1));
    gateway.start_again();
    let tuner = Tuner { gateway: &gateway, key };
    let jobs = tuner.get(JOBS);
    let job = super::id(&jobs["data"][0]);
    tuner.await_status(&job, "succeeded");
    assert_eq!(provider.tuning().jobs().len(), 1);
}

/// The one job of each of a gateway's, and one settlement of it.
#[track_caller]
fn each_came_once(gateway: &TestGateway, provider: &SimulatedProvider, jobs: &[String]) {
    assert_eq!(provider.tuning().jobs().len(), jobs.len(), "one at the provider for each");
    let journal = gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    for job in jobs {
        let settled = journal.usages().iter().filter(|usage| usage.request_id == *job).count();
        assert_eq!(settled, 1, "{job}");
    }
}

/// SIGTERM comes wherever the jobs are, also while their rows are being written.
#[test]
fn an_end_at_any_moment_loses_no_step() {
    let provider = SimulatedProvider::start();
    let mut gateway = TestGateway::with(at_openai(&provider)).start();
    let key = Tuner::new(&gateway).key;
    let mut jobs = Vec::new();
    for round in 1..=4 {
        let calls = provider.tuning().calls().len();
        {
            let tuner = Tuner { gateway: &gateway, key: key.clone() };
            jobs.extend((0..3).map(|_| tuner.job("gpt-4.1-mini")));
        }
        // each time somewhere else
        eventually("they are under way", || {
            (provider.tuning().calls().len() > calls + 5 * round).then_some(())
        });
        gateway.signal(libc::SIGTERM);
        let status = gateway.await_exit();
        assert!(status.success(), "{status}:\n{}", gateway.log());
        gateway.start_again();
    }
    let tuner = Tuner { gateway: &gateway, key };
    for job in &jobs {
        tuner.await_status(job, "succeeded");
    }
    each_came_once(&gateway, &provider, &jobs);
}

/// The process is told to end while a step can't be written: it ends in time, and whoever comes next does it.
#[test]
fn an_end_before_a_locked_database_is_an_end_and_nothing_is_lost() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Manual);
    let mut gateway = TestGateway::with(at_openai(&provider)).start();
    let (key, job) = {
        let tuner = Tuner::new(&gateway);
        let job = tuner.job("gpt-4.1-mini");
        eventually("it is there", || (provider.tuning().jobs().len() == 1).then_some(()));
        provider.tuning().until(Status::Running);
        tuner.await_status(&job, "running");
        (tuner.key, job)
    };
    let mut other = Session::on(&gateway.database_url());
    other.run("BEGIN IMMEDIATE");
    let asked = provider.tuning().count(Route::GetJob);
    provider.tuning().step();
    eventually("it is asked for, and can't be written", || {
        (provider.tuning().count(Route::GetJob) > asked).then_some(())
    });
    gateway.signal(libc::SIGTERM);
    let status = gateway.await_exit();
    other.run("ROLLBACK");
    assert!(status.success(), "{status}:\n{}", gateway.log());
    provider.tuning().pace(Pace::EveryPoll(1));
    gateway.start_again();
    let tuner = Tuner { gateway: &gateway, key };
    tuner.await_status(&job, "succeeded");
    each_came_once(&gateway, &provider, &[job]);
}

/// A gateway whose jobs are guarded for a second while they are being made, and may cost so much.
fn hurried(provider: &SimulatedProvider, url: &str, limit_usd: &str) -> TestGateway {
    let more = format!(
        "\n[ledger]\nlease_ms = 1000\n[budgets.training]\nlimit_usd = \"{limit_usd}\"\nwindow = \"total\"\n\
         scope = {{ purpose = \"training\" }}\n"
    );
    TestGateway::with(at_openai(provider).on(url).and(&more)).start()
}

/// A job on a checked file is asked for while a table is locked; who waits for the answer, and who has the lock.
#[track_caller]
fn asked_behind(tuner: &Tuner<'_>, table: &str) -> (String, Connection, Session) {
    let file = tuner.file();
    let path = format!("{FILES}/{file}");
    eventually("its check", || (tuner.get(&path)["status"] == "processed").then_some(()));
    let mut other = Session::on(&tuner.gateway.database_url());
    other.run("BEGIN");
    other.run(&format!("LOCK TABLE {table} IN EXCLUSIVE MODE"));
    let order = json!({"model": "gpt-4.1-mini", "training_file": file, "hyperparameters": {"n_epochs": 1}});
    let mut asked = Connection::to(tuner.gateway.address());
    asked.send(&Call::post(JOBS, &order).bearer(&tuner.key));
    (file, asked, other)
}

/// The first of the jobs, and where it stands on our way.
fn first(tuner: &Tuner<'_>) -> Option<(String, String)> {
    let jobs = tuner.get(JOBS);
    let job = jobs["data"].as_array()?.first()?;
    Some((super::id(job), job["tunegate"]["stage"].as_str()?.to_owned()))
}

/// Whoever asks for a job waits for the ledger, and meanwhile it is stepped: its money is held once all the same.
#[test]
fn a_job_that_is_stepped_while_it_is_being_made_is_one_job() {
    let Some((server, name)) = postgres() else { return };
    let provider = SimulatedProvider::start();
    let gateway = hurried(&provider, &server.url(&name), "1000");
    let tuner = Tuner::new(&gateway);
    let (_, mut asked, mut other) = asked_behind(&tuner, "ledger");
    let job = eventually("it is stepped meanwhile", || {
        let (job, stage) = first(&tuner)?;
        (stage != "checking").then_some(job)
    });
    other.run("ROLLBACK");
    // it was there: so whoever asked is told of it
    assert_eq!(asked.answer().expect(200).json()["id"], job);
    tuner.await_status(&job, "succeeded");
    each_came_once(&gateway, &provider, &[job]);
}

/// Nobody can pay for what is being made, and it is stepped when that turns out: it never was, or it has failed for
/// that; its file is free in both cases.
#[test]
fn a_job_that_is_refused_while_it_is_stepped_leaves_nothing() {
    let Some((server, name)) = postgres() else { return };
    let provider = SimulatedProvider::start();
    let gateway = hurried(&provider, &server.url(&name), "0");
    let tuner = Tuner::new(&gateway);
    let (file, mut asked, mut other) = asked_behind(&tuner, "file_uses");
    let begun = Instant::now();
    let job = eventually("its guard is over", || {
        let (job, _) = first(&tuner)?;
        (begun.elapsed() > Duration::from_millis(1_300)).then_some(job)
    });
    other.run("ROLLBACK");
    let answer = asked.answer();
    if answer.status == 200 {
        let failed = tuner.await_status(&job, "failed");
        assert_eq!(failed["error"]["code"], "insufficient_quota", "{failed:#}");
    } else {
        answer.expect_status_and_code(429, "project_spend_limit_exceeded");
        assert_eq!(first(&tuner), None);
    }
    assert_eq!(provider.tuning().count(Route::UploadFile), 0, "nothing goes out unpaid for");
    gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    tuner.call(Call::new("DELETE", &format!("{FILES}/{file}"))).expect(200);
    let folder = gateway.folder().join("state/files");
    eventually("nobody needs the file", || on_disk(&folder).is_empty().then_some(()));
}
