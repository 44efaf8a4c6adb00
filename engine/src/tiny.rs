//! A model file of random numbers for tests: every width another one, heads that share keys, a page or two in size.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::adapter::Target;
use crate::adapter::tests::{SHAPE, numbers};
use crate::gguf::{Gguf, Shape};

/// A model of [`SHAPE`] in a file that goes with the test.
pub(crate) struct Tiny {
    pub(crate) path: PathBuf,
}

impl Tiny {
    /// Writes a model whose matrices are stored as `kind`, the same one for the same seed.
    pub(crate) fn new(kind: GgmlDType, seed: u64) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tunegate-tiny-{}-{count}.gguf", std::process::id()));
        fs::write(&path, bytes(kind, seed)).unwrap();
        Self { path }
    }

    pub(crate) fn open(&self) -> Gguf {
        Gguf::open(&self.path).unwrap()
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the names of all tensors with rows (1 for a vector) and columns.
pub(crate) fn tensors(shape: &Shape) -> Vec<(String, usize, usize)> {
    let mut tensors = vec![("token_embd.weight".to_owned(), shape.vocabulary, shape.width)];
    for layer in 0..shape.layers {
        tensors.push((format!("blk.{layer}.attn_norm.weight"), 1, shape.width));
        tensors.push((format!("blk.{layer}.ffn_norm.weight"), 1, shape.width));
        for target in Target::ALL {
            tensors.push((target.gguf_name(layer), target.width_out(shape), target.width_in(shape)));
        }
    }
    tensors.push(("output_norm.weight".to_owned(), 1, shape.width));
    tensors
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn metadata() -> Vec<Vec<u8>> {
    let pair =
        |key: &str, kind: u32, value: Vec<u8>| [text(key), kind.to_le_bytes().to_vec(), value].concat();
    let number =
        |key: &str, value: usize| pair(&format!("llama.{key}"), 4, (value as u32).to_le_bytes().to_vec());
    let tokens: Vec<Vec<u8>> = (0..SHAPE.vocabulary).map(|token| text(&format!("t{token}"))).collect();
    let tokens = [&8u32.to_le_bytes()[..], &(tokens.len() as u64).to_le_bytes(), &tokens.concat()].concat();
    vec![
        pair("general.architecture", 8, text("llama")),
        number("embedding_length", SHAPE.width),
        number("feed_forward_length", SHAPE.hidden),
        number("block_count", SHAPE.layers),
        number("attention.head_count", SHAPE.heads),
        number("attention.head_count_kv", SHAPE.kv_heads),
        number("attention.key_length", SHAPE.head_width),
        number("attention.value_length", SHAPE.head_width),
        number("rope.dimension_count", SHAPE.head_width),
        number("context_length", SHAPE.context),
        pair("llama.attention.layer_norm_rms_epsilon", 6, SHAPE.epsilon.to_le_bytes().to_vec()),
        pair("tokenizer.ggml.tokens", 9, tokens),
    ]
}

fn bytes(kind: GgmlDType, seed: u64) -> Vec<u8> {
    let (tensors, metadata) = (tensors(&SHAPE), metadata());
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    out.extend(metadata.concat());
    let codes: HashMap<GgmlDType, u32> =
        HashMap::from([(GgmlDType::F32, 0), (GgmlDType::F16, 1), (GgmlDType::Q4_1, 3), (GgmlDType::Q8_0, 8)]);
    let mut numbers_of_all = Vec::new();
    for (index, (name, rows, columns)) in tensors.iter().enumerate() {
        let kind = if *rows == 1 { GgmlDType::F32 } else { kind };
        out.extend(text(name));
        let dimensions = if *rows == 1 { vec![*columns] } else { vec![*columns, *rows] };
        out.extend((dimensions.len() as u32).to_le_bytes());
        out.extend(dimensions.iter().flat_map(|dimension| (*dimension as u64).to_le_bytes()));
        out.extend(codes[&kind].to_le_bytes());
        out.extend((numbers_of_all.len() as u64).to_le_bytes());
        let random = numbers(seed * 100 + index as u64, rows * columns);
        let random = match *rows {
            1 => random.iter().map(|x| 1.0 + 0.2 * x).collect(),
            _ if name.starts_with("token") => random,
            _ => random.iter().map(|x| 2.0 * x / (*columns as f32).sqrt()).collect::<Vec<f32>>(),
        };
        let tensor = Tensor::from_vec(random, (*rows, *columns), &Device::Cpu).unwrap();
        numbers_of_all.extend_from_slice(&QTensor::quantize(&tensor, kind).unwrap().data().unwrap());
        numbers_of_all.resize(numbers_of_all.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(numbers_of_all);
    out
}
