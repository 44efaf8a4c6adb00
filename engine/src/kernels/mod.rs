//! Matrices of 4 and 8 bits, packed for the machine, and what multiplies them.
//!
//! Sixteen rows of a matrix (outputs) stand side by side in a tile, 32 inputs deep, so that one `vpdpbusd`
//! advances four inputs of sixteen outputs. candle 0.11 has such kernels only for other types and for rows of a
//! multiple of 256; these take any multiple of 32.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod dense;
pub(crate) mod frozen;
pub(crate) mod low_rank;
mod portable;
pub(crate) mod vector;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use activations::Activation;
pub(crate) use activations::Activations;
pub(crate) use low_rank::Adapted;

use crate::pool::{Parts, Pool};

/// Outputs of one tile.
const TILE: usize = 16;
/// Inputs of one block, in weights and activations alike.
pub(crate) const BLOCK: usize = 32;
/// Rows of activations that one pass over a tile's weights serves.
const GROUP: usize = 8;

/// What a tile gives for a group of rows.
type TileSums = [[f32; TILE]; GROUP];

/// How a packed matrix stores its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// 16 f16 scales, 16 f16 minima, 4 × 64 bytes of nibbles.
    Q4_1,
    /// 16 f16 scales, 8 × 64 bytes, each 128 too large.
    Q8_0,
}

impl Packing {
    /// Bytes of one tile, one block deep.
    const fn tile_bytes(self) -> usize {
        match self {
            Self::Q4_1 => 64 + 256,
            Self::Q8_0 => 32 + 512,
        }
    }

    /// Bytes of one block in the file.
    const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
        }
    }
}

/// A matrix of `rows` outputs and `columns` inputs, its tiles laid out `[rows / 16][columns / 32]`.
///
/// The last tile is filled up with zeros where `rows` is no multiple of 16.
pub(crate) struct Packed {
    rows: usize,
    columns: usize,
    packing: Packing,
    bytes: Vec<u8>,
}

impl Packed {
    /// Packs the blocks of a file; `blocks` must hold exactly `rows` × `columns` numbers.
    pub(crate) fn new(packing: Packing, rows: usize, columns: usize, blocks: &[u8]) -> Self {
        assert!(columns.is_multiple_of(BLOCK), "rows are whole blocks");
        let depth = columns / BLOCK;
        assert_eq!(blocks.len(), rows * depth * packing.block_bytes(), "the blocks are the matrix");
        let tile_bytes = packing.tile_bytes();
        let mut bytes = vec![0; rows.div_ceil(TILE) * depth * tile_bytes];
        for (index, tile) in bytes.chunks_exact_mut(tile_bytes).enumerate() {
            let (first, block) = (index / depth * TILE, index % depth);
            for column in 0..TILE.min(rows - first) {
                let at = ((first + column) * depth + block) * packing.block_bytes();
                pack(packing, &blocks[at..at + packing.block_bytes()], column, tile);
            }
        }
        Self { rows, columns, packing, bytes }
    }

    /// Returns the outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the bytes it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes row `row`, a token's embedding, in full precision.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let (depth, tile_bytes) = (self.columns / BLOCK, self.packing.tile_bytes());
        for (block, out) in out.chunks_exact_mut(BLOCK).take(depth).enumerate() {
            let tile = &self.bytes[(row / TILE * depth + block) * tile_bytes..][..tile_bytes];
            portable::unpack(self.packing, tile, row % TILE, out);
        }
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Returns the packed bytes of tile `tile`, all its blocks.
    fn tile(&self, tile: usize) -> &[u8] {
        let size = self.columns / BLOCK * self.packing.tile_bytes();
        &self.bytes[tile * size..][..size]
    }

    /// Computes tile `tile` for the rows `first..first + count` of `x`; `count` is 1, 2, 4 or 8.
    fn sums(&self, tile: usize, x: &Activations, first: usize, count: usize, out: &mut TileSums) {
        let weights = self.tile(tile);
        #[cfg(target_arch = "x86_64")]
        match vector::level() {
            vector::Level::Plain => {}
            vector::Level::Avx2 => {
                // SAFETY: `level` says that the instructions exist.
                return unsafe { avx2::sums(self.packing, weights, x, first, count, out) };
            }
            vector::Level::Avx512 => {
                // SAFETY: `level` says that the instructions exist.
                return unsafe { vnni::sums(self.packing, weights, x, first, count, out) };
            }
        }
        portable::sums(self.packing, weights, x, first, count, out);
    }

    /// Returns the outputs that tile `tile` really has.
    fn width(&self, tile: usize) -> usize {
        TILE.min(self.rows - tile * TILE)
    }
}

/// Puts one block of the file into column `column` of a tile.
fn pack(packing: Packing, source: &[u8], column: usize, tile: &mut [u8]) {
    tile[2 * column..2 * column + 2].copy_from_slice(&source[..2]);
    match packing {
        Packing::Q4_1 => {
            tile[32 + 2 * column..34 + 2 * column].copy_from_slice(&source[2..4]);
            // Low nibbles hold the inputs 0..16, high ones 16..32, as in the file.
            for (group, four) in source[4..].as_chunks::<4>().0.iter().enumerate() {
                tile[64 + group * 64 + column * 4..][..4].copy_from_slice(four);
            }
        }
        Packing::Q8_0 => {
            for (group, four) in source[2..].as_chunks::<4>().0.iter().enumerate() {
                tile[32 + group * 64 + column * 4..][..4].copy_from_slice(&four.map(|byte| byte ^ 0x80));
            }
        }
    }
}

/// Returns how many of `left` rows the next pass takes.
fn pass(left: usize) -> usize {
    match left {
        8.. => 8,
        4..=7 => 4,
        2..=3 => 2,
        _ => 1,
    }
}

/// One matrix, what adapters add to it, and where its product goes: `out[row][output]`, overwritten.
pub(crate) struct Product<'a> {
    pub(crate) matrix: Adapted<'a>,
    pub(crate) out: &'a mut [f32],
}

/// Multiplies every row of `x` with several matrices in one parallel loop.
///
/// The outputs are split among the threads: a tile's weights stay in the first cache while the rows pass.
pub(crate) fn multiply(pool: &mut Pool, x: &Activations, products: &mut [Product<'_>]) {
    let mut units = 0;
    let jobs: Vec<(usize, Adapted<'_>, Parts<'_>)> = products
        .iter_mut()
        .map(|product| {
            let (first, weights) = (units, product.matrix.weights);
            units += weights.tiles();
            assert_eq!(weights.columns, x.columns(), "the matrix takes such rows");
            assert_eq!(product.out.len(), x.rows() * weights.rows, "the output has its size");
            (first, product.matrix, Parts::new(product.out))
        })
        .collect();
    pool.run(units, 1, |range| {
        let mut sums = TileSums::default();
        for unit in range {
            let Some((first, matrix, out)) = jobs.iter().rfind(|job| job.0 <= unit) else { continue };
            let (tile, weights) = (unit - first, matrix.weights);
            each_pass(x.rows(), |row, count| {
                matrix.sums(tile, x, row, count, &mut sums);
                for (offset, sums) in sums.iter().take(count).enumerate() {
                    let at = (row + offset) * weights.rows + tile * TILE;
                    // SAFETY: each tile is one unit and writes its own columns.
                    let part = unsafe { out.part(at, weights.width(tile)) };
                    part.copy_from_slice(&sums[..part.len()]);
                }
            });
        }
    });
}

/// `out = silu(gate · x) · (up · x)` in one parallel loop, overwritten.
pub(crate) fn multiply_gated(
    pool: &mut Pool,
    x: &Activations,
    gate: Adapted<'_>,
    up: Adapted<'_>,
    out: &mut [f32],
) {
    let (weights, other) = (gate.weights, up.weights);
    assert_eq!((weights.rows, weights.columns), (other.rows, other.columns), "gate and up are alike");
    assert_eq!(weights.columns, x.columns(), "the matrices take such rows");
    assert_eq!(out.len(), x.rows() * weights.rows, "the output has its size");
    let out = Parts::new(out);
    pool.run(weights.tiles(), 1, |range| {
        let (mut gates, mut ups) = (TileSums::default(), TileSums::default());
        for tile in range {
            each_pass(x.rows(), |row, count| {
                gate.sums(tile, x, row, count, &mut gates);
                up.sums(tile, x, row, count, &mut ups);
                for (offset, (gates, ups)) in gates.iter_mut().zip(&ups).take(count).enumerate() {
                    vector::gated(gates, ups);
                    let at = (row + offset) * weights.rows + tile * TILE;
                    // SAFETY: each tile is one unit and writes its own columns.
                    let part = unsafe { out.part(at, weights.width(tile)) };
                    part.copy_from_slice(&gates[..part.len()]);
                }
            });
        }
    });
}

fn each_pass(rows: usize, mut body: impl FnMut(usize, usize)) {
    let mut row = 0;
    while row < rows {
        let count = pass(rows - row);
        body(row, count);
        row += count;
    }
}

#[cfg(test)]
mod tests;
