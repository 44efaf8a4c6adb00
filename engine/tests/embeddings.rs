//! The encoder on the real model, against the vectors of an independent float64 implementation.
//!
//! `golden/embeddings.txt` was made by a numpy BERT with mean pooling, in float64, on the numbers of this very file
//! (all-MiniLM-L6-v2, sha256 53aa5117…), and the tokens by Hugging Face's `tokenizers` for Python.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as its tests do")]

use std::path::PathBuf;
use std::sync::LazyLock;

use tunegate_engine::{EncodeError, Encoder};

struct Golden {
    name: String,
    tokens: Vec<u32>,
    vector: Vec<(usize, f64)>,
}

fn golden() -> Vec<Golden> {
    let mut all: Vec<Golden> = Vec::new();
    for line in include_str!("golden/embeddings.txt").lines() {
        let mut words = line.split(' ');
        match words.next() {
            Some("text") => {
                let name = words.next().unwrap().to_owned();
                all.push(Golden { name, tokens: Vec::new(), vector: Vec::new() });
            }
            Some("tokens") => {
                all.last_mut().unwrap().tokens.extend(words.map(|id| id.parse::<u32>().unwrap()));
            }
            Some("vector") => all.last_mut().unwrap().vector.extend(words.map(|word| {
                let (index, number) = word.split_once(':').unwrap();
                (index.parse::<usize>().unwrap(), number.parse::<f64>().unwrap())
            })),
            _ => {}
        }
    }
    all
}

fn folder() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_EMBEDDING_MODEL").map(PathBuf::from);
    let path =
        asked.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2"));
    assert!(path.is_dir(), "no embedding model: run `make model`, or set TUNEGATE_TEST_EMBEDDING_MODEL");
    path
}

static ENCODER: LazyLock<Encoder> = LazyLock::new(|| Encoder::load(&folder()).unwrap());

fn alone(golden: &Golden) -> Vec<f32> {
    ENCODER.embed(&[&golden.tokens]).unwrap().pop().unwrap()
}

#[test]
fn vectors_equal_the_float64_reference() {
    let golden = golden();
    assert_eq!(golden.len(), 5);
    for golden in golden {
        let found = alone(&golden);
        assert_eq!(found.len(), ENCODER.dimensions());
        assert_eq!(golden.vector.len(), 48);
        for (index, exact) in golden.vector {
            let gap = (f64::from(found[index]) - exact).abs();
            assert!(gap < 2e-6, "{} at {index}: {gap:.1e}", golden.name);
        }
        let length: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{}: {length}", golden.name);
    }
}

#[test]
fn neighbours_change_no_bit() {
    let golden = golden();
    let texts: Vec<&[u32]> = golden.iter().map(|golden| &*golden.tokens).collect();
    let together = ENCODER.embed(&texts).unwrap();
    for (golden, together) in golden.iter().zip(together) {
        assert!(alone(golden) == together, "{} differs", golden.name);
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    assert!(ENCODER.embed(&[]).unwrap().is_empty());
    assert_eq!(ENCODER.embed(&[&[101], &[]]), Err(EncodeError::Length { tokens: 0, most: 512 }));
    assert_eq!(ENCODER.embed(&[&[7; 513]]), Err(EncodeError::Length { tokens: 513, most: 512 }));
    assert_eq!(ENCODER.embed(&[&[30_522]]), Err(EncodeError::Token(30_522)));
}
