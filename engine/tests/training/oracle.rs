//! Steps beside PyTorch's, in float64, of the same model and rows: `golden/lora_steps.txt`, by `oracle/lora_steps.py`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use tunegate_engine::train::{Method, Pair, Row, Trainer};

use crate::tiny::{Folder, SHAPE, Stored, adapter, example, open, settings};

const GOLDEN: &str = include_str!("../golden/lora_steps.txt");

/// What the oracle wrote, by what stands before the numbers.
fn read(text: &str) -> HashMap<String, Vec<f64>> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let names = if words[1] == "step" { 3 } else { 6 };
        let numbers = words[names..].iter().map(|word| word.parse().unwrap()).collect();
        (words[..names].join(" "), numbers)
    };
    text.lines().map(line).collect()
}

/// Returns the largest gap between two lists, and asserts that they are as long.
fn gap(name: &str, ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn steps_are_those_of_pytorch() {
    let folder = Folder::new("oracle");
    let model = folder.model(&SHAPE, Stored::F32);
    let golden = read(GOLDEN);
    for (name, method) in [("sft", Method::Sft), ("dpo", Method::Dpo { beta: 0.5 })] {
        let start = adapter(&SHAPE, 3);
        let mut trainer = Trainer::new(&mut open(&model), settings(method, 0.0, 4), Some(&start)).unwrap();
        for step in 0..4 {
            let [a, b] = [example(step, 9), example(step + 7, 14)];
            let chosen = [example(step, 9), example(step + 3, 10)];
            let rejected = [example(step + 7, 12), example(step + 4, 8)];
            let pairs: Vec<Pair> = chosen
                .into_iter()
                .zip(rejected)
                .map(|(chosen, rejected)| Pair { chosen, rejected })
                .collect();
            let rows: Vec<Row<'_>> = match method {
                Method::Sft => vec![Row::Example(&a), Row::Example(&b)],
                Method::Dpo { .. } => pairs.iter().map(Row::Pair).collect(),
            };
            let found = trainer.step(&rows).unwrap();
            // Numbers whose gradient is nearly nothing go by its sign, so what f32 rounds away grows from step to step.
            let near = if step == 0 { 1e-4 } else { 1e-3 };
            let key = format!("{name} step {}", step + 1);
            let figures = [found.loss, found.grad_norm, found.learning_rate];
            for (ours, theirs) in figures.iter().zip(&golden[&key]) {
                assert!((ours - theirs).abs() < near * theirs, "{key}: {figures:?}, not {:?}", golden[&key]);
            }
            for pair in &trainer.weights().pairs {
                for (side, numbers) in [("a", &pair.a), ("b", &pair.b)] {
                    let key =
                        format!("{name} weights {} {} {} {side}", step + 1, pair.layer, pair.target.name());
                    // Written after the first step and the last.
                    let Some(theirs) = golden.get(&key) else { continue };
                    let numbers: Vec<f64> = numbers.iter().map(|x| f64::from(*x)).collect();
                    let found = gap(&key, &numbers, theirs);
                    assert!(found < near, "{key}: {found:.1e}");
                }
            }
        }
    }
    assert_eq!(golden.len(), 2 * (4 + 2 * 28), "everything was compared");
}

#[test]
fn the_golden_steps_are_what_pytorch_makes_today() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/lora_steps.py");
    // Debian's own Python is the one that has Debian's torch.
    let output = Command::new("/usr/bin/python3").arg(script).output();
    let made = output.as_ref().is_ok_and(|output| output.status.success());
    if !made && let Some(reason) = std::env::var_os("TUNEGATE_SKIP_TORCH") {
        println!("skipped: {}", reason.display());
        return;
    }
    let output = output.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(made, "no torch: `make setup` installs it; TUNEGATE_SKIP_TORCH=REASON goes without ({error})");
    let (made, golden) = (read(&String::from_utf8(output.stdout).unwrap()), read(GOLDEN));
    assert_eq!(made.len(), golden.len());
    for (key, numbers) in &golden {
        let found = gap(key, &made[key], numbers);
        assert!(found < 1e-6, "{key}: {found:.1e}");
    }
}
