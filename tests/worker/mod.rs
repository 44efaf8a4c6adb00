//! `tunegate worker`: the real binary on real sockets with the real model.

mod chat;
mod completions;
mod embeddings;
mod errors;
mod lifecycle;
mod load;
mod metrics;
mod score;
mod tuning;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// The longest any condition is waited for; the machine may be busy, and others train on it.
const PATIENCE: Duration = Duration::from_secs(240);

/// A running worker; killed when dropped.
struct Worker {
    process: Child,
    /// `http://127.0.0.1:port`
    base: String,
    client: reqwest::Client,
}

/// The model that answers.
pub(crate) fn model_file() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = asked.unwrap_or(root);
    assert!(path.exists(), "the test model is missing: run `make model`, or set TUNEGATE_TEST_MODEL");
    path
}

/// The folder of the embedding model.
pub(crate) fn embedding_model() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_EMBEDDING_MODEL").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    let path = asked.unwrap_or(root);
    assert!(path.is_dir(), "no embedding model: run `make model`, or set TUNEGATE_TEST_EMBEDDING_MODEL");
    path
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunegate"));
    command.args(["worker", "--threads", "2", "--model-file"]).arg(model_file()).args(arguments);
    command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts a worker and returns it with the place it says it listens at.
fn spawn(arguments: &[&str]) -> (Child, String) {
    listening(&mut command(arguments))
}

/// The same of what a command becomes.
fn listening(command: &mut Command) -> (Child, String) {
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let place = lines.by_ref().map_while(Result::ok).find_map(|line| {
        log += &line;
        line.split_once("listening address=").map(|(_, place)| place.trim_matches('"').to_owned())
    });
    // Read on, so that the worker never blocks on its log.
    std::thread::spawn(move || lines.for_each(drop));
    (process, place.unwrap_or_else(|| panic!("the worker did not start: {log}")))
}

impl Worker {
    fn start(arguments: &[&str]) -> Self {
        Self::of(&mut command(&[&["--listen", "127.0.0.1:0"], arguments].concat()))
    }

    /// The worker that a command becomes; it listens at TCP.
    fn of(command: &mut Command) -> Self {
        let (process, place) = listening(command);
        Self { process, base: format!("http://{place}"), client: reqwest::Client::new() }
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(format!("{}{path}", self.base)).json(body).send().await.unwrap()
    }

    /// Asks and expects an answer.
    async fn chat(&self, body: &Value) -> Value {
        let response = self.post("/v1/chat/completions", body).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    async fn health(&self) -> Value {
        self.get("/health").await.json().await.unwrap()
    }

    async fn until_active(&self, count: u64) {
        eventually("the number of active requests", async || self.health().await["active"] == count).await;
    }

    /// Waits for the process to end by itself.
    async fn ended(&mut self) -> ExitStatus {
        ended(&mut self.process).await
    }
}

/// A usage without how long was computed, which is some time and another each time; that, in microseconds.
fn timeless(usage: &Value) -> (Value, u64) {
    let mut usage = usage.clone();
    let told = usage.as_object_mut().unwrap().remove("tunegate_compute_us").unwrap().as_u64().unwrap();
    assert!(told > 0, "nothing is computed in no time");
    (usage, told)
}

async fn ended(process: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the end of the worker", async || {
        status = process.try_wait().unwrap();
        status.is_some()
    })
    .await;
    status.unwrap()
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain: {what}");
}

/// A greedy question.
fn question(text: &str) -> Value {
    json!({"model": "smollm2-135m", "messages": [{"role": "user", "content": text}], "temperature": 0})
}

fn with(mut body: Value, members: &Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// How long was computed so far, as the comments of a stream say it, one before each piece of text.
fn told_us(stream: &str) -> Vec<u64> {
    let comments = stream.lines().filter_map(|line| line.strip_prefix(": tunegate-compute-us "));
    comments.map(|told| told.parse().unwrap()).collect()
}

/// The data lines of a stream, `[DONE]` left off after it was checked.
fn events(stream: &str) -> Vec<Value> {
    let events = stream.strip_suffix("\n\n").unwrap().split("\n\n");
    let lines: Vec<&str> =
        events.map(|event| event.lines().find(|line| !line.starts_with(':')).unwrap()).collect();
    let (done, events) = lines.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]");
    events.iter().map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}
