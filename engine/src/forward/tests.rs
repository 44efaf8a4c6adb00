//! The engine with adapters, against a textbook llama in f64 whose matrices have the adapter merged into them.

use std::num::NonZeroUsize;

use candle_core::quantized::GgmlDType;

use super::*;
use crate::adapter::tests::{SHAPE, numbers, weights};
use crate::adapter::{LoraWeights, Target};
use crate::tiny::Tiny;
use crate::weights::numbers as tensor_numbers;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let random = numbers(seed, count);
    random.iter().map(|x| ((x + 1.0) * 0.499 * SHAPE.vocabulary as f32) as u32).collect()
}

/// `y = W·x`, the matrix row by row.
fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

fn dense(gguf: &mut Gguf, name: &str, rows: usize, columns: usize) -> Vec<f64> {
    let tensor = gguf.tensor(name, rows, columns).unwrap();
    tensor_numbers(name, &tensor).unwrap().into_iter().map(f64::from).collect()
}

/// Returns `W + s·B·A`.
fn merged(gguf: &mut Gguf, adapter: Option<&LoraWeights>, layer: usize, target: Target) -> Vec<f64> {
    let (inputs, outputs) = (target.width_in(&SHAPE), target.width_out(&SHAPE));
    let mut w = dense(gguf, &target.gguf_name(layer), outputs, inputs);
    let Some(weights) = adapter else { return w };
    let Some(pair) = weights.pair(layer, target) else { return w };
    let rank = weights.config.rank;
    for (output, row) in w.chunks_exact_mut(inputs).enumerate() {
        for (input, w) in row.iter_mut().enumerate() {
            let inner = (0..rank)
                .map(|r| f64::from(pair.b[output * rank + r]) * f64::from(pair.a[r * inputs + input]));
            *w += weights.config.scale() * inner.sum::<f64>();
        }
    }
    w
}

fn rms_norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (square + f64::from(SHAPE.epsilon)).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x * scale * weight).collect()
}

/// Rotates neighbouring channels, as GGUF keeps them.
fn rotate(x: &mut [f64], position: usize) {
    for head in x.chunks_exact_mut(SHAPE.head_width) {
        for (pair, two) in head.chunks_exact_mut(2).enumerate() {
            let exponent = -2.0 * pair as f64 / SHAPE.head_width as f64;
            let angle = position as f64 * SHAPE.rope_base.powf(exponent);
            let (sin, cos) = angle.sin_cos();
            (two[0], two[1]) = (two[0] * cos - two[1] * sin, two[0] * sin + two[1] * cos);
        }
    }
}

/// Returns the logits after every token.
fn textbook(gguf: &mut Gguf, adapter: Option<&LoraWeights>, tokens: &[u32]) -> Vec<Vec<f64>> {
    let width = SHAPE.width;
    let embedding = dense(gguf, "token_embd.weight", SHAPE.vocabulary, width);
    let mut rows: Vec<Vec<f64>> =
        tokens.iter().map(|token| embedding[*token as usize * width..][..width].to_vec()).collect();
    for layer in 0..SHAPE.layers {
        let [query, key, value, output, gate, up, down] =
            Target::ALL.map(|target| merged(gguf, adapter, layer, target));
        let norm = dense(gguf, &format!("blk.{layer}.attn_norm.weight"), 1, width);
        let normed: Vec<Vec<f64>> = rows.iter().map(|row| rms_norm(row, &norm)).collect();
        let turned = |w: &[f64]| -> Vec<Vec<f64>> {
            let rows = normed.iter().enumerate().map(|(position, row)| {
                let mut row = product(w, row);
                rotate(&mut row, position);
                row
            });
            rows.collect()
        };
        let (queries, keys) = (turned(&query), turned(&key));
        let values: Vec<Vec<f64>> = normed.iter().map(|row| product(&value, row)).collect();
        for (position, row) in rows.iter_mut().enumerate() {
            let mut attended = Vec::new();
            for head in 0..SHAPE.heads {
                let channels = |at: usize| at * SHAPE.head_width..(at + 1) * SHAPE.head_width;
                let shared = channels(head * SHAPE.kv_heads / SHAPE.heads);
                let query = &queries[position][channels(head)];
                let scores: Vec<f64> = keys[..=position]
                    .iter()
                    .map(|key| product(&key[shared.clone()], query)[0] / (SHAPE.head_width as f64).sqrt())
                    .map(f64::exp)
                    .collect();
                let sum: f64 = scores.iter().sum();
                attended.extend(shared.clone().map(|channel| {
                    scores.iter().zip(&values).map(|(score, value)| score / sum * value[channel]).sum::<f64>()
                }));
            }
            row.iter_mut().zip(product(&output, &attended)).for_each(|(x, y)| *x += y);
        }
        let norm = dense(gguf, &format!("blk.{layer}.ffn_norm.weight"), 1, width);
        for row in &mut rows {
            let normed = rms_norm(row, &norm);
            let gates = product(&gate, &normed);
            let gated = gates.iter().zip(product(&up, &normed)).map(|(g, u)| g / (1.0 + (-g).exp()) * u);
            let gated: Vec<f64> = gated.collect();
            row.iter_mut().zip(product(&down, &gated)).for_each(|(x, y)| *x += y);
        }
    }
    let norm = dense(gguf, "output_norm.weight", 1, width);
    rows.iter().map(|row| product(&embedding, &rms_norm(row, &norm))).collect()
}

fn gap(found: &[f32], exact: &[f64]) -> f64 {
    let square: f64 = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    (square / exact.iter().map(|x| x * x).sum::<f64>()).sqrt()
}

fn alone(engine: &Engine, tokens: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let mut cache = Cache::new(engine.shape());
    let item = Item { tokens, cache: &mut cache, wanted: Wanted::Logits, adapter };
    engine.forward(&mut pool(1), &mut [item]).unwrap().pop().unwrap().unwrap()
}

fn load(tiny: &Tiny) -> Engine {
    Engine::load(&mut tiny.open(), Activation::Bits16).unwrap()
}

#[test]
fn an_adapter_is_the_merged_model() {
    let tokens = tokens(3, 37);
    for kind in [GgmlDType::Q8_0, GgmlDType::Q4_1] {
        let tiny = Tiny::new(kind, 1);
        let engine = load(&tiny);
        let base = textbook(&mut tiny.open(), None, &tokens).pop().unwrap();
        assert!(gap(&alone(&engine, &tokens, None), &base) < 2e-3, "{kind:?}: the base model");
        let sets =
            [&Target::ALL[..], &[Target::Key], &[Target::Query, Target::Value], &[Target::Up, Target::Down]];
        for (targets, rank) in sets.into_iter().zip([8, 3, 17, 32]) {
            let weights = weights(&SHAPE, rank, targets, rank as u64);
            let adapter = Adapter::new(&weights, &SHAPE).unwrap();
            let exact = textbook(&mut tiny.open(), Some(&weights), &tokens).pop().unwrap();
            let found = alone(&engine, &tokens, Some(&adapter));
            assert!(gap(&found, &exact) < 2e-3, "{kind:?} {targets:?}: {:.1e}", gap(&found, &exact));
            assert!(gap(&found, &base) > 0.05, "{kind:?} {targets:?}: it does something");
        }
    }
}

#[test]
fn eight_adapters_in_one_step_change_no_bit_of_each_other() {
    let engine = load(&Tiny::new(GgmlDType::Q4_1, 2));
    let adapters: Vec<Adapter> = (0..8)
        .map(|i| Adapter::new(&weights(&SHAPE, 1 + 5 * i, &Target::ALL[i % 4..], i as u64), &SHAPE).unwrap())
        .collect();
    // Fourteen sequences of several lengths: each adapter at least once, three of them twice, three without.
    let adapter = |sequence: usize| adapters.get(sequence * 3 % 11);
    let sequences: Vec<Vec<u32>> = (0..14).map(|i| tokens(50 + i, 20 + i as usize)).collect();
    let mut caches: Vec<Cache> = sequences.iter().map(|_| Cache::new(engine.shape())).collect();
    let (mut pool, mut together) = (pool(3), vec![Vec::new(); sequences.len()]);
    for step in 0.. {
        let mut items = Vec::new();
        let mut who = Vec::new();
        for (index, cache) in caches.iter_mut().enumerate() {
            let left = &sequences[index][cache.len()..];
            // Now and then a sequence waits, so that neighbours change; single tokens and chunks mix.
            let count = left.len().min([0, 1, 1, 5, 9][(step + index) % 5]);
            if count > 0 {
                let wanted = if count == left.len() { Wanted::Logits } else { Wanted::Nothing };
                items.push(Item { tokens: &left[..count], cache, wanted, adapter: adapter(index) });
                who.push(index);
            }
        }
        for (index, found) in who.into_iter().zip(engine.forward(&mut pool, &mut items).unwrap()) {
            if let Some(found) = found {
                together[index] = found;
            }
        }
        if caches.iter().zip(&sequences).all(|(cache, tokens)| cache.len() == tokens.len()) {
            break;
        }
    }
    for (index, tokens) in sequences.iter().enumerate() {
        assert!(together[index] == alone(&engine, tokens, adapter(index)), "sequence {index}");
    }
}

#[test]
fn rows_of_one_adapter_stand_together() {
    let adapters = [1, 2].map(|seed| Adapter::new(&weights(&SHAPE, 2, &[Target::Up], seed), &SHAPE).unwrap());
    let engine = load(&Tiny::new(GgmlDType::Q8_0, 1));
    let mut caches: Vec<Cache> = (0..6).map(|_| Cache::new(&SHAPE)).collect();
    let chosen = [Some(0), None, Some(1), Some(0), None, Some(1)];
    let items: Vec<Item<'_>> = caches
        .iter_mut()
        .zip(chosen)
        .map(|(cache, adapter)| Item {
            tokens: &[1, 2],
            cache,
            wanted: Wanted::Logits,
            adapter: adapter.map(|index: usize| &adapters[index]),
        })
        .collect();
    let step = engine.step(&items).unwrap();
    let order: Vec<usize> = step.rows.iter().map(|row| row.item).collect();
    assert_eq!(order, [0, 0, 3, 3, 1, 1, 4, 4, 2, 2, 5, 5]);
    let loans: Vec<Range<usize>> = step.loans.iter().map(|loan| loan.rows.clone()).collect();
    assert_eq!(loans, [0..4, 8..12]);
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let engine = load(&Tiny::new(GgmlDType::Q8_0, 1));
    let other = Shape { layers: 3, ..SHAPE };
    let adapter = Adapter::new(&weights(&other, 2, &[Target::Up], 1), &other).unwrap();
    let mut cache = Cache::new(engine.shape());
    let item = Item { tokens: &[1], cache: &mut cache, wanted: Wanted::Logits, adapter: Some(&adapter) };
    assert_eq!(engine.forward(&mut pool(1), &mut [item]), Err(ForwardError::AnotherModel));
    assert_eq!(cache.len(), 0);
    assert_eq!(engine.score(&mut pool(1), &[1, 2], Some(&adapter)), Err(ForwardError::AnotherModel));
}

#[test]
fn scores_are_the_textbooks_and_need_no_chunk() {
    let tiny = Tiny::new(GgmlDType::Q8_0, 4);
    let engine = load(&tiny);
    let weights = weights(&SHAPE, 4, &Target::ALL, 6);
    let adapter = Adapter::new(&weights, &SHAPE).unwrap();
    let tokens = tokens(8, SCORE_CHUNK + SCORE_ROWS + 5);
    for (weights, adapter) in [(None, None), (Some(&weights), Some(&adapter))] {
        let found = engine.score(&mut pool(2), &tokens, adapter).unwrap();
        assert_eq!(found.len(), tokens.len() - 1);
        let exact = textbook(&mut tiny.open(), weights, &tokens);
        for (index, found) in found.iter().enumerate() {
            let sum: f64 = exact[index].iter().map(|logit| logit.exp()).sum();
            let exact = exact[index][tokens[index + 1] as usize] - sum.ln();
            assert!((f64::from(*found) - exact).abs() < 0.02, "{index}: {found}, not {exact}");
        }
        let fewer = engine.score(&mut pool(1), &tokens[..50], adapter).unwrap();
        assert_eq!(fewer, found[..49]);
    }
    assert_eq!(engine.score(&mut pool(1), &[5], None), Ok(vec![]));
    assert_eq!(engine.score(&mut pool(1), &[], None), Err(ForwardError::Empty));
    assert_eq!(engine.score(&mut pool(1), &[1, 80], None), Err(ForwardError::UnknownToken(80)));
    let long = vec![1; SHAPE.context + 1];
    assert!(matches!(engine.score(&mut pool(1), &long, None), Err(ForwardError::TooLong { .. })));
}

#[test]
fn scores_come_beside_answers_and_only_where_a_token_is_named() {
    let engine = load(&Tiny::new(GgmlDType::Q8_0, 4));
    let adapter = Adapter::new(&weights(&SHAPE, 4, &Target::ALL, 6), &SHAPE).unwrap();
    let (scored, asked) = (tokens(8, SCORE_ROWS + 9), tokens(9, 7));
    let all = engine.score(&mut pool(1), &scored, Some(&adapter)).unwrap();
    let read = &scored[..scored.len() - 1];
    // every third token counts
    let next: Vec<Option<u32>> = (1..scored.len()).map(|at| (at % 3 == 0).then(|| scored[at])).collect();
    let mut caches = [(); 3].map(|()| Cache::new(engine.shape()));
    let [a, b, c] = &mut caches;
    let mut items = [
        Item { tokens: &asked, cache: a, wanted: Wanted::Logits, adapter: None },
        Item { tokens: read, cache: b, wanted: Wanted::Scores(&next), adapter: Some(&adapter) },
        Item { tokens: &asked, cache: c, wanted: Wanted::Nothing, adapter: Some(&adapter) },
    ];
    let found = engine.forward(&mut pool(2), &mut items).unwrap();
    let want: Vec<f32> = (1..scored.len()).filter(|at| at % 3 == 0).map(|at| all[at - 1]).collect();
    assert_eq!(found[1].as_ref(), Some(&want));
    assert_eq!(found[2], None);
    let mut cache = Cache::new(engine.shape());
    let alone = Item { tokens: &asked, cache: &mut cache, wanted: Wanted::Logits, adapter: None };
    assert_eq!(found[0], engine.forward(&mut pool(1), &mut [alone]).unwrap()[0]);

    let refused = |next: &[Option<u32>]| {
        let mut cache = Cache::new(engine.shape());
        let item = Item { tokens: &[1, 2], cache: &mut cache, wanted: Wanted::Scores(next), adapter: None };
        engine.forward(&mut pool(1), &mut [item]).unwrap_err()
    };
    assert_eq!(refused(&[None]), ForwardError::Scores { tokens: 2, scores: 1 });
    assert_eq!(refused(&[None, Some(80)]), ForwardError::UnknownToken(80));
}
