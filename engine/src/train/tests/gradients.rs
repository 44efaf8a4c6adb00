//! Gradients of the whole graph beside finite differences.

use super::*;

/// Returns the gradients of all tensors, held to finite differences at some of their numbers.
fn check(name: &str, settings: &Settings, weights: &LoraWeights, rows: &[Row<'_>]) -> Vec<Vec<f32>> {
    let base = base::<f64>();
    let found = go(&base, settings, weights, rows).1.numbers().unwrap();
    assert_eq!(found.len(), 2 * weights.pairs.len(), "{name}");
    let loss = |weights: &LoraWeights| go(&base, settings, weights, rows).0.loss;
    for (index, gradient) in found.iter().enumerate() {
        for at in [gradient.len() / 5, gradient.len() / 3 * 2] {
            let moved = |by: f32| {
                let mut weights = weights.clone();
                let pair = &mut weights.pairs[index / 2];
                let number = if index % 2 == 0 { &mut pair.a[at] } else { &mut pair.b[at] };
                *number += by;
                (f64::from(*number), loss(&weights))
            };
            let ((left, below), (right, above)) = (moved(-1e-4), moved(1e-4));
            let slope = (above - below) / (right - left);
            let gradient = f64::from(gradient[at]);
            let gap = (slope - gradient).abs() / (slope.abs() + gradient.abs() + 1e-3);
            assert!(gap < 1e-5, "{name}: tensor {index} at {at}: {gradient}, not {slope}");
        }
    }
    found
}

fn all(dropout: f64) -> LoraWeights {
    let mut weights = weights(&SHAPE, 3, &Target::ALL, 1);
    weights.config.dropout = dropout;
    weights
}

#[test]
fn examples_give_the_gradients_of_finite_differences() {
    let (first, second) = (example(1, 9), example(2, 12));
    for dropout in [0.0, 0.25] {
        let weights = all(dropout);
        let settings = settings(weights.config.clone(), Method::Sft);
        let rows = [Row::Example(&first), Row::Example(&second)];
        let found = check(&format!("dropout {dropout}"), &settings, &weights, &rows);
        assert!(found.iter().all(|tensor| tensor.iter().any(|x| *x != 0.0)));
    }
}

#[test]
fn pairs_give_the_gradients_of_finite_differences() {
    let first = Pair { chosen: example(1, 9), rejected: example(3, 8) };
    let second = Pair { chosen: example(2, 7), rejected: example(5, 11) };
    let weights = all(0.25);
    let settings = settings(weights.config.clone(), Method::Dpo { beta: 0.7 });
    check("pairs", &settings, &weights, &[Row::Pair(&first), Row::Pair(&second)]);
}

#[test]
fn a_long_row_whose_layers_are_computed_twice_has_the_same_gradients() {
    let mut weights = all(0.25);
    weights.config.targets = vec![Target::Query, Target::Down];
    weights.pairs.retain(|pair| weights.config.targets.contains(&pair.target));
    let long = example(1, 300);
    let settings = settings(weights.config.clone(), Method::Sft);
    check("long", &settings, &weights, &[Row::Example(&long)]);
}

#[test]
fn pitfall_06_every_trained_tensor_learns() {
    // One target alone, each of them, in f32 as in a real training.
    let (base, row) = (base::<f32>(), example(1, 9));
    for target in Target::ALL {
        let weights = weights(&SHAPE, 2, &[target], 4);
        let settings = settings(weights.config.clone(), Method::Sft);
        let found = go(&base, &settings, &weights, &[Row::Example(&row)]).1.numbers().unwrap();
        assert_eq!(found.len(), 2 * SHAPE.layers, "{target:?}");
        for (index, tensor) in found.iter().enumerate() {
            assert!(tensor.iter().any(|x| *x != 0.0), "{target:?}: tensor {index} learns nothing");
        }
    }
}

#[test]
fn pitfall_13_a_tensor_without_a_gradient_is_an_error() {
    let base = base::<f32>();
    let pairs = base.pairs(&weights(&SHAPE, 2, &[Target::Up], 4), Role::Trained).unwrap();
    // A graph in which none of them is.
    let other = candle_core::Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let mut store = other.sum_all().unwrap().backward().unwrap();
    let error = Gradients::new(&SHAPE).take(1, &pairs, &mut store).unwrap_err();
    assert!(matches!(error, TrainError::NoGradient(_)), "{error}");
    assert!(error.to_string().contains("up_proj in layer 1"), "{error}");
}

#[test]
fn the_loss_is_the_mean_by_weight_whatever_the_rows_are_cut_into() {
    // Two rows in one step weigh as their tokens, not as rows: accumulation is no other training.
    let (base, weights) = (base::<f64>(), all(0.0));
    let settings = settings(weights.config.clone(), Method::Sft);
    let (first, second) = (example(1, 9), example(2, 20));
    let alone = |row| go(&base, &settings, &weights, &[Row::Example(row)]).0.loss;
    let marks = |row: &Example| row.marks().sum::<f64>();
    let both = go(&base, &settings, &weights, &[Row::Example(&first), Row::Example(&second)]).0.loss;
    let mean =
        (alone(&first) * marks(&first) + alone(&second) * marks(&second)) / (marks(&first) + marks(&second));
    assert!((both - mean).abs() < 1e-12);
}
