//! Tokens a second: `speed MODEL [threads] [8]`; a prompt of 128 tokens, then 64 steps, at 1, 4 and 8 sequences.
//!
//! Prints the best of three rounds. `8` as the last word takes 8-bit activations.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a stopwatch for people")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use tunegate_engine::{Activation, Cache, Engine, Gguf, Item, Pool, Wanted};

const PROMPT: usize = 128;
const STEPS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("speed MODEL [threads] [8]")?;
    let threads: NonZeroUsize = arguments.get(2).map_or(Ok(NonZeroUsize::MIN), |n| n.parse())?;
    let bits8 = arguments.get(3).is_some_and(|bits| bits == "8");
    let start = Instant::now();
    let activation = if bits8 { Activation::Bits8 } else { Activation::Bits16 };
    let engine = Engine::load(&mut Gguf::open(Path::new(path))?, activation)?;
    let mut pool = Pool::new(threads)?;
    println!("load {:.2} s, weights {} MiB", start.elapsed().as_secs_f64(), engine.size_bytes() >> 20);
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| 1000 + i * 37 % 20_000).collect();
    for sequences in [1, 4, 8] {
        let mut best = (0.0f64, 0.0f64);
        for _ in 0..3 {
            let (prefill, decode) = round(&engine, &mut pool, &prompt, sequences)?;
            best = (best.0.max(prefill), best.1.max(decode));
        }
        println!("{sequences} sequences: prefill {:.1} tok/s, decode {:.1} tok/s", best.0, best.1);
    }
    Ok(())
}

fn round(
    engine: &Engine,
    pool: &mut Pool,
    prompt: &[u32],
    count: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let mut caches: Vec<Cache> = (0..count).map(|_| Cache::new(engine.shape())).collect();
    let start = Instant::now();
    for cache in &mut caches {
        engine.forward(pool, &mut [Item { tokens: prompt, cache, wanted: Wanted::Logits, adapter: None }])?;
    }
    let prefill = (count * prompt.len()) as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for step in 0..STEPS {
        let tokens = [2000 + step as u32];
        let mut items: Vec<Item<'_>> = caches
            .iter_mut()
            .map(|cache| Item { tokens: &tokens, cache, wanted: Wanted::Logits, adapter: None })
            .collect();
        engine.forward(pool, &mut items)?;
    }
    Ok((prefill, (count * STEPS) as f64 / start.elapsed().as_secs_f64()))
}
