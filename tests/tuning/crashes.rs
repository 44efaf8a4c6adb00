//! Every state of a job × `kill -9` of the gateway at that moment: afterwards there is one job at the provider, one hold
//! and one settlement, and what was booked is the provider's bill.

use std::time::Duration;

use serde_json::{Value, json};

use super::azure::{AZURE_MODEL, at_azure, price_training};
use super::{FILES, JOBS, Tuner, at_openai, id};
use crate::money::postgres;
use crate::support::provider::tuning::{Pace, Route, Status};
use crate::support::{Call, Connection, Gate, Setup, SimulatedProvider, TestGateway, eventually};

/// The shortest leases there are: of the ledger, and of who steps jobs.
const SHORT_LEASES: &str =
    "\n[ledger]\nlease_ms = 1000\n\n[budgets.training]\nlimit_usd = \"1000\"\nwindow = \"total\"\n";

/// Some that a process keeps up on a busy machine, too.
const LEASES: &str =
    "\n[ledger]\nlease_ms = 5000\n\n[budgets.training]\nlimit_usd = \"1000\"\nwindow = \"total\"\n";

/// Moments that are tried at once: each has a gateway of its own, which writes to the disk.
const AT_ONCE: usize = 4;

/// When the gateway dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The provider has the file, and the answer is on its way.
    Uploading,
    /// The provider takes the file in.
    Importing,
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
    /// The first of its results is kept, and the second on its way.
    Closing,
    /// The provider has deleted the copy of its file, and the answer is on its way.
    Cleaning,
}

impl Moment {
    /// Whether the provider is held at an answer, so that nobody sees the job as it stands there.
    const fn is_held(self) -> bool {
        matches!(self, Self::Closing | Self::Cleaning)
    }

    /// Whether a provider has it. Only Azure takes files in; its classic API neither pauses nor has a word for files that
    /// are being checked: its jobs are queued from the first.
    fn is_of(self, place: &Place) -> bool {
        match self {
            Self::Importing => place.is_azure(),
            Self::Seen(Status::Paused | Status::Validating) => place.api != Some("classic"),
            _ => true,
        }
    }
}

/// Where jobs are trained.
#[derive(Debug, Clone, Copy)]
struct Place {
    model: &'static str,
    /// Of Azure's two.
    api: Option<&'static str>,
}

const AT_OPENAI: Place = Place { model: "gpt-4.1-mini", api: None };
const AT_AZURE: [Place; 2] =
    [Place { model: AZURE_MODEL, api: Some("v1") }, Place { model: AZURE_MODEL, api: Some("classic") }];

impl Place {
    const fn is_azure(&self) -> bool {
        self.api.is_some()
    }

    fn setup(&self, provider: &SimulatedProvider) -> Setup {
        match self.api {
            Some(api) => at_azure(provider, api),
            None => at_openai(provider),
        }
    }

    /// A gateway in front of it that knows what training costs.
    #[track_caller]
    fn start(&self, setup: Setup) -> TestGateway {
        let gateway = TestGateway::with(setup).start();
        if self.is_azure() {
            price_training(&gateway);
        }
        gateway
    }
}

/// Every moment, with what becomes of the job.
const MOMENTS: [(Moment, &str); 16] = [
    (Moment::Uploading, "succeeded"),
    (Moment::Importing, "succeeded"),
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
    (Moment::Closing, "succeeded"),
    (Moment::Cleaning, "succeeded"),
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
fn bring(
    tuner: &Tuner<'_>,
    provider: &SimulatedProvider,
    place: &Place,
    moment: Moment,
    gate: &Gate,
) -> Option<String> {
    let tuning = provider.tuning();
    let epochs = if moment == Moment::AutoEpochs { json!("auto") } else { json!(3) };
    let order = json!({"model": place.model, "training_file": tuner.file(),
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}}});
    let create = Call::post(JOBS, &order);
    match moment {
        Moment::Uploading => tuning.holds_next_answer(Route::UploadFile, gate),
        Moment::Creating => tuning.holds_next_answer(Route::CreateJob, gate),
        Moment::Seen(Status::Failed) | Moment::EndsMeanwhile(Status::Failed) => {
            tuning.next_job_fails(Status::Running, "server_error", "The machine broke.")
        }
        // the first goes through, the second is held
        Moment::Closing => tuning
            .writes_results(2)
            .passes_next(Route::FileContent)
            .holds_next_answer(Route::FileContent, gate),
        Moment::Cleaning => tuning.holds_next_answer(Route::DeleteFile, gate),
        _ => &tuning,
    };
    let mut waiting = send(tuner, create);
    if moment == Moment::Uploading {
        eventually("the file at the provider", || (tuning.files().len() == 1).then_some(()));
        return None;
    }
    if moment == Moment::Importing {
        let job = id(&waiting.answer().expect(200).json());
        eventually("the provider takes the file in", || {
            (tuner.shown(&job)["tunegate"]["stage"] == "importing").then_some(())
        });
        return Some(job);
    }
    eventually("the job at the provider", || {
        tuning.takes_in_files();
        (tuning.jobs().len() == 1).then_some(())
    });
    if moment == Moment::Creating {
        return None;
    }
    let job = id(&waiting.answer().expect(200).json());
    if moment.is_held() {
        let route = if moment == Moment::Closing { Route::FileContent } else { Route::DeleteFile };
        let calls = if moment == Moment::Closing { 2 } else { 1 };
        tuning.until(Status::Succeeded);
        eventually("the call that is held", || (tuning.count(route) == calls).then_some(()));
        return Some(job);
    }
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
            if status == Status::Validating {
                // before the gateway has the provider's answer, it says so of its own checks
                eventually("the gateway has seen the job", || {
                    (tuner.shown(&job)["tunegate"]["stage"] == "following").then_some(())
                });
            }
            status
        }
        Moment::AutoEpochs => {
            tuning.until(Status::Queued);
            Status::Queued
        }
        _ => {
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
fn survives(setup: Setup, provider: &SimulatedProvider, place: &Place, (moment, end): (Moment, &str)) {
    let tuning = provider.tuning();
    tuning.pace(Pace::Manual);
    let gate = Gate::new();
    let mut gateway = place.start(setup.and(SHORT_LEASES));
    let key = {
        let tuner = Tuner::new(&gateway);
        bring(&tuner, provider, place, moment, &gate);
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
    println!("{place:?}, {moment:?}: {job}");
    let ended = tuner.await_status(&job, end);
    assert_eq!(tuning.jobs().len(), 1, "{moment:?}: one job at the provider");
    eventually(&format!("{moment:?}: no copy of its file is left"), || {
        tuning.files().iter().all(|file| file.purpose != "fine-tune").then_some(())
    });
    let kept = tuner.get(&format!("{FILES}?purpose=fine-tune-results"))["data"].as_array().map(Vec::len);
    let results = ended["result_files"].as_array().map(Vec::len);
    assert_eq!(kept, results, "{moment:?}: each result is kept once");
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
fn survives_all(place: &Place, setup: impl Fn(&SimulatedProvider) -> Setup + Sync) {
    let moments: Vec<_> = MOMENTS.into_iter().filter(|(moment, _)| moment.is_of(place)).collect();
    a_few_at_once(&moments, |moment| {
        let provider = SimulatedProvider::start();
        survives(setup(&provider), &provider, place, *moment);
    });
}

fn a_few_at_once<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    for few in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for case in few {
                let work = &work;
                scope.spawn(move || work(case));
            }
        });
    }
}

#[test]
fn a_job_survives_kill_9_at_every_moment() {
    survives_all(&AT_OPENAI, at_openai);
}

#[test]
fn a_job_at_azure_survives_kill_9_at_every_moment() {
    let [v1, _] = &AT_AZURE;
    survives_all(v1, |provider| v1.setup(provider));
}

#[test]
fn and_so_it_does_on_the_classic_api() {
    let [_, classic] = &AT_AZURE;
    survives_all(classic, |provider| classic.setup(provider));
}

#[test]
fn a_job_survives_kill_9_at_every_moment_on_postgresql() {
    if postgres().is_none() {
        return;
    }
    survives_all(&AT_OPENAI, |provider| {
        let (server, name) = postgres().expect("it was there a moment ago");
        at_openai(provider).on(&server.url(&name))
    });
}

/// Each route with each place that is asked for it.
fn everywhere(routes: &[Route]) -> Vec<(Place, Route)> {
    let places = std::iter::once(AT_OPENAI).chain(AT_AZURE);
    let is_asked = |place: &Place, route: Route| route != Route::GetFile || place.is_azure();
    places
        .flat_map(|place| routes.iter().map(move |route| (place, *route)))
        .filter(|(place, route)| is_asked(place, *route))
        .collect()
}

/// A job that meets a fault comes to its end: one job there, one hold, one settlement, and nothing is left of its file.
#[track_caller]
fn comes_through(provider: &SimulatedProvider, place: &Place, what: &str) {
    let gateway = place.start(place.setup(provider));
    let tuner = Tuner::new(&gateway);
    let job = tuner.job(place.model);
    tuner.await_status(&job, "succeeded");
    assert_eq!(provider.tuning().jobs().len(), 1, "{place:?}, {what}");
    eventually(&format!("{place:?}, {what}: no copy of its file is left"), || {
        provider.tuning().files().iter().all(|file| file.purpose != "fine-tune").then_some(())
    });
    let journal = gateway.settled_journal(|journal| journal.standing_holds().is_empty());
    let count =
        |kind: &str| journal.0.iter().filter(|entry| entry.is_training() && entry.kind == kind).count();
    assert_eq!((count("hold"), count("usage")), (1, 1), "{place:?}, {what}");
}

/// The connection breaks instead of the process: the list is searched before anything is created again.
#[test]
fn a_lost_answer_makes_no_second_job() {
    let cases = everywhere(&[
        Route::UploadFile,
        Route::GetFile,
        Route::CreateJob,
        Route::GetJob,
        Route::JobEvents,
        Route::FileContent,
        Route::DeleteFile,
    ]);
    a_few_at_once(&cases, |(place, route)| {
        let provider = SimulatedProvider::start();
        provider.tuning().loses_next_answer(*route);
        comes_through(&provider, place, &format!("{route:?}"));
    });
}

/// Nothing was done: it is done once.
#[test]
fn a_lost_question_is_asked_again() {
    let cases = everywhere(&[Route::UploadFile, Route::CreateJob, Route::DeleteFile]);
    a_few_at_once(&cases, |(place, route)| {
        let provider = SimulatedProvider::start();
        provider.tuning().loses_next_question(*route);
        comes_through(&provider, place, &format!("{route:?}"));
    });
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
    let mut gateway = TestGateway::with(at_openai(&provider).and(LEASES)).start();
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
