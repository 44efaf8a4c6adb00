use std::num::NonZeroUsize;

use super::lanes::each_kind;
use super::*;
use crate::adapter::tests::numbers;
use crate::kernels::{Activation, Activations, Packing, Product, multiply};

/// Relative distance, Euclidean.
fn gap(ours: &[f32], exact: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    square(&mut ours.iter().zip(exact).map(|(a, b)| f64::from(*a) - b)) / square(&mut exact.iter().copied())
}

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Two thin matrices beside matrices of zeros, so that a product is what the adapter adds.
struct Case {
    rank: usize,
    a: [Vec<f32>; 2],
    b: [Vec<f32>; 2],
    inlet: Inlet,
}

const COLUMNS: usize = 64;
const OUTPUTS: [usize; 2] = [40, 33];
const SCALE: f64 = 1.5;

impl Case {
    /// `size` is how large the numbers of `A` and `B` are.
    fn new(seed: u64, rank: usize, size: [f32; 2]) -> Self {
        let sized = |seed: u64, count: usize, size: f32| -> Vec<f32> {
            numbers(seed, count).into_iter().map(|number| number * size).collect()
        };
        let a = [0, 1].map(|i| sized(seed + i, rank * COLUMNS, size[0]));
        let b = [0, 1].map(|i| sized(seed + 10 + i, rank * OUTPUTS[i as usize], size[1]));
        let mut inlet = Inlet::new(COLUMNS);
        inlet.push(rank, &a[0], &b[0], SCALE);
        inlet.pass();
        inlet.push(rank, &a[1], &b[1], SCALE);
        Self { rank, a, b, inlet }
    }

    /// Returns what it adds to one row of matrix `index`.
    fn exact(&self, index: usize, x: &[f32]) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let inner: Vec<f64> = self.a[index].chunks(COLUMNS).map(|row| dot(row, &x)).collect();
        self.b[index].chunks(self.rank).map(|row| SCALE * dot(row, &inner)).collect()
    }
}

/// Returns what the runs add to products with zeros: of the first, the second (which is passed by) and the third matrix.
fn added(pool: &mut Pool, runs: Vec<Run<'_>>, x: &[f32]) -> [Vec<f32>; 3] {
    let zeros =
        |outputs: usize| Packed::new(Packing::Q8_0, outputs, COLUMNS, &vec![0; outputs * COLUMNS / 32 * 34]);
    let matrices = [zeros(OUTPUTS[0]), zeros(8), zeros(OUTPUTS[1])];
    let rows = x.len() / COLUMNS;
    let additions = Additions::new(pool, runs, x);
    let mut activations = Activations::new(Activation::Bits16);
    activations.set(pool, x, COLUMNS);
    let mut out = [OUTPUTS[0], 8, OUTPUTS[1]].map(|outputs| vec![7.0; rows * outputs]);
    let mut products: Vec<Product<'_>> = out
        .iter_mut()
        .zip(&matrices)
        .enumerate()
        .map(|(index, (out, weights))| Product { matrix: Adapted::new(weights, &additions, index), out })
        .collect();
    multiply(pool, &activations, &mut products);
    out
}

#[test]
fn it_is_the_product_of_both_with_every_row() {
    for (rank, rows) in [(1, 1), (3, 2), (8, 1), (8, 13), (16, 8), (20, 5), (32, 21)] {
        let case = Case::new(rank as u64 * 100, rank, [0.1, 0.01]);
        let x = numbers(9, rows * COLUMNS);
        let run = Run { rows: 0..rows, inlet: &case.inlet };
        let [first, passed, third] = added(&mut pool(3), vec![run], &x);
        assert!(passed.iter().all(|number| *number == 0.0));
        for (index, found) in [(0, first), (1, third)] {
            let exact: Vec<f64> = x.chunks(COLUMNS).flat_map(|x| case.exact(index, x)).collect();
            let found = gap(&found, &exact);
            assert!(found < 1e-3, "rank {rank}, {rows} rows, matrix {index}: {found:.1e}");
        }
    }
}

#[test]
fn neighbours_and_threads_change_no_bit() {
    let cases: Vec<Case> = [3, 8, 32].map(|rank| Case::new(rank, rank as usize, [0.1, 0.1])).into();
    let x = numbers(4, 40 * COLUMNS);
    // Rows without an adapter stand before, between and behind.
    let places = [(2..3, 0), (3..14, 1), (14..16, 2), (20..38, 0)];
    let runs = || {
        let run =
            |(rows, case): &(Range<usize>, usize)| Run { rows: rows.clone(), inlet: &cases[*case].inlet };
        places.iter().map(run).collect()
    };
    let together = added(&mut pool(3), runs(), &x);
    for row in 0..40 {
        let x = &x[row * COLUMNS..][..COLUMNS];
        let case = places.iter().find(|place| place.0.contains(&row)).map(|place| &cases[place.1]);
        let run = case.map(|case| Run { rows: 0..1, inlet: &case.inlet });
        let alone = added(&mut pool(1), run.into_iter().collect(), x);
        for (together, alone) in together.iter().zip(alone) {
            assert_eq!(together[row * alone.len()..][..alone.len()], alone, "row {row}");
        }
    }
}

#[test]
fn numbers_of_any_size_keep_their_digits() {
    // Beyond what halves hold, in both directions.
    for size in [[1e-12, 1e6], [1e9, 1e-15], [1e-20, 1e-10]] {
        let case = Case::new(1, 8, size);
        let x = numbers(2, COLUMNS);
        let run = Run { rows: 0..1, inlet: &case.inlet };
        let [first, ..] = added(&mut pool(1), vec![run], &x);
        let found = gap(&first, &case.exact(0, &x));
        assert!(case.inlet.is_finite() && found < 1e-3, "{size:?}: {found:.1e}");
    }
    assert!(!Case::new(1, 8, [1e30, 1e30]).inlet.is_finite());
}

#[test]
fn the_fast_loops_equal_the_plain_ones() {
    let (ranks, rows, columns) = (13, 7, 96);
    let a = Halves::of(&numbers(1, ranks * columns)).bits;
    let tile: Vec<[u16; TILE]> = a.as_chunks().0[..ranks].to_vec();
    let (x, inner) = (numbers(2, rows * columns), numbers(3, rows * ranks));
    let results = each_kind(|dots, add| {
        let (mut sums, mut out) = (TileSums::default(), TileSums::default());
        dots(&a, &x, columns, &mut sums);
        add(&tile, &inner, ranks, &mut out[..rows]);
        [sums, out].map(|sums| sums.as_flattened().iter().map(|sum| f64::from(*sum)).collect::<Vec<f64>>())
    });
    let (plain, fast) = results.split_first().unwrap();
    for fast in fast {
        for (fast, plain) in fast.iter().zip(plain) {
            let fast: Vec<f32> = fast.iter().map(|sum| *sum as f32).collect();
            assert!(gap(&fast, plain) < 1e-6, "{}", gap(&fast, plain));
        }
    }
}
