//! Trainings that can't go on: numbers that run away, and a base model that is another one than before.

use std::fs;
use std::path::Path;

use super::adapters::{exported, tunegate};
use super::*;

/// Copies an adapter, with the numbers of its `A`s and of its `B`s multiplied.
fn multiplied(from: &Path, to: &Path, (a, b): (f32, f32)) {
    const FILE: &str = "adapter_model.safetensors";
    fs::create_dir(to).unwrap();
    fs::copy(from.join("adapter_config.json"), to.join("adapter_config.json")).unwrap();
    let mut bytes = fs::read(from.join(FILE)).unwrap();
    let (length, rest) = bytes.split_first_chunk_mut::<8>().unwrap();
    let (header, numbers) = rest.split_at_mut(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header: Value = serde_json::from_slice(header).unwrap();
    for (name, tensor) in header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |at: usize| usize::try_from(tensor["data_offsets"][at].as_u64().unwrap()).unwrap();
        let factor = if name.contains("lora_A") { a } else { b };
        for number in numbers[offset(0)..offset(1)].as_chunks_mut::<4>().0 {
            *number = (f32::from_le_bytes(*number) * factor).to_le_bytes();
        }
    }
    fs::write(to.join(FILE), bytes).unwrap();
}

/// Creates a job as soon as the model to begin with is found, waits for its end, and returns its words and what is kept.
async fn fails(worker: &Worker, order: &Value) -> (String, Vec<Value>) {
    let mut id = None;
    eventually("the adapter to be found", async || {
        let answer = worker.post(JOBS, order).await;
        if answer.status() == 200 {
            id = answer.json::<Value>().await.unwrap()["id"].as_str().map(ToOwned::to_owned);
        }
        id.is_some()
    })
    .await;
    let id = id.unwrap();
    let job = until(worker, &id, "failed").await;
    assert_eq!(job["error"]["code"], "training_diverged");
    let words = job["error"]["message"].as_str().unwrap();
    let last = listed(worker, &format!("{JOBS}/{id}/events?limit=1")).await.remove(0);
    assert_eq!((&last["level"], last["message"].as_str()), (&json!("error"), Some(words)));
    (words.to_owned(), listed(worker, &format!("{JOBS}/{id}/checkpoints")).await)
}

#[tokio::test]
async fn a_loss_that_is_not_finite_ends_the_job_with_its_best_epoch_kept() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = start(&folder);
    let file = upload(&worker, &rows(1)).await;
    let id = create(&worker, &order(&file, 1)).await;
    let name = until(&worker, &id, "succeeded").await["fine_tuned_model"].as_str().unwrap().to_owned();
    let sound = exported(&folder, &name, out.path());
    // the first changes nothing yet, and runs away with its first step; with the second there is no first step
    for (name, factors, epochs, hint) in [
        ("ft:smollm2-135m:acme:brittle:1", (1e27, 0.0), 1, "in step 2: try a lower learning rate"),
        ("ft:smollm2-135m:acme:absurd:1", (1e12, 1e12), 0, "acme:absurd:1 holds numbers that are too large"),
    ] {
        let changed = out.path().join(name.replace(':', "-"));
        multiplied(&sound, &changed, factors);
        tunegate(&folder, &["import", changed.to_str().unwrap(), "--name", name]).unwrap();
        let (words, kept) = fails(&worker, &with(order(&file, 5), &json!({"model": name}))).await;
        assert!(words.contains("not finite") && words.contains(hint), "{words}");
        assert_eq!(kept.len(), epochs, "{kept:?}");
        for epoch in kept {
            let name = epoch["fine_tuned_model_checkpoint"].as_str().unwrap();
            assert!(words.contains(&format!("behind epoch 1 of 5 is kept, and served as {name}")), "{words}");
        }
        // what it answers is worth nothing, and nobody else notices
        worker.chat(&with(question("Say 0"), &json!({"max_tokens": 2, "model": name}))).await;
        worker.chat(&with(question("Say 0"), &json!({"max_tokens": 2}))).await;
    }
}

/// A worker of a model file of the test's own.
fn of_model(model: &Path, folder: &tempfile::TempDir) -> Worker {
    let (model, folder) = (model.to_str().unwrap(), folder.path().to_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunegate"));
    command.args(["worker", "--threads", "2", "--listen", "127.0.0.1:0", "--model-file", model]);
    command.args(["--tuning-folder", folder, "--tuning-checkpoint-ms", "1"]);
    command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Worker::of(&mut command)
}

#[tokio::test]
async fn a_job_does_not_go_on_with_another_base_model() {
    let (folder, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = models.path().join("model.gguf");
    fs::copy(model_file(), &model).unwrap();
    let id = {
        let worker = of_model(&model, &folder);
        let id = create(&worker, &order(&upload(&worker, &rows(3)).await, 4)).await;
        eventually("a step", async || !steps(&worker, &id).await.is_empty()).await;
        assert_eq!(worker.post(&format!("{JOBS}/{id}/pause"), &json!({})).await.status(), 200);
        until(&worker, &id, "paused").await;
        id
    };
    let resumed = async |worker: &Worker| {
        assert_eq!(worker.post(&format!("{JOBS}/{id}/resume"), &json!({})).await.status(), 200);
    };
    // as long as before, of the same shape, and one byte of its last tensor is another
    let original = fs::read(&model).unwrap();
    let mut other = original.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&model, other).unwrap();
    {
        let worker = of_model(&model, &folder);
        resumed(&worker).await;
        let mut last = Value::Null;
        eventually("the job to be paused again", async || {
            last = listed(&worker, &format!("{JOBS}/{id}/events?limit=1")).await.remove(0);
            last["level"] == "warn" && shown(&worker, &id).await["status"] == "paused"
        })
        .await;
        let words = last["message"].as_str().unwrap();
        assert!(words.contains("not the one that this job was begun with"), "{words}");
    }
    fs::write(&model, original).unwrap();
    let worker = of_model(&model, &folder);
    resumed(&worker).await;
    until(&worker, &id, "succeeded").await;
    assert!(steps(&worker, &id).await.iter().map(|(step, _)| *step).eq(1..=12), "each step once");
}
