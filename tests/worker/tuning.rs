//! Training at a worker: the real trainer, the real model, and kills.

mod adapters;
mod disk;
mod faults;
mod kills;
mod lasting;

use crate::support::multipart::Form;
use reqwest::header::CONTENT_TYPE;

use super::*;

const JOBS: &str = "/v1/fine_tuning/jobs";

/// Short rows, so that a step takes a moment.
fn rows(count: usize) -> String {
    let row = |at: usize| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Say {at}\"}}, {{\"role\": \"assistant\", \
             \"content\": \"{at}, nya!\"}}]}}\n"
        )
    };
    (0..count).map(row).collect()
}

/// A worker that trains in a folder.
pub(super) fn start(folder: &tempfile::TempDir) -> Worker {
    let path = folder.path().to_str().unwrap();
    Worker::start(&["--tuning-folder", path, "--tuning-checkpoint-ms", "1"])
}

/// Hands a file in, and returns what is said to it.
async fn hand_in(worker: &Worker, bytes: &[u8]) -> reqwest::Response {
    let form = Form::new().field("purpose", "fine-tune").file("file", "rows.jsonl", bytes);
    let (kind, body) = (form.content_type(), form.bytes());
    let url = format!("{}/v1/files", worker.base);
    worker.client.post(url).header(CONTENT_TYPE, kind).body(body).send().await.unwrap()
}

pub(super) async fn upload(worker: &Worker, text: &str) -> String {
    let answer = hand_in(worker, text.as_bytes()).await;
    assert_eq!(answer.status(), 200);
    let file: Value = answer.json().await.unwrap();
    file["id"].as_str().unwrap().to_owned()
}

pub(super) async fn create(worker: &Worker, order: &Value) -> String {
    let answer = worker.post(JOBS, order).await;
    let status = answer.status();
    let job: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{job:#}");
    job["id"].as_str().unwrap().to_owned()
}

async fn shown(worker: &Worker, id: &str) -> Value {
    worker.get(&format!("{JOBS}/{id}")).await.json().await.unwrap()
}

async fn listed(worker: &Worker, path: &str) -> Vec<Value> {
    let list: Value = worker.get(path).await.json().await.unwrap();
    list["data"].as_array().unwrap().clone()
}

/// What happened so far, newest first.
pub(super) async fn shown_events(worker: &Worker, id: &str) -> Vec<Value> {
    listed(worker, &format!("{JOBS}/{id}/events?limit=1000")).await
}

/// The steps told so far, oldest first.
async fn steps(worker: &Worker, id: &str) -> Vec<(u64, f64)> {
    let mut events = shown_events(worker, id).await;
    events.reverse();
    let step = |event: &Value| Some((event["data"]["step"].as_u64()?, event["data"]["train_loss"].as_f64()?));
    events.iter().filter_map(step).collect()
}

pub(super) async fn until(worker: &Worker, id: &str, status: &str) -> Value {
    let newest = async || listed(worker, &format!("{JOBS}/{id}/events?limit=1")).await;
    let mut last = Vec::new();
    let begun = std::time::Instant::now();
    // only one that stands still is waited for in vain: a trainer leaves the processor to everybody else
    loop {
        let mut job = Value::Null;
        eventually(&format!("the job to be {status}, or to go on"), async || {
            job = shown(worker, id).await;
            let now = job["status"].as_str().unwrap();
            assert!(now == status || !["failed", "succeeded", "cancelled"].contains(&now), "{job:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            now == status || newest().await != last
        })
        .await;
        if job["status"] == status {
            return job;
        }
        assert!(begun.elapsed() < 5 * PATIENCE, "it goes round: {job:#}");
        last = newest().await;
    }
}

pub(super) fn order(file: &str, epochs: u64) -> Value {
    json!({
        "model": "smollm2-135m", "training_file": file, "suffix": "cat", "seed": 7,
        "hyperparameters": {"n_epochs": epochs, "batch_size": 1, "lora_r": 2},
    })
}

#[tokio::test]
async fn a_job_becomes_a_model_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let (file, other) = (upload(&worker, &rows(3)).await, upload(&worker, &rows(1)).await);
    let members = json!({
        "validation_file": other, "metadata": {"tunegate_job": "ours"},
        "hyperparameters": {"n_epochs": 5, "learning_rate_multiplier": 3},
    });
    let order = with(order(&file, 5), &members);
    let id = create(&worker, &order).await;
    let job = until(&worker, &id, "succeeded").await;
    assert_eq!(job["metadata"]["tunegate_job"], "ours");
    assert_eq!(job["hyperparameters"]["n_epochs"], 5);
    let trained = job["trained_tokens"].as_u64().unwrap();
    let computed = job["usage_metrics"]["compute_seconds"].as_i64().unwrap();
    let stood = job["finished_at"].as_i64().unwrap() - job["created_at"].as_i64().unwrap();
    assert!((1..=stood + 2).contains(&computed), "{computed} s of {stood} s");
    assert!(trained > 60 && trained.is_multiple_of(5), "{trained}");

    let told = steps(&worker, &id).await;
    assert!(told.iter().map(|(step, _)| *step).eq(1..=15), "{told:?}");
    assert!(told[14].1 < told[0].1 / 2.0, "{told:?}");
    let name = job["fine_tuned_model"].as_str().unwrap();
    assert!(name.starts_with("ft:smollm2-135m:local:cat:"), "{name}");
    let names: Vec<_> = listed(&worker, "/v1/models").await.iter().map(|model| model["id"].clone()).collect();
    assert!(names.contains(&json!(name)), "{names:?}");
    let kept = listed(&worker, &format!("{JOBS}/{id}/checkpoints")).await.len();
    assert!((3..=4).contains(&kept), "the last three, and the best: {kept}");

    let result = job["result_files"][0].as_str().unwrap();
    let curve = worker.get(&format!("/v1/files/{result}/content")).await.text().await.unwrap();
    assert!(curve.starts_with("step,train_loss,train_accuracy,valid_loss"), "{curve}");
    assert_eq!(curve.lines().count(), 16);

    let base = worker.chat(&with(question("Say 1"), &json!({"max_tokens": 8}))).await;
    let tuned = with(question("Say 1"), &json!({"max_tokens": 8, "model": format!("local/{name}")}));
    let answer = worker.chat(&tuned).await;
    assert_eq!(answer["model"], name);
    assert_ne!(content(&answer), content(&base), "the adapter changes nothing");
    let again = worker.chat(&with(question("Say 1"), &json!({"max_tokens": 8}))).await;
    assert_eq!(content(&again), content(&base), "the base is as it was");

    let url = format!("{}/v1/models/{name}", worker.base);
    assert_eq!(worker.client.delete(&url).send().await.unwrap().status(), 200);
    assert_eq!(worker.client.delete(&url).send().await.unwrap().status(), 404);
    assert_eq!(worker.post("/v1/chat/completions", &tuned).await.status(), 404);
}

#[tokio::test]
async fn a_job_pauses_goes_on_and_is_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let id = create(&worker, &order(&upload(&worker, &rows(30)).await, 5)).await;
    eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
    assert_eq!(worker.post(&format!("{JOBS}/{id}/pause"), &json!({})).await.status(), 200);
    until(&worker, &id, "paused").await;
    let before = steps(&worker, &id).await.len();
    assert_eq!(worker.post(&format!("{JOBS}/{id}/resume"), &json!({})).await.status(), 200);
    eventually("more steps", async || steps(&worker, &id).await.len() > before).await;
    assert_eq!(worker.post(&format!("{JOBS}/{id}/cancel"), &json!({})).await.status(), 200);
    until(&worker, &id, "cancelled").await;
    let refused = worker.post(&format!("{JOBS}/{id}/resume"), &json!({})).await;
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn what_can_not_be_trained_on_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let long = format!(
        r#"{{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "{}"}}]}}"#,
        "nya ".repeat(3000)
    );
    let tool = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}"#;
    for (text, words) in [
        ("{}\n", "line 1"),
        (&long, "longer than 1024 tokens"),
        (tool, "tools"),
        (r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, "line 1"),
    ] {
        let id = create(&worker, &order(&upload(&worker, text).await, 1)).await;
        let job = until(&worker, &id, "failed").await;
        let told = job["error"]["message"].as_str().unwrap();
        assert!(told.contains(words), "{told}");
        assert_eq!(job["error"]["code"], "invalid_training_file");
    }
    for (order, status, words) in [
        (order("file-none", 1), 404, "file-none"),
        (with(order("file-none", 1), &json!({"model": "gpt-4.1"})), 404, "gpt-4.1"),
        (with(order("file-none", 1), &json!({"method": {"type": "reinforcement"}})), 400, "grader"),
    ] {
        let answer = worker.post(JOBS, &order).await;
        assert_eq!(answer.status(), status);
        let told = answer.text().await.unwrap();
        assert!(told.contains(words), "{told}");
    }
}
