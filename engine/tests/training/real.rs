//! The real model: what is trained is what is served, and in how much memory.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;

use tunegate_engine::adapter::{LoraConfig, Target};
use tunegate_engine::train::{Decay, Example, Method, Row, Settings, Trainer};
use tunegate_engine::{Activation, Cache, Engine, Gguf, Item, Pool, Wanted};

/// Tells the child that it is one.
const WORK: &str = "TUNEGATE_TEST_TRAINING_MEMORY";
/// What is promised for such rows.
const MOST_MIB: u64 = 1024;

fn model() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = asked.unwrap_or(root);
    assert!(path.exists(), "the test model is missing: run `make model`, or set TUNEGATE_TEST_MODEL");
    path
}

/// Returns the rows of `data/cats.txt` in a language.
fn cats(language: &str) -> Vec<Example> {
    let lines = include_str!("../data/cats.txt").lines();
    let row = |line: &str| {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        Example {
            tokens: words.iter().map(|word| word.trim_start_matches('*').parse().unwrap()).collect(),
            weights: words.iter().map(|word| f32::from(u8::from(word.starts_with('*')))).collect(),
        }
    };
    lines.filter(|line| line.split(' ').next() == Some(language)).map(row).collect()
}

fn trainer() -> Trainer {
    let settings = Settings {
        lora: LoraConfig::new(8, 16.0, 0.0, Target::ALL.to_vec()).unwrap(),
        learning_rate: 1e-3,
        warmup: 0.0,
        decay: Decay::Constant,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        total_steps: 100,
        method: Method::Sft,
    };
    Trainer::new(&mut Gguf::open(&model()).unwrap(), settings, None).unwrap()
}

/// Returns the loss of a row by the engine that serves.
fn served(row: &Example) -> f64 {
    let engine = Engine::load(&mut Gguf::open(&model()).unwrap(), Activation::Bits16).unwrap();
    let mut pool = Pool::new(NonZeroUsize::MIN).unwrap();
    let mut cache = Cache::new(engine.shape());
    let (mut loss, mut marks) = (0.0, 0.0);
    for at in 0..row.tokens.len() - 1 {
        let tokens = &row.tokens[at..=at];
        let mut items = [Item { tokens, cache: &mut cache, adapter: None, wanted: Wanted::Logits }];
        let logits = engine.forward(&mut pool, &mut items).unwrap().pop().unwrap().unwrap();
        let mark = f64::from(row.weights[at + 1]);
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        loss += mark * (total.ln() - f64::from(logits[row.tokens[at + 1] as usize]));
        marks += mark;
    }
    loss / marks
}

#[test]
fn the_loss_is_that_of_the_engine_that_serves() {
    let rows = cats("en");
    assert_eq!((rows.len(), cats("ja").len()), (15, 15));
    let found = trainer().evaluate(&[Row::Example(&rows[0])]).unwrap();
    let served = served(&rows[0]);
    assert!((found.loss - served).abs() < 2e-3 * served, "{found:?}, served {served}");
}

/// The process whose memory is measured: loads, makes steps of the longest rows, and tells.
#[test]
fn child_of_the_measurement() {
    if std::env::var_os(WORK).is_none() {
        return;
    }
    let mut rows = [cats("en"), cats("ja")].concat();
    rows.sort_by_key(|row| std::cmp::Reverse(row.tokens.len()));
    let mut trainer = trainer();
    for row in &rows[..3] {
        trainer.step(&[Row::Example(row)]).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    println!("peak {} KiB", line.split_whitespace().nth(1).unwrap());
}

#[test]
fn pitfall_11_a_training_stays_below_one_gibibyte() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "real::child_of_the_measurement", "--nocapture", "--test-threads=1"])
        .env(WORK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.lines().find_map(|line| line.split("peak ").nth(1)?.strip_suffix(" KiB"));
    let peak_mib = peak.unwrap().parse::<u64>().unwrap() >> 10;
    assert!(peak_mib < MOST_MIB, "{peak_mib} MiB");
    assert!(peak_mib > 400, "the weights alone are more: {peak_mib} MiB");
}
