//! Low-rank adapters (LoRA): a fine-tune as two thin matrices beside each linear layer, `y = W·x + s·B·(A·x)`.
//!
//! [`LoraWeights`] are an adapter's numbers, as training makes them; [`peft`] reads and writes them in the format of
//! Hugging Face's PEFT. In memory the rows of query and key stand in GGUF's order, as the base model's do.

mod draft;
pub mod merge;
mod packed;
pub mod peft;

use std::io;

use crate::gguf::Shape;
pub use packed::Adapter;
pub(crate) use packed::Block;

/// The largest rank there is; a larger one is a broken file or a mistake.
pub const MOST_RANK: usize = 512;
/// The largest `alpha` that is taken.
const MOST_ALPHA: f64 = 1e6;

/// Why an adapter can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file cannot be read or written.
    #[error("cannot read or write the adapter: {0}")]
    Io(#[from] io::Error),
    /// It is cut short, contradicts itself, or does not fit to the base model.
    #[error("not a sound adapter for this model: {0}")]
    Malformed(String),
    /// It is sound, but this engine does not compute it.
    #[error("this adapter cannot be served: {0}")]
    Unsupported(String),
    /// It is larger than is allowed here.
    #[error("the adapter's {what} is {found}, and at most {most} is taken")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// What the adapter has.
        found: u64,
        /// What is allowed.
        most: u64,
    },
}

/// How large an adapter may be; asked before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterLimits {
    /// The largest rank.
    pub rank: usize,
    /// The most bytes of its file of tensors.
    pub size_bytes: u64,
}

/// One of the seven linear layers of a transformer block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// From the block's input to what each head looks for.
    Query,
    /// From the block's input to what each position offers to be found by.
    Key,
    /// From the block's input to what is found.
    Value,
    /// From the heads back to the residual stream.
    Output,
    /// From the residual stream to the gates of the feed-forward part.
    Gate,
    /// From the residual stream to what is gated.
    Up,
    /// From the feed-forward part back to the residual stream.
    Down,
}

impl Target {
    /// All of them, in the order in which a block uses them.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Returns the layer's name in Hugging Face's llama.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Returns the name of the part of a block in which Hugging Face's llama has it.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// Returns the name of its tensor in a GGUF file.
    pub fn gguf_name(self, layer: usize) -> String {
        let name = match self {
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        };
        format!("blk.{layer}.{name}.weight")
    }

    /// Returns the inputs of the layer.
    pub fn width_in(self, shape: &Shape) -> usize {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Gate | Self::Up => shape.width,
            Self::Output => shape.query_width(),
            Self::Down => shape.hidden,
        }
    }

    /// Returns the outputs of the layer.
    pub fn width_out(self, shape: &Shape) -> usize {
        match self {
            Self::Query => shape.query_width(),
            Self::Key | Self::Value => shape.kv_width(),
            Self::Output | Self::Down => shape.width,
            Self::Gate | Self::Up => shape.hidden,
        }
    }

    /// Whether its outputs are channels that are rotated in pairs, whose order differs between GGUF and Hugging Face.
    const fn is_rotated(self) -> bool {
        matches!(self, Self::Query | Self::Key)
    }
}

/// What shapes an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The strength: what the layers add is multiplied with `alpha / rank`.
    pub alpha: f64,
    /// The share of inputs that training leaves out; serving leaves out none.
    pub dropout: f64,
    /// The layers that are adapted; sorted, each once, at least one.
    pub targets: Vec<Target>,
}

impl LoraConfig {
    /// Checks the numbers; sorts the targets and drops those that come twice.
    ///
    /// # Errors
    /// If the rank is not from 1 to [`MOST_RANK`], alpha is not above 0, the dropout is not from 0 to below 1, or
    /// there is no target.
    pub fn new(
        rank: usize,
        alpha: f64,
        dropout: f64,
        mut targets: Vec<Target>,
    ) -> Result<Self, AdapterError> {
        let refuse = |why: String| Err(AdapterError::Malformed(why));
        if rank == 0 || rank > MOST_RANK {
            return refuse(format!("its rank is {rank}; it must be from 1 to {MOST_RANK}"));
        }
        if !(alpha > 0.0 && alpha <= MOST_ALPHA) {
            return refuse(format!("its alpha is {alpha}; it must be above 0 and at most {MOST_ALPHA}"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return refuse(format!("its dropout is {dropout}; it must be from 0 to below 1"));
        }
        if targets.is_empty() {
            return refuse("it adapts no layer".to_owned());
        }
        targets.sort_unstable();
        targets.dedup();
        Ok(Self { rank, alpha, dropout, targets })
    }

    /// Returns what `B·(A·x)` is multiplied with.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// The two thin matrices beside one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// The transformer block.
    pub layer: usize,
    /// Which of its linear layers.
    pub target: Target,
    /// `A`: rank × inputs, row by row.
    pub a: Vec<f32>,
    /// `B`: outputs × rank, row by row; rows of query and key in GGUF's order.
    pub b: Vec<f32>,
}

impl LoraPair {
    /// Whether it adds more than zeros; those of left out layers do not.
    fn adds_something(&self) -> bool {
        let any = |numbers: &[f32]| numbers.iter().any(|number| *number != 0.0);
        any(&self.a) && any(&self.b)
    }
}

/// An adapter's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraWeights {
    /// What shapes it.
    pub config: LoraConfig,
    /// A pair for every block and target, sorted by block, then target.
    pub pairs: Vec<LoraPair>,
}

impl LoraWeights {
    /// Returns the pair beside a layer; `None` where it is not adapted.
    pub fn pair(&self, layer: usize, target: Target) -> Option<&LoraPair> {
        let place = self.pairs.binary_search_by_key(&(layer, target), |pair| (pair.layer, pair.target));
        place.ok().map(|index| &self.pairs[index])
    }

    /// Checks that every pair is there, in order, of the sizes of a model of this shape, and finite.
    ///
    /// # Errors
    /// If not, with the first thing that is wrong.
    pub fn check(&self, shape: &Shape) -> Result<(), AdapterError> {
        let refuse = |why: String| Err(AdapterError::Malformed(why));
        let targets = &self.config.targets;
        if self.pairs.len() != shape.layers * targets.len() {
            let (found, layers) = (self.pairs.len(), shape.layers);
            return refuse(format!("it has {found} pairs for {} targets of {layers} layers", targets.len()));
        }
        for (index, pair) in self.pairs.iter().enumerate() {
            let (layer, target) = (index / targets.len(), targets[index % targets.len()]);
            if (pair.layer, pair.target) != (layer, target) {
                return refuse(format!("the pair of {} of layer {layer} is missing", target.name()));
            }
            let rank = self.config.rank;
            let sizes = (rank * target.width_in(shape), rank * target.width_out(shape));
            if (pair.a.len(), pair.b.len()) != sizes {
                return refuse(format!("the pair of {} of layer {layer} has other sizes", target.name()));
            }
            if !pair.a.iter().chain(&pair.b).all(|number| number.is_finite()) {
                return refuse(format!("{} of layer {layer} has numbers that are not finite", target.name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use Target::{Down, Gate, Key, Output, Query, Up, Value};

    /// A shape in which every width is another one, and none a multiple of 16 but those that must be.
    pub(crate) const SHAPE: Shape = Shape {
        width: 64,
        hidden: 160,
        layers: 2,
        heads: 8,
        kv_heads: 2,
        head_width: 12,
        vocabulary: 80,
        context: 512,
        epsilon: 1e-5,
        rope_base: 10_000.0,
    };

    /// Numbers in -1..1 that look random, the same ones for the same seed.
    pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        let mut next = || {
            // xorshift64*.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// An adapter whose addition is about as large as a small base model's own products.
    pub(crate) fn weights(shape: &Shape, rank: usize, targets: &[Target], seed: u64) -> LoraWeights {
        let config = LoraConfig::new(rank, 2.0 * rank as f64, 0.0, targets.to_vec()).unwrap();
        let places =
            (0..shape.layers).flat_map(|layer| config.targets.iter().map(move |target| (layer, *target)));
        let pair = |(layer, target): (usize, Target)| {
            let seed = seed * 1000 + layer as u64 * 100 + target as u64;
            let inputs = target.width_in(shape);
            let a = numbers(seed, rank * inputs).iter().map(|x| x / (inputs as f32).sqrt()).collect();
            let b = numbers(seed + 50, rank * target.width_out(shape));
            let b = b.iter().map(|x| x * 0.2 / (rank as f32).sqrt()).collect();
            LoraPair { layer, target, a, b }
        };
        let pairs = places.map(pair).collect();
        LoraWeights { config, pairs }
    }

    #[test]
    fn a_config_is_in_bounds_and_sorted() {
        let config = LoraConfig::new(8, 16.0, 0.1, vec![Up, Query, Up, Key]).unwrap();
        assert_eq!((config.targets.as_slice(), config.scale()), (&[Query, Key, Up][..], 2.0));
        let cases = [
            (0, 16.0, 0.0, vec![Query]),
            (MOST_RANK + 1, 16.0, 0.0, vec![Query]),
            (8, 0.0, 0.0, vec![Query]),
            (8, f64::NAN, 0.0, vec![Query]),
            (8, f64::INFINITY, 0.0, vec![Query]),
            (8, 16.0, 1.0, vec![Query]),
            (8, 16.0, -0.1, vec![Query]),
            (8, 16.0, f64::NAN, vec![Query]),
            (8, 16.0, 0.0, vec![]),
        ];
        for (rank, alpha, dropout, targets) in cases {
            assert!(LoraConfig::new(rank, alpha, dropout, targets).is_err(), "{rank} {alpha} {dropout}");
        }
    }

    #[test]
    fn widths_are_those_of_the_model() {
        let widths = [
            (Query, 64, 96),
            (Key, 64, 24),
            (Value, 64, 24),
            (Output, 96, 64),
            (Gate, 64, 160),
            (Up, 64, 160),
            (Down, 160, 64),
        ];
        for (target, inputs, outputs) in widths {
            assert_eq!((target.width_in(&SHAPE), target.width_out(&SHAPE)), (inputs, outputs), "{target:?}");
        }
    }

    #[test]
    fn weights_are_complete_sized_and_finite() {
        let sound = || weights(&SHAPE, 3, &[Key, Down], 1);
        assert!(sound().check(&SHAPE).is_ok());
        let broken: [fn(&mut LoraWeights); 6] = [
            |weights| weights.pairs.truncate(3),
            |weights| weights.pairs.swap(0, 1),
            |weights| weights.pairs[2].layer = 0,
            |weights| weights.pairs[1].a.truncate(5),
            |weights| weights.pairs[1].b.push(0.0),
            |weights| weights.pairs[3].b[7] = f32::NAN,
        ];
        for (index, spoil) in broken.into_iter().enumerate() {
            let mut weights = sound();
            spoil(&mut weights);
            assert!(weights.check(&SHAPE).is_err(), "{index}");
        }
    }
}
