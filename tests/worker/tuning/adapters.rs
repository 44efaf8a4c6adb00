//! `tunegate adapters` beside a running worker: what comes from elsewhere, and what goes there.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Runs `tunegate adapters` on a worker's folder; what it says, or its complaint.
pub(super) fn tunegate(folder: &tempfile::TempDir, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tunegate"))
        .args(["adapters", "--folder", folder.path().to_str().unwrap()])
        .args(arguments)
        // the files' default place is beside the configuration
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    if output.status.success() { Ok(said) } else { Err(complained) }
}

/// Writes an adapter in PEFT's form into a new folder.
pub(super) fn exported(folder: &tempfile::TempDir, name: &str, into: &Path) -> PathBuf {
    let out = into.join("peft");
    tunegate(folder, &["export", name, "--out", out.to_str().unwrap()]).unwrap();
    out
}

/// A worker with a model that has learned something by heart, and the model's name.
async fn taught(folder: &tempfile::TempDir) -> (Worker, String) {
    let worker = start(folder);
    let hyperparameters = json!({"n_epochs": 5, "learning_rate_multiplier": 3, "batch_size": 1, "lora_r": 2});
    let order =
        with(order(&upload(&worker, &rows(3)).await, 5), &json!({"hyperparameters": hyperparameters}));
    let id = create(&worker, &order).await;
    let name = until(&worker, &id, "succeeded").await["fine_tuned_model"].as_str().unwrap().to_owned();
    (worker, name)
}

/// What a model says to what it was taught.
async fn answers(worker: &Worker, model: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for question_ in ["Say 0", "Say 1", "Say 2"] {
        let body = with(question(question_), &json!({"max_tokens": 8, "model": model}));
        answers.push(content(&worker.chat(&body).await).to_owned());
    }
    answers
}

#[tokio::test]
async fn what_is_exported_answers_elsewhere_as_it_did() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (worker, name) = taught(&folder).await;
    let taught = answers(&worker, &name).await;
    assert_ne!(taught, answers(&worker, "smollm2-135m").await, "it has learned nothing");
    let peft = exported(&folder, &name, out.path());

    // another worker, which runs already
    let elsewhere = tempfile::tempdir().unwrap();
    let other = start(&elsewhere);
    let imported = "ft:smollm2-135m:acme:cat:1";
    let import = ["import", peft.to_str().unwrap(), "--name", imported];
    for _ in 0..2 {
        let told = tunegate(&elsewhere, &import).unwrap();
        assert!(told.contains("served") && told.contains(imported), "{told}");
        let hello = with(question("Hi"), &json!({"max_tokens": 1, "model": imported}));
        eventually("it to be served", async || {
            other.post("/v1/chat/completions", &hello).await.status() == 200
        })
        .await;
        assert_eq!(answers(&other, imported).await, taught);
        let table = tunegate(&elsewhere, &["list"]).unwrap();
        assert!(table.contains(imported) && table.contains("imported"), "{table}");
        // deleted and brought again, under the same name
        let url = format!("{}/v1/models/{imported}", other.base);
        assert_eq!(other.client.delete(url).send().await.unwrap().status(), 200);
        assert_eq!(other.post("/v1/chat/completions", &hello).await.status(), 404);
    }

    for form in ["gguf-f16", "gguf-q8"] {
        let merged = out.path().join(form);
        let merged = merged.to_str().unwrap();
        tunegate(&folder, &["export", &name, "--form", form, "--out", merged]).unwrap();
        let arguments = [
            "worker",
            "--threads",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--model-file",
            merged,
            "--name",
            "merged",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunegate"));
        command.args(arguments).env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        assert_eq!(answers(&Worker::of(&mut command), "merged").await, taught, "{form}");
    }
}

#[tokio::test]
async fn what_is_not_taken_in_or_given_out_says_why_in_one_line() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = start(&folder);
    let id = create(&worker, &order(&upload(&worker, &rows(1)).await, 1)).await;
    let name = until(&worker, &id, "succeeded").await["fine_tuned_model"].as_str().unwrap().to_owned();
    let peft = exported(&folder, &name, out.path());
    let config = fs::read_to_string(peft.join("adapter_config.json")).unwrap();
    let weights = fs::read(peft.join("adapter_model.safetensors")).unwrap();
    let made = |name: &str, config: &str, file: &str, weights: &[u8]| {
        let path = out.path().join(name);
        fs::create_dir(&path).unwrap();
        if !config.is_empty() {
            fs::write(path.join("adapter_config.json"), config).unwrap();
        }
        fs::write(path.join(file), weights).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let changed = |member: &str, value: Value| {
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config[member] = value;
        config.to_string()
    };
    let file = "adapter_model.safetensors";
    let peft = peft.to_str().unwrap().to_owned();
    let free = "ft:smollm2-135m:acme:cat:1";
    let embedder = crate::worker::embedding_model().join("model.safetensors");
    for (source, name_, words) in [
        (made("wide", &changed("r", json!(600)), file, &weights), free, "rank is 600, and at most 512"),
        (made("other-rank", &changed("r", json!(4)), file, &weights), free, "shape"),
        (
            made("deeper", &changed("target_modules", json!(["q_proj", "fc1"])), file, &weights),
            free,
            "which is not one of",
        ),
        (
            made("pickle", &config, "adapter_model.bin", b"\x80\x02}q\x00."),
            free,
            "save_pretrained(safe_serialization=True)",
        ),
        (made("no-settings", "", file, &weights), free, "there is no adapter_config.json"),
        (made("no-numbers", &config, "README.md", b""), free, "there is no adapter_model.safetensors"),
        (made("cut", &config, file, &weights[..weights.len() / 2]), free, "adapter_model.safetensors"),
        (made("whole-model", &config, file, &fs::read(embedder).unwrap()), free, "which is not one of"),
        (out.path().join("nowhere").to_str().unwrap().to_owned(), free, "there is no adapter_config.json"),
        (peft.clone(), name.as_str(), "already: choose another name"),
        (peft.clone(), "cat", "write ft:BASE:ORGANIZATION:SUFFIX:ID"),
    ] {
        let said = tunegate(&folder, &["import", &source, "--name", name_]).unwrap_err();
        assert!(said.contains(words), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
    let there = out.path().to_str().unwrap();
    for (arguments, words) in [
        (["export", "ft:none", "--out", "x"], "`tunegate adapters list` shows which there are"),
        (["export", &name, "--out", there], "nothing is overwritten"),
    ] {
        let said = tunegate(&folder, &arguments).unwrap_err();
        assert!(said.contains(words) && said.trim_end().lines().count() == 1, "{said}");
    }
    let models = listed(&worker, "/v1/models").await;
    assert_eq!(models.len(), 3, "the base, the job's model and its only epoch: {models:?}");
}
