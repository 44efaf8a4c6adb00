//! A disk that fills up while a job trains: the job ends and says why, what it had learned is kept, and the worker serves
//! on.

use super::*;

/// Room for a checkpoint before and after its writing, and for four adapters of rank 2.
const DISK: &str = "40m";
/// What the disk is filled with, bytes a file.
const FILLINGS: [usize; 5] = [4 << 20, 1 << 20, 128 << 10, 16 << 10, 4 << 10];

/// A worker whose folder is a disk of its own, in a namespace that goes with it; or nothing where
/// `TUNEGATE_SKIP_DISK` gives a reason to go without.
fn on_small_disk(folder: &tempfile::TempDir) -> Option<Worker> {
    let path = folder.path().to_str().unwrap();
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", DISK, path]);
        command
    };
    let mounts = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\"";
    if !in_namespace(mounts).status().is_ok_and(|status| status.success()) {
        match std::env::var("TUNEGATE_SKIP_DISK") {
            Ok(reason) if !reason.is_empty() => {
                println!("skipped without a small disk: {reason}");
                return None;
            }
            _ => panic!(
                "no file system can be mounted in a namespace of one's own (unshare --user --mount): \
                 TUNEGATE_SKIP_DISK=REASON goes without"
            ),
        }
    }
    let plain = command(&["--listen", "127.0.0.1:0", "--tuning-folder", path, "--tuning-checkpoint-ms", "1"]);
    let mut confined = in_namespace(&format!("{mounts} && shift 2 && exec \"$@\""));
    confined.arg(plain.get_program()).args(plain.get_args());
    confined.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Some(Worker::of(&mut confined))
}

/// Hands in files until none finds room; returns those that did.
async fn fill(worker: &Worker) -> Vec<String> {
    let mut taken = Vec::new();
    for size in FILLINGS {
        loop {
            let answer = hand_in(worker, &vec![b'x'; size]).await;
            let status = answer.status();
            let told: Value = answer.json().await.unwrap();
            if status != 200 {
                assert_eq!(
                    (status.as_u16(), told["error"]["code"].as_str()),
                    (507, Some("disk_full")),
                    "{told}"
                );
                break;
            }
            assert_eq!(told["bytes"], size);
            taken.push(told["id"].as_str().unwrap().to_owned());
        }
    }
    taken
}

async fn delete(worker: &Worker, file: &str) {
    let url = format!("{}/v1/files/{file}", worker.base);
    assert_eq!(worker.client.delete(url).send().await.unwrap().status(), 200);
}

/// Each file that is listed is there as a whole.
async fn files_are_whole(worker: &Worker, count: usize) {
    let files = listed(worker, "/v1/files?limit=1000").await;
    assert_eq!(files.len(), count, "{files:?}");
    for file in files {
        let path = format!("/v1/files/{}/content", file["id"].as_str().unwrap());
        assert_eq!(worker.get(&path).await.bytes().await.unwrap().len() as u64, file["bytes"]);
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_job_with_its_best_epoch_kept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let Some(worker) = on_small_disk(&folder) else { return };
    let file = upload(&worker, &rows(3)).await;
    let id = create(&worker, &order(&file, 50)).await;
    let checkpoints = format!("{JOBS}/{id}/checkpoints");
    eventually("an epoch", async || !listed(&worker, &checkpoints).await.is_empty()).await;
    let mut filling = fill(&worker).await;

    let job = until(&worker, &id, "failed").await;
    assert_eq!(job["error"]["code"], "disk_full");
    let words = job["error"]["message"].as_str().unwrap();
    assert!(words.contains("make room and start the job once more"), "{words}");
    assert!(words.contains(":ckpt-step-"), "{words}");
    let last = listed(&worker, &format!("{JOBS}/{id}/events?limit=1")).await.remove(0);
    assert_eq!((&last["level"], last["message"].as_str()), (&json!("error"), Some(words)));

    // the epochs that were kept answer, and so does the base
    let kept = listed(&worker, &checkpoints).await;
    assert!((1..=4).contains(&kept.len()), "{kept:?}");
    for epoch in &kept {
        let name = epoch["fine_tuned_model_checkpoint"].as_str().unwrap();
        worker.chat(&with(question("Say 1"), &json!({"max_tokens": 4, "model": name}))).await;
    }
    let models = listed(&worker, "/v1/models").await;
    assert_eq!(models.len(), 1 + kept.len(), "nothing half-written: {models:?}");
    worker.chat(&with(question("Say 1"), &json!({"max_tokens": 4}))).await;

    // what the job has given up is filled, too: then nothing is taken in, and all that is there still is
    filling.extend(fill(&worker).await);
    let refused = worker.post(JOBS, &order(&file, 1)).await;
    assert_eq!(refused.status(), 507, "{}", refused.text().await.unwrap());
    assert_eq!(listed(&worker, JOBS).await.len(), 1);
    files_are_whole(&worker, 1 + filling.len()).await;

    for file in filling {
        delete(&worker, &file).await;
    }
    let id = create(&worker, &order(&file, 1)).await;
    until(&worker, &id, "succeeded").await;
}

#[tokio::test]
async fn a_paused_job_is_called_off_on_a_full_disk_and_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(worker) = on_small_disk(&folder) else { return };
    let file = upload(&worker, &rows(3)).await;
    let id = create(&worker, &order(&file, 50)).await;
    eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
    assert_eq!(worker.post(&format!("{JOBS}/{id}/pause"), &json!({})).await.status(), 200);
    until(&worker, &id, "paused").await;
    fill(&worker).await;
    let answer = worker.post(&format!("{JOBS}/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    assert_eq!(shown(&worker, &id).await["status"], "cancelled");
    assert_eq!(hand_in(&worker, &vec![b'x'; 4 << 20]).await.status(), 200, "in the room of its checkpoint");
}
