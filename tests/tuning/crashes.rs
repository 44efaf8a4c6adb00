//! Every state of a job × `kill -9` of the gateway at that moment: afterwards there is one job at the provider, one hold
//! and one settlement, and what was booked is the provider's bill.

use std::time::Duration;

use serde_json::{Value, json};

use super::{JOBS, Tuner, at_openai, id};
use crate::money::postgres;
use crate::support::provider::tuning::{Pace, Route, Status};
use crate::support::{Call, Connection, Gate, Setup, SimulatedProvider, TestGateway, eventually};

/// The shortest leases there are: of the ledger, and of who steps jobs.
const SHORT_LEASES: &str =
    "\n[ledger]\nlease_ms = 1000\n\n[budgets.training]\nlimit_usd = \"1000\"\nwindow = \"total\"\n";

/// Moments that are tried at once: each has a gateway of its own, which writes to the disk.
const AT_ONCE: usize = 4;

/// When the gateway dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The provider has the file, and the answer is on its way.
    Uploading,
    /// The provider has the job, and the answer is on its way.
    Creating,
    /// The job stands so at the provider, and the gateway has seen it.
    Seen(Status),
    /// It ends while the gateway is dead.
    EndsMeanwhile(Status),
    /// The provider has cancelled it, and the answer is on its way.
    Cancelling,
    /// It was created with `auto` epochs, which have become a number.
    AutoEpochs,
}

/// Every moment, with what becomes of the job.
const MOMENTS: [(Moment, &str); 13] = [
    (Moment::Uploading, "succeeded"),
    (Moment::Creating, "succeeded"),
    (Moment::Seen(Status::Validating), "succeeded"),
    (Moment::Seen(Status::Queued), "succeeded"),
    (Moment::Seen(Status::Running), "succeeded"),
    (Moment::Seen(Status::Paused), "cancelled"),
    (Moment::Seen(Status::Succeeded), "succeeded"),
    (Moment::Seen(Status::Failed), "failed"),
    (Moment::Seen(Status::Cancelled), "cancelled"),
    (Moment::EndsMeanwhile(Status::Succeeded), "succeeded"),
    (Moment::EndsMeanwhile(Status::Failed), "failed"),
    (Moment::Cancelling, "cancelled"),
    (Moment::AutoEpochs, "succeeded"),
];

/// The word of a status in the API.
fn word(status: Status) -> &'static str {
    match status {
        Status::Validating => "validating_files",
        Status::Queued => "queued",
        Status::Running => "running",
        Status::Pausing => "pausing",
        Status::Paused => "paused",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}

/// Sends a call and waits for nothing.
fn send(tuner: &Tuner<'_>, call: Call) -> Connection {
    let mut connection = Connection::to(tuner.gateway.address());
    connection.send(&call.bearer(&tuner.key));
    connection
}

/// Brings a new job to the moment; its id, where the client has been told it, and the client that still waits.
fn bring(tuner: &Tuner<'_>, provider: &SimulatedProvider, moment: Moment, gate: &Gate) -> Option<String> {
    let tuning = provider.tuning();
    let epochs = if moment == Moment::AutoEpochs { json!("auto") } else { json!(3) };
    let order = json!({"model": "gpt-4.1-mini", "training_file": tuner.file(),
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}});
    let create = Call::post(JOBS, &order);
    match moment {
        Moment::Uploading => tuning.holds_next_answer(Route::UploadFile, gate),
        Moment::Creating => tuning.holds_next_answer(Route::CreateJob, gate),
        Moment::Seen(Status::Failed) | Moment::EndsMeanwhile(Status::Failed) => {
            tuning.next_job_fails(Status::Running, "server_error", "The machine broke.")
        }
        _ => &tuning,
    };
    let mut waiting = send(tuner, create);
    if moment == Moment::Uploading {
        eventually("the file at the provider", || (tuning.files().len() == 1).then_some(()));
        return None;
    }
    eventually("the job at the provider", || (tuning.jobs().len() == 1).then_some(()));
    if moment == Moment::Creating {
        return None;
    }
    let job = id(&waiting.answer().expect(200).json());
    let status = match moment {
        Moment::Seen(Status::Paused) => {
            tuning.until(Status::Running).step();
            tuner.await_status(&job, "running");
            tuner.call(Call::post(&format!("{JOBS}/{job}/pause"), &json!({}))).expect(200);
            tuning.until(Status::Paused);
            Status::Paused
        }
        Moment::Seen(Status::Cancelled) => {
            tuning.until(Status::Running).step();
            tuner.await_status(&job, "running");
            tuner.call(Call::post(&format!("{JOBS}/{job}/cancel"), &json!({}))).expect(200);
            Status::Cancelled
        }
        Moment::Seen(status) => {
            tuning.until(status);
            status
        }
        Moment::AutoEpochs => {
            tuning.until(Status::Queued);
            Status::Queued
        }
        Moment::EndsMeanwhile(_) | Moment::Cancelling | Moment::Uploading | Moment::Creating => {
            tuning.until(Status::Running).step();
            Status::Running
        }
    };
    tuner.await_status(&job, word(status));
    if moment == Moment::Cancelling {
        tuning.holds_next_answer(Route::CancelJob, gate);
        drop(send(tuner, Call::post(&format!("{JOBS}/{job}/cancel"), &json!({}))));
        eventually("the job's end", || tuning.jobs()[0].status.is_end().then_some(()));
    }
    Some(job)
}

/// Kills the gateway at the moment, starts it again, and looks at what has become of the job and the books.
fn survives(setup: Setup, provider: &SimulatedProvider, (moment, end): (Moment, &str)) {
    let tuning = provider.tuning();
    tuning.pace(Pace::Manual);
    let gate = Gate::new();
    let mut gateway = TestGateway::with(setup.and(SHORT_LEASES)).start();
    let key = {
        let tuner = Tuner::new(&gateway);
        bring(&tuner, provider, moment, &gate);
        tuner.key
    };
    gateway.kill();
    gate.open();
    if let Moment::EndsMeanwhile(status) = moment {
        tuning.until(status);
    }
    gateway.start_again();
    tuning.pace(Pace::EveryPoll(1));
    let tuner = Tuner { gateway: &gateway, key };
    let jobs = tuner.get(JOBS);
    assert_eq!(jobs["data"].as_array().map(Vec::len), Some(1), "{moment:?}: {jobs:#}");
    let job = id(&jobs["data"][0]);
    if moment == Moment::Seen(Status::Paused) {
        tuner.call(Call::post(&format!("{JOBS}/{job}/cancel"), &json!({}))).expect(200);
    }
    println!("{moment:?}: {job}");
    let ended = tuner.await_status(&job, end);
    assert_eq!(tuning.jobs().len(), 1, "{moment:?}: one job at the provider");
    let uploaded = tuning.files().iter().filter(|file| file.purpose == "fine-tune").count();
    assert!(uploaded <= 1, "{moment:?}: the file was uploaded {uploaded} times");
    audit(&gateway, &job, &ended, moment);
}

/// One hold that stood at a time, one end of it, and the bill's amount.
fn audit(gateway: &TestGateway, job: &str, ended: &Value, moment: Moment) {
    let journal = gateway.settled_journal(|journal| {
        journal.standing_holds().is_empty() && journal.0.iter().any(|entry| entry.is_training())
    });
    let of_job: Vec<_> = journal.0.iter().filter(|entry| entry.is_training()).collect();
    assert!(of_job.iter().all(|entry| entry.request_id == job), "{moment:?}: {of_job:#?}");
    let mut standing = 0;
    for entry in &of_job {
        match entry.kind.as_str() {
            // a new hold replaces the old one in the same append: it may come first
            "hold" => standing += 1,
            _ if entry.ends.is_some() => standing -= 1,
            _ => {}
        }
        assert!((0..=2).contains(&standing), "{moment:?}: {of_job:#?}");
    }
    assert_eq!(standing, 0, "{moment:?}");
    let settled: Vec<_> = of_job.iter().filter(|entry| entry.kind == "usage").collect();
    let charges = gateway.training_charges();
    assert!(settled.len() <= 1, "{moment:?}: {settled:#?}");
    assert_eq!(
        charges.len(),
        settled.iter().filter(|entry| entry.cost > 0).count(),
        "{moment:?}: {charges:#?}"
    );
    if moment != Moment::AutoEpochs {
        assert_eq!(of_job.iter().filter(|entry| entry.kind == "hold").count(), 1, "{moment:?}: one hold");
    }
    if ended["status"] == "succeeded" {
        assert_eq!(settled[0].cost.unsigned_abs(), charges[0].nanos, "{moment:?}");
    }
}

/// All moments, a few at a time: they mostly wait.
fn survives_all(setup: impl Fn(&SimulatedProvider) -> Setup + Sync) {
    for few in MOMENTS.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for moment in few {
                let setup = &setup;
                scope.spawn(move || {
                    let provider = SimulatedProvider::start();
                    survives(setup(&provider), &provider, *moment);
                });
            }
        });
    }
}

#[test]
fn a_job_survives_kill_9_at_every_moment() {
    survives_all(at_openai);
}

#[test]
fn a_job_survives_kill_9_at_every_moment_on_postgresql() {
    if postgres().is_none() {
        return;
    }
    survives_all(|provider| {
        let (server, name) = postgres().expect("it was there a moment ago");
        at_openai(provider).on(&server.url(&name))
    });
}

/// The connection breaks instead of the process: the list is searched before anything is created again.
#[test]
fn a_lost_answer_makes_no_second_job() {
    for route in [Route::UploadFile, Route::CreateJob, Route::GetJob, Route::JobEvents] {
        let provider = SimulatedProvider::start();
        provider.tuning().loses_next_answer(route);
        let gateway = TestGateway::with(at_openai(&provider)).start();
        let tuner = Tuner::new(&gateway);
        let job = tuner.job("gpt-4.1-mini");
        tuner.await_status(&job, "succeeded");
        assert_eq!(provider.tuning().jobs().len(), 1, "{route:?}");
    }
}

/// Nothing was done: it is done once.
#[test]
fn a_lost_question_is_asked_again() {
    for route in [Route::UploadFile, Route::CreateJob] {
        let provider = SimulatedProvider::start();
        provider.tuning().loses_next_question(route);
        let gateway = TestGateway::with(at_openai(&provider)).start();
        let tuner = Tuner::new(&gateway);
        let job = tuner.job("gpt-4.1-mini");
        tuner.await_status(&job, "succeeded");
        assert_eq!(provider.tuning().jobs().len(), 1, "{route:?}");
    }
}

/// Rate limits and outages delay a job, and no more.
#[test]
fn troubles_of_the_provider_delay_a_job() {
    use crate::support::provider::Trouble;
    let provider = SimulatedProvider::start();
    for route in [Route::UploadFile, Route::CreateJob, Route::GetJob] {
        provider.tuning().fails_next(route, Trouble::rate_limited_for_ms(20));
        provider.tuning().fails_next(route, Trouble::overloaded());
    }
    let gateway = TestGateway::with(at_openai(&provider)).start();
    let tuner = Tuner::new(&gateway);
    let job = tuner.job("gpt-4.1-mini");
    tuner.await_status(&job, "succeeded");
    assert_eq!(provider.tuning().jobs().len(), 1);
}

/// Two gateways on one ledger step a job once.
#[test]
fn two_gateways_share_the_work() {
    let provider = SimulatedProvider::start();
    provider.tuning().pace(Pace::Every(Duration::from_millis(200)));
    let mut gateway = TestGateway::with(at_openai(&provider).and(SHORT_LEASES)).start();
    // before the other gateway starts: it knows a key that is there
    let key = Tuner::new(&gateway).key;
    let replica = gateway.replica();
    let tuner = Tuner { gateway: &gateway, key };
    let jobs: Vec<String> = (0..4).map(|_| tuner.job("gpt-4.1-mini")).collect();
    for job in &jobs {
        tuner.await_status(job, "succeeded");
        eventually("the job at the other gateway", || {
            let call = Call::get(&format!("{JOBS}/{job}")).bearer(&tuner.key);
            let there = Connection::to(replica.address()).call(&call);
            (there.status == 200 && there.json()["status"] == "succeeded").then_some(())
        });
    }
    assert_eq!(provider.tuning().jobs().len(), 4);
    gateway.audit_ledger();
    replica.stop();
}
