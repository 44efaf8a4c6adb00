//! A training whose process is killed again and again ends as one that was left alone, to the bit.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tunegate_engine::train::{Method, Row, Settings, Trainer};

use crate::tiny::{Folder, SHAPE, Stored, example, open, settings};

const STEPS: u64 = 90;
const KILLS: usize = 20;
/// Where the child finds its work; without it the child's test is done at once.
const WORK: &str = "TUNEGATE_TEST_TRAINING";

fn all() -> Settings {
    settings(Method::Sft, 0.2, STEPS)
}

fn step(trainer: &mut Trainer) {
    let at = trainer.steps() as usize;
    let rows = [example(at, 12), example(at + 3, 7)];
    trainer.step(&[Row::Example(&rows[0]), Row::Example(&rows[1])]).unwrap();
}

/// Goes on with what was saved last, or begins.
fn go_on(model: &Path, folder: &Path) -> Trainer {
    match folder.join("training.safetensors").exists() {
        true => Trainer::resume(&mut open(model), all(), folder).unwrap(),
        false => Trainer::new(&mut open(model), all(), None).unwrap(),
    }
}

/// The process that is killed: trains to the end, saving every second step, and tells each step that it made.
#[test]
fn child_of_the_kills() {
    let Some(folder) = std::env::var_os(WORK).map(PathBuf::from) else { return };
    let mut trainer = go_on(&folder.join("model.gguf"), &folder);
    while trainer.steps() < STEPS {
        step(&mut trainer);
        println!("made {}", trainer.steps());
        if trainer.steps().is_multiple_of(2) {
            trainer.save(&folder).unwrap();
        }
    }
    assert_eq!(trainer.steps(), STEPS);
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child_of_the_kills", "--nocapture", "--test-threads=1"])
        .env(WORK, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn twenty_kills_change_no_bit() {
    let folder = Folder::new("kills");
    let model = folder.model(&SHAPE, Stored::F32);
    let mut straight = Trainer::new(&mut open(&model), all(), None).unwrap();
    (0..STEPS).for_each(|_| step(&mut straight));
    for kill in 0..KILLS {
        let mut child = start(&folder.0);
        // After 1 to 5 steps, at another moment of the step or of the saving each time.
        let steps = 1 + kill * 7 % 5;
        // Held until the child is dead: a closed pipe would end it in a milder way.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let made = lines.by_ref().filter(|line| line.contains("made ")).take(steps).count();
        assert_eq!(made, steps, "the child died of itself");
        (0..kill * 20_000).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "killed, not ended");
    }
    let killed_at = go_on(&model, &folder.0).steps();
    assert!(killed_at > 0 && killed_at < STEPS, "{killed_at}");
    assert!(start(&folder.0).wait_with_output().unwrap().status.success());
    let resumed = go_on(&model, &folder.0);
    assert_eq!(resumed.steps(), STEPS);
    assert!(resumed.weights() == straight.weights(), "the weights differ");
}
