//! How is learned: the method, the pace, and what chance comes from.

use serde_json::{Value, json};

use super::TrainError;
use crate::adapter::LoraConfig;
use crate::random::Random;

/// All that decides a training beside its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What is trained beside the frozen matrices.
    pub lora: LoraConfig,
    /// The learning rate after the warm-up; above 0, at most 1.
    pub learning_rate: f64,
    /// The share of the steps in which the learning rate rises to its height; from 0 to 1.
    pub warmup: f64,
    /// How the learning rate falls after that.
    pub decay: Decay,
    /// What a weight loses of itself in a step of learning rate 1 (`AdamW`'s decoupled decay).
    pub weight_decay: f64,
    /// The longest gradient, over all tensors together; longer ones are shortened to it.
    pub clip: f64,
    /// What all chance comes from: the first weights, dropout, the order of the rows.
    pub seed: u64,
    /// Steps that will be made.
    pub total_steps: u64,
    /// What the rows are and what is asked of them.
    pub method: Method,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// In equal parts, down to nearly nothing in the last step.
    Linear,
    /// Along half a cosine.
    Cosine,
    /// Not at all.
    Constant,
}

/// What the rows are and what is asked of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// Examples: their marked tokens become likelier. The loss is the mean over all marked tokens of a step, by weight.
    Sft,
    /// Pairs: the chosen answer becomes likelier beside the rejected one, as seen from the model before the training
    /// (Rafailov et al., "Direct Preference Optimization", 2023, equation 7). The loss is the mean over the pairs.
    Dpo {
        /// How strongly the model is held to what it was.
        beta: f64,
    },
}

/// What is drawn by chance; part of the place that chance is drawn for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Draw {
    /// The first weights of a tensor.
    First = 1,
    /// What is dropped in a step.
    Dropout = 2,
    /// The order of the rows of an epoch.
    Order = 3,
}

impl Settings {
    /// Returns the order in which the rows of an epoch come: the same for the same seed.
    pub fn order(&self, epoch: u64, rows: usize) -> Vec<usize> {
        let mut random = self.draw(Draw::Order, &[epoch]);
        let mut order: Vec<usize> = (0..rows).collect();
        // Fisher and Yates.
        for last in (1..rows).rev() {
            order.swap(last, (random.bits() % (last as u64 + 1)) as usize);
        }
        order
    }

    /// Returns the learning rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let total = self.total_steps as f64;
        let warm = (self.warmup * total).ceil();
        let step = step as f64;
        if step < warm {
            return self.learning_rate * (step + 1.0) / warm;
        }
        let past = (step - warm) / (total - warm).max(1.0);
        let share = match self.decay {
            Decay::Linear => 1.0 - past,
            Decay::Cosine => 0.5 + 0.5 * (std::f64::consts::PI * past).cos(),
            Decay::Constant => 1.0,
        };
        self.learning_rate * share.max(0.0)
    }

    /// Returns the chance of one place.
    pub(super) fn draw(&self, what: Draw, place: &[u64]) -> Random {
        Random::at(self.seed, &[&[what as u64], place].concat())
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        let refuse = |what: &str, value: f64, range: &str| {
            Err(TrainError::Settings(format!("{what} is {value}, not {range}")))
        };
        let Self { learning_rate, warmup, weight_decay, clip, .. } = *self;
        if !(learning_rate > 0.0 && learning_rate <= 1.0) {
            return refuse("the learning rate", learning_rate, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&warmup) {
            return refuse("the warm-up", warmup, "from 0 to 1");
        }
        if !(0.0..=1.0).contains(&weight_decay) {
            return refuse("the weight decay", weight_decay, "from 0 to 1");
        }
        if !(clip > 0.0 && clip <= 1e6) {
            return refuse("the longest gradient", clip, "above 0 and at most 1000000");
        }
        if self.total_steps == 0 {
            return refuse("the number of steps", 0.0, "at least 1");
        }
        match self.method {
            Method::Dpo { beta } if !(beta > 0.0 && beta <= 1e3) => {
                refuse("beta", beta, "above 0 and at most 1000")
            }
            _ => Ok(()),
        }
    }

    /// Returns everything by its name: what a training may be gone on with only if it is the same.
    pub(super) fn named(&self) -> Value {
        let LoraConfig { rank, alpha, dropout, targets } = &self.lora;
        let names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        json!({
            "rank": rank, "alpha": alpha, "dropout": dropout, "targets": names,
            "learning_rate": self.learning_rate, "warmup": self.warmup, "weight_decay": self.weight_decay,
            "clip": self.clip, "seed": self.seed, "total_steps": self.total_steps,
            "decay": match self.decay {
                Decay::Linear => "linear",
                Decay::Cosine => "cosine",
                Decay::Constant => "constant",
            },
            "method": match self.method {
                Method::Sft => json!("sft"),
                Method::Dpo { beta } => json!({ "dpo": beta }),
            },
        })
    }
}
