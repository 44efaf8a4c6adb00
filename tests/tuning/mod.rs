//! Fine-tuning through the door: the flows of real clients, teams among themselves, crashes at every moment, and each
//! provider's manners. Every `TestGateway` compares what it has booked for training with the provider's own bill.

mod articles;
mod azure;
mod billing;
mod captures;
mod crashes;
mod evaluations;
mod files;
mod jobs;
mod local;
mod moderation;
mod patience;
mod registry;
mod tenancy;
mod transfers;

use serde_json::{Value, json};

use crate::support::multipart::Form;
use crate::support::provider::UPSTREAM_KEY;
use crate::support::wait::{LIMIT, within_limit};
use crate::support::{Answer, Call, Setup, SimulatedProvider, TestGateway, training_rows};

const FILES: &str = "/v1/files";
const JOBS: &str = "/v1/fine_tuning/jobs";
const KEYS: &str = "/admin/v1/keys";
const TEAMS: &str = "/admin/v1/teams";
/// Jobs are looked at often: tests wait for them.
const QUICK: &str = "\n[tuning]\npoll_ms = 50\npoll_max_ms = 200\n";

/// A gateway in front of a provider that trains at OpenAI's own paths, and no model yet.
fn at_openai(provider: &SimulatedProvider) -> Setup {
    let sections = format!(
        "\n[providers.openai]\nkind = \"openai\"\nbase_url = \"{}/v1\"\napi_key = {{ file = \"upstream.key\" }}\n",
        provider.url()
    );
    Setup::bare().file("upstream.key", UPSTREAM_KEY).watched(provider).and(&sections).and(QUICK)
}

/// A new key of a team, which is made if there is none; `right` as the admin API names it.
#[track_caller]
fn key_of(gateway: &TestGateway, team: &str, right: &str) -> String {
    let made = gateway.admin(Call::post(TEAMS, &json!({"alias": team})));
    assert!(matches!(made.status, 201 | 409), "{}", made.text());
    let alias = format!("{team}-{right}");
    let body = json!({"alias": alias, "team": team, "rights": {"tuning": right}});
    let made = gateway.admin(Call::post(KEYS, &body)).expect(201).json();
    made["key"].as_str().expect("the key is shown once").to_owned()
}

/// An application of some team.
struct Tuner<'a> {
    gateway: &'a TestGateway,
    key: String,
}

impl<'a> Tuner<'a> {
    /// One that may do everything.
    #[track_caller]
    fn new(gateway: &'a TestGateway) -> Self {
        Self { gateway, key: key_of(gateway, "support", "delete_models") }
    }

    fn call(&self, call: Call) -> Answer {
        self.gateway.call(call.bearer(&self.key))
    }

    #[track_caller]
    fn get(&self, target: &str) -> Value {
        self.call(Call::get(target)).expect(200).json()
    }

    fn upload(&self, rows: &[u8]) -> Answer {
        self.call(upload(FILES, rows))
    }

    /// A file of ten rows; its id.
    #[track_caller]
    fn file(&self) -> String {
        id(&self.upload(&training_rows(10)).expect(200).json())
    }

    /// A job on a new file; its id.
    #[track_caller]
    fn job(&self, model: &str) -> String {
        let order = json!({"model": model, "training_file": self.file(),
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}});
        id(&self.call(Call::post(JOBS, &order)).expect(200).json())
    }

    /// The job as the gateway shows it.
    #[track_caller]
    fn shown(&self, job: &str) -> Value {
        self.get(&format!("{JOBS}/{job}"))
    }

    /// Waits until the gateway shows that status.
    #[track_caller]
    fn await_status(&self, job: &str, status: &str) -> Value {
        let mut last = Value::Null;
        within_limit(|| {
            last = self.shown(job);
            (last["status"] == status).then(|| last.clone())
        })
        .unwrap_or_else(|| panic!("waited {LIMIT:?} in vain: {job} is {status}, but {last:#}"))
    }
}

/// A form with a file to train with.
fn upload(target: &str, rows: &[u8]) -> Call {
    let form = Form::new().field("purpose", "fine-tune").file("file", "train.jsonl", rows);
    Call::new("POST", target).body(&form.content_type(), &form.bytes())
}

#[track_caller]
fn id(shown: &Value) -> String {
    shown["id"].as_str().unwrap_or_else(|| panic!("no id in {shown}")).to_owned()
}
