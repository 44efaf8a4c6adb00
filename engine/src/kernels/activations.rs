//! Rows of activations, rounded to 8 or 16 bits for the integer kernels.

use super::{BLOCK, vector};
use crate::pool::Pool;

/// The precision in which activations meet the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Two planes of 8 bits. A small model has outliers that 8 bits flatten, and then answers otherwise.
    #[default]
    Bits16,
    /// One plane, as llama.cpp and candle have it: half the products, so faster, most of all in prefill.
    Bits8,
}

/// Rows of numbers, each block of 32 with a scale of its own: `x ≈ scale · (256 · high + low)`.
pub(crate) struct Activations {
    precision: Activation,
    rows: usize,
    columns: usize,
    /// The upper plane, or the only one.
    pub(super) high: Vec<i8>,
    /// The lower plane; empty with 8 bits.
    pub(super) low: Vec<i8>,
    /// One a block.
    pub(super) scale: Vec<f32>,
    /// The sum of a block's rounded numbers: what its minimum (or its offset) is multiplied with.
    pub(super) sum: Vec<f32>,
}

/// The largest magnitude a block is scaled to; with two planes so that the upper one never overflows.
const fn peak(precision: Activation) -> f32 {
    match precision {
        Activation::Bits16 => 32_512.0,
        Activation::Bits8 => 127.0,
    }
}

impl Activations {
    pub(crate) fn new(precision: Activation) -> Self {
        let (high, low, scale, sum) = Default::default();
        Self { precision, rows: 0, columns: 0, high, low, scale, sum }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Whether there is a lower plane.
    pub(super) fn two_planes(&self) -> bool {
        self.precision == Activation::Bits16
    }

    /// Returns the blocks of a row.
    pub(super) fn depth(&self) -> usize {
        self.columns / BLOCK
    }

    /// Takes rows of `columns` numbers, a multiple of 32.
    pub(crate) fn set(&mut self, pool: &mut Pool, x: &[f32], columns: usize) {
        assert!(columns.is_multiple_of(BLOCK) && x.len().is_multiple_of(columns), "rows of whole blocks");
        (self.rows, self.columns) = (x.len() / columns, columns);
        let blocks = x.len() / BLOCK;
        self.high.resize(x.len(), 0);
        self.low.resize(if self.two_planes() { x.len() } else { 0 }, 0);
        self.scale.resize(blocks, 0.0);
        self.sum.resize(blocks, 0.0);
        let planes = Planes {
            high: self.high.as_mut_ptr(),
            low: if self.two_planes() { self.low.as_mut_ptr() } else { std::ptr::null_mut() },
            scale: self.scale.as_mut_ptr(),
            sum: self.sum.as_mut_ptr(),
        };
        let (planes, peak) = (&planes, peak(self.precision));
        // Some 50 ns a block: below a few hundred, waking another thread costs more than it brings.
        pool.run(blocks, 256, |range| {
            let (start, count) = (range.start, range.len());
            // SAFETY: the vectors have room for all blocks, and the ranges of a loop are disjoint.
            let (high, low, scale, sum) = unsafe {
                (
                    std::slice::from_raw_parts_mut(planes.high.add(start * BLOCK), count * BLOCK),
                    (!planes.low.is_null()).then(|| {
                        std::slice::from_raw_parts_mut(planes.low.add(start * BLOCK), count * BLOCK)
                    }),
                    std::slice::from_raw_parts_mut(planes.scale.add(start), count),
                    std::slice::from_raw_parts_mut(planes.sum.add(start), count),
                )
            };
            let x = &x[start * BLOCK..][..count * BLOCK];
            match low {
                Some(low) => vector::round_two_planes(x, peak, high, low, scale, sum),
                None => vector::round_one_plane(x, peak, high, scale, sum),
            }
        });
    }
}

struct Planes {
    high: *mut i8,
    low: *mut i8,
    scale: *mut f32,
    sum: *mut f32,
}

// SAFETY: the one loop that shares it writes disjoint ranges.
unsafe impl Sync for Planes {}
