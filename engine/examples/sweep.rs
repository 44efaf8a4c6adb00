//! How many epochs are enough: `sweep MODEL ROWS LANGUAGE FOLDS EPOCHS…`.
//!
//! Holds every fifth row back, learns from the others for so many epochs, with the settings that local jobs have, and
//! measures what was held back; then again with other rows held back, FOLDS times. Each number of epochs is a run of its own,
//! since the learning rate falls over the whole of a run. The lowest training loss says nothing here: what counts is the
//! loss on rows that were never seen.
#![expect(clippy::print_stdout, reason = "a table for people")]

mod rows;

use std::error::Error;
use std::path::Path;

use tunegate_engine::Gguf;
use tunegate_engine::adapter::{LoraConfig, Target};
use tunegate_engine::train::{Decay, Measure, Method, Row, Settings, Trainer};

/// One row in so many is held back.
const HELD_BACK: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [model, rows, language, folds, epochs @ ..] = arguments.get(1..).unwrap_or_default() else {
        return Err("sweep MODEL ROWS LANGUAGE FOLDS EPOCHS…".into());
    };
    let examples = rows::read(&std::fs::read_to_string(rows)?, language)?;
    let folds: usize = folds.parse()?;
    println!("epochs  fold  learnt: loss  accuracy  held back: loss  accuracy");
    for epochs in epochs {
        let epochs: u64 = epochs.parse()?;
        let mut sum = 0.0;
        for fold in 0..folds {
            let is_held_back = |index: &usize| index % HELD_BACK == fold % HELD_BACK;
            let (held_back, learnt): (Vec<usize>, Vec<usize>) = (0..examples.len()).partition(is_held_back);
            let of =
                |indices: &[usize]| indices.iter().map(|index| Row::Example(&examples[*index])).collect();
            let (held_back, learnt): (Vec<Row<'_>>, Vec<Row<'_>>) = (of(&held_back), of(&learnt));
            let trainer = trained(Path::new(model), &learnt, epochs, fold as u64)?;
            let (inner, outer): (Measure, Measure) =
                (trainer.evaluate(&learnt)?, trainer.evaluate(&held_back)?);
            sum += outer.loss;
            println!(
                "{epochs:6}  {fold:4}  {:12.4}  {:8.3}  {:15.4}  {:8.3}",
                inner.loss, inner.accuracy, outer.loss, outer.accuracy
            );
        }
        println!("{epochs:6}  mean  held back: {:.4}", sum / folds as f64);
    }
    Ok(())
}

/// Learns from all rows so many times.
fn trained(model: &Path, rows: &[Row<'_>], epochs: u64, seed: u64) -> Result<Trainer, Box<dyn Error>> {
    let settings = Settings {
        lora: LoraConfig::new(8, 16.0, 0.0, Target::ALL.to_vec())?,
        learning_rate: 1e-3,
        warmup: 0.05,
        decay: Decay::Linear,
        weight_decay: 0.0,
        clip: 1.0,
        seed,
        total_steps: epochs * rows.len() as u64,
        method: Method::Sft,
    };
    let mut trainer = Trainer::new(&mut Gguf::open(model)?, settings, None)?;
    for epoch in 0..epochs {
        for index in trainer.settings().order(epoch, rows.len()) {
            let _ = trainer.step(&[rows[index]])?;
        }
    }
    Ok(trainer)
}
