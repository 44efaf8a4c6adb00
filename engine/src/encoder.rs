//! Texts to vectors: a BERT encoder with mean pooling and unit length, such as all-MiniLM-L6-v2.
//!
//! Everything is computed in f32: the model is small, and its vectors are compared with those that others made of the
//! same text. Texts of one call share the passes over the weights, and nothing else: there is no padding, and a text's
//! vector does not depend on its neighbours.

mod attention;

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::kernels::dense::Dense;
use crate::kernels::vector;
use crate::tensors::{Tensors, TensorsError};

/// The largest sizes that we take from a file's word.
const MOST_LAYERS: usize = 96;
const MOST_WIDTH: usize = 1 << 14;
const MOST_ROWS: usize = 1 << 22;
/// Sizes are whole tiles of the kernels.
const GRAIN: usize = 16;

/// Why a model's folder can't be used. Always the files' fault, never worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// A file cannot be read.
    #[error("cannot read the embedding model: {0}")]
    Io(#[from] io::Error),
    /// It is cut short, or contradicts itself.
    #[error("not a sound embedding model: {0}")]
    Malformed(String),
    /// It is sound, but this engine does not run it.
    #[error("this embedding model cannot be served: {0}")]
    Unsupported(String),
}

impl From<TensorsError> for EncoderError {
    fn from(error: TensorsError) -> Self {
        match error {
            TensorsError::Io(error) => Self::Io(error),
            TensorsError::Malformed(why) => Self::Malformed(why),
            TensorsError::Unsupported(why) => Self::Unsupported(why),
        }
    }
}

/// Why texts were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A text has no tokens, or more than there are positions.
    #[error("a text of {tokens} tokens; from 1 to {most} are taken")]
    Length {
        /// Its tokens.
        tokens: usize,
        /// Positions of the model.
        most: usize,
    },
    /// A token is none of the model's.
    #[error("the token {0} is outside the vocabulary")]
    Token(u32),
}

/// Sizes of a model, as its `config.json` has them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sizes {
    vocabulary: usize,
    positions: usize,
    width: usize,
    /// Of the inner layer between two linear ones.
    inner: usize,
    heads: usize,
    layers: usize,
    epsilon: f32,
}

/// Scale and shift behind a mean of 0 and a deviation of 1.
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Layer {
    /// Query, key and value side by side.
    attention: Dense,
    attended: Dense,
    attended_norm: Norm,
    widened: Dense,
    narrowed: Dense,
    narrowed_norm: Norm,
}

/// A loaded model.
pub struct Encoder {
    sizes: Sizes,
    /// A row a token.
    words: Vec<f32>,
    /// A row a position, that of the only segment added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Loads `config.json` and `model.safetensors` out of a folder; takes some tenths of a second for 90 MiB.
    ///
    /// # Errors
    /// If a file is missing, broken, or of a model that is computed otherwise.
    pub fn load(folder: &Path) -> Result<Self, EncoderError> {
        let sizes = Sizes::parse(&fs::read(folder.join("config.json"))?)?;
        let mut file = Tensors::open(&folder.join("model.safetensors"))?;
        let Sizes { vocabulary, width, .. } = sizes;
        let words = file.read("embeddings.word_embeddings.weight", &[vocabulary, width])?;
        let mut positions = file.read("embeddings.position_embeddings.weight", &[sizes.positions, width])?;
        // A single text is all of the first of two kinds.
        let kinds = file.read("embeddings.token_type_embeddings.weight", &[2, width])?;
        for position in positions.chunks_exact_mut(width) {
            vector::add(position, &kinds[..width]);
        }
        let norm = Norm::read(&mut file, "embeddings.LayerNorm", width)?;
        let layers = (0..sizes.layers).map(|index| Layer::read(&mut file, index, &sizes));
        Ok(Self { sizes, words, positions, norm, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Returns how many numbers a vector has.
    pub fn dimensions(&self) -> usize {
        self.sizes.width
    }

    /// Returns how many tokens the model knows.
    pub fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    /// Returns how many tokens a text may have.
    pub fn positions(&self) -> usize {
        self.sizes.positions
    }

    /// Returns a vector of length 1 for each text, given as its tokens with those that open and close it.
    ///
    /// # Errors
    /// If a text is empty, too long, or holds an unknown token; then nothing was computed.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        let Sizes { width, positions, epsilon, .. } = self.sizes;
        for text in texts {
            if text.is_empty() || text.len() > positions {
                return Err(EncodeError::Length { tokens: text.len(), most: positions });
            }
            if let Some(unknown) = text.iter().find(|token| **token as usize >= self.sizes.vocabulary) {
                return Err(EncodeError::Token(*unknown));
            }
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let mut x = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() * width);
        for text in texts {
            for (token, position) in text.iter().zip(self.positions.chunks_exact(width)) {
                let start = x.len();
                x.extend_from_slice(&self.words[*token as usize * width..][..width]);
                vector::add(&mut x[start..], position);
            }
        }
        self.norm.apply(&mut x, epsilon);
        for layer in &self.layers {
            layer.apply(&mut x, texts, &self.sizes);
        }
        let mut rows = x.chunks_exact(width);
        Ok(texts.iter().map(|text| pooled(rows.by_ref().take(text.len()), width)).collect())
    }
}

/// The mean of the rows, made 1 long.
fn pooled<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for row in rows {
        vector::add(&mut sum, row);
    }
    // The mean differs from the sum by its length only, which goes.
    let length = sum.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        for x in &mut sum {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    sum
}

impl Sizes {
    fn parse(json: &[u8]) -> Result<Self, EncoderError> {
        let config: Value = serde_json::from_slice(json)
            .map_err(|error| EncoderError::Malformed(format!("config.json: {error}")))?;
        for (name, wanted) in
            [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")]
        {
            // What is not written is as in the first BERT.
            if config[name].as_str().is_some_and(|found| found != wanted) {
                let found = &config[name];
                return Err(EncoderError::Unsupported(format!("its {name} is {found}, not \"{wanted}\"")));
            }
        }
        let size = |name: &str, most: usize| {
            let found = config[name].as_u64().and_then(|size| usize::try_from(size).ok());
            found.filter(|size| (1..=most).contains(size)).ok_or_else(|| {
                EncoderError::Malformed(format!("config.json: {name} is no number from 1 to {most}"))
            })
        };
        let sizes = Self {
            vocabulary: size("vocab_size", MOST_ROWS)?,
            positions: size("max_position_embeddings", MOST_ROWS)?,
            width: size("hidden_size", MOST_WIDTH)?,
            inner: size("intermediate_size", MOST_WIDTH)?,
            heads: size("num_attention_heads", MOST_WIDTH)?,
            layers: size("num_hidden_layers", MOST_LAYERS)?,
            epsilon: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
        };
        let Self { width, inner, heads, .. } = sizes;
        if !width.is_multiple_of(GRAIN) || !inner.is_multiple_of(GRAIN) || !width.is_multiple_of(heads) {
            let why =
                format!("{width} wide with {heads} heads and {inner} inside: no whole tiles of {GRAIN}");
            return Err(EncoderError::Unsupported(why));
        }
        Ok(sizes)
    }
}

impl Norm {
    fn read(file: &mut Tensors, name: &str, width: usize) -> Result<Self, EncoderError> {
        let weight = file.read(&format!("{name}.weight"), &[width])?;
        Ok(Self { weight, bias: file.read(&format!("{name}.bias"), &[width])? })
    }

    fn apply(&self, x: &mut [f32], epsilon: f32) {
        for row in x.chunks_exact_mut(self.weight.len()) {
            vector::layer_norm(row, &self.weight, &self.bias, epsilon);
        }
    }
}

impl Layer {
    fn read(file: &mut Tensors, index: usize, sizes: &Sizes) -> Result<Self, EncoderError> {
        let Sizes { width, inner, .. } = *sizes;
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        let (mut weights, mut bias) = (Vec::with_capacity(3 * width * width), Vec::with_capacity(3 * width));
        for name in ["query", "key", "value"] {
            let name = at(&format!("attention.self.{name}"));
            weights.extend(file.read(&format!("{name}.weight"), &[width, width])?);
            bias.extend(file.read(&format!("{name}.bias"), &[width])?);
        }
        let attention = Dense::new(width, &weights, bias);
        let mut dense = |name: &str, inputs: usize, outputs: usize| {
            let weights = file.read(&format!("{name}.weight"), &[outputs, inputs])?;
            let bias = file.read(&format!("{name}.bias"), &[outputs])?;
            Ok::<_, EncoderError>(Dense::new(inputs, &weights, bias))
        };
        let attended = dense(&at("attention.output.dense"), width, width)?;
        let widened = dense(&at("intermediate.dense"), width, inner)?;
        let narrowed = dense(&at("output.dense"), inner, width)?;
        let attended_norm = Norm::read(file, &at("attention.output.LayerNorm"), width)?;
        let narrowed_norm = Norm::read(file, &at("output.LayerNorm"), width)?;
        Ok(Self { attention, attended, attended_norm, widened, narrowed, narrowed_norm })
    }

    fn apply(&self, x: &mut [f32], texts: &[&[u32]], sizes: &Sizes) {
        let Sizes { width, heads, epsilon, .. } = *sizes;
        let seen = self.attention.of(x);
        let mut mixed = vec![0.0; x.len()];
        let mut start = 0;
        for text in texts {
            let seen = &seen[start * 3 * width..][..text.len() * 3 * width];
            attention::attend(seen, width, heads, &mut mixed[start * width..][..text.len() * width]);
            start += text.len();
        }
        vector::add(x, &self.attended.of(&mixed));
        self.attended_norm.apply(x, epsilon);
        let mut wide = self.widened.of(x);
        vector::gelu(&mut wide);
        vector::add(x, &self.narrowed.of(&wide));
        self.narrowed_norm.apply(x, epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"model_type":"bert","hidden_act":"gelu","position_embedding_type":"absolute",
        "vocab_size":30522,"max_position_embeddings":512,"hidden_size":384,"intermediate_size":1536,
        "num_attention_heads":12,"num_hidden_layers":6,"layer_norm_eps":1e-12}"#;

    #[test]
    fn only_what_is_computed_here_is_taken() {
        let sizes = Sizes::parse(CONFIG.as_bytes()).unwrap();
        assert_eq!((sizes.width, sizes.heads, sizes.layers, sizes.inner), (384, 12, 6, 1536));
        for (from, to, want) in [
            ("\"bert\"", "\"roberta\"", "model_type"),
            ("\"gelu\"", "\"gelu_new\"", "hidden_act"),
            ("absolute", "relative_key", "position_embedding_type"),
            ("384", "380", "no whole tiles"),
            (":12,", ":7,", "no whole tiles"),
            (":6,", ":97,", "num_hidden_layers"),
            (":6,", ":0,", "num_hidden_layers"),
            ("30522", "1e9", "vocab_size"),
            ("{", "[", "config.json"),
        ] {
            let error = Sizes::parse(CONFIG.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{from} as {to}: {error}");
        }
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let folder = std::env::temp_dir().join(format!("tunegate-encoder-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), CONFIG).unwrap();
        let header =
            r#"{"embeddings.word_embeddings.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
        let file = |header: &str, length: u64, numbers: usize| {
            [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; numbers]].concat()
        };
        let length = header.len() as u64;
        for (name, bytes, want) in [
            ("nothing", Vec::new(), "cannot read"),
            ("too long a header", file(header, u64::MAX, 16), "claims"),
            ("no JSON", file("hello", 5, 0), "header"),
            ("overlapping", file(&header.replace("[0,16]", "[4,20]"), length, 20), "header"),
            ("cut short", file(header, length, 15), "cut short"),
            ("another shape", file(header, length, 16), "[2, 2], not [30522, 384]"),
            ("another kind", file(&header.replace("F32", "I32"), length, 16), "I32"),
            (
                "another name",
                file(&header.replace("words", "wurds").replace("word_", "wurd_"), length, 16),
                "missing",
            ),
        ] {
            fs::write(folder.join("model.safetensors"), bytes).unwrap();
            let error = Encoder::load(&folder).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(want), "{name}: {error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
