//! Step by step: rows in, a slightly better adapter out.

use super::TrainError;
use super::base::Base;
use super::optimizer::{Moments, Update, length};
use super::pairs::{Gradients, Pairs, Role};
use super::round::Round;
use super::rows::Row;
use super::settings::{Draw, Method, Settings};
use crate::adapter::{LoraPair, LoraWeights, Target};
use crate::gguf::{Gguf, Shape};

/// A training under way: the frozen model, the adapter as it is now, and what the optimiser remembers.
///
/// Products run on as many threads as `RAYON_NUM_THREADS` says, or as the machine has; it is read once a process. The
/// same steps on as many threads give the same bits.
pub struct Trainer {
    pub(super) base: Base<f32>,
    pub(super) settings: Settings,
    pub(super) weights: LoraWeights,
    /// By tensor, in the order of the weights' pairs, A before B.
    pub(super) moments: Vec<Moments>,
    /// What pairs are judged beside, where that is not the model alone: the adapter that was begun with.
    pub(super) reference: Option<LoraWeights>,
    /// Steps made.
    pub(super) step: u64,
}

/// What one step was like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Which it was, counted from 1.
    pub step: u64,
    /// The loss before the step.
    pub loss: f64,
    /// The share of marked tokens that were the likeliest; of pairs, the share whose chosen answer gained more.
    pub accuracy: f64,
    /// The length of the gradient before it was shortened.
    pub grad_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// Marked tokens.
    pub trained_tokens: u64,
    /// All tokens of the rows.
    pub tokens: u64,
}

/// How well rows are answered as things stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// As that of a [`Step`], over all rows, without dropout.
    pub loss: f64,
    /// As that of a [`Step`].
    pub accuracy: f64,
    /// Marked tokens.
    pub tokens: u64,
}

impl Trainer {
    /// Begins a training of the model in an open file, from `start` or from an adapter that changes nothing yet.
    ///
    /// # Errors
    /// If the file cannot be read, a setting is out of range, or `start` is of another rank, scale or shape.
    pub fn new(gguf: &mut Gguf, settings: Settings, start: Option<&LoraWeights>) -> Result<Self, TrainError> {
        settings.check()?;
        let base = Base::read(gguf)?;
        let fresh = fresh(&settings, &base.shape);
        let weights = match start {
            None => fresh,
            Some(start) => fitting(start, fresh, &base.shape)?,
        };
        let moments = weights.pairs.iter().flat_map(|pair| [&pair.a, &pair.b]);
        let moments = moments.map(|tensor| Moments::new(tensor.len())).collect();
        let reference = match settings.method {
            Method::Dpo { .. } if start.is_some() => Some(weights.clone()),
            _ => None,
        };
        Ok(Self { base, settings, weights, moments, reference, step: 0 })
    }

    /// Returns the model's sizes.
    pub fn shape(&self) -> &Shape {
        &self.base.shape
    }

    /// Returns what the training was begun with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns how many steps were made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Returns the adapter as it is now.
    pub fn weights(&self) -> &LoraWeights {
        &self.weights
    }

    /// Learns from some rows at once: one way forth and back for each, then one step of the optimiser.
    ///
    /// # Errors
    /// If a row cannot be learned from, all steps were made, or a loss or gradient is not finite. The adapter and the
    /// optimiser are then as they were before.
    pub fn step(&mut self, rows: &[Row<'_>]) -> Result<Step, TrainError> {
        if self.step >= self.settings.total_steps {
            return Err(TrainError::Finished(self.step));
        }
        self.check(rows)?;
        let mut gradients = Gradients::new(&self.base.shape);
        let pairs = self.base.pairs(&self.weights, Role::Trained)?;
        let sum = self.round(&pairs).go(rows, Some(&mut gradients))?;
        let gradients = gradients.numbers()?;
        let (number, grad_norm) = (self.step + 1, length(&gradients));
        if !sum.loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainError::NotFinite { step: number });
        }
        let learning_rate = self.settings.rate(self.step);
        let update = Update {
            step: number,
            learning_rate,
            weight_decay: self.settings.weight_decay,
            shortened: (self.settings.clip / grad_norm).min(1.0),
        };
        self.move_by(update, &gradients);
        self.step = number;
        let (trained_tokens, tokens) = (marked(rows), all(rows));
        let accuracy = sum.accuracy();
        Ok(Step { step: number, loss: sum.loss, accuracy, grad_norm, learning_rate, trained_tokens, tokens })
    }

    /// Measures how well rows are answered; changes nothing.
    ///
    /// # Errors
    /// If a row cannot be learned from, or the loss is not finite.
    pub fn evaluate(&self, rows: &[Row<'_>]) -> Result<Measure, TrainError> {
        self.check(rows)?;
        let pairs = self.base.pairs(&self.weights, Role::Fixed)?;
        let sum = self.round(&pairs).go(rows, None)?;
        if !sum.loss.is_finite() {
            return Err(TrainError::NotFinite { step: self.step });
        }
        Ok(Measure { loss: sum.loss, accuracy: sum.accuracy(), tokens: marked(rows) })
    }

    fn check(&self, rows: &[Row<'_>]) -> Result<(), TrainError> {
        if rows.is_empty() {
            return Err(TrainError::NoRows);
        }
        let Self { base, settings, .. } = self;
        let check = |(index, row): (usize, &Row<'_>)| row.check(index, settings.method, &base.shape);
        rows.iter().enumerate().try_for_each(check)
    }

    fn round<'a>(&'a self, pairs: &'a Pairs) -> Round<'a, f32> {
        let Self { base, settings, step, .. } = self;
        Round { base, settings, pairs, reference: self.reference.as_ref(), step: *step }
    }

    fn move_by(&mut self, update: Update, gradients: &[Vec<f32>]) {
        let tensors = self.weights.pairs.iter_mut().flat_map(|pair| [&mut pair.a, &mut pair.b]);
        for ((tensor, moments), gradient) in tensors.zip(&mut self.moments).zip(gradients) {
            moments.step(update, tensor, gradient);
        }
    }
}

fn marked(rows: &[Row<'_>]) -> u64 {
    rows.iter().flat_map(Row::examples).map(|example| example.marked().count() as u64).sum()
}

fn all(rows: &[Row<'_>]) -> u64 {
    rows.iter().flat_map(Row::examples).map(|example| example.tokens.len() as u64).sum()
}

/// Returns an adapter that changes nothing yet: A by chance, B nothing, as PEFT begins.
fn fresh(settings: &Settings, shape: &Shape) -> LoraWeights {
    let rank = settings.lora.rank;
    let pair = |layer: usize, target: Target| {
        let (inputs, outputs) = (target.width_in(shape), target.width_out(shape));
        // Kaiming's uniform with a = √5, which is within one by the root of the inputs.
        let bound = 1.0 / (inputs as f64).sqrt();
        let mut random = settings.draw(Draw::First, &[layer as u64, target as u64]);
        let a = (0..rank * inputs).map(|_| ((random.unit() * 2.0 - 1.0) * bound) as f32).collect();
        LoraPair { layer, target, a, b: vec![0.0; outputs * rank] }
    };
    let targets = &settings.lora.targets;
    let pairs = (0..shape.layers).flat_map(|layer| targets.iter().map(move |target| pair(layer, *target)));
    LoraWeights { config: settings.lora.clone(), pairs: pairs.collect() }
}

/// Returns the weights of `start` under the settings of `fresh`, which it must have.
fn fitting(start: &LoraWeights, mut fresh: LoraWeights, shape: &Shape) -> Result<LoraWeights, TrainError> {
    let refuse = |what| Err(TrainError::Settings(format!("the adapter to begin from has {what}")));
    if (start.config.rank, start.config.alpha) != (fresh.config.rank, fresh.config.alpha) {
        return refuse("another rank or alpha");
    }
    if start.config.targets != fresh.config.targets {
        return refuse("other targets");
    }
    start.check(shape).map_err(|error| TrainError::Settings(error.to_string()))?;
    fresh.pairs.clone_from(&start.pairs);
    Ok(fresh)
}
