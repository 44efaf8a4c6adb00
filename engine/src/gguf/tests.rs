use std::io::Write;

use super::*;

/// A tiny sound file, built by hand.
struct Builder {
    pairs: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: usize,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

impl Builder {
    fn llama() -> Self {
        let mut file = Self { pairs: Vec::new(), tensors: Vec::new(), data: 0 };
        file.pairs.push(("general.architecture".into(), 8, text("llama")));
        for (key, value) in [
            ("embedding_length", 64u32),
            ("feed_forward_length", 96),
            ("block_count", 1),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("context_length", 128),
        ] {
            file.number(key, value);
        }
        let epsilon = 1e-5f32.to_le_bytes().to_vec();
        file.pairs.push(("llama.attention.layer_norm_rms_epsilon".into(), 6, epsilon));
        let tokens = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("b")].concat();
        file.pairs.push(("tokenizer.ggml.tokens".into(), 9, tokens));
        file
    }

    fn number(&mut self, key: &str, value: u32) {
        let key = format!("llama.{key}");
        self.pairs.retain(|pair| pair.0 != key);
        self.pairs.push((key, 4, value.to_le_bytes().to_vec()));
    }

    fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push((name.into(), dimensions.to_vec(), kind, offset));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            out.extend([&text(key)[..], &kind.to_le_bytes(), value].concat());
        }
        for (name, dimensions, kind, offset) in &self.tensors {
            out.extend(text(name));
            out.extend((dimensions.len() as u32).to_le_bytes());
            out.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
            out.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        }
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }

    fn open(&self) -> Result<Gguf, GgufError> {
        open(&self.bytes())
    }
}

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tunegate-gguf-{}-{count}", std::process::id()));
    File::create(&path).unwrap().write_all(bytes).unwrap();
    let outcome = Gguf::open(&path);
    std::fs::remove_file(&path).unwrap();
    outcome
}

#[test]
fn reads_a_shape() {
    let shape = Shape::read(&Builder::llama().open().unwrap()).unwrap();
    assert_eq!((shape.width, shape.head_width, shape.kv_width(), shape.vocabulary), (64, 16, 32, 2));
    assert_eq!((shape.rope_base, shape.context), (10_000.0, 128));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let mut whole = Builder::llama().tensor("t", &[64, 2], 0, 0);
    whole.data = 512;
    let bytes = whole.bytes();
    assert!(open(&bytes).unwrap().tensor("t", 2, 64).is_ok());
    for length in 0..bytes.len() {
        let outcome = open(&bytes[..length]).and_then(|mut gguf| gguf.tensor("t", 2, 64));
        assert!(outcome.is_err(), "cut at {length}");
    }
}

#[test]
fn a_file_with_any_byte_changed_is_no_panic() {
    let mut whole = Builder::llama().tensor("t", &[64, 2], 0, 0);
    whole.data = 512;
    let bytes = whole.bytes();
    for at in 0..bytes.len() - 512 {
        for value in [0x00, 0x7F, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            if let Ok(mut gguf) = open(&bytes) {
                // Sound or not, it must come back.
                let _ = (Shape::read(&gguf), gguf.tensor("t", 2, 64));
            }
        }
    }
}

#[test]
fn absurd_sizes_are_refused() {
    for key in ["embedding_length", "block_count", "attention.head_count_kv", "context_length"] {
        for value in [0, u32::MAX] {
            let mut file = Builder::llama();
            file.number(key, value);
            assert!(Shape::read(&file.open().unwrap()).is_err(), "{key} {value}");
        }
    }
    let mut file = Builder::llama();
    file.number("attention.head_count_kv", 3);
    assert!(Shape::read(&file.open().unwrap()).is_err(), "3 does not divide 4");
    let mut file = Builder::llama();
    file.number("expert_count", 8);
    assert!(Shape::read(&file.open().unwrap()).is_err(), "experts");
}

#[test]
fn tensors_are_checked() {
    let cases: [(&str, Builder); 6] = [
        ("beyond the end", Builder::llama().tensor("t", &[64, 2], 0, 1 << 40)),
        ("offset overflows", Builder::llama().tensor("t", &[64, 2], 0, u64::MAX - 8)),
        ("another shape", Builder::llama().tensor("t", &[64, 3], 0, 0)),
        ("an unknown type", Builder::llama().tensor("t", &[64, 2], 77, 0)),
        ("no whole blocks", Builder::llama().tensor("t", &[64, 2], 12, 0)),
        ("missing", Builder::llama()),
    ];
    for (name, mut file) in cases {
        file.data = 512;
        assert!(file.open().unwrap().tensor("t", 2, 64).is_err(), "{name}");
    }
    let twice = Builder::llama().tensor("t", &[64], 0, 0).tensor("t", &[64], 0, 0);
    assert!(twice.open().is_err());
}
