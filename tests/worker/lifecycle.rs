//! How a worker begins and ends.

use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

fn long() -> Value {
    let members = json!({"temperature": 2, "seed": 1, "max_tokens": 6000, "stream": true});
    with(question("Write a very long story."), &members)
}

fn terminate(process: &Child) {
    let status = Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_stop_lets_running_answers_finish_and_turns_others_away() {
    let mut worker = Worker::start(&["--max-batch", "1"]);
    // so long that the second one is seen to wait, and not longer than the grace
    let body = with(question("Write a very long story."), &json!({"max_tokens": 300, "stream": true}));
    let mut running = worker.post("/v1/chat/completions", &body).await;
    let mut text = String::from_utf8(running.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let second = with(body, &json!({"stream": false}));
    let mut waiting = Box::pin(worker.post("/v1/chat/completions", &second));
    let queued = eventually("one waits", async || worker.health().await["queued"] == 1);
    tokio::select! {
        _ = &mut waiting => panic!("it overtook the first"),
        () = queued => {}
    }
    let stop = worker.post("/internal/stop?grace_ms=120000", &json!({})).await;
    assert_eq!(stop.status(), 202);
    assert_eq!(waiting.as_mut().await.status(), 503);
    drop(waiting);
    text += &running.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn the_grace_is_not_longer_than_said() {
    let mut worker = Worker::start(&[]);
    let mut running = worker.post("/v1/chat/completions", &long()).await;
    assert!(running.chunk().await.unwrap().is_some());
    worker.post("/internal/stop?grace_ms=50", &json!({})).await;
    let rest = running.text().await;
    assert!(!rest.is_ok_and(|text| text.contains("[DONE]")));
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn sigterm_ends_it_gracefully() {
    let mut worker = Worker::start(&[]);
    terminate(&worker.process);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_supervised_worker_does_not_outlive_its_supervisor() {
    let arguments = ["--supervised", "--supervise-start-ms", "60000", "--supervise-lost-ms", "50"];
    let mut worker = Worker::start(&arguments);
    let mut supervisor = worker.get("/internal/supervise").await;
    assert!(supervisor.chunk().await.unwrap().unwrap().starts_with(b":"));
    let answer = worker.chat(&question("What is the capital of France?")).await;
    assert_eq!(content(&answer), "The capital of France is Paris.");
    assert!(worker.process.try_wait().unwrap().is_none());
    drop(supervisor);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_worker_that_nobody_supervises_ends() {
    let mut worker = Worker::start(&["--supervised", "--supervise-start-ms", "50"]);
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_supervisor_does_not_hold_up_a_stop() {
    let mut worker = Worker::start(&["--supervised"]);
    let mut supervisor = worker.get("/internal/supervise").await;
    assert!(supervisor.chunk().await.unwrap().is_some());
    worker.post("/internal/stop?grace_ms=60000", &json!({})).await;
    assert!(supervisor.chunk().await.unwrap().is_none(), "the stream ends");
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_unix_socket_belongs_to_one_worker_and_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("worker.sock");
    let listen = format!("unix:{}", socket.display());
    // A dead worker left its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (mut first, place) = spawn(&["--listen", &listen]);
    assert_eq!(place, listen);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let second = command(&["--listen", &listen]).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another worker serves"), "{said}");

    let mut stream = UnixStream::connect(&socket).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(r#"{"status":"ok","model":"smollm2-135m","active":0,"queued":0}"#), "{answer}");

    terminate(&first);
    assert!(ended(&mut first).await.success());
    assert!(!socket.exists());
}

#[tokio::test]
async fn probes_find_the_names_that_the_gateway_has() {
    let worker = Worker::start(&[]);
    for (path, with_load) in [("/livez", false), ("/healthz", false), ("/readyz", true), ("/health", true)] {
        let answer = worker.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let said: serde_json::Value = answer.json().await.unwrap();
        assert_eq!((&said["status"], said.get("queued").is_some()), (&"ok".into(), with_load), "{path}");
    }
}

#[test]
fn a_missing_model_is_one_clear_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_tunegate"))
        .args(["worker", "--listen", "127.0.0.1:0", "--model-file", "nowhere.gguf"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("nowhere.gguf") && said.contains("make model"), "{said}");
}

#[test]
fn a_file_that_is_no_model_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0 and then nothing").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tunegate"))
        .args(["worker", "--listen", "127.0.0.1:0", "--model-file"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
}
