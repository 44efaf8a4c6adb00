//! The trained pairs as the graph sees them, and their gradients.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use super::TrainError;
use super::ops::Dropout;
use super::settings::{Draw, Settings};
use crate::adapter::{LoraWeights, Target};
use crate::gguf::Shape;
use crate::random::Random;

/// The matrices of an adapter, or of none, ready for the graph.
pub(super) struct Pairs {
    scale: f64,
    dropout: f64,
    /// For each layer the pair beside each of [`Target::ALL`].
    layers: Vec<[Option<[Tensor; 2]>; 7]>,
}

/// Whether pairs are given a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// They are learned.
    Trained,
    /// They are as they are.
    Fixed,
}

/// What chance a row meets in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance {
    /// The chance of the row in the step.
    pub(super) seed: u64,
}

impl Chance {
    /// Returns that of a row of a step; a pair's two answers have one each.
    pub(super) fn new(settings: &Settings, step: u64, row: usize, answer: usize) -> Option<Self> {
        let mut random = settings.draw(Draw::Dropout, &[step, row as u64, answer as u64]);
        (settings.lora.dropout > 0.0).then(|| Self { seed: random.bits() })
    }
}

impl Pairs {
    /// Returns the model's own: none in any layer.
    pub(super) fn none(shape: &Shape) -> Self {
        Self {
            scale: 0.0,
            dropout: 0.0,
            layers: std::iter::repeat_with(Default::default).take(shape.layers).collect(),
        }
    }

    /// Returns an adapter's, as numbers of `kind`.
    pub(super) fn new(
        weights: &LoraWeights,
        shape: &Shape,
        role: Role,
        kind: DType,
    ) -> Result<Self, TrainError> {
        let mut all =
            Self { scale: weights.config.scale(), dropout: weights.config.dropout, ..Self::none(shape) };
        let rank = weights.config.rank;
        for pair in &weights.pairs {
            let matrix = |numbers: &[f32], rows: usize, columns: usize| -> Result<Tensor, TrainError> {
                let tensor = Tensor::from_slice(numbers, (rows, columns), &Device::Cpu)?.to_dtype(kind)?;
                Ok(match role {
                    Role::Trained => Var::from_tensor(&tensor)?.into_inner(),
                    Role::Fixed => tensor,
                })
            };
            let a = matrix(&pair.a, rank, pair.target.width_in(shape))?;
            let b = matrix(&pair.b, pair.target.width_out(shape), rank)?;
            all.layers[pair.layer][pair.target as usize] = Some([a, b]);
        }
        Ok(all)
    }

    /// Returns what a layer sees of them.
    pub(super) fn layer(&self, index: usize, chance: Option<Chance>) -> LayerPairs<'_> {
        LayerPairs { all: self, index, chance }
    }
}

/// The pairs of one layer in one step.
#[derive(Clone, Copy)]
pub(super) struct LayerPairs<'a> {
    all: &'a Pairs,
    index: usize,
    chance: Option<Chance>,
}

impl<'a> LayerPairs<'a> {
    /// Returns the pair beside a matrix.
    pub(super) fn pair(&self, target: Target) -> Option<&'a [Tensor; 2]> {
        self.all.layers[self.index][target as usize].as_ref()
    }

    /// Returns what the pairs' answers are multiplied with.
    pub(super) fn scale(&self) -> f64 {
        self.all.scale
    }

    /// Returns what a pair does not see: drawn from the place alone, so that a layer that is computed a second time
    /// drops the same.
    pub(super) fn dropout(&self, target: Target) -> Option<Dropout> {
        let place = [self.index as u64, target as u64];
        self.chance
            .map(|Chance { seed }| Dropout { rate: self.all.dropout, seed: Random::at(seed, &place).bits() })
    }
}

/// The gradients of a step, added up row by row.
pub(super) struct Gradients {
    /// By layer, target and side.
    sums: Vec<[Option<[Tensor; 2]>; 7]>,
}

impl Gradients {
    /// Returns those of a step that has seen no row.
    pub(super) fn new(shape: &Shape) -> Self {
        Self { sums: std::iter::repeat_with(Default::default).take(shape.layers).collect() }
    }

    /// Adds a layer's gradients.
    ///
    /// # Errors
    /// If a trained matrix was given none: the graph was cut somewhere, and it would never learn.
    pub(super) fn take(
        &mut self,
        layer: usize,
        pairs: &Pairs,
        store: &mut GradStore,
    ) -> Result<(), TrainError> {
        for target in Target::ALL {
            let Some(pair) = &pairs.layers[layer][target as usize] else { continue };
            let mut find = |matrix: &Tensor, side: char| {
                let name =
                    || TrainError::NoGradient(format!("lora_{side} of {} in layer {layer}", target.name()));
                store.remove(matrix).ok_or_else(name)
            };
            let found = [find(&pair[0], 'A')?, find(&pair[1], 'B')?];
            let sum = &mut self.sums[layer][target as usize];
            *sum = Some(match sum.take() {
                None => found,
                Some([a, b]) => [(a + &found[0])?, (b + &found[1])?],
            });
        }
        Ok(())
    }

    /// Returns the numbers, tensor by tensor, in the order of an adapter's pairs, A before B.
    pub(super) fn numbers(self) -> Result<Vec<Vec<f32>>, TrainError> {
        let tensors = self.sums.into_iter().flatten().flatten().flatten();
        tensors.map(|tensor| Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)).collect()
    }
}
