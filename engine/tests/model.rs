//! The engine on the real model, against the logits of an independent float64 implementation.
//!
//! `golden/logits.txt` was made by a numpy llama in Hugging Face's conventions, in float64, on the numbers of this
//! very file (SmolLM2-135M-Instruct Q4_1, sha256 b179c952…): the 64 largest and every 192nd logit after three
//! prompts. Greedy answers of other engines cannot be the measure, because rounding flips them.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as its tests do")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::LazyLock;

use tunegate_engine::{Activation, Cache, Engine, Gguf, Item, Pool, Wanted};

struct Golden {
    name: String,
    tokens: Vec<u32>,
    logits: Vec<(usize, f64)>,
}

fn golden() -> Vec<Golden> {
    let mut all: Vec<Golden> = Vec::new();
    for line in include_str!("golden/logits.txt").lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("prompt") => all.push(Golden {
                name: words.next().unwrap().to_owned(),
                tokens: words.map(|word| word.parse().unwrap()).collect(),
                logits: Vec::new(),
            }),
            Some("logits") => all.last_mut().unwrap().logits.extend(words.map(|word| {
                let (id, logit) = word.split_once(':').unwrap();
                (id.parse::<usize>().unwrap(), logit.parse::<f64>().unwrap())
            })),
            _ => {}
        }
    }
    all
}

fn model() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = asked.unwrap_or(root);
    assert!(path.exists(), "the test model is missing: run `make model`, or set TUNEGATE_TEST_MODEL");
    path
}

fn load(activation: Activation) -> Engine {
    Engine::load(&mut Gguf::open(&model()).unwrap(), activation).unwrap()
}

static ENGINE: LazyLock<Engine> = LazyLock::new(|| load(Activation::Bits16));

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

fn logits(engine: &Engine, pool: &mut Pool, cache: &mut Cache, tokens: &[u32]) -> Vec<f32> {
    let mut items = [Item { tokens, cache, wanted: Wanted::Logits, adapter: None }];
    engine.forward(pool, &mut items).unwrap().pop().unwrap().unwrap()
}

fn distance(engine: &Engine, golden: &Golden) -> f64 {
    let found = logits(engine, &mut pool(2), &mut Cache::new(engine.shape()), &golden.tokens);
    let square: f64 = golden.logits.iter().map(|(id, exact)| (f64::from(found[*id]) - exact).powi(2)).sum();
    (square / golden.logits.iter().map(|(_, exact)| exact * exact).sum::<f64>()).sqrt()
}

#[test]
fn logits_equal_the_float64_reference() {
    for golden in golden() {
        let found = distance(&ENGINE, &golden);
        assert!(found < 1e-3, "{}: relative distance {found:.1e}", golden.name);
    }
}

#[test]
fn eight_bits_are_coarser_but_near() {
    let engine = load(Activation::Bits8);
    for golden in golden() {
        let found = distance(&engine, &golden);
        assert!(found < 0.1, "{}: relative distance {found:.1e}", golden.name);
    }
}

#[test]
fn chunks_neighbours_and_threads_change_no_bit() {
    let golden = golden();
    let engine = &*ENGINE;
    let alone: Vec<Vec<f32>> = golden
        .iter()
        .map(|golden| logits(engine, &mut pool(1), &mut Cache::new(engine.shape()), &golden.tokens))
        .collect();
    let mut caches: Vec<Cache> = golden.iter().map(|_| Cache::new(engine.shape())).collect();
    let mut pool = pool(3);
    let mut together: Vec<Vec<f32>> = vec![Vec::new(); golden.len()];
    // Chunks of 7 tokens, all sequences in one step, until the longest is through.
    loop {
        let mut items: Vec<Item<'_>> = Vec::new();
        let mut who = Vec::new();
        for (index, cache) in caches.iter_mut().enumerate() {
            let left = &golden[index].tokens[cache.len()..];
            if !left.is_empty() {
                items.push(Item {
                    tokens: &left[..left.len().min(7)],
                    cache,
                    wanted: if left.len() <= 7 { Wanted::Logits } else { Wanted::Nothing },
                    adapter: None,
                });
                who.push(index);
            }
        }
        if items.is_empty() {
            break;
        }
        for (index, found) in who.into_iter().zip(engine.forward(&mut pool, &mut items).unwrap()) {
            if let Some(found) = found {
                together[index] = found;
            }
        }
    }
    for (index, golden) in golden.iter().enumerate() {
        assert!(alone[index] == together[index], "{} differs", golden.name);
    }
}

#[test]
fn refused_steps_touch_nothing() {
    let engine = &*ENGINE;
    let (mut pool, mut cache) = (pool(1), Cache::new(engine.shape()));
    let too_long = vec![1; engine.shape().context + 1];
    for tokens in [&[][..], &[49_152], &[u32::MAX], &too_long] {
        let mut items = [Item { tokens, cache: &mut cache, wanted: Wanted::Logits, adapter: None }];
        assert!(engine.forward(&mut pool, &mut items).is_err());
        assert_eq!((cache.len(), cache.size_bytes()), (0, 0));
    }
    assert!(engine.forward(&mut pool, &mut []).unwrap().is_empty());
}
