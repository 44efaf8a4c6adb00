//! A model small enough to train in a test, as a GGUF file, and what is fed to it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use half::f16;
use tunegate_engine::adapter::{LoraConfig, LoraPair, LoraWeights, Target};
use tunegate_engine::train::{Decay, Example, Method, Settings};
use tunegate_engine::{Gguf, Shape};

/// Widths that all differ, two query heads for each key head.
pub(crate) const SHAPE: Shape = Shape {
    width: 16,
    hidden: 24,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_width: 6,
    vocabulary: 32,
    context: 48,
    epsilon: 1e-5,
    rope_base: 10_000.0,
};

/// Widths that are whole blocks, for quantised tensors.
pub(crate) const BLOCKS: Shape = Shape { width: 32, hidden: 64, head_width: 8, ..SHAPE };

/// How the file's matrices are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    Q8_0,
}

/// Numbers that look random: a hash of place and tensor. `oracle/lora_steps.py` has the same.
pub(crate) fn numbers(tensor: usize, count: usize, around: f64, spread: f64) -> Vec<f32> {
    let number = |i: usize| {
        let x = (i as u64 + 1 + tensor as u64 * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ x >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let unit = ((x ^ x >> 32) >> 40) as f64 / f64::from(1 << 23) - 1.0;
        (around + spread * unit) as f32
    };
    (0..count).map(number).collect()
}

/// A folder of a test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tunegate-training-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes the model, and returns where.
    pub(crate) fn model(&self, shape: &Shape, stored: Stored) -> PathBuf {
        let path = self.0.join("model.gguf");
        fs::write(&path, file(shape, stored)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens a model's file.
pub(crate) fn open(path: &Path) -> Gguf {
    Gguf::open(path).unwrap()
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn file(shape: &Shape, stored: Stored) -> Vec<u8> {
    let mut pairs: Vec<(String, u32, Vec<u8>)> = vec![("general.architecture".into(), 8, text("llama"))];
    for (key, value) in [
        ("embedding_length", shape.width),
        ("feed_forward_length", shape.hidden),
        ("block_count", shape.layers),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", shape.head_width),
        ("attention.value_length", shape.head_width),
        ("rope.dimension_count", shape.head_width),
        ("context_length", shape.context),
    ] {
        pairs.push((format!("llama.{key}"), 4, (value as u32).to_le_bytes().to_vec()));
    }
    let epsilon = shape.epsilon.to_le_bytes().to_vec();
    pairs.push(("llama.attention.layer_norm_rms_epsilon".into(), 6, epsilon));
    let tokens: Vec<u8> = (0..shape.vocabulary).flat_map(|token| text(&format!("t{token}"))).collect();
    let count = (shape.vocabulary as u64).to_le_bytes();
    pairs.push(("tokenizer.ggml.tokens".into(), 9, [&8u32.to_le_bytes()[..], &count, &tokens].concat()));
    let tensors = tensors(shape);
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, kind, value) in &pairs {
        out.extend([&text(key)[..], &kind.to_le_bytes(), value].concat());
    }
    let mut contents: Vec<u8> = Vec::new();
    for (name, dimensions, numbers) in &tensors {
        out.extend(text(name));
        out.extend((dimensions.len() as u32).to_le_bytes());
        out.extend(dimensions.iter().flat_map(|d| (*d as u64).to_le_bytes()));
        let (code, bytes) = match stored {
            Stored::Q8_0 if dimensions.len() == 2 => (8u32, eight_bits(numbers)),
            _ => (0, numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        };
        out.extend(code.to_le_bytes());
        out.extend((contents.len() as u64).to_le_bytes());
        contents.write_all(&bytes).unwrap();
        contents.resize(contents.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(contents);
    out
}

/// Returns the tensors' names, sizes (inputs first) and numbers.
fn tensors(shape: &Shape) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let norm = |name: String, tensor| (name, vec![shape.width], numbers(tensor, shape.width, 1.0, 0.2));
    let embedding = numbers(0, shape.vocabulary * shape.width, 0.0, 1.0);
    let mut all = vec![
        ("token_embd.weight".to_owned(), vec![shape.width, shape.vocabulary], embedding),
        norm("output_norm.weight".to_owned(), 1),
    ];
    for layer in 0..shape.layers {
        all.push(norm(format!("blk.{layer}.attn_norm.weight"), 10 + 10 * layer));
        all.push(norm(format!("blk.{layer}.ffn_norm.weight"), 11 + 10 * layer));
        for target in Target::ALL {
            let (inputs, outputs) = (target.width_in(shape), target.width_out(shape));
            let numbers = numbers(12 + 10 * layer + target as usize, inputs * outputs, 0.0, 0.5);
            all.push((target.gguf_name(layer), vec![inputs, outputs], numbers));
        }
    }
    all
}

/// Rounds to `Q8_0`.
fn eight_bits(numbers: &[f32]) -> Vec<u8> {
    let block = |block: &[f32]| {
        let scale = block.iter().fold(0f32, |a, b| a.max(b.abs())) / 127.0;
        let bytes = block.iter().map(move |x| ((x / scale).round() as i8).cast_unsigned());
        f16::from_f32(scale).to_le_bytes().into_iter().chain(bytes).collect::<Vec<u8>>()
    };
    numbers.chunks(32).flat_map(block).collect()
}

/// Returns an adapter of all targets that changes much. `oracle/lora_steps.py` has the same.
pub(crate) fn adapter(shape: &Shape, rank: usize) -> LoraWeights {
    let config = LoraConfig::new(rank, 2.0 * rank as f64, 0.0, Target::ALL.to_vec()).unwrap();
    let pair = |layer: usize, target: Target| {
        let at = 1000 + 20 * layer + 2 * target as usize;
        let a = numbers(at, rank * target.width_in(shape), 0.0, 0.3);
        LoraPair { layer, target, a, b: numbers(at + 1, rank * target.width_out(shape), 0.0, 0.2) }
    };
    let pairs = (0..shape.layers).flat_map(|layer| Target::ALL.map(|target| pair(layer, target)));
    LoraWeights { config, pairs: pairs.collect() }
}

/// Returns a row of which the second half counts. `oracle/lora_steps.py` has the same.
pub(crate) fn example(seed: usize, length: usize) -> Example {
    let tokens = (0..length).map(|i| ((i * 7 + seed * 5 + i * i) % SHAPE.vocabulary) as u32).collect();
    let weights = (0..length).map(|i| if 2 * i < length { 0.0 } else { 0.5 + (i % 3) as f32 }).collect();
    Example { tokens, weights }
}

/// Returns settings that use everything there is.
pub(crate) fn settings(method: Method, dropout: f64, total_steps: u64) -> Settings {
    Settings {
        lora: LoraConfig::new(3, 6.0, dropout, Target::ALL.to_vec()).unwrap(),
        learning_rate: 0.01,
        warmup: 0.25,
        decay: Decay::Linear,
        weight_decay: 0.1,
        clip: 0.5,
        seed: 5,
        total_steps,
        method,
    }
}
