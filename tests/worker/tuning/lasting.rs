//! What a job outlasts: files that can't be read for a while, bounds that are too narrow for what it has learned, trainers
//! that take the worker along. And what is refused or ended at once, since it would come to nothing or to something else.

use std::fs;
use std::os::unix::process::CommandExt as _;

use super::*;

/// A worker whose jobs are kept only at the ends of epochs.
fn seldom_kept(folder: &tempfile::TempDir) -> Worker {
    let path = folder.path().to_str().unwrap();
    Worker::start(&["--tuning-folder", path, "--tuning-checkpoint-ms", "3600000"])
}

/// The same in a group of its own, as a shell starts it.
fn in_a_terminal(folder: &tempfile::TempDir) -> Worker {
    let path = folder.path().to_str().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--tuning-folder", path, "--tuning-checkpoint-ms", "3600000"];
    Worker::of(command(&arguments).process_group(0))
}

/// A worker that serves no adapter of a higher rank.
fn of_rank(folder: &tempfile::TempDir, rank: &str) -> Worker {
    let path = folder.path().to_str().unwrap();
    Worker::start(&["--tuning-folder", path, "--tuning-checkpoint-ms", "1", "--max-adapter-rank", rank])
}

async fn told(worker: &Worker, id: &str, words: &str) -> bool {
    let events = listed(worker, &format!("{JOBS}/{id}/events?limit=1000")).await;
    events.iter().any(|event| event["message"].as_str().unwrap().contains(words))
}

async fn ask(worker: &Worker, id: &str, what: &str) {
    assert_eq!(worker.post(&format!("{JOBS}/{id}/{what}"), &json!({})).await.status(), 200);
}

async fn stop(mut worker: Worker) {
    assert_eq!(worker.post("/internal/stop?grace_ms=0", &json!({})).await.status(), 202);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn what_would_not_be_served_is_not_trained() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let file = upload(&worker, &rows(1)).await;
    let wide = with(order(&file, 1), &json!({"hyperparameters": {"n_epochs": 1, "lora_r": 129}}));
    let answer = worker.post(JOBS, &wide).await;
    assert_eq!(answer.status(), 400);
    let words = answer.text().await.unwrap();
    assert!(words.contains("rank is 129, and at most 128 is taken"), "{words}");
}

#[tokio::test]
async fn what_is_trained_waits_until_it_can_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let id = {
        let worker = start(&folder);
        let id = create(&worker, &order(&upload(&worker, &rows(4)).await, 2)).await;
        eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
        id
    };
    {
        let worker = of_rank(&folder, "1");
        until(&worker, &id, "paused").await;
        assert!(told(&worker, &id, "All is trained, but the model can't be served").await);
        // it can be tried as often as one likes
        ask(&worker, &id, "resume").await;
        until(&worker, &id, "paused").await;
    }
    let worker = start(&folder);
    ask(&worker, &id, "resume").await;
    let job = until(&worker, &id, "succeeded").await;
    assert_eq!(steps(&worker, &id).await.len(), 8, "nothing is trained once more");
    let name = job["fine_tuned_model"].as_str().unwrap();
    worker.chat(&with(question("Say 1"), &json!({"max_tokens": 2, "model": name}))).await;
}

#[tokio::test]
async fn a_file_that_can_not_be_read_for_a_while_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let file = upload(&worker, &rows(10)).await;
    // so many epochs that some are left when it pauses
    let id = create(&worker, &order(&file, 5)).await;
    eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
    ask(&worker, &id, "pause").await;
    until(&worker, &id, "paused").await;
    let before = steps(&worker, &id).await;
    let (there, away) = (folder.path().join(format!("files/{file}.data")), folder.path().join("away"));
    fs::rename(&there, &away).unwrap();
    ask(&worker, &id, "resume").await;
    eventually("a trainer to stop", async || {
        told(&worker, &id, "The trainer stops, and is tried again").await
    })
    .await;
    fs::rename(&away, &there).unwrap();
    until(&worker, &id, "succeeded").await;
    let after = steps(&worker, &id).await;
    assert_eq!(after.len(), 50);
    assert_eq!(after[..before.len()], before, "what was learned before counts");
}

#[tokio::test]
async fn a_trainer_that_takes_the_worker_along_is_not_begun_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = seldom_kept(&folder);
    let id = create(&worker, &order(&upload(&worker, &rows(500)).await, 1)).await;
    let counted = || {
        let record = fs::read(folder.path().join(format!("jobs/{id}/job.json"))).unwrap();
        serde_json::from_slice::<Value>(&record).unwrap()["deaths"].as_u64().unwrap()
    };
    // a worker that is told to stop is to blame for nothing
    for _ in 0..3 {
        eventually("a trainer", async || counted() == 1).await;
        stop(worker).await;
        assert_eq!(counted(), 0);
        worker = seldom_kept(&folder);
    }
    // nor one that is told so by Ctrl-C, which reaches all of its group
    eventually("a trainer", async || counted() == 1).await;
    stop(worker).await;
    worker = in_a_terminal(&folder);
    eventually("a trainer", async || counted() == 1).await;
    let group = format!("-{}", worker.process.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    assert!(worker.ended().await.success());
    assert_eq!(counted(), 0);
    worker = seldom_kept(&folder);
    for kill in 1..=3 {
        eventually("a trainer", async || counted() == kill).await;
        assert_eq!(shown(&worker, &id).await["status"], "running");
        // dropped: killed
        drop(worker);
        worker = seldom_kept(&folder);
    }
    until(&worker, &id, "paused").await;
    assert!(told(&worker, &id, "died 3 times behind step 0, so the job is paused").await);
    worker.chat(&with(question("Hi"), &json!({"max_tokens": 2}))).await;
    ask(&worker, &id, "resume").await;
    eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
    ask(&worker, &id, "cancel").await;
}

#[tokio::test]
async fn a_job_whose_model_is_gone_does_not_train_the_base_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let file = upload(&worker, &rows(2)).await;
    let first = create(&worker, &order(&file, 1)).await;
    let name = until(&worker, &first, "succeeded").await["fine_tuned_model"].as_str().unwrap().to_owned();
    let before = create(&worker, &order(&file, 50)).await;
    let waiting = create(&worker, &with(order(&file, 1), &json!({"model": name}))).await;
    let url = format!("{}/v1/models/{name}", worker.base);
    assert_eq!(worker.client.delete(&url).send().await.unwrap().status(), 200);
    let left = listed(&worker, "/v1/models").await;
    assert!(!left.iter().any(|model| model["id"].as_str().unwrap().starts_with(&name)), "{left:?}");
    ask(&worker, &before, "cancel").await;
    let job = until(&worker, &waiting, "failed").await;
    assert_eq!(job["error"]["code"], "start_adapter_gone");
    assert!(job["error"]["message"].as_str().unwrap().contains(&name), "{job:#}");
}

#[tokio::test]
async fn what_was_called_off_is_not_paused() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&folder);
    let file = upload(&worker, &rows(30)).await;
    for _ in 0..5 {
        let id = create(&worker, &order(&file, 5)).await;
        until(&worker, &id, "running").await;
        ask(&worker, &id, "cancel").await;
        // it comes before the trainer has ended, or is refused
        worker.post(&format!("{JOBS}/{id}/pause"), &json!({})).await;
        until(&worker, &id, "cancelled").await;
    }
}

#[tokio::test]
async fn a_folder_is_trained_in_by_one_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let worker = start(&folder);
    let second = command(&["--listen", "127.0.0.1:0", "--tuning-folder", path]).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("another worker trains in") && said.contains(path), "{said}");
    // however the first one ends
    drop(worker);
    start(&folder);
}
