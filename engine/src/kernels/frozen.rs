//! Matrices in full precision that never change and are multiplied both ways: what an adapter is trained beside.
//!
//! Sixteen outputs stand side by side in a tile, as in [`dense`](super::dense). The same packed copy serves the way
//! forth, `x · Wᵀ`, and the way back, `g · W`: a product that packs such a matrix anew each time takes, for rows of a few
//! dozen tokens, about as long over that as over multiplying, and a second copy would double the memory. Every sum
//! is made in one order, whatever the number of threads.

use std::ops::Range;

use super::vector::{Level, level};
use super::{GROUP, TILE, each_pass};
use crate::pool::{Parts, Pool};

/// Inputs whose gradients are made together on the way back, as many as have their sums in registers.
const TOGETHER: usize = 8;

/// A kind of number that matrices are made of.
pub(crate) trait Number: Copy + Default + Send + Sync + 'static {
    /// Returns `self · factor + sum`, rounded once where the machine can.
    fn fused<const FUSED: bool>(self, factor: Self, sum: Self) -> Self;
}

macro_rules! number {
    ($kind:ty) => {
        impl Number for $kind {
            #[inline(always)]
            fn fused<const FUSED: bool>(self, factor: Self, sum: Self) -> Self {
                // Where the machine has no such instruction, `mul_add` is a slow function.
                if FUSED { self.mul_add(factor, sum) } else { self * factor + sum }
            }
        }
    };
}

number!(f32);
number!(f64);

/// A matrix of `outputs` rows and `inputs` columns; the last tile is filled up with zeros.
pub(crate) struct Frozen<N> {
    outputs: usize,
    inputs: usize,
    /// Laid out `[outputs / 16][inputs][16]`.
    tiles: Vec<[N; TILE]>,
}

impl<N: Number> Frozen<N> {
    /// Packs rows of `inputs` numbers, a row an output.
    pub(crate) fn new(inputs: usize, rows: &[N]) -> Self {
        let outputs = rows.len() / inputs;
        assert_eq!(rows.len(), outputs * inputs, "whole rows");
        let mut tiles = vec![[N::default(); TILE]; outputs.div_ceil(TILE) * inputs];
        for (tile, rows) in tiles.chunks_exact_mut(inputs).zip(rows.chunks(inputs * TILE)) {
            for (lane, row) in rows.chunks_exact(inputs).enumerate() {
                for (packed, number) in tile.iter_mut().zip(row) {
                    packed[lane] = *number;
                }
            }
        }
        Self { outputs, inputs, tiles }
    }

    /// Returns the outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Returns the inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns row `output` of the matrix: a token's embedding.
    pub(crate) fn row(&self, output: usize) -> impl Iterator<Item = N> {
        let tile = &self.tiles[output / TILE * self.inputs..][..self.inputs];
        tile.iter().map(move |numbers| numbers[output % TILE])
    }

    /// Returns `x · Wᵀ` for rows of `x`.
    pub(crate) fn forth(&self, pool: &mut Pool, x: &[N]) -> Vec<N> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let rows = x.len() / inputs;
        let mut out = vec![N::default(); rows * outputs];
        let parts = Parts::new(&mut out);
        pool.run(outputs.div_ceil(TILE), 1, |range| {
            let mut sums = [[N::default(); TILE]; GROUP];
            for index in range {
                let tile = &self.tiles[index * inputs..][..inputs];
                let width = TILE.min(outputs - index * TILE);
                each_pass(rows, |first, count| {
                    forth(&x[first * inputs..][..count * inputs], tile, &mut sums);
                    for (row, sums) in sums.iter().take(count).enumerate() {
                        // SAFETY: each tile is one unit and writes its own columns.
                        let part = unsafe { parts.part((first + row) * outputs + index * TILE, width) };
                        part.copy_from_slice(&sums[..width]);
                    }
                });
            }
        });
        out
    }

    /// Returns `g · W` for rows of `g`: the gradient of `x` from that of `x · Wᵀ`.
    pub(crate) fn back(&self, pool: &mut Pool, gradient: &[N]) -> Vec<N> {
        let inputs = self.inputs;
        let rows = gradient.len() / self.outputs;
        let turned = self.turned(gradient);
        let mut out = vec![N::default(); rows * inputs];
        let parts = Parts::new(&mut out);
        pool.run(inputs.div_ceil(TOGETHER), 1, |range| {
            let mut sums = [[N::default(); TILE]; TOGETHER];
            for first in range.map(|index| index * TOGETHER) {
                let width = TOGETHER.min(inputs - first);
                for (block, turned) in turned.iter().enumerate() {
                    back(&self.tiles, inputs, first..first + width, turned, &mut sums);
                    for row in block * TILE..rows.min((block + 1) * TILE) {
                        // SAFETY: each unit writes inputs of its own.
                        let part = unsafe { parts.part(row * inputs + first, width) };
                        for (number, sums) in part.iter_mut().zip(&sums) {
                            *number = sums[row % TILE];
                        }
                    }
                }
            }
        });
        out
    }

    /// Returns the gradient with sixteen rows side by side, filled up with zeros: for each sixteen, `[outputs][16]`.
    fn turned(&self, gradient: &[N]) -> Vec<Vec<[N; TILE]>> {
        let outputs = self.outputs;
        let turn = |rows: &[N]| {
            let mut turned = vec![[N::default(); TILE]; outputs.next_multiple_of(TILE)];
            for (lane, row) in rows.chunks_exact(outputs).enumerate() {
                for (numbers, number) in turned.iter_mut().zip(row) {
                    numbers[lane] = *number;
                }
            }
            turned
        };
        gradient.chunks(TILE * outputs).map(turn).collect()
    }
}

/// Writes a tile's sixteen outputs of 1, 2, 4 or 8 rows.
fn forth<N: Number>(x: &[N], tile: &[[N; TILE]], sums: &mut [[N; TILE]; GROUP]) {
    match level() {
        Level::Plain => forth_rows::<N, 4, false>(x, tile, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx2 => unsafe { forth_avx2(x, tile, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx512 => unsafe { forth_avx512(x, tile, sums) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
fn forth_avx512<N: Number>(x: &[N], tile: &[[N; TILE]], sums: &mut [[N; TILE]; GROUP]) {
    forth_rows::<N, 8, true>(x, tile, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,fma")]
fn forth_avx2<N: Number>(x: &[N], tile: &[[N; TILE]], sums: &mut [[N; TILE]; GROUP]) {
    forth_rows::<N, 4, true>(x, tile, sums);
}

/// Takes at most `MOST` rows at once, as many as have their sums in registers.
#[inline(always)]
fn forth_rows<N: Number, const MOST: usize, const FUSED: bool>(
    x: &[N],
    tile: &[[N; TILE]],
    sums: &mut [[N; TILE]; GROUP],
) {
    let inputs = tile.len();
    match x.len() / inputs {
        1 => forth_group::<N, 1, FUSED>(x, tile, sums),
        2 => forth_group::<N, 2, FUSED>(x, tile, sums),
        8 if MOST == 8 => forth_group::<N, 8, FUSED>(x, tile, sums),
        rows => {
            for first in (0..rows).step_by(4) {
                forth_group::<N, 4, FUSED>(&x[first * inputs..], tile, &mut sums[first..]);
            }
        }
    }
}

#[inline(always)]
fn forth_group<N: Number, const COUNT: usize, const FUSED: bool>(
    x: &[N],
    tile: &[[N; TILE]],
    out: &mut [[N; TILE]],
) {
    let inputs = tile.len();
    let rows: [&[N]; COUNT] = std::array::from_fn(|row| &x[row * inputs..][..inputs]);
    let mut sums = [[N::default(); TILE]; COUNT];
    for (input, numbers) in tile.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let x = row[input];
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum = x.fused::<FUSED>(*number, *sum);
            }
        }
    }
    out[..COUNT].copy_from_slice(&sums);
}

/// Writes the gradients of at most eight inputs, of sixteen rows each.
fn back<N: Number>(
    tiles: &[[N; TILE]],
    inputs: usize,
    which: Range<usize>,
    turned: &[[N; TILE]],
    sums: &mut [[N; TILE]; TOGETHER],
) {
    match level() {
        Level::Plain => back_inputs::<N, 4, false>(tiles, inputs, which, turned, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx2 => unsafe { back_avx2(tiles, inputs, which, turned, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` says that the instructions exist.
        Level::Avx512 => unsafe { back_avx512(tiles, inputs, which, turned, sums) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
fn back_avx512<N: Number>(
    tiles: &[[N; TILE]],
    inputs: usize,
    which: Range<usize>,
    turned: &[[N; TILE]],
    sums: &mut [[N; TILE]; TOGETHER],
) {
    back_inputs::<N, 8, true>(tiles, inputs, which, turned, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,fma")]
fn back_avx2<N: Number>(
    tiles: &[[N; TILE]],
    inputs: usize,
    which: Range<usize>,
    turned: &[[N; TILE]],
    sums: &mut [[N; TILE]; TOGETHER],
) {
    back_inputs::<N, 4, true>(tiles, inputs, which, turned, sums);
}

/// Takes `MOST` inputs at once, then what is left one by one.
#[inline(always)]
fn back_inputs<N: Number, const MOST: usize, const FUSED: bool>(
    tiles: &[[N; TILE]],
    inputs: usize,
    which: Range<usize>,
    turned: &[[N; TILE]],
    sums: &mut [[N; TILE]; TOGETHER],
) {
    let (first, mut at) = (which.start, 0);
    while at + MOST <= which.len() {
        back_group::<N, MOST, FUSED>(tiles, inputs, first + at, turned, &mut sums[at..]);
        at += MOST;
    }
    while at < which.len() {
        back_group::<N, 1, FUSED>(tiles, inputs, first + at, turned, &mut sums[at..]);
        at += 1;
    }
}

#[inline(always)]
fn back_group<N: Number, const COUNT: usize, const FUSED: bool>(
    tiles: &[[N; TILE]],
    inputs: usize,
    first: usize,
    turned: &[[N; TILE]],
    out: &mut [[N; TILE]],
) {
    let mut sums = [[N::default(); TILE]; COUNT];
    for (tile, turned) in tiles.chunks_exact(inputs).zip(turned.chunks_exact(TILE)) {
        let columns: [&[N; TILE]; COUNT] = std::array::from_fn(|column| &tile[first + column]);
        for (output, gradients) in turned.iter().enumerate() {
            for (sums, column) in sums.iter_mut().zip(&columns) {
                let number = column[output];
                for (sum, gradient) in sums.iter_mut().zip(gradients) {
                    *sum = number.fused::<FUSED>(*gradient, *sum);
                }
            }
        }
    }
    out[..COUNT].copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn number(i: usize) -> f64 {
        ((i * 7919 % 997) as f64 - 500.0) * 0.01
    }

    /// Sizes that are no whole tiles, and few and many inputs.
    const SIZES: [(usize, usize); 5] = [(1, 1), (37, 48), (18, 21), (16, 64), (5, 1576)];

    #[test]
    fn both_ways_are_the_products() {
        let mut pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
        for (inputs, outputs) in SIZES {
            let rows: Vec<f64> = (0..inputs * outputs).map(number).collect();
            let wide = Frozen::new(inputs, &rows);
            let narrow = Frozen::new(inputs, &rows.iter().map(|x| *x as f32).collect::<Vec<_>>());
            assert_eq!((wide.inputs(), wide.outputs()), (inputs, outputs));
            assert!(wide.row(outputs - 1).eq(rows[(outputs - 1) * inputs..].iter().copied()));
            for count in [1, 2, 3, 4, 8, 11, 15, 16, 33] {
                let x: Vec<f64> = (0..count * inputs).map(|i| number(i + 11)).collect();
                let g: Vec<f64> = (0..count * outputs).map(|i| number(i + 29)).collect();
                let short = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect::<Vec<_>>();
                let forth = (wide.forth(&mut pool, &x), narrow.forth(&mut pool, &short(&x)));
                let back = (wide.back(&mut pool, &g), narrow.back(&mut pool, &short(&g)));
                for row in 0..count {
                    for output in 0..outputs {
                        let exact: f64 =
                            (0..inputs).map(|i| x[row * inputs + i] * rows[output * inputs + i]).sum();
                        let at = row * outputs + output;
                        assert!((forth.0[at] - exact).abs() < 1e-9, "{inputs} {outputs} {row} {output}");
                        assert!((f64::from(forth.1[at]) - exact).abs() < 1e-2);
                    }
                    for input in 0..inputs {
                        let exact: f64 =
                            (0..outputs).map(|o| g[row * outputs + o] * rows[o * inputs + input]).sum();
                        let at = row * inputs + input;
                        assert!((back.0[at] - exact).abs() < 1e-8, "{inputs} {outputs} {row} {input}");
                        assert!((f64::from(back.1[at]) - exact).abs() < 1e-1);
                    }
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (inputs, outputs, count) = (70, 130, 9);
        let numbers =
            |count: usize, from: usize| (0..count).map(|i| number(i + from) as f32).collect::<Vec<_>>();
        let frozen = Frozen::new(inputs, &numbers(inputs * outputs, 0));
        let both = |threads: usize| {
            let mut pool = Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
            let forth = frozen.forth(&mut pool, &numbers(count * inputs, 3));
            (forth, frozen.back(&mut pool, &numbers(count * outputs, 5)))
        };
        assert_eq!(both(1), both(3));
    }
}
