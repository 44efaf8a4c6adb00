//! One step of many sequences.

use crate::attention::{Group, attend};
use crate::cache::Cache;
use crate::gguf::{Gguf, GgufError, Shape};
use crate::kernels::{Activation, Activations, Packed, Product, multiply, multiply_gated, vector};
use crate::pool::{Parts, Pool};
use crate::weights;

/// Why a step was refused; the caller's fault, and no cache was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// A sequence brought no token.
    #[error("a sequence without tokens")]
    Empty,
    /// A token that the model does not know.
    #[error("the token {0} is outside the vocabulary")]
    UnknownToken(u32),
    /// The sequence would outgrow the model's context.
    #[error("a sequence of {length} tokens, beyond the context of {context}")]
    TooLong {
        /// Tokens held and brought.
        length: usize,
        /// What the model allows.
        context: usize,
    },
}

/// One sequence's share of a step: a chunk of its prompt, or the token it decoded last.
pub struct Item<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// What the sequence remembers; grows by these tokens.
    pub cache: &'a mut Cache,
    /// Whether the logits after the last token are wanted.
    pub logits: bool,
}

/// A loaded model: weights only, shared by all sequences.
pub struct Engine {
    shape: Shape,
    activation: Activation,
    embedding: Packed,
    /// `None` where the embedding is the head too.
    head: Option<Packed>,
    norm: Vec<f32>,
    layers: Vec<Layer>,
    /// Turns a position into angles: one factor for each pair of channels.
    frequencies: Vec<f64>,
}

struct Layer {
    attention_norm: Vec<f32>,
    query: Packed,
    key: Packed,
    value: Packed,
    output: Packed,
    hidden_norm: Vec<f32>,
    gate: Packed,
    up: Packed,
    down: Packed,
}

impl Layer {
    fn load(gguf: &mut Gguf, shape: &Shape, index: usize) -> Result<Self, GgufError> {
        let (width, hidden) = (shape.width, shape.hidden);
        let (query, kv) = (shape.query_width(), shape.kv_width());
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Self {
            attention_norm: weights::vector(gguf, &name("attn_norm"), width)?,
            query: weights::matrix(gguf, &name("attn_q"), query, width)?,
            key: weights::matrix(gguf, &name("attn_k"), kv, width)?,
            value: weights::matrix(gguf, &name("attn_v"), kv, width)?,
            output: weights::matrix(gguf, &name("attn_output"), width, query)?,
            hidden_norm: weights::vector(gguf, &name("ffn_norm"), width)?,
            gate: weights::matrix(gguf, &name("ffn_gate"), hidden, width)?,
            up: weights::matrix(gguf, &name("ffn_up"), hidden, width)?,
            down: weights::matrix(gguf, &name("ffn_down"), width, hidden)?,
        })
    }

    fn matrices(&self) -> [&Packed; 7] {
        [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down]
    }
}

/// Which item a row belongs to, and where it stands in its sequence.
#[derive(Clone, Copy)]
struct Row {
    item: usize,
    position: usize,
}

/// Rows of numbers that live as long as one step.
struct Scratch {
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gated: Vec<f32>,
    activations: Activations,
}

impl Engine {
    /// Loads the model of an open file.
    ///
    /// # Errors
    /// If a tensor is missing, of the wrong shape or of a type we do not read.
    pub fn load(gguf: &mut Gguf, activation: Activation) -> Result<Self, GgufError> {
        let shape = Shape::read(gguf)?;
        let embedding = weights::matrix(gguf, "token_embd.weight", shape.vocabulary, shape.width)?;
        let head = match gguf.has_tensor("output.weight") {
            true => Some(weights::matrix(gguf, "output.weight", shape.vocabulary, shape.width)?),
            false => None,
        };
        let layers = (0..shape.layers).map(|i| Layer::load(gguf, &shape, i)).collect::<Result<_, _>>()?;
        let norm = weights::vector(gguf, "output_norm.weight", shape.width)?;
        let frequencies = (0..shape.head_width / 2)
            .map(|pair| shape.rope_base.powf(-2.0 * pair as f64 / shape.head_width as f64))
            .collect();
        Ok(Self { shape, activation, embedding, head, norm, layers, frequencies })
    }

    /// Returns the model's sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the bytes of all weights in memory.
    pub fn size_bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::matrices);
        layers.chain(&self.head).chain([&self.embedding]).map(Packed::size_bytes).sum()
    }

    /// Runs every item's tokens; returns for each the logits after its last token, where it wants them.
    ///
    /// # Errors
    /// If an item is empty, too long or has an unknown token; then nothing was computed.
    pub fn forward(
        &self,
        pool: &mut Pool,
        items: &mut [Item<'_>],
    ) -> Result<Vec<Option<Vec<f32>>>, ForwardError> {
        let rows = self.rows(items)?;
        for item in items.iter_mut() {
            item.cache.reserve(item.tokens.len());
        }
        let mut x = self.embed(items, rows.len());
        let turns = self.turns(&rows);
        let mut scratch = self.scratch(rows.len());
        for (index, layer) in self.layers.iter().enumerate() {
            self.attention(pool, index, layer, &rows, &turns, items, &mut x, &mut scratch);
            self.feed_forward(pool, layer, &mut x, &mut scratch);
        }
        for item in items.iter_mut() {
            item.cache.advance(item.tokens.len());
        }
        Ok(self.logits(pool, items, &x, &mut scratch.activations))
    }

    fn rows(&self, items: &[Item<'_>]) -> Result<Vec<Row>, ForwardError> {
        let mut rows = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if item.tokens.is_empty() {
                return Err(ForwardError::Empty);
            }
            let length = item.cache.len() + item.tokens.len();
            if length > self.shape.context {
                return Err(ForwardError::TooLong { length, context: self.shape.context });
            }
            if let Some(token) = item.tokens.iter().find(|token| **token as usize >= self.embedding.rows()) {
                return Err(ForwardError::UnknownToken(*token));
            }
            rows.extend((item.cache.len()..length).map(|position| Row { item: index, position }));
        }
        Ok(rows)
    }

    fn embed(&self, items: &[Item<'_>], rows: usize) -> Vec<f32> {
        let mut x = vec![0.0; rows * self.shape.width];
        let tokens = items.iter().flat_map(|item| item.tokens);
        for (row, token) in x.chunks_exact_mut(self.shape.width).zip(tokens) {
            self.embedding.row(*token as usize, row);
        }
        x
    }

    /// Returns cosine and sine of every row's angles, `[row][pair]`; the same for all layers.
    fn turns(&self, rows: &[Row]) -> Vec<(f32, f32)> {
        let angles = rows.iter().flat_map(|row| self.frequencies.iter().map(|f| row.position as f64 * f));
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).collect()
    }

    fn scratch(&self, rows: usize) -> Scratch {
        let shape = &self.shape;
        let room = |width: usize| vec![0.0; rows * width];
        Scratch {
            normed: room(shape.width),
            query: room(shape.query_width()),
            key: room(shape.kv_width()),
            value: room(shape.kv_width()),
            attended: room(shape.query_width()),
            gated: room(shape.hidden),
            activations: Activations::new(self.activation),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step's state, passed once; a struct would only rename it"
    )]
    fn attention(
        &self,
        pool: &mut Pool,
        index: usize,
        layer: &Layer,
        rows: &[Row],
        turns: &[(f32, f32)],
        items: &mut [Item<'_>],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { normed, query, key, value, attended, activations, .. } = scratch;
        self.norm(pool, x, &layer.attention_norm, normed);
        activations.set(pool, normed, self.shape.width);
        let mut products = [
            Product { weights: &layer.query, out: query },
            Product { weights: &layer.key, out: key },
            Product { weights: &layer.value, out: value },
        ];
        multiply(pool, activations, &mut products);
        self.turn(pool, query, turns, self.shape.query_width());
        self.turn(pool, key, turns, self.shape.kv_width());
        let kv_width = self.shape.kv_width();
        let pairs = key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width));
        for (row, (key, value)) in rows.iter().zip(pairs) {
            items[row.item].cache.store(index, row.position, key, value);
        }
        self.attend(pool, index, rows, items, query, attended);
        activations.set(pool, attended, self.shape.query_width());
        multiply(pool, activations, &mut [Product { weights: &layer.output, out: normed }]);
        vector::add(x, normed);
    }

    fn feed_forward(&self, pool: &mut Pool, layer: &Layer, x: &mut [f32], scratch: &mut Scratch) {
        let Scratch { normed, gated, activations, .. } = scratch;
        self.norm(pool, x, &layer.hidden_norm, normed);
        activations.set(pool, normed, self.shape.width);
        multiply_gated(pool, activations, &layer.gate, &layer.up, gated);
        activations.set(pool, gated, self.shape.hidden);
        multiply(pool, activations, &mut [Product { weights: &layer.down, out: normed }]);
        vector::add(x, normed);
    }

    fn norm(&self, pool: &mut Pool, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let width = weight.len();
        let out = Parts::new(out);
        pool.run(x.len() / width, 16, |range| {
            for row in range {
                // SAFETY: each row is one unit.
                let out = unsafe { out.part(row * width, width) };
                vector::rms_norm(&x[row * width..][..width], weight, self.shape.epsilon, out);
            }
        });
    }

    /// Rotates neighbouring pairs of channels by their row's angles, as GGUF stores llama's heads.
    fn turn(&self, pool: &mut Pool, x: &mut [f32], turns: &[(f32, f32)], width: usize) {
        let half = self.shape.head_width / 2;
        let rows = x.len() / width;
        let x = Parts::new(x);
        pool.run(rows, 8, |range| {
            for row in range {
                // SAFETY: each row is one unit.
                let x = unsafe { x.part(row * width, width) };
                for head in x.chunks_exact_mut(2 * half) {
                    let turns = &turns[row * half..][..half];
                    for ([a, b], (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                    }
                }
            }
        });
    }

    fn attend(
        &self,
        pool: &mut Pool,
        layer: usize,
        rows: &[Row],
        items: &[Item<'_>],
        query: &[f32],
        out: &mut [f32],
    ) {
        let shape = &self.shape;
        let width = shape.heads / shape.kv_heads * shape.head_width;
        let caches: Vec<&Cache> = items.iter().map(|item| &*item.cache).collect();
        let out = Parts::new(out);
        pool.run(rows.len() * shape.kv_heads, 1, |range| {
            let mut scores = Vec::new();
            for unit in range {
                let row = &rows[unit / shape.kv_heads];
                let group = Group { layer, head: unit % shape.kv_heads, length: row.position + 1 };
                let at = unit * width;
                // SAFETY: a row's heads that share a key head are one unit.
                let out = unsafe { out.part(at, width) };
                attend(shape, caches[row.item], &group, &query[at..at + width], &mut scores, out);
            }
        });
    }

    /// Runs the head for the last rows that are asked for, and only those.
    fn logits(
        &self,
        pool: &mut Pool,
        items: &[Item<'_>],
        x: &[f32],
        activations: &mut Activations,
    ) -> Vec<Option<Vec<f32>>> {
        let width = self.shape.width;
        let mut last = Vec::new();
        let mut row = 0;
        for item in items {
            row += item.tokens.len();
            if item.logits {
                last.extend_from_slice(&x[(row - 1) * width..row * width]);
            }
        }
        if last.is_empty() {
            return items.iter().map(|_| None).collect();
        }
        let mut normed = vec![0.0; last.len()];
        self.norm(pool, &last, &self.norm, &mut normed);
        activations.set(pool, &normed, width);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let mut logits = vec![0.0; last.len() / width * head.rows()];
        multiply(pool, activations, &mut [Product { weights: head, out: &mut logits }]);
        let mut logits = logits.chunks_exact(head.rows());
        items.iter().map(|item| if item.logits { logits.next().map(<[f32]>::to_vec) } else { None }).collect()
    }
}
