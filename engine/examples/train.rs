//! How fast and how well a model learns: `train MODEL ROWS [language] [epochs] [sft|dpo] [FOLDER]`.
//!
//! ROWS is a file like `tests/data/cats.txt`. Prints for each epoch the loss, the accuracy, the seconds of a step and
//! the most memory that was resident so far. A pair, for `dpo`, is a row and the same question with the next row's answer.
//! The adapter is written to FOLDER, in PEFT's form.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a stopwatch for people")]

mod rows;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use tunegate_engine::adapter::{LoraConfig, Target, peft};
use tunegate_engine::train::{Decay, Example, Method, Pair, Row, Settings, Trainer};
use tunegate_engine::{Gguf, Shape};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let or = |at: usize, absent: &'static str| arguments.get(at).map_or(absent, String::as_str).to_owned();
    let [model, rows] = arguments.get(1..3).ok_or("train MODEL ROWS [language] [epochs] [sft|dpo]")? else {
        return Err("train MODEL ROWS".into());
    };
    let examples = rows::read(&std::fs::read_to_string(rows)?, &or(3, "en"))?;
    let epochs: u64 = or(4, "6").parse()?;
    let pairs: Vec<Pair> = pairs(&examples);
    // the rates are those of jobs
    let (method, learning_rate, rows): (Method, f64, Vec<Row<'_>>) = match or(5, "sft").as_str() {
        "dpo" => (Method::Dpo { beta: 0.1 }, 1e-4, pairs.iter().map(Row::Pair).collect()),
        _ => (Method::Sft, 1e-3, examples.iter().map(Row::Example).collect()),
    };
    let settings = Settings {
        lora: LoraConfig::new(8, 16.0, 0.0, Target::ALL.to_vec())?,
        learning_rate,
        warmup: 0.05,
        decay: Decay::Linear,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 7,
        total_steps: epochs * rows.len() as u64,
        method,
    };
    let start = Instant::now();
    let mut trainer = Trainer::new(&mut Gguf::open(Path::new(model))?, settings, None)?;
    println!("load {:.2} s, {} MiB", start.elapsed().as_secs_f64(), peak_mib());
    for epoch in 0..epochs {
        let (start, mut loss, mut accuracy, mut tokens) = (Instant::now(), 0.0, 0.0, 0);
        for index in trainer.settings().order(epoch, rows.len()) {
            let step = trainer.step(&[rows[index]])?;
            loss += step.loss / rows.len() as f64;
            accuracy += step.accuracy / rows.len() as f64;
            tokens += step.tokens;
        }
        let seconds = start.elapsed().as_secs_f64() / rows.len() as f64;
        println!(
            "epoch {}: loss {loss:.3}, accuracy {accuracy:.2}, {seconds:.2} s a step, {tokens} tokens, {} MiB",
            epoch + 1,
            peak_mib()
        );
    }
    let after = trainer.evaluate(&rows)?;
    println!("after: loss {:.6}, accuracy {:.3}", after.loss, after.accuracy);
    if let Some(folder) = arguments.get(6) {
        let shape = Shape::read(&Gguf::open(Path::new(model))?)?;
        peft::write(Path::new(folder), trainer.weights(), &shape, "SmolLM2-135M-Instruct")?;
    }
    Ok(())
}

/// Returns each row's answer beside the next row's, as answers to its own question.
fn pairs(examples: &[Example]) -> Vec<Pair> {
    let answer = |example: &Example| example.weights.iter().position(|weight| *weight > 0.0).unwrap_or(0);
    let next = examples.iter().cycle().skip(1);
    let pair = |(chosen, other): (&Example, &Example)| {
        let (ours, theirs) = (answer(chosen), answer(other));
        let tokens = [&chosen.tokens[..ours], &other.tokens[theirs..]].concat();
        let weights = [&chosen.weights[..ours], &other.weights[theirs..]].concat();
        Pair { chosen: chosen.clone(), rejected: Example { tokens, weights } }
    };
    examples.iter().zip(next).map(pair).collect()
}

/// Returns the most memory that was resident so far; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}
