//! The shape of a llama-like model.

use super::{Gguf, GgufError};

/// The sizes the forward pass needs; all were checked to fit together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Width of the residual stream.
    pub width: usize,
    /// Width between the feed-forward matrices.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Channels of one head; even.
    pub head_width: usize,
    /// Tokens the model knows.
    pub vocabulary: usize,
    /// Positions of one sequence.
    pub context: usize,
    /// Added to the mean square before the root is taken.
    pub epsilon: f32,
    /// Base of the rotary wavelengths.
    pub rope_base: f64,
}

/// No model of this kind is wider; a larger number is a broken file.
const WIDEST: u64 = 1 << 20;

impl Shape {
    /// Reads the shape from the metadata of a llama-like model.
    ///
    /// # Errors
    /// If a size is missing or absurd, or the model needs something this engine does not compute (another
    /// architecture, scaled rotary positions, experts).
    pub fn read(gguf: &Gguf) -> Result<Self, GgufError> {
        let architecture = gguf.text("general.architecture")?;
        if architecture != "llama" {
            return Err(GgufError::Unsupported(format!("its architecture is {architecture}, not llama")));
        }
        refuse_extras(gguf)?;
        let size = |key: &str| -> Result<usize, GgufError> {
            let value = gguf.number(&format!("llama.{key}"))?;
            if value == 0 || value > WIDEST {
                return Err(GgufError::Malformed(format!("llama.{key} is {value}")));
            }
            Ok(value as usize)
        };
        let or = |key: &str, absent: usize| match gguf.value(&format!("llama.{key}")) {
            None => Ok(absent),
            Some(_) => size(key),
        };
        let width = size("embedding_length")?;
        let heads = size("attention.head_count")?;
        let head_width = or("attention.key_length", width / heads)?;
        let shape = Self {
            width,
            hidden: size("feed_forward_length")?,
            layers: size("block_count")?,
            heads,
            kv_heads: or("attention.head_count_kv", heads)?,
            head_width,
            vocabulary: or("vocab_size", gguf.texts("tokenizer.ggml.tokens")?.len())?,
            context: size("context_length")?,
            epsilon: real(gguf, "llama.attention.layer_norm_rms_epsilon")? as f32,
            rope_base: match gguf.value("llama.rope.freq_base") {
                None => 10_000.0,
                Some(_) => real(gguf, "llama.rope.freq_base")?,
            },
        };
        let rotated = or("rope.dimension_count", head_width)?;
        let value_width = or("attention.value_length", head_width)?;
        shape.check(rotated, value_width)?;
        Ok(shape)
    }

    /// Returns the channels of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Returns the channels of all key heads together, which are those of the values too.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
    }

    fn check(&self, rotated: usize, value_width: usize) -> Result<(), GgufError> {
        let refuse = |reason: &str| Err(GgufError::Unsupported(reason.to_owned()));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse("its key heads do not divide its query heads");
        }
        if self.head_width == 0 || !self.head_width.is_multiple_of(2) || self.head_width > 1024 {
            return refuse("its heads have an odd or extreme width");
        }
        if rotated != self.head_width || value_width != self.head_width {
            return refuse("its heads are rotated in part only, or keys and values differ in width");
        }
        if !(self.epsilon > 0.0 && self.epsilon < 1.0 && self.rope_base > 1.0 && self.rope_base < 1e12) {
            return refuse("its epsilon or rotary base is out of range");
        }
        Ok(())
    }
}

fn real(gguf: &Gguf, key: &str) -> Result<f64, GgufError> {
    let value = gguf.value(key).and_then(super::Value::real);
    value.ok_or_else(|| GgufError::Malformed(format!("{key} is missing or not a number")))
}

/// What a llama file may ask for beyond the plain model; computing the plain model instead would be wrong.
fn refuse_extras(gguf: &Gguf) -> Result<(), GgufError> {
    let refuse = |reason: &str| Err(GgufError::Unsupported(reason.to_owned()));
    if gguf.text("llama.rope.scaling.type").is_ok_and(|kind| kind != "none")
        || gguf.has_tensor("rope_freqs.weight")
    {
        return refuse("it scales its rotary positions");
    }
    if gguf.number("llama.expert_count").is_ok_and(|experts| experts > 0) {
        return refuse("it is a mixture of experts");
    }
    if gguf.has_tensor("blk.0.attn_q.bias") {
        return refuse("its attention has biases");
    }
    Ok(())
}
