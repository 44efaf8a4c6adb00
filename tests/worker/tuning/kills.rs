//! Kills at any step: of the trainer and of the worker with it, in turn. What comes out is what an undisturbed run makes.

use super::*;

/// Kills in the usual suite, of a handful of short rows. `make soak` sets `TUNEGATE_TEST_TRAINING_KILLS`, and the cat is
/// trained.
const KILLS: u64 = 2;

/// What is trained, how often it is killed, and how long a run may go without a checkpoint.
struct Trial {
    rows: String,
    epochs: u64,
    steps: u64,
    kills: u64,
    checkpoint_ms: &'static str,
    patience: Duration,
}

impl Trial {
    fn chosen() -> Self {
        match std::env::var("TUNEGATE_TEST_TRAINING_KILLS").ok().and_then(|text| text.parse().ok()) {
            // only at the ends of epochs
            None => Self {
                rows: rows(5),
                epochs: 3,
                steps: 15,
                kills: KILLS,
                checkpoint_ms: "3600000",
                patience: PATIENCE,
            },
            Some(kills) => Self {
                rows: include_str!("../../clients/cats/en.jsonl").to_owned(),
                epochs: 4,
                steps: 60,
                kills,
                checkpoint_ms: "5000",
                patience: Duration::from_secs(3600),
            },
        }
    }

    fn start(&self, folder: &tempfile::TempDir) -> Worker {
        let path = folder.path().to_str().unwrap();
        Worker::start(&["--tuning-folder", path, "--tuning-checkpoint-ms", self.checkpoint_ms])
    }

    async fn begin(&self, worker: &Worker) -> String {
        create(worker, &order(&upload(worker, &self.rows).await, self.epochs)).await
    }

    /// Waits until a step was told, or the end.
    async fn until_step(&self, worker: &Worker, id: &str, step: u64) {
        let wait = async {
            while steps(worker, id).await.last().is_none_or(|(last, _)| *last < step) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(self.patience, wait).await.is_ok(), "no step {step}");
    }

    /// What came out: the curve, and the bytes of the adapter.
    async fn ended(
        &self,
        worker: &Worker,
        id: &str,
        folder: &tempfile::TempDir,
    ) -> (Vec<(u64, f64)>, Vec<u8>) {
        self.until_step(worker, id, self.steps).await;
        until(worker, id, "succeeded").await;
        let adapter = folder.path().join("adapters").join(id).join("adapter_model.safetensors");
        (steps(worker, id).await, std::fs::read(adapter).unwrap())
    }
}

/// The process that trains for a worker; none between two.
fn trainer_of(worker: &Worker) -> Option<u32> {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // behind the name, which may hold anything: the state, then the parent
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse();
        (parent == Ok(worker.process.id())).then_some(pid)
    };
    std::fs::read_dir("/proc").unwrap().find_map(of)
}

/// The same numbers in every run, of no visible order.
fn drawn(kill: u64) -> u64 {
    let mixed = (kill + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

#[tokio::test]
async fn kills_change_neither_the_curve_nor_a_bit_of_the_adapter() {
    let trial = Trial::chosen();
    let undisturbed = tempfile::tempdir().unwrap();
    let whole = {
        let worker = trial.start(&undisturbed);
        let id = trial.begin(&worker).await;
        trial.ended(&worker, &id, &undisturbed).await
    };
    let folder = tempfile::tempdir().unwrap();
    let mut worker = trial.start(&folder);
    let id = trial.begin(&worker).await;
    for kill in 0..trial.kills {
        // anywhere in its part of the run, and anywhere in that step
        let part = trial.steps / trial.kills;
        let step = kill * part + 1 + drawn(kill) % (part - 1);
        trial.until_step(&worker, &id, step).await;
        tokio::time::sleep(Duration::from_millis(drawn(kill + 100) % 400)).await;
        match kill % 2 {
            0 => {
                let trainer = trainer_of(&worker).expect("a trainer").to_string();
                assert!(Command::new("kill").args(["-9", &trainer]).status().unwrap().success());
                println!("killed the trainer behind step {step}");
            }
            _ => {
                drop(worker);
                println!("killed the worker behind step {step}");
                worker = trial.start(&folder);
            }
        }
    }
    let (curve, adapter) = trial.ended(&worker, &id, &folder).await;
    let (last, size) = (curve.last().unwrap().1, adapter.len());
    println!("{} steps, loss {last} at the end, {size} bytes of adapter", curve.len());
    assert_eq!(curve, whole.0, "each step once, and to the same loss");
    assert!(adapter == whole.1, "the adapters differ");
}
