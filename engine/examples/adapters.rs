//! What adapters cost: `adapters MODEL [threads] [steps]`; tokens a second with random adapters on all linear layers.
//!
//! All cases decode side by side, a step of each in turn, so that a busy machine is busy for all of them; then they
//! read a prompt in the same way. Medians are printed, and the median of each case's share of the base model alone with as many
//! sequences, step by step.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a stopwatch for people")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use tunegate_engine::adapter::{AdapterError, LoraConfig, LoraPair, LoraWeights, Target};
use tunegate_engine::{Activation, Adapter, Cache, Engine, ForwardError, Gguf, Item, Pool, Shape, Wanted};

/// Tokens that every sequence holds before it decodes.
const HELD: usize = 128;
/// Tokens of a chunk of a prompt.
const CHUNK: usize = 128;

/// Sequences that run together, and the adapters that they take in turn.
struct Case<'a> {
    name: &'static str,
    adapters: Vec<Option<&'a Adapter>>,
    caches: Vec<Cache>,
    /// Seconds of each step.
    decode: Vec<f64>,
    /// Seconds of each chunk.
    prefill: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("adapters MODEL [threads] [rounds]")?;
    let threads: NonZeroUsize = arguments.get(2).map_or(Ok(NonZeroUsize::MIN), |n| n.parse())?;
    let steps: usize = arguments.get(3).map_or(Ok(60), |n| n.parse())?;
    let engine = Engine::load(&mut Gguf::open(Path::new(path))?, Activation::Bits16)?;
    let mut pool = Pool::new(threads)?;
    // Eight adapters of rank 8, then eight of rank 32.
    let ranks = [8, 32].into_iter().flat_map(|rank| [rank; 8]);
    let adapters = ranks
        .enumerate()
        .map(|(seed, rank)| adapter(engine.shape(), rank, seed as u32))
        .collect::<Result<Vec<_>, _>>()?;
    println!(
        "an adapter takes {} KiB, {} KiB",
        adapters[0].size_bytes() >> 10,
        adapters[8].size_bytes() >> 10
    );
    let (rank8, rank32) = adapters.split_at(8);
    let shape = engine.shape();
    let mut cases = [
        Case::new("base, 1 sequence", vec![None], shape),
        Case::new("one of rank 8", vec![Some(&rank8[0])], shape),
        Case::new("one of rank 32", vec![Some(&rank32[0])], shape),
        Case::new("base, 8 sequences", vec![None; 8], shape),
        Case::new("eight with one of rank 8", vec![Some(&rank8[0]); 8], shape),
        Case::new("eight of rank 8", rank8.iter().map(Some).collect(), shape),
        Case::new("eight of rank 32", rank32.iter().map(Some).collect(), shape),
    ];
    for case in &mut cases {
        case.hold(&engine, &mut pool)?;
    }
    for step in 0..steps {
        for case in &mut cases {
            case.decode(&engine, &mut pool, step as u32)?;
        }
    }
    for _ in 0..steps.div_ceil(8) {
        for case in &mut cases {
            case.prefill(&engine, &mut pool)?;
        }
    }
    for case in &cases {
        let base = if case.caches.len() == 1 { &cases[0] } else { &cases[3] };
        println!(
            "{:26} decode {}; prefill {}",
            case.name,
            told(case.caches.len(), &case.decode, &base.decode),
            told(CHUNK, &case.prefill, &base.prefill),
        );
    }
    Ok(())
}

fn told(tokens: usize, seconds: &[f64], base: &[f64]) -> String {
    let share = median(seconds.iter().zip(base).map(|(case, base)| base / case).collect());
    format!("{:6.1} tok/s, {share:.2} of base", tokens as f64 / median(seconds.to_vec()))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Makes an adapter of small numbers that look random.
fn adapter(shape: &Shape, rank: usize, seed: u32) -> Result<Adapter, AdapterError> {
    let config = LoraConfig::new(rank, 2.0 * rank as f64, 0.0, Target::ALL.to_vec())?;
    let mut state = seed;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.02 - 0.01
    };
    let places = (0..shape.layers).flat_map(|layer| Target::ALL.map(|target| (layer, target)));
    let pairs = places.map(|(layer, target)| LoraPair {
        layer,
        target,
        a: (0..rank * target.width_in(shape)).map(|_| number()).collect(),
        b: (0..rank * target.width_out(shape)).map(|_| number()).collect(),
    });
    Adapter::new(&LoraWeights { config, pairs: pairs.collect() }, shape)
}

fn prompt(length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| 1000 + i * 37 % 20_000).collect()
}

impl<'a> Case<'a> {
    fn new(name: &'static str, adapters: Vec<Option<&'a Adapter>>, shape: &Shape) -> Self {
        let caches = adapters.iter().map(|_| Cache::new(shape)).collect();
        Self { name, adapters, caches, decode: Vec::new(), prefill: Vec::new() }
    }

    /// Reads the first tokens of all sequences.
    fn hold(&mut self, engine: &Engine, pool: &mut Pool) -> Result<(), ForwardError> {
        let tokens = prompt(HELD);
        self.step(engine, pool, &tokens)
    }

    fn step(&mut self, engine: &Engine, pool: &mut Pool, tokens: &[u32]) -> Result<(), ForwardError> {
        let items = self.caches.iter_mut().zip(&self.adapters);
        let items =
            items.map(|(cache, adapter)| Item { tokens, cache, wanted: Wanted::Logits, adapter: *adapter });
        engine.forward(pool, &mut items.collect::<Vec<_>>()).map(|_| ())
    }

    fn decode(&mut self, engine: &Engine, pool: &mut Pool, step: u32) -> Result<(), ForwardError> {
        let start = Instant::now();
        self.step(engine, pool, &[2000 + step])?;
        self.decode.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Reads a chunk in which all sequences of the case have a share.
    fn prefill(&mut self, engine: &Engine, pool: &mut Pool) -> Result<(), ForwardError> {
        let mut fresh = Self::new(self.name, self.adapters.clone(), engine.shape());
        let start = Instant::now();
        fresh.step(engine, pool, &prompt(CHUNK / self.adapters.len()))?;
        self.prefill.push(start.elapsed().as_secs_f64());
        Ok(())
    }
}
