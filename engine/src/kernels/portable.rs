//! The kernels in plain Rust: what the fast ones are measured against, and what other machines run.

use half::f16;

use super::{Activations, BLOCK, Packing, TILE, TileSums};

fn half_at(bytes: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32()
}

/// Writes the 32 whole numbers of column `column` of a tile, without scale and minimum.
fn quants(packing: Packing, tile: &[u8], column: usize, out: &mut [i32; BLOCK]) {
    match packing {
        Packing::Q4_1 => {
            for i in 0..BLOCK / 2 {
                let byte = tile[64 + i / 4 * 64 + column * 4 + i % 4];
                out[i] = i32::from(byte & 15);
                out[i + BLOCK / 2] = i32::from(byte >> 4);
            }
        }
        Packing::Q8_0 => {
            for (i, out) in out.iter_mut().enumerate() {
                *out = i32::from(tile[32 + i / 4 * 64 + column * 4 + i % 4]) - 128;
            }
        }
    }
}

fn minimum(packing: Packing, tile: &[u8], column: usize) -> f32 {
    match packing {
        Packing::Q4_1 => half_at(&tile[32..], column),
        Packing::Q8_0 => 0.0,
    }
}

/// Writes the 32 numbers of column `column` of a tile.
pub(super) fn unpack(packing: Packing, tile: &[u8], column: usize, out: &mut [f32]) {
    let (scale, minimum) = (half_at(tile, column), minimum(packing, tile, column));
    let mut numbers = [0; BLOCK];
    quants(packing, tile, column, &mut numbers);
    for (out, number) in out.iter_mut().zip(numbers) {
        *out = scale * number as f32 + minimum;
    }
}

/// See [`Packed::sums`](super::Packed::sums).
pub(super) fn sums(
    packing: Packing,
    weights: &[u8],
    x: &Activations,
    first: usize,
    count: usize,
    out: &mut TileSums,
) {
    out[..count].fill([0.0; TILE]);
    for (block, tile) in weights.chunks_exact(packing.tile_bytes()).enumerate() {
        for column in 0..TILE {
            let (scale, minimum) = (half_at(tile, column), minimum(packing, tile, column));
            let mut numbers = [0; BLOCK];
            quants(packing, tile, column, &mut numbers);
            for (row, out) in out.iter_mut().take(count).enumerate() {
                let at = (first + row) * x.depth() + block;
                let dot = dot(&numbers, x, at);
                out[column] += scale * x.scale[at] * dot as f32 + minimum * x.sum[at];
            }
        }
    }
}

/// Returns the product of 32 whole numbers with block `at` of the activations. At most
/// 32 · 128 · 32 639 in magnitude, which fits.
fn dot(numbers: &[i32; BLOCK], x: &Activations, at: usize) -> i32 {
    let high = &x.high[at * BLOCK..][..BLOCK];
    let product = |plane: &[i8]| numbers.iter().zip(plane).map(|(n, x)| n * i32::from(*x)).sum::<i32>();
    if x.two_planes() { 256 * product(high) + product(&x.low[at * BLOCK..][..BLOCK]) } else { product(high) }
}
