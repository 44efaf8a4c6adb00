//! The model that is trained beside: frozen, in full precision, gone through layer by layer.
//!
//! The graph of a row is never whole: each layer has one of its own, which ends at the layer's input, and the way back
//! goes from one to the next ([`Seed`]). So a layer's graph is freed as soon as it has been gone through, and of a long
//! row only the layers' inputs are kept, and each layer computed a second time.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use candle_core::backprop::GradStore;
use candle_core::utils::get_num_threads;
use candle_core::{Device, Result as Computed, Tensor, Var};

use super::TrainError;
use super::head::{Slopes, judge};
use super::ops::{Adapted, Angles, Attention, Gated, Linear, Norm, Real, Seed, Weight};
use super::pairs::{Chance, Gradients, LayerPairs, Pairs, Role};
use super::rows::Example;
use crate::adapter::{LoraWeights, Target};
use crate::gguf::{Gguf, GgufError, Shape};
use crate::pool::Pool;
use crate::weights;

/// The frozen weights.
pub(super) struct Base<T> {
    pub(super) shape: Shape,
    pub(super) embedding: Arc<Weight<T>>,
    /// The embedding itself where the file has no head of its own.
    pub(super) head: Arc<Weight<T>>,
    pub(super) norm: Tensor,
    pub(super) layers: Vec<Layer<T>>,
}

/// One block's frozen weights.
pub(super) struct Layer<T> {
    pub(super) attention_norm: Tensor,
    pub(super) hidden_norm: Tensor,
    /// In the order of [`Target::ALL`].
    pub(super) matrices: [Arc<Weight<T>>; 7],
}

/// What is remembered of a row for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All that was computed.
    Graphs,
    /// The layers' inputs only.
    Inputs,
    /// Nothing: there is no way back.
    Nothing,
}

/// How a row was answered, and the way back from there.
pub(super) struct Answer {
    /// The loss of each marked token.
    pub(super) losses: Vec<f64>,
    /// Marked tokens that were the likeliest.
    pub(super) hits: usize,
    way: Option<Way>,
}

struct Way {
    attention: Attention,
    chance: Option<Chance>,
    /// Each layer's input; all but the first are variables, so that they are given a gradient.
    inputs: Vec<Tensor>,
    /// Each layer's answer with its graph, or nothing where it is to be computed again.
    graphs: Vec<Option<Tensor>>,
    last: Tensor,
    /// The rows of `last` that were judged, normed.
    normed: Tensor,
    /// The gradient of each row's own loss.
    slopes: Tensor,
}

impl Base<f32> {
    /// Reads all weights of an open file.
    pub(super) fn read(gguf: &mut Gguf) -> Result<Self, TrainError> {
        let shape = Shape::read(gguf)?;
        let threads = NonZeroUsize::new(get_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let pool = Arc::new(Mutex::new(Pool::new(threads).map_err(TrainError::Threads)?));
        // The widest first: while it is converted, nothing else is in memory.
        let embedding = matrix(gguf, "token_embd.weight", (shape.vocabulary, shape.width), &pool)?;
        let head = match gguf.has_tensor("output.weight") {
            true => matrix(gguf, "output.weight", (shape.vocabulary, shape.width), &pool)?,
            false => Arc::clone(&embedding),
        };
        let layers = (0..shape.layers)
            .map(|at| Layer::read(gguf, &shape, at, &pool))
            .collect::<Result<_, TrainError>>()?;
        let norm = vector(gguf, "output_norm.weight", shape.width)?;
        Ok(Self { shape, embedding, head, norm, layers })
    }
}

impl<T: Real> Base<T> {
    /// Returns an adapter as the graph sees it, in the kind of numbers of the model.
    pub(super) fn pairs(&self, weights: &LoraWeights, role: Role) -> Result<Pairs, TrainError> {
        Pairs::new(weights, &self.shape, role, T::DTYPE)
    }

    /// Goes through a row and judges its marked tokens, of which there must be one.
    pub(super) fn answer(
        &self,
        example: &Example,
        pairs: &Pairs,
        chance: Option<Chance>,
        keep: Keep,
    ) -> Result<Answer, TrainError> {
        let tokens = example.needed();
        let attention = Attention {
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            angles: Arc::new(Angles::new(&self.shape, tokens.len())),
        };
        let (mut inputs, mut graphs) = (Vec::new(), Vec::new());
        let embedded = tokens.iter().flat_map(|token| self.embedding.row(*token as usize)).collect();
        let mut x = Tensor::from_vec::<_, T>(embedded, (tokens.len(), self.shape.width), &Device::Cpu)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let y = self.layer(layer, &x, &attention, pairs.layer(index, chance))?;
            if keep == Keep::Nothing {
                x = y;
                continue;
            }
            let next = Var::from_tensor(&y)?.into_inner();
            inputs.push(std::mem::replace(&mut x, next));
            graphs.push((keep == Keep::Graphs).then_some(y));
        }
        let judged: Vec<u32> = example.marked().map(|at| at as u32 - 1).collect();
        let targets: Vec<u32> = example.marked().map(|at| example.tokens[at]).collect();
        let rows = x.index_select(&Tensor::new(judged, &Device::Cpu)?, 0)?;
        let normed = self.normed(&rows, &self.norm)?;
        let slopes = if keep == Keep::Nothing { Slopes::Not } else { Slopes::Wanted };
        let judged = judge(&normed.detach(), &self.head, &targets, slopes)?;
        let way =
            judged.slopes.map(|slopes| Way { attention, chance, inputs, graphs, last: x, normed, slopes });
        Ok(Answer { losses: judged.losses, hits: judged.hits, way })
    }

    /// Goes back through a row and adds to the gradients what each of its losses gives, times what it counts.
    ///
    /// An answer that nothing was kept of adds nothing.
    pub(super) fn learn(
        &self,
        answer: Answer,
        counts: &[f64],
        pairs: &Pairs,
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        let Some(mut way) = answer.way else { return Ok(()) };
        let counts = Tensor::new(counts, &Device::Cpu)?.to_dtype(way.slopes.dtype())?.unsqueeze(1)?;
        let mut store = back(&way.normed, way.slopes.broadcast_mul(&counts)?)?;
        let mut gradient = taken(&mut store, &way.last)?;
        for index in (0..self.layers.len()).rev() {
            let (Some(x), Some(graph)) = (way.inputs.pop(), way.graphs.pop()) else { break };
            let y = match graph {
                Some(y) => y,
                None => {
                    self.layer(&self.layers[index], &x, &way.attention, pairs.layer(index, way.chance))?
                }
            };
            let mut store = back(&y, gradient)?;
            gradients.take(index, pairs, &mut store)?;
            if index == 0 {
                break;
            }
            gradient = taken(&mut store, &x)?;
        }
        Ok(())
    }

    fn layer(
        &self,
        layer: &Layer<T>,
        x: &Tensor,
        attention: &Attention,
        pairs: LayerPairs<'_>,
    ) -> Computed<Tensor> {
        let linear = |target: Target, x: &Tensor| {
            let weight = Arc::clone(&layer.matrices[target as usize]);
            match pairs.pair(target) {
                None => x.apply_op1(Linear { weight }),
                Some([a, b]) => {
                    let dropout = pairs.dropout(target);
                    x.apply_op3(a, b, Adapted { weight, scale: pairs.scale(), dropout })
                }
            }
        };
        let normed = self.normed(x, &layer.attention_norm)?;
        let query = linear(Target::Query, &normed)?;
        let key = linear(Target::Key, &normed)?;
        let value = linear(Target::Value, &normed)?;
        let mixed = query.apply_op3(&key, &value, attention.clone())?;
        let x = (x + linear(Target::Output, &mixed)?)?;
        let normed = self.normed(&x, &layer.hidden_norm)?;
        let gated = linear(Target::Gate, &normed)?.apply_op2(&linear(Target::Up, &normed)?, Gated)?;
        x + linear(Target::Down, &gated)?
    }

    fn normed(&self, x: &Tensor, weight: &Tensor) -> Computed<Tensor> {
        x.apply_op2(weight, Norm { epsilon: f64::from(self.shape.epsilon) })
    }
}

impl Layer<f32> {
    fn read(
        gguf: &mut Gguf,
        shape: &Shape,
        index: usize,
        pool: &Arc<Mutex<Pool>>,
    ) -> Result<Self, TrainError> {
        let mut read = |target: Target| {
            matrix(gguf, &target.gguf_name(index), (target.width_out(shape), target.width_in(shape)), pool)
        };
        let [query, key, value, output, gate, up, down] = Target::ALL;
        let matrices =
            [read(query)?, read(key)?, read(value)?, read(output)?, read(gate)?, read(up)?, read(down)?];
        Ok(Self {
            attention_norm: vector(gguf, &format!("blk.{index}.attn_norm.weight"), shape.width)?,
            hidden_norm: vector(gguf, &format!("blk.{index}.ffn_norm.weight"), shape.width)?,
            matrices,
        })
    }
}

fn matrix(
    gguf: &mut Gguf,
    name: &str,
    (rows, columns): (usize, usize),
    pool: &Arc<Mutex<Pool>>,
) -> Result<Arc<Weight<f32>>, TrainError> {
    let numbers = weights::numbers(name, &gguf.tensor(name, rows, columns)?)?;
    Ok(Arc::new(Weight::new(columns, &numbers, pool)))
}

fn vector(gguf: &mut Gguf, name: &str, length: usize) -> Result<Tensor, TrainError> {
    let numbers: Result<_, GgufError> = weights::vector(gguf, name, length);
    Ok(Tensor::from_vec(numbers?, length, &Device::Cpu)?)
}

/// Goes back through the graph behind `y`, whose gradient is known.
fn back(y: &Tensor, gradient: Tensor) -> Computed<GradStore> {
    y.apply_op1(Seed { gradient })?.backward()
}

/// Returns the gradient that a layer's input was given.
fn taken(store: &mut GradStore, input: &Tensor) -> Result<Tensor, TrainError> {
    store.remove(input).ok_or_else(|| TrainError::NoGradient("a layer's input".to_owned()))
}
