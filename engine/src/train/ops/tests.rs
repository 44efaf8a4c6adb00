//! Every operation's gradients beside finite differences, in f64.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Var};

use super::*;
use crate::gguf::Shape;
use crate::pool::Pool;

/// Numbers that look random, the same ones for the same seed.
fn some(seed: usize, dims: &[usize]) -> Tensor {
    let number = |i: usize| (((i + 13 * seed) * 7919 % 1009) as f64 - 504.0) / 400.0;
    let numbers: Vec<f64> = (0..dims.iter().product()).map(number).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).unwrap()
}

/// A matrix of seven outputs and five inputs.
fn frozen() -> Arc<Weight<f64>> {
    let pool = Arc::new(Mutex::new(Pool::new(NonZeroUsize::MIN).unwrap()));
    Arc::new(Weight::new(5, &flat(&some(1, &[7, 5])), &pool))
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Holds the gradient of each of `arguments` to finite differences, at about ten of its numbers.
fn check(name: &str, arguments: &[Tensor], operation: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let count = operation(arguments).unwrap();
    // A gradient that differs from number to number.
    let gradient = some(99, count.dims());
    let loss = |arguments: &[Tensor]| -> f64 {
        let y = flat(&operation(arguments).unwrap());
        y.iter().zip(flat(&gradient)).map(|(y, g)| y * g).sum()
    };
    let variables: Vec<Tensor> =
        arguments.iter().map(|argument| Var::from_tensor(argument).unwrap().into_inner()).collect();
    let y = operation(&variables).unwrap();
    let store = y.apply_op1(Seed { gradient: gradient.clone() }).unwrap().backward().unwrap();
    for (index, variable) in variables.iter().enumerate() {
        let found = store.get(variable).unwrap_or_else(|| panic!("{name}: no gradient of argument {index}"));
        assert_eq!(found.dims(), variable.dims(), "{name}");
        let (found, numbers) = (flat(found), flat(variable));
        assert!(found.iter().any(|x| *x != 0.0), "{name}: argument {index} learns nothing");
        for at in (0..numbers.len()).step_by(numbers.len().div_ceil(10)) {
            let h = 1e-5;
            let moved = |by: f64| {
                let (mut numbers, mut arguments) = (numbers.clone(), arguments.to_vec());
                numbers[at] += by;
                arguments[index] = Tensor::from_vec(numbers, variable.dims(), &Device::Cpu).unwrap();
                loss(&arguments)
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * h);
            let gap = (slope - found[at]).abs() / (slope.abs() + found[at].abs() + 1e-3);
            assert!(gap < 1e-6, "{name}: argument {index} at {at}: {}, not {slope}", found[at]);
        }
    }
}

fn attention(heads: usize, kv_heads: usize, head_width: usize, tokens: usize) -> Attention {
    let shape = Shape {
        width: heads * head_width,
        hidden: 8,
        layers: 1,
        heads,
        kv_heads,
        head_width,
        vocabulary: 8,
        context: tokens,
        epsilon: 1e-5,
        rope_base: 100.0,
    };
    Attention { heads, kv_heads, angles: Arc::new(Angles::new(&shape, tokens)) }
}

#[test]
fn pitfalls_07_and_10_the_norm_has_a_gradient_also_of_rows_in_order() {
    let weight = some(2, &[6]);
    let x = some(1, &[5, 6]);
    assert!(x.is_contiguous());
    check("norm", &[x], |x| x[0].apply_op2(&weight, Norm { epsilon: 1e-5 }));
}

#[test]
fn pitfalls_07_and_08_softmax_and_rotation_have_gradients() {
    // Queries of one head and of groups, one block of positions and more than one, in part.
    for (heads, kv_heads, width, tokens) in [(2, 2, 4, 6), (4, 2, 6, 7), (6, 2, 2, 1), (2, 1, 2, 259)] {
        let attention = attention(heads, kv_heads, width, tokens);
        let arguments = [
            some(1, &[tokens, heads * width]),
            some(2, &[tokens, kv_heads * width]),
            some(3, &[tokens, kv_heads * width]),
        ];
        let of = |x: &[Tensor]| x[0].apply_op3(&x[1], &x[2], attention.clone());
        if tokens == 1 {
            // One token sees itself alone, so its query and key say nothing.
            assert_eq!(flat(&of(&arguments).unwrap())[..2], flat(&arguments[2])[..2]);
            continue;
        }
        check(&format!("attention {heads} {kv_heads} {tokens}"), &arguments, of);
    }
}

#[test]
fn the_gate_has_gradients() {
    check("gated", &[some(1, &[4, 9]), some(2, &[4, 9])], |x| x[0].apply_op2(&x[1], Gated));
}

#[test]
fn pitfall_06_linear_layers_have_gradients_for_all_that_is_trained() {
    let weight = frozen();
    check("frozen", &[some(2, &[4, 5])], |x| x[0].apply_op1(Linear { weight: Arc::clone(&weight) }));
    for dropout in [None, Some(Dropout { rate: 0.4, seed: 5 })] {
        let arguments = [some(2, &[4, 5]), some(3, &[3, 5]), some(4, &[7, 3])];
        check("adapted", &arguments, |x| {
            x[0].apply_op3(&x[1], &x[2], Adapted { weight: Arc::clone(&weight), scale: 1.7, dropout })
        });
    }
}

#[test]
fn pitfall_11_no_gradient_of_a_frozen_matrix_is_made() {
    let weight = frozen();
    let [x, a, b] = [some(2, &[4, 5]), some(3, &[3, 5]), some(4, &[7, 3])]
        .map(|x| Var::from_tensor(&x).unwrap().into_inner());
    let adapted = Adapted { weight, scale: 1.0, dropout: None };
    let y = x.apply_op3(&a, &b, adapted).unwrap();
    let store = y.apply_op1(Seed { gradient: some(5, &[4, 7]) }).unwrap().backward().unwrap();
    assert_eq!(store.get_ids().count(), 3, "those of x, A and B");
}

#[test]
fn pitfall_12_an_input_that_is_not_trained_is_no_panic() {
    let weight = frozen();
    let [a, b] = [some(3, &[3, 5]), some(4, &[7, 3])].map(|x| Var::from_tensor(&x).unwrap().into_inner());
    let y = some(2, &[4, 5]).apply_op3(&a, &b, Adapted { weight, scale: 1.0, dropout: None }).unwrap();
    let store = y.apply_op1(Seed { gradient: some(5, &[4, 7]) }).unwrap().backward().unwrap();
    assert_eq!(store.get_ids().count(), 2, "those of A and B");
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let x = Tensor::ones((100, 100), DType::F32, &Device::Cpu).unwrap();
    let drop = |rate, seed| -> Vec<f32> {
        x.apply_op1_no_bwd(&Dropout { rate, seed }).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let dropped = drop(0.3, 1);
    let share = dropped.iter().filter(|x| **x == 0.0).count() as f64 / 1e4;
    let mean = dropped.iter().sum::<f32>() / 1e4;
    // Four standard deviations.
    assert!((share - 0.3).abs() < 0.019, "{share}");
    assert!((mean - 1.0).abs() < 0.027, "{mean}");
    assert_eq!(dropped, drop(0.3, 1));
    assert_ne!(dropped, drop(0.3, 2));
    assert_eq!(drop(0.0, 1), vec![1.0; 10_000]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = some(1, &[4, 5]);
    assert!(x.apply_op1(Seed { gradient: some(1, &[5, 4]) }).is_err());
    let half = x.to_dtype(DType::F16).unwrap();
    assert!(half.apply_op1(Dropout { rate: 0.1, seed: 1 }).is_err());
    let attention = attention(1, 1, 4, 2);
    let long = some(1, &[3, 4]);
    assert!(long.apply_op3(&long, &long, attention).is_err(), "angles for two tokens");
}
