//! An adapter as the forward pass multiplies with it.

use super::{AdapterError, LoraWeights, Target};
use crate::gguf::Shape;
use crate::kernels::low_rank::Inlet;

/// Layers that take the same rows, in the order in which they are multiplied.
const ATTENTION: [Target; 3] = [Target::Query, Target::Key, Target::Value];
const OUTPUT: [Target; 1] = [Target::Output];
const HIDDEN: [Target; 2] = [Target::Gate, Target::Up];
const DOWN: [Target; 1] = [Target::Down];

/// A loaded adapter: half as large as its numbers in full precision, shared by all sequences that use it.
pub struct Adapter {
    shape: Shape,
    rank: usize,
    blocks: Vec<Block>,
}

/// What the adapter has beside one transformer block.
pub(crate) struct Block {
    /// Beside query, key and value.
    pub(crate) attention: Inlet,
    pub(crate) output: Inlet,
    /// Beside gate and up.
    pub(crate) hidden: Inlet,
    pub(crate) down: Inlet,
}

impl Adapter {
    /// Packs the weights for a model of this shape.
    ///
    /// # Errors
    /// If they are not those of such a model, or so large that their products would not be finite.
    pub fn new(weights: &LoraWeights, shape: &Shape) -> Result<Self, AdapterError> {
        weights.check(shape)?;
        let blocks: Vec<Block> = (0..shape.layers)
            .map(|layer| Block {
                attention: inlet(weights, shape, layer, &ATTENTION),
                output: inlet(weights, shape, layer, &OUTPUT),
                hidden: inlet(weights, shape, layer, &HIDDEN),
                down: inlet(weights, shape, layer, &DOWN),
            })
            .collect();
        if !blocks.iter().flat_map(Block::inlets).all(Inlet::is_finite) {
            return Err(AdapterError::Malformed("its numbers are too large".to_owned()));
        }
        Ok(Self { shape: *shape, rank: weights.config.rank, blocks })
    }

    /// Returns the rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Returns the bytes of all its numbers in memory.
    pub fn size_bytes(&self) -> usize {
        self.blocks.iter().flat_map(Block::inlets).map(Inlet::size_bytes).sum()
    }

    /// Whether it was packed for a model of this shape.
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        self.shape == *shape
    }

    /// Returns what it has beside block `index`.
    pub(crate) fn block(&self, index: usize) -> &Block {
        &self.blocks[index]
    }
}

impl Block {
    fn inlets(&self) -> [&Inlet; 4] {
        [&self.attention, &self.output, &self.hidden, &self.down]
    }
}

/// Packs the pairs of the layers `targets`, which take the same rows.
fn inlet(weights: &LoraWeights, shape: &Shape, layer: usize, targets: &[Target]) -> Inlet {
    let mut inlet = Inlet::new(targets[0].width_in(shape));
    for target in targets {
        match weights.pair(layer, *target).filter(|pair| pair.adds_something()) {
            Some(pair) => inlet.push(weights.config.rank, &pair.a, &pair.b, weights.config.scale()),
            None => inlet.pass(),
        }
    }
    inlet
}
