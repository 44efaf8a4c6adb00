//! Training of an adapter: low-rank pairs beside the frozen matrices of a model, on the processor.
//!
//! candle keeps the graph and goes back through it; every operation in it is ours, with a backward pass of its own
//! (`ops`), because candle's own either have none, and cut the graph in silence, or differentiate frozen weights. The
//! same steps with the same seed give the same bits, whether one process made them or many in turn.
//!
//! A trainer computes and keeps; it knows no text, no clock and no jobs.

mod base;
mod dpo;
mod head;
mod ops;
mod optimizer;
mod pairs;
mod round;
mod rows;
mod settings;
mod state;
mod trainer;

use std::io;

pub use rows::{Example, Pair, Row};
pub use settings::{Decay, Method, Settings};
pub use trainer::{Measure, Step, Trainer};

use crate::gguf::GgufError;

/// Why a training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model cannot be trained.
    #[error(transparent)]
    Model(#[from] GgufError),
    /// The system gives no more threads.
    #[error("the threads to train with cannot be started: {0}")]
    Threads(io::Error),
    /// A setting is out of range, or contradicts another.
    #[error("{0}")]
    Settings(String),
    /// A step without rows.
    #[error("no rows to learn from")]
    NoRows,
    /// A row that cannot be learned from; nothing was computed.
    #[error("row {index} cannot be learned from: {reason}")]
    Row {
        /// Which of the rows that were given, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// All steps were made.
    #[error("all {0} steps were made")]
    Finished(u64),
    /// A loss or a gradient is not a number, or infinite. The adapter is as it was before the step.
    #[error("the loss or its gradient is not finite in step {step}: try a lower learning rate")]
    NotFinite {
        /// The step that was not made, counted from 1; of a measurement, the last that was.
        step: u64,
    },
    /// A fault of ours: a trained matrix would not have learned.
    #[error("{0} was given no gradient")]
    NoGradient(String),
    /// A fault of ours: numbers that do not fit together.
    #[error("the computation failed: {0}")]
    Computation(#[from] candle_core::Error),
    /// A saved training cannot be read or written.
    #[error("the saved training cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// A saved training is broken, or another's.
    #[error("the saved training cannot be gone on with: {0}")]
    State(String),
}

#[cfg(test)]
mod tests;
