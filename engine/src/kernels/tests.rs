use std::num::NonZeroUsize;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Relative distance, Euclidean.
fn gap(ours: &[f32], exact: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    square(&mut ours.iter().zip(exact).map(|(a, b)| a - b)) / square(&mut exact.iter().copied())
}

struct Case {
    packed: Packed,
    exact: Vec<f32>,
    x: Vec<f32>,
}

/// A random matrix in a file's blocks, random rows, and their product by candle's dequantised matmul.
fn case(packing: Packing, outputs: usize, inputs: usize, rows: usize) -> Case {
    let kind = match packing {
        Packing::Q4_1 => GgmlDType::Q4_1,
        Packing::Q8_0 => GgmlDType::Q8_0,
    };
    let w = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu).unwrap();
    let x = Tensor::randn(0f32, 1.0, (rows, inputs), &Device::Cpu).unwrap();
    let w = QTensor::quantize(&w, kind).unwrap();
    let exact = x.matmul(&w.dequantize(&Device::Cpu).unwrap().t().unwrap()).unwrap();
    let packed = Packed::new(packing, outputs, inputs, &w.data().unwrap());
    Case { packed, exact: numbers(&exact), x: numbers(&x) }
}

#[test]
fn equals_candles_dequantised_product() {
    for packing in [Packing::Q4_1, Packing::Q8_0] {
        for (precision, most) in [(Activation::Bits16, 1e-4), (Activation::Bits8, 0.02)] {
            for (outputs, inputs, rows) in
                [(192, 576, 1), (192, 576, 21), (40, 64, 3), (33, 32, 8), (49, 96, 7)]
            {
                let mut pool = Pool::new(NonZeroUsize::new(3).unwrap()).unwrap();
                let case = case(packing, outputs, inputs, rows);
                let mut x = Activations::new(precision);
                x.set(&mut pool, &case.x, inputs);
                let mut ours = vec![0.0; rows * outputs];
                multiply(
                    &mut pool,
                    &x,
                    &mut [Product { matrix: Adapted::plain(&case.packed), out: &mut ours }],
                );
                let found = gap(&ours, &case.exact);
                assert!(found < most, "{packing:?} {precision:?} {outputs}x{inputs}, {rows} rows: {found}");
            }
        }
    }
}

#[test]
fn the_fast_kernels_equal_the_portable_ones() {
    for packing in [Packing::Q4_1, Packing::Q8_0] {
        for precision in [Activation::Bits16, Activation::Bits8] {
            let mut pool = Pool::new(NonZeroUsize::MIN).unwrap();
            let case = case(packing, 16, 576, 15);
            let mut x = Activations::new(precision);
            x.set(&mut pool, &case.x, 576);
            each_pass(15, |row, count| {
                let (mut fast, mut plain) = (TileSums::default(), TileSums::default());
                case.packed.sums(0, &x, row, count, &mut fast);
                portable::sums(packing, case.packed.tile(0), &x, row, count, &mut plain);
                let (fast, plain) = (fast[..count].as_flattened(), plain[..count].as_flattened());
                assert!(gap(fast, plain) < 1e-5, "{packing:?} {precision:?} {count}: {}", gap(fast, plain));
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    let mut half = TileSums::default();
                    // SAFETY: the line above; every machine with AVX2 has F16C.
                    unsafe { avx2::sums(packing, case.packed.tile(0), &x, row, count, &mut half) };
                    let half = half[..count].as_flattened();
                    assert!(
                        gap(half, plain) < 1e-5,
                        "AVX2 {packing:?} {precision:?} {count}: {}",
                        gap(half, plain)
                    );
                }
            });
        }
    }
}

#[test]
fn gate_and_up_are_silu_times_up() {
    let mut pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let (gate, up) = (case(Packing::Q4_1, 72, 64, 11), case(Packing::Q4_1, 72, 64, 11));
    let mut x = Activations::new(Activation::Bits16);
    x.set(&mut pool, &gate.x, 64);
    let mut product = |weights| {
        let mut out = vec![0.0; 11 * 72];
        multiply(&mut pool, &x, &mut [Product { matrix: Adapted::plain(weights), out: &mut out }]);
        out
    };
    let (gates, ups) = (product(&gate.packed), product(&up.packed));
    let exact: Vec<f32> = gates.iter().zip(ups).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    let mut ours = vec![0.0; 11 * 72];
    multiply_gated(&mut pool, &x, Adapted::plain(&gate.packed), Adapted::plain(&up.packed), &mut ours);
    assert!(gap(&ours, &exact) < 1e-5);
}

#[test]
fn rows_come_back_exactly() {
    for packing in [Packing::Q4_1, Packing::Q8_0] {
        let kind = if packing == Packing::Q4_1 { GgmlDType::Q4_1 } else { GgmlDType::Q8_0 };
        let w = QTensor::quantize(&Tensor::randn(0f32, 1.0, (21, 96), &Device::Cpu).unwrap(), kind).unwrap();
        let exact = numbers(&w.dequantize(&Device::Cpu).unwrap());
        let packed = Packed::new(packing, 21, 96, &w.data().unwrap());
        for row in 0..21 {
            let mut out = vec![0.0; 96];
            packed.row(row, &mut out);
            assert_eq!(out, exact[row * 96..][..96], "{packing:?} {row}");
        }
    }
}
