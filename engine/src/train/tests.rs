//! The whole graph, on a model small enough for finite differences.
//!
//! The tests that are called `pitfall_…` each hold one of the ways in which candle 0.11 loses gradients or panics.

mod gradients;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};

use super::base::{Base, Layer};
use super::ops::{Real, Weight};
use super::pairs::{Gradients, Role};
use super::round::{Round, Sum};
use super::{Decay, Example, Method, Pair, Row, Settings, TrainError};
use crate::adapter::tests::{numbers, weights};
use crate::adapter::{LoraConfig, LoraWeights, Target};
use crate::gguf::Shape;
use crate::pool::Pool;

/// Widths that all differ, two query heads for each key head.
const SHAPE: Shape = Shape {
    width: 10,
    hidden: 14,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_width: 6,
    vocabulary: 23,
    context: 400,
    epsilon: 1e-5,
    rope_base: 10_000.0,
};

/// A model of random numbers.
fn base<T: Real>() -> Base<T> {
    let mut seed = 500;
    let mut some = |count: usize, around: f32, spread: f32| -> Vec<T> {
        seed += 1;
        numbers(seed, count).into_iter().map(|x| T::from_f64(f64::from(around + spread * x))).collect()
    };
    let pool = Arc::new(Mutex::new(Pool::new(NonZeroUsize::MIN).unwrap()));
    let embedding =
        Arc::new(Weight::new(SHAPE.width, &some(SHAPE.vocabulary * SHAPE.width, 0.0, 1.0), &pool));
    let norm = |numbers: Vec<T>| Tensor::from_vec(numbers, SHAPE.width, &Device::Cpu).unwrap();
    let layers = (0..SHAPE.layers).map(|_| Layer {
        attention_norm: norm(some(SHAPE.width, 1.0, 0.2)),
        hidden_norm: norm(some(SHAPE.width, 1.0, 0.2)),
        matrices: Target::ALL.map(|target| {
            let (inputs, outputs) = (target.width_in(&SHAPE), target.width_out(&SHAPE));
            Arc::new(Weight::new(inputs, &some(inputs * outputs, 0.0, 0.5), &pool))
        }),
    });
    let layers = layers.collect();
    Base {
        shape: SHAPE,
        head: Arc::clone(&embedding),
        embedding,
        norm: norm(some(SHAPE.width, 1.0, 0.2)),
        layers,
    }
}

fn settings(lora: LoraConfig, method: Method) -> Settings {
    Settings {
        lora,
        learning_rate: 0.01,
        warmup: 0.0,
        decay: Decay::Constant,
        weight_decay: 0.0,
        clip: 1e6,
        seed: 11,
        total_steps: 100,
        method,
    }
}

/// A row of `length` tokens of which the last part counts, in different measure.
fn example(seed: usize, length: usize) -> Example {
    let tokens = (0..length).map(|i| ((i * 7 + seed * 5 + i * i) % SHAPE.vocabulary) as u32).collect();
    let weights = (0..length).map(|i| if i * 2 < length { 0.0 } else { 0.5 + (i % 3) as f32 }).collect();
    Example { tokens, weights }
}

/// Goes through rows, and back.
fn go<T: Real>(
    base: &Base<T>,
    settings: &Settings,
    weights: &LoraWeights,
    rows: &[Row<'_>],
) -> (Sum, Gradients) {
    let pairs = base.pairs(weights, Role::Trained).unwrap();
    let mut gradients = Gradients::new(&base.shape);
    let round = Round { base, settings, pairs: &pairs, reference: None, step: 3 };
    let sum = round.go(rows, Some(&mut gradients)).unwrap();
    (sum, gradients)
}
