//! Matrices of f32 and what multiplies them: for a small model whose answers are to be exact.
//!
//! Sixteen outputs stand side by side in a tile, so that one instruction advances sixteen of them; the weights of a tile
//! are read once for a group of rows. Every sum is made in the order of its inputs, so a row's result depends neither
//! on the rows beside it nor on how many there are.

use super::TILE;
use super::vector::{Level, level};

/// A linear layer: `x · weights + bias`.
pub(crate) struct Dense {
    inputs: usize,
    outputs: usize,
    /// Laid out `[outputs / 16][inputs][16]`.
    tiles: Vec<[f32; TILE]>,
    bias: Vec<f32>,
}

impl Dense {
    /// Packs rows of `inputs` weights, a row an output; their number, that of `bias`, must be a multiple of 16.
    pub(crate) fn new(inputs: usize, weights: &[f32], bias: Vec<f32>) -> Self {
        let outputs = bias.len();
        assert!(outputs.is_multiple_of(TILE), "outputs are whole tiles");
        assert_eq!(weights.len(), outputs * inputs, "a row of weights an output");
        let mut tiles = vec![[0.0; TILE]; outputs / TILE * inputs];
        for (tile, rows) in tiles.chunks_exact_mut(inputs).zip(weights.chunks_exact(inputs * TILE)) {
            for (lane, row) in rows.chunks_exact(inputs).enumerate() {
                for (packed, weight) in tile.iter_mut().zip(row) {
                    packed[lane] = *weight;
                }
            }
        }
        Self { inputs, outputs, tiles, bias }
    }

    /// Returns the layer's answer to rows of `x`.
    pub(crate) fn of(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.inputs * self.outputs];
        for (index, tile) in self.tiles.chunks_exact(self.inputs).enumerate() {
            let bias = &self.bias[index * TILE..][..TILE];
            multiply(x, tile, bias, &mut out[index * TILE..], self.outputs);
        }
        out
    }
}

/// Writes sixteen outputs of each row of `x`; the next row's are `stride` further on.
fn multiply(x: &[f32], tile: &[[f32; TILE]], bias: &[f32], out: &mut [f32], stride: usize) {
    match level() {
        Level::Plain => groups::<4, false>(x, tile, bias, out, stride),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx2 => unsafe { avx2(x, tile, bias, out, stride) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx512 => unsafe { avx512(x, tile, bias, out, stride) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
fn avx512(x: &[f32], tile: &[[f32; TILE]], bias: &[f32], out: &mut [f32], stride: usize) {
    groups::<8, true>(x, tile, bias, out, stride);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,fma")]
fn avx2(x: &[f32], tile: &[[f32; TILE]], bias: &[f32], out: &mut [f32], stride: usize) {
    groups::<4, true>(x, tile, bias, out, stride);
}

/// Takes `ROWS` rows at once, as many as the sums of fit into registers, then what is left one by one.
#[inline(always)]
fn groups<const ROWS: usize, const FUSED: bool>(
    x: &[f32],
    tile: &[[f32; TILE]],
    bias: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let inputs = tile.len();
    let (rows, mut at) = (x.len() / inputs, 0);
    while at + ROWS <= rows {
        group::<ROWS, FUSED>(&x[at * inputs..], tile, bias, &mut out[at * stride..], stride);
        at += ROWS;
    }
    while at + 2 <= rows {
        group::<2, FUSED>(&x[at * inputs..], tile, bias, &mut out[at * stride..], stride);
        at += 2;
    }
    if at < rows {
        group::<1, FUSED>(&x[at * inputs..], tile, bias, &mut out[at * stride..], stride);
    }
}

#[inline(always)]
fn group<const ROWS: usize, const FUSED: bool>(
    x: &[f32],
    tile: &[[f32; TILE]],
    bias: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let inputs = tile.len();
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * inputs..][..inputs]);
    let mut sums = [[0f32; TILE]; ROWS];
    for (input, weights) in tile.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let x = row[input];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                // Where the machine has no such instruction, `mul_add` is a slow function.
                *sum = if FUSED { x.mul_add(*weight, *sum) } else { *sum + x * *weight };
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * stride..][..TILE];
        for (out, (sum, bias)) in out.iter_mut().zip(sums.iter().zip(bias)) {
            *out = sum + bias;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_product_whatever_stands_beside_a_row() {
        let (inputs, outputs, rows) = (37, 48, 11);
        let number = |i: usize| ((i * 7919 % 997) as f32 - 500.0) * 0.01;
        let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let bias: Vec<f32> = (0..outputs).map(|i| number(i + 5)).collect();
        let x: Vec<f32> = (0..inputs * rows).map(|i| number(i + 11)).collect();
        let dense = Dense::new(inputs, &weights, bias.clone());
        let found = dense.of(&x);
        for (row, (x, found)) in x.chunks(inputs).zip(found.chunks(outputs)).enumerate() {
            for output in 0..outputs {
                let weights = &weights[output * inputs..][..inputs];
                let exact: f64 = x.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let exact = exact + f64::from(bias[output]);
                assert!((f64::from(found[output]) - exact).abs() < 1e-3, "{row} {output}");
            }
            assert_eq!(found, dense.of(x), "row {row} alone");
        }
    }
}
