//! The provider's fine-tuning: files, uploads, jobs, models and Azure's deployments, with their whole life. The test has
//! the clock and the pace, says what goes wrong, and sees everything; the bill is the provider's own.
//!
//! One account at OpenAI and one at Azure stand side by side: neither sees what the other has. Files are never lost
//! when a gateway dies: that is what the tests of crashes rest on.

mod arm;
mod azure;
mod bill;
mod files;
mod hours;
mod jobs;
mod openai;
mod routes;
mod time;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::server::{After, Request, Wire};
use super::endpoints::House;
use super::{Gate, Office, Trouble};
pub(crate) use arm::Deployment;
#[cfg(test)]
pub(crate) use arm::Provisioning;
pub(crate) use bill::Charge;
pub(crate) use files::StoredFile;
pub(crate) use hours::{Rounding, Stood};
pub(crate) use jobs::{Job, Status};
pub(crate) use routes::Route;
pub(super) use routes::TuningCall;
use time::Clock;
pub(crate) use time::Pace;

/// Whose books a thing is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    OpenAi,
    Azure,
}

impl Account {
    const fn of(house: House) -> Self {
        match house {
            House::OpenAi => Self::OpenAi,
            House::AzureClassic | House::AzureV1 => Self::Azure,
        }
    }
}

/// Which words a provider of a certain age speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Today,
    /// The first weeks of `/v1/fine_tuning/jobs`: other statuses, result files as objects, no `error` and no `seed`.
    August2023,
}

/// One call of the tuning API, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) route: Route,
    pub(crate) method: String,
    pub(crate) target: String,
    /// What was answered, whether or not the answer was sent.
    pub(crate) status: u16,
    /// The JSON that was sent; null for files.
    pub(crate) body: Value,
}

/// What goes wrong with one call.
#[derive(Debug, Clone)]
enum Fault {
    /// Nothing is done, and this is the answer.
    Fails(Trouble),
    /// The work is done; the connection breaks before the answer.
    LosesAnswer,
    /// The connection breaks before anything is done.
    LosesQuestion,
    /// The work is done; the answer waits for the gate.
    Holds(Gate),
    /// Nothing goes wrong: what is queued behind it is for a later call.
    Passes,
}

/// An answer before anything goes wrong with it.
#[derive(Debug, Clone)]
struct Served {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Served {
    fn json(status: u16, body: &Value) -> Self {
        Self::bytes(status, "application/json", body.to_string().into_bytes())
    }

    fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    fn bytes(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type".to_owned(), content_type.to_owned())], body }
    }

    fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn wire(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} As It Is\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

impl From<Trouble> for Served {
    fn from(trouble: Trouble) -> Self {
        let mut served = Self::json(trouble.status, &trouble.body);
        served.headers.extend(trouble.headers);
        served
    }
}

/// What a call is answered with, or the provider's error.
type Answered = Result<Served, Trouble>;

/// Numbers for names: no two things of one provider have the same.
#[derive(Debug, Default)]
struct Ids(u64);

impl Ids {
    /// The prefix and a number.
    fn next(&mut self, prefix: &str) -> String {
        self.0 += 1;
        format!("{prefix}sim{:05}", self.0)
    }

    /// 32 digits in hex, as Azure names things.
    fn hex(&mut self) -> String {
        self.0 += 1;
        format!("{:032x}", u128::from(self.0).wrapping_mul(0xb044_a9d3_cf9c_4228_b5d3_9356_7f69_3b83))
    }
}

/// What one call is about.
struct Asked<'a> {
    house: House,
    route: Route,
    /// The file, upload, job, model or deployment in the path; empty where there is none.
    id: String,
    request: &'a Request,
}

impl Asked<'_> {
    const fn account(&self) -> Account {
        Account::of(self.house)
    }

    /// The parameters of the query, decoded.
    fn query(&self) -> Vec<(String, String)> {
        let query = self.request.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.query().into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// `limit`, or what the route has by default.
    fn limit(&self, default: usize) -> usize {
        self.parameter("limit").and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// The body as JSON, or the error for one that is none.
    fn json(&self) -> Result<Value, Trouble> {
        let body: Option<Value> = serde_json::from_slice(&self.request.body).ok();
        body.filter(Value::is_object).ok_or_else(|| self.invalid("We could not parse the JSON body.", None))
    }

    /// 400 in the manner of the house.
    fn invalid(&self, message: &str, param: Option<&str>) -> Trouble {
        match self.account() {
            Account::OpenAi => {
                let mut trouble = Trouble::openai(400, "invalid_request_error", None, message);
                trouble.body["error"]["param"] = param.into();
                trouble
            }
            Account::Azure => Trouble::azure(400, "invalidPayload", message),
        }
    }

    /// 404 in the manner of the house.
    fn not_found(&self, message: &str) -> Trouble {
        match self.account() {
            Account::OpenAi => Trouble::openai(404, "invalid_request_error", None, message),
            Account::Azure => Trouble::azure(404, "notFound", message),
        }
    }
}

/// Cuts a page out of what is listed, which is in its order: what follows `after`, at most `limit`. True: there is more.
fn page<T>(listed: Vec<T>, id: impl Fn(&T) -> &str, after: Option<&str>, limit: usize) -> (Vec<T>, bool) {
    let from = match after {
        Some(after) => listed.iter().position(|item| id(item) == after).map_or(listed.len(), |at| at + 1),
        None => 0,
    };
    let mut rest: Vec<T> = listed.into_iter().skip(from).collect();
    let more = rest.len() > limit;
    rest.truncate(limit);
    (rest, more)
}

/// Everything that the provider knows of fine-tuning.
#[derive(Debug)]
pub(super) struct Workshop {
    clock: Clock,
    pace: Pace,
    dialect: Dialect,
    ids: Ids,
    files: files::Files,
    jobs: jobs::Jobs,
    arm: arm::Arm,
    faults: Vec<(Route, VecDeque<Fault>)>,
    calls: Vec<Call>,
    charges: bill::Prices,
    hourly: hours::HourlyPrices,
}

impl Workshop {
    pub(super) fn new() -> Self {
        Self {
            clock: Clock::Machine(0),
            pace: Pace::EveryPoll(1),
            dialect: Dialect::Today,
            ids: Ids::default(),
            files: files::Files::default(),
            jobs: jobs::Jobs::new(),
            arm: arm::Arm::new(),
            faults: Vec::new(),
            calls: Vec::new(),
            charges: bill::Prices::default(),
            hourly: hours::HourlyPrices::default(),
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The model that answers under a name: a deployment's own, or that of the name.
    pub(super) fn model_behind(&mut self, name: &str) -> String {
        self.arm.model_of(name).unwrap_or_else(|| name.to_owned())
    }

    /// Why a model or deployment cannot answer just now: it is deleted, not there yet or gone by itself. Counts as a use.
    pub(super) fn refuses(&mut self, name: &str, house: House) -> Option<Trouble> {
        self.settle(None);
        match Account::of(house) {
            Account::OpenAi => {
                let deleted = self.jobs.models.iter().any(|model| model.name == name && model.is_deleted);
                deleted.then(|| Trouble::model_not_found(name))
            }
            Account::Azure => self.arm.refuses(name, self.clock.now_ms()),
        }
    }

    fn fault(&mut self, route: Route) -> Option<Fault> {
        let (_, queue) = self.faults.iter_mut().find(|(at, _)| *at == route)?;
        queue.pop_front()
    }

    fn queue(&mut self, route: Route, fault: Fault) {
        match self.faults.iter_mut().find(|(at, _)| *at == route) {
            Some((_, queue)) => queue.push_back(fault),
            None => self.faults.push((route, VecDeque::from([fault]))),
        }
    }

    /// Moves on whatever is due. `polled`: what a call has just asked for.
    fn settle(&mut self, polled: Option<&str>) {
        let now_ms = self.now_ms();
        self.files.move_on(self.pace, now_ms, polled);
        let moved = self.jobs.due(self.pace, now_ms, polled);
        for (at, steps) in moved {
            for _ in 0..steps {
                self.move_job(at);
            }
        }
        self.arm.move_on(self.pace, now_ms, polled);
    }

    fn move_job(&mut self, at: usize) {
        let now_s = self.now_ms() / 1_000;
        self.jobs.step(at, now_s, &mut self.files, &mut self.ids, self.dialect);
    }

    fn serve(&mut self, asked: &Asked<'_>) -> Served {
        self.settle(asked.route.is_poll().then_some(asked.id.as_str()));
        let answered = match asked.route {
            Route::UploadFile
            | Route::ListFiles
            | Route::GetFile
            | Route::FileContent
            | Route::DeleteFile
            | Route::CreateUpload
            | Route::AddPart
            | Route::CompleteUpload
            | Route::CancelUpload => self.serve_files(asked),
            Route::PutDeployment
            | Route::GetDeployment
            | Route::ListDeployments
            | Route::PatchDeployment
            | Route::DeleteDeployment
            | Route::GetOperation
            | Route::Token => self.serve_arm(asked),
            _ => self.serve_jobs(asked),
        };
        answered.unwrap_or_else(Served::from)
    }

    fn note(&mut self, asked: &Asked<'_>, status: u16) {
        self.calls.push(Call {
            route: asked.route,
            method: asked.request.method.clone(),
            target: asked.request.target.clone(),
            status,
            body: serde_json::from_slice(&asked.request.body).unwrap_or(Value::Null),
        });
    }
}

impl Office {
    /// Answers a call of the tuning API.
    pub(super) async fn tune(&self, call: TuningCall, request: &Request, wire: &mut Wire) -> After {
        let asked = Asked { house: call.house, route: call.route, id: call.id, request };
        let (fault, served) = {
            let memory = &mut *self.0.lock();
            let fault = memory.tuning.fault(asked.route);
            let served = match &fault {
                Some(Fault::Fails(trouble)) => Served::from(trouble.clone()),
                Some(Fault::LosesQuestion) => Served::empty(0),
                _ => match memory.manner.refuses_tuner(&asked, &memory.tuning.arm) {
                    Some(trouble) => Served::from(trouble),
                    None => memory.tuning.serve(&asked),
                },
            };
            memory.tuning.note(&asked, served.status);
            (fault, served)
        };
        match fault {
            Some(Fault::LosesAnswer | Fault::LosesQuestion) => return After::Close,
            Some(Fault::Holds(gate)) => {
                if wire.wait_for(gate.opened()).await.is_err() {
                    return After::Close;
                }
            }
            Some(Fault::Fails(_) | Fault::Passes) | None => {}
        }
        match wire.write(&served.wire()).await {
            Ok(()) => After::KeepAlive,
            Err(_) => After::Close,
        }
    }
}

impl super::Manner {
    /// Whether the credential of a tuning call is wrong for what it asks.
    fn refuses_tuner(&self, asked: &Asked<'_>, arm: &arm::Arm) -> Option<Trouble> {
        if asked.route == Route::Token {
            return None;
        }
        if asked.route.is_control_plane() {
            return arm.refuses_credential(asked.request);
        }
        super::answers::refusal(asked.house, asked.request, self)
    }
}

/// The handle of a test on a provider's fine-tuning.
#[derive(Clone)]
pub(crate) struct Tuning(Arc<Office>);

impl Tuning {
    pub(super) const fn new(office: Arc<Office>) -> Self {
        Self(office)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Workshop) -> T) -> T {
        work(&mut self.0.0.lock().tuning)
    }

    /// Stops the provider's clock at so many ms since 1970 UTC. Without this it goes with the machine's.
    pub(crate) fn now(&self, now_ms: i64) -> &Self {
        self.with(|workshop| workshop.clock = Clock::Stands(now_ms));
        self
    }

    /// The time by the provider's clock, ms since 1970 UTC.
    pub(crate) fn time_ms(&self) -> i64 {
        self.with(|workshop| workshop.now_ms())
    }

    /// Moves the provider's clock on.
    pub(crate) fn advance(&self, time: Duration) -> &Self {
        self.with(|workshop| {
            workshop.clock.advance(time);
            workshop.settle(None);
        });
        self
    }

    /// When things move on to their next state. Without this, whenever they are asked for.
    pub(crate) fn pace(&self, pace: Pace) -> &Self {
        self.with(|workshop| workshop.pace = pace);
        self
    }

    /// The words of that age, at OpenAI.
    pub(crate) fn speaks(&self, dialect: Dialect) -> &Self {
        self.with(|workshop| workshop.dialect = dialect);
        self
    }

    /// Moves everything that is under way on by one state.
    pub(crate) fn step(&self) -> &Self {
        self.with(|workshop| {
            workshop.files.step();
            for at in 0..workshop.jobs.all.len() {
                workshop.move_job(at);
            }
            let now_ms = workshop.now_ms();
            workshop.arm.step(now_ms);
        });
        self
    }

    /// Moves files alone on by one state: Azure takes them in before a job may name them.
    pub(crate) fn takes_in_files(&self) -> &Self {
        self.with(|workshop| workshop.files.step());
        self
    }

    /// Moves everything on until the newest job stands so; fails when it never does.
    #[track_caller]
    pub(crate) fn until(&self, status: Status) -> &Self {
        for _ in 0..100 {
            if self.jobs().last().expect("a job at the provider").status == status {
                return self;
            }
            self.step();
        }
        panic!("the job never is {status:?}: {:#?}", self.jobs().last());
    }

    /// The next call of a route does nothing and is answered with this.
    pub(crate) fn fails_next(&self, route: Route, trouble: Trouble) -> &Self {
        self.with(|workshop| workshop.queue(route, Fault::Fails(trouble)));
        self
    }

    /// The next call of a route does its work; the connection breaks before the answer.
    pub(crate) fn loses_next_answer(&self, route: Route) -> &Self {
        self.with(|workshop| workshop.queue(route, Fault::LosesAnswer));
        self
    }

    /// The next call of a route breaks the connection before anything is done.
    pub(crate) fn loses_next_question(&self, route: Route) -> &Self {
        self.with(|workshop| workshop.queue(route, Fault::LosesQuestion));
        self
    }

    /// The next call of a route does its work; its answer waits for the gate.
    pub(crate) fn holds_next_answer(&self, route: Route, gate: &Gate) -> &Self {
        self.with(|workshop| workshop.queue(route, Fault::Holds(gate.clone())));
        self
    }

    /// Nothing happens to the next call of a route: what is queued behind it is for the call after it.
    pub(crate) fn passes_next(&self, route: Route) -> &Self {
        self.with(|workshop| workshop.queue(route, Fault::Passes));
        self
    }

    /// Somebody deletes a model by hand.
    pub(crate) fn portal_deletes(&self, name: &str) -> &Self {
        self.with(|workshop| {
            let found = workshop.jobs.models.iter_mut().filter(|model| model.name == name);
            found.for_each(|model| model.is_deleted = true);
        });
        self
    }

    /// The next job that is created fails when it stands so, with this code and message.
    pub(crate) fn next_job_fails(&self, at: Status, code: &str, message: &str) -> &Self {
        self.with(|workshop| workshop.jobs.next_fails(at, code, message));
        self
    }

    /// Nobody may create a job from now on.
    pub(crate) fn closes_training(&self) -> &Self {
        self.with(|workshop| workshop.jobs.is_closed = true);
        self
    }

    /// What `auto` epochs become.
    pub(crate) fn chooses_epochs(&self, epochs: u64) -> &Self {
        self.with(|workshop| workshop.jobs.auto_epochs = epochs);
        self
    }

    /// Jobs from now on end without saying what they have trained.
    pub(crate) fn tells_no_tokens(&self) -> &Self {
        self.with(|workshop| workshop.jobs.tells_tokens = false);
        self
    }

    /// Jobs from now on say that they computed for so long, and are billed that, whoever tells it.
    pub(crate) fn computes(&self, seconds: u64) -> &Self {
        self.with(|workshop| workshop.jobs.compute_seconds = Some(seconds));
        self
    }

    /// Jobs from now on end with so many result files.
    pub(crate) fn writes_results(&self, results: usize) -> &Self {
        self.with(|workshop| workshop.jobs.results = results);
        self
    }

    /// How many tokens each training file has for one epoch. Without this one word is one token.
    pub(crate) fn counts(&self, tokens: u64) -> &Self {
        self.with(|workshop| workshop.jobs.counted = Some(tokens));
        self
    }

    /// Trains models whose name begins so, and charges so many nano-dollars for each trained token.
    pub(crate) fn trains(&self, base: &str, token_nanos: u64) -> &Self {
        self.with(|workshop| workshop.charges.set(base, bill::Rate::Token(token_nanos)));
        self
    }

    /// The same, but charges so many nano-dollars for each hour, in steps of so many seconds.
    pub(crate) fn trains_by_the_hour(&self, base: &str, nanos: u64, step_seconds: u64) -> &Self {
        self.with(|workshop| workshop.charges.set(base, bill::Rate::Hour { nanos, step_seconds }));
        self
    }

    /// Every call of the tuning API so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.with(|workshop| workshop.calls.clone())
    }

    /// How often a route was called.
    pub(crate) fn count(&self, route: Route) -> usize {
        self.with(|workshop| workshop.calls.iter().filter(|call| call.route == route).count())
    }

    /// Every job, oldest first.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.with(|workshop| {
            workshop.settle(None);
            workshop.jobs.all.clone()
        })
    }

    /// Every file that is not deleted, oldest first, results included.
    pub(crate) fn files(&self) -> Vec<StoredFile> {
        self.with(|workshop| workshop.files.stored.clone())
    }

    /// Every deployment that there ever was, oldest first.
    pub(crate) fn deployments(&self) -> Vec<Deployment> {
        self.with(|workshop| {
            workshop.settle(None);
            workshop.arm.deployments.clone()
        })
    }

    /// Somebody makes a deployment in the portal: it stands since a moment, ms since 1970 UTC.
    pub(crate) fn stands(&self, name: &str, model: &str, sku: &str, created_ms: i64) -> &Self {
        self.with(|workshop| workshop.arm.put(name, model, sku, created_ms));
        self
    }

    /// Somebody takes a deployment away in the portal, at a moment, ms since 1970 UTC.
    pub(crate) fn goes(&self, name: &str, at_ms: i64) -> &Self {
        self.with(|workshop| workshop.arm.take(name, at_ms));
        self
    }

    /// What an hour of a deployment costs, nano-dollars, and how time is rounded. Others cost nothing.
    pub(crate) fn hosts(&self, name: &str, hour_nanos: u64, rounding: Rounding) -> &Self {
        self.with(|workshop| workshop.hourly.set(name, hour_nanos, rounding));
        self
    }

    /// What the deployments cost that ever stood, oldest first: until they were gone, or up to now.
    pub(crate) fn hosting_bill(&self) -> Vec<Stood> {
        self.with(|workshop| {
            workshop.settle(None);
            let now_ms = workshop.now_ms();
            let all = workshop.arm.deployments.iter();
            all.filter_map(|deployment| workshop.hourly.of(deployment, now_ms)).collect()
        })
    }

    /// The fine-tuned models that are not deleted.
    pub(crate) fn models(&self) -> Vec<String> {
        self.with(|workshop| {
            let left = workshop.jobs.models.iter().filter(|model| !model.is_deleted);
            left.map(|model| model.name.clone()).collect()
        })
    }

    /// So many requests to a new deployment find nothing yet.
    pub(crate) fn deployments_lag(&self, requests: u32) -> &Self {
        self.with(|workshop| workshop.arm.lag = requests);
        self
    }

    /// So many deployments are on one page of the list.
    pub(crate) fn deployments_per_page(&self, deployments: usize) -> &Self {
        self.with(|workshop| workshop.arm.per_page = deployments);
        self
    }

    /// The next deployment that is made fails instead of succeeding.
    pub(crate) fn next_deployment_fails(&self) -> &Self {
        self.with(|workshop| workshop.arm.next_fails = true);
        self
    }

    /// What was trained so far, and what it costs: succeeded jobs, and others as far as they were billed.
    pub(crate) fn training_bill(&self) -> Vec<Charge> {
        self.with(|workshop| {
            workshop.settle(None);
            workshop.jobs.all.iter().filter_map(|job| workshop.charges.of(job)).collect()
        })
    }
}

/// `{"object":"list",…}`
fn list(data: &[Value], has_more: bool) -> Value {
    json!({"object": "list", "data": data, "has_more": has_more})
}
