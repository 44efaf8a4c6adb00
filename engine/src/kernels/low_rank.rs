//! Thin matrices beside the packed ones: what an adapter adds to a product, `B·(A·x)`, in 16 bits of its own.
//!
//! `A` is as long as the rows are wide and only some eight rows high; its product, a few numbers a row, is made before the
//! large one. `B` lies in tiles as the packed matrices do, so that its part is added while a tile's sums are still at
//! hand: an adapter opens no loop of its own for it. Halves have more digits than an adapter's training gives its
//! numbers meaning, once each matrix is moved into their range by a power of two.
//!
//! A row's numbers are made in the same order whatever stands beside it, as in the other kernels.

mod lanes;

use std::ops::Range;

use half::f16;

use super::{GROUP, Packed, TILE, TileSums};
use crate::pool::{Parts, Pool};

/// Rows of `A` that one unit of work multiplies.
const HEIGHT: usize = TILE;
/// Products below which another thread costs more than it brings.
const GRAIN: usize = 1 << 15;

/// Where a power of two moves the largest number of a matrix: high, so that small ones keep their digits too.
const PEAK_EXPONENT: i32 = 14;

/// Numbers as halves, moved by a power of two.
struct Halves {
    bits: Vec<u16>,
    /// What they are to be multiplied with to be what they were.
    unit: f64,
}

impl Halves {
    fn of(numbers: &[f32]) -> Self {
        let largest = numbers.iter().fold(0f32, |largest, number| largest.max(number.abs()));
        let exponent = match largest > 0.0 {
            true => PEAK_EXPONENT - f64::from(largest).log2().floor() as i32,
            false => 0,
        };
        let factor = f64::from(exponent).exp2();
        let bits = numbers.iter().map(|number| f16::from_f64(f64::from(*number) * factor).to_bits());
        Self { bits: bits.collect(), unit: 1.0 / factor }
    }
}

/// `B` of one matrix.
struct Outlet {
    /// Its first row among those of the inlet's `A`s.
    first: usize,
    rank: usize,
    /// Laid out `[outputs / 16][rank][16]`, the last tile filled up with zeros.
    tiles: Vec<[u16; TILE]>,
}

/// The thin matrices beside those large ones that take the same rows.
pub(crate) struct Inlet {
    columns: usize,
    /// The `A`s one under the other, row by row.
    a: Vec<u16>,
    /// What the product with each row of `a` is multiplied with: the adapter's scale and both moves.
    scales: Vec<f32>,
    /// One a large matrix; `None` where the adapter adds nothing.
    outlets: Vec<Option<Outlet>>,
}

impl Inlet {
    /// Makes an inlet for rows of `columns` numbers, a multiple of 16, without any matrix yet.
    pub(crate) fn new(columns: usize) -> Self {
        assert!(columns.is_multiple_of(TILE), "rows are whole groups of sixteen");
        Self { columns, a: Vec::new(), scales: Vec::new(), outlets: Vec::new() }
    }

    /// Appends a matrix that the adapter leaves as it is.
    pub(crate) fn pass(&mut self) {
        self.outlets.push(None);
    }

    /// Appends a matrix beside which stand `a` (rank × columns) and `b` (outputs × rank), both row by row.
    pub(crate) fn push(&mut self, rank: usize, a: &[f32], b: &[f32], scale: f64) {
        assert_eq!(a.len(), rank * self.columns, "a row of inputs a rank");
        assert!(b.len().is_multiple_of(rank), "a column a rank");
        let (a, halves) = (Halves::of(a), Halves::of(b));
        let mut tiles = vec![[0; TILE]; (b.len() / rank).div_ceil(TILE) * rank];
        for (output, row) in halves.bits.chunks_exact(rank).enumerate() {
            for (column, number) in row.iter().enumerate() {
                tiles[output / TILE * rank + column][output % TILE] = *number;
            }
        }
        self.outlets.push(Some(Outlet { first: self.height(), rank, tiles }));
        self.a.extend(a.bits);
        self.scales.extend(vec![(scale * a.unit * halves.unit) as f32; rank]);
    }

    /// Returns the bytes it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let outlets = self.outlets.iter().flatten();
        size_of_val(&*self.a)
            + size_of_val(&*self.scales)
            + outlets.map(|outlet| size_of_val(&*outlet.tiles)).sum::<usize>()
    }

    /// Whether every number it multiplies with is finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.scales.iter().all(|scale| scale.is_finite())
    }

    /// Returns the rows of all `A`s.
    fn height(&self) -> usize {
        self.scales.len()
    }
}

/// Neighbouring rows of a step that have the same inlet.
pub(crate) struct Run<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) inlet: &'a Inlet,
}

/// What the adapters of a step add to the products of the same rows.
pub(crate) struct Additions<'a> {
    /// In the order of their rows.
    runs: Vec<Run<'a>>,
    /// Where each run's products with `A` begin.
    starts: Vec<usize>,
    /// `scale · A·x`, row after row of each run.
    inner: Vec<f32>,
}

/// A part of the work: some rows of a run, some rows of its `A`s.
struct Unit {
    run: usize,
    /// Among the run's.
    row: usize,
    rank: usize,
}

impl<'a> Additions<'a> {
    /// Multiplies the rows of `x` that have an adapter with its `A`s.
    pub(crate) fn new(pool: &mut Pool, runs: Vec<Run<'a>>, x: &[f32]) -> Self {
        let (mut starts, mut units, mut length, mut products) = (Vec::new(), Vec::new(), 0, 0);
        for (index, Run { rows, inlet }) in runs.iter().enumerate() {
            assert!(rows.end * inlet.columns <= x.len(), "rows that exist");
            starts.push(length);
            length += rows.len() * inlet.height();
            products += rows.len() * inlet.a.len();
            for row in (0..rows.len()).step_by(GROUP) {
                let ranks = (0..inlet.height()).step_by(HEIGHT);
                units.extend(ranks.map(|rank| Unit { run: index, row, rank }));
            }
        }
        let mut inner = vec![0.0; length];
        let out = Parts::new(&mut inner);
        // Few products are not worth waking a thread for.
        let grain = (units.len() * GRAIN).checked_div(products).map_or(1, |units| units.max(1));
        pool.run(units.len(), grain, |range| {
            let mut sums = TileSums::default();
            for Unit { run, row, rank } in &units[range] {
                let Run { rows, inlet } = &runs[*run];
                let (rows, ranks) = (
                    rows.start + row..rows.end.min(rows.start + row + GROUP),
                    HEIGHT.min(inlet.height() - rank),
                );
                let a = &inlet.a[rank * inlet.columns..][..ranks * inlet.columns];
                let first = starts[*run] + row * inlet.height() + rank;
                lanes::dots(
                    a,
                    &x[rows.start * inlet.columns..rows.end * inlet.columns],
                    inlet.columns,
                    &mut sums,
                );
                for (offset, sums) in sums.iter().take(rows.len()).enumerate() {
                    // SAFETY: each unit has rows or ranks of its own.
                    let out = unsafe { out.part(first + offset * inlet.height(), ranks) };
                    for (out, (sum, scale)) in out.iter_mut().zip(sums.iter().zip(&inlet.scales[*rank..])) {
                        *out = sum * scale;
                    }
                }
            }
        });
        Self { runs, starts, inner }
    }

    /// Adds to tile `tile` of matrix `outlet`, the sums of the rows `first..first + sums.len()`.
    fn add(&self, outlet: usize, tile: usize, first: usize, sums: &mut [[f32; TILE]]) {
        let end = first + sums.len();
        let run = self.runs.partition_point(|run| run.rows.end <= first);
        for (Run { rows, inlet }, start) in self.runs[run..].iter().zip(&self.starts[run..]) {
            if rows.start >= end {
                return;
            }
            let Some(outlet) = &inlet.outlets[outlet] else { continue };
            let shared = rows.start.max(first)..rows.end.min(end);
            let inner = start + (shared.start - rows.start) * inlet.height() + outlet.first;
            let tiles = &outlet.tiles[tile * outlet.rank..][..outlet.rank];
            let sums = &mut sums[shared.start - first..shared.end - first];
            lanes::add(tiles, &self.inner[inner..], inlet.height(), sums);
        }
    }
}

/// A packed matrix, and what adapters add to its product.
#[derive(Clone, Copy)]
pub(crate) struct Adapted<'a> {
    pub(super) weights: &'a Packed,
    additions: Option<(&'a Additions<'a>, usize)>,
}

impl<'a> Adapted<'a> {
    /// Joins the matrix with outlet `outlet` of the additions.
    pub(crate) fn new(weights: &'a Packed, additions: &'a Additions<'a>, outlet: usize) -> Self {
        let additions = (!additions.runs.is_empty()).then_some((additions, outlet));
        Self { weights, additions }
    }

    /// Returns the matrix as it is, for rows without an adapter.
    pub(crate) fn plain(weights: &'a Packed) -> Self {
        Self { weights, additions: None }
    }

    /// Computes tile `tile` for the rows `first..first + count` of `x`; `count` is 1, 2, 4 or 8.
    pub(super) fn sums(
        &self,
        tile: usize,
        x: &super::Activations,
        first: usize,
        count: usize,
        out: &mut TileSums,
    ) {
        self.weights.sums(tile, x, first, count, out);
        if let Some((additions, outlet)) = self.additions {
            additions.add(outlet, tile, first, &mut out[..count]);
        }
    }
}

#[cfg(test)]
mod tests;
