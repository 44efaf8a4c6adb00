//! One step of many sequences.

use std::ops::Range;

use crate::adapter::{Adapter, Block};
use crate::attention::{Group, attend};
use crate::cache::Cache;
use crate::gguf::{Gguf, GgufError, Shape};
use crate::kernels::low_rank::{Additions, Inlet, Run};
use crate::kernels::{Activation, Activations, Adapted, Packed, Product, multiply, multiply_gated, vector};
use crate::pool::{Parts, Pool};
use crate::weights;

/// Tokens that [`Engine::score`] reads in one step.
const SCORE_CHUNK: usize = 128;
/// Rows for which it runs the head at once; each takes four bytes a token of the vocabulary.
const SCORE_ROWS: usize = 16;

/// Why a step was refused; the caller's fault, and no cache was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// A sequence brought no token.
    #[error("a sequence without tokens")]
    Empty,
    /// A token that the model does not know.
    #[error("the token {0} is outside the vocabulary")]
    UnknownToken(u32),
    /// A sequence asks for the scores of more tokens than it brought, or of fewer.
    #[error("{scores} scores asked for {tokens} tokens")]
    Scores {
        /// Tokens brought.
        tokens: usize,
        /// Tokens that may follow them.
        scores: usize,
    },
    /// The sequence would outgrow the model's context.
    #[error("a sequence of {length} tokens, beyond the context of {context}")]
    TooLong {
        /// Tokens held and brought.
        length: usize,
        /// What the model allows.
        context: usize,
    },
    /// The adapter was packed for a model of another shape.
    #[error("an adapter for another model")]
    AnotherModel,
}

/// What a sequence wants of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Nothing yet: more of the prompt follows.
    Nothing,
    /// The logits after its last token.
    Logits,
    /// How likely a token is to follow each of its tokens, for those for which one is named: the logarithms of the
    /// probabilities, in their order. As many as tokens.
    Scores(&'a [Option<u32>]),
}

/// One sequence's share of a step: a chunk of its prompt, or the token it decoded last.
pub struct Item<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// What the sequence remembers; grows by these tokens.
    pub cache: &'a mut Cache,
    /// What is wanted of it.
    pub wanted: Wanted<'a>,
    /// The adapter it runs with; none for the model as it is. It must stay the same while the sequence lives, since what
    /// the sequence remembers was computed with it.
    pub adapter: Option<&'a Adapter>,
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

/// Neighbouring rows of one adapter.
struct Loan<'a> {
    rows: Range<usize>,
    adapter: &'a Adapter,
}

/// What is the same for all layers of a step.
struct Step<'a> {
    /// Those of one adapter side by side, so that its numbers are read once.
    rows: Vec<Row>,
    /// Cosine and sine of every row's angles, `[row][pair]`.
    turns: Vec<(f32, f32)>,
    /// In the order of their rows.
    loans: Vec<Loan<'a>>,
}

impl<'a> Step<'a> {
    /// Multiplies the rows that have an adapter with the thin matrices that `inlet` picks of it.
    fn additions(
        &self,
        pool: &mut Pool,
        layer: usize,
        x: &[f32],
        inlet: fn(&Block) -> &Inlet,
    ) -> Additions<'a> {
        let runs = self.loans.iter().map(|Loan { rows, adapter }| {
            let inlet = inlet(adapter.block(layer));
            Run { rows: rows.clone(), inlet }
        });
        Additions::new(pool, runs.collect(), x)
    }
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

    /// Runs every item's tokens; returns for each what it wants of them: logits, or scores.
    ///
    /// Scores take no more memory than logits, whatever the vocabulary: the head runs for a few rows at a time.
    ///
    /// # Errors
    /// If an item is empty, too long, has an unknown token, an adapter for another model, or scores for another number of
    /// tokens; then nothing was computed.
    pub fn forward(
        &self,
        pool: &mut Pool,
        items: &mut [Item<'_>],
    ) -> Result<Vec<Option<Vec<f32>>>, ForwardError> {
        let (step, x) = self.run(pool, items)?;
        let mut found = self.logits(pool, items, &step.rows, &x);
        self.scores(pool, items, &step.rows, &x, &mut found);
        Ok(found)
    }

    /// Returns the logarithm of the probability of each token but the first, given those before it.
    ///
    /// It takes the memory of one sequence.
    ///
    /// # Errors
    /// If there is no token, there are too many, one is unknown, or the adapter is for another model; then nothing was
    /// computed.
    pub fn score(
        &self,
        pool: &mut Pool,
        tokens: &[u32],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>, ForwardError> {
        self.check(0, tokens)?;
        let next: Vec<Option<u32>> = tokens[1..].iter().copied().map(Some).collect();
        let mut cache = Cache::new(&self.shape);
        let mut scores = Vec::with_capacity(next.len());
        for (tokens, next) in tokens[..next.len()].chunks(SCORE_CHUNK).zip(next.chunks(SCORE_CHUNK)) {
            let item = Item { tokens, cache: &mut cache, wanted: Wanted::Scores(next), adapter };
            scores.extend(self.forward(pool, &mut [item])?.into_iter().flatten().flatten());
        }
        Ok(scores)
    }

    /// Runs every item's tokens through all layers; returns the rows before the last norm.
    fn run<'a>(&self, pool: &mut Pool, items: &mut [Item<'a>]) -> Result<(Step<'a>, Vec<f32>), ForwardError> {
        let step = self.step(items)?;
        for item in items.iter_mut() {
            item.cache.reserve(item.tokens.len());
        }
        let mut x = self.embed(items, &step.rows);
        let mut scratch = self.scratch(step.rows.len());
        for (index, layer) in self.layers.iter().enumerate() {
            self.attention(pool, index, layer, &step, items, &mut x, &mut scratch);
            self.feed_forward(pool, index, layer, &step, &mut x, &mut scratch);
        }
        for item in items.iter_mut() {
            item.cache.advance(item.tokens.len());
        }
        Ok((step, x))
    }

    fn step<'a>(&self, items: &[Item<'a>]) -> Result<Step<'a>, ForwardError> {
        for item in items {
            self.check(item.cache.len(), item.tokens)?;
            self.check_scores(item)?;
            if item.adapter.is_some_and(|adapter| !adapter.fits(&self.shape)) {
                return Err(ForwardError::AnotherModel);
            }
        }
        let (mut rows, mut loans): (Vec<Row>, Vec<Loan<'a>>) = (Vec::new(), Vec::new());
        for index in by_adapter(items) {
            let item = &items[index];
            let start = rows.len();
            let positions = item.cache.len()..item.cache.len() + item.tokens.len();
            rows.extend(positions.map(|position| Row { item: index, position }));
            let Some(adapter) = item.adapter else { continue };
            match loans.last_mut().filter(|loan| std::ptr::eq(loan.adapter, adapter)) {
                Some(loan) => loan.rows.end = rows.len(),
                None => loans.push(Loan { rows: start..rows.len(), adapter }),
            }
        }
        Ok(Step { turns: self.turns(&rows), rows, loans })
    }

    /// Fails unless these tokens can follow `held` others.
    fn check(&self, held: usize, tokens: &[u32]) -> Result<(), ForwardError> {
        if tokens.is_empty() {
            return Err(ForwardError::Empty);
        }
        let length = held + tokens.len();
        if length > self.shape.context {
            return Err(ForwardError::TooLong { length, context: self.shape.context });
        }
        match tokens.iter().find(|token| **token as usize >= self.embedding.rows()) {
            Some(token) => Err(ForwardError::UnknownToken(*token)),
            None => Ok(()),
        }
    }

    fn check_scores(&self, item: &Item<'_>) -> Result<(), ForwardError> {
        let Wanted::Scores(next) = item.wanted else { return Ok(()) };
        if next.len() != item.tokens.len() {
            return Err(ForwardError::Scores { tokens: item.tokens.len(), scores: next.len() });
        }
        match next.iter().flatten().find(|token| **token as usize >= self.embedding.rows()) {
            Some(token) => Err(ForwardError::UnknownToken(*token)),
            None => Ok(()),
        }
    }

    fn embed(&self, items: &[Item<'_>], rows: &[Row]) -> Vec<f32> {
        let mut x = vec![0.0; rows.len() * self.shape.width];
        for (x, row) in x.chunks_exact_mut(self.shape.width).zip(rows) {
            let item = &items[row.item];
            self.embedding.row(item.tokens[row.position - item.cache.len()] as usize, x);
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
        step: &Step<'_>,
        items: &mut [Item<'_>],
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { normed, query, key, value, attended, activations, .. } = scratch;
        self.norm(pool, x, &layer.attention_norm, normed);
        let extra = step.additions(pool, index, normed, |block| &block.attention);
        activations.set(pool, normed, self.shape.width);
        let mut products = [
            Product { matrix: Adapted::new(&layer.query, &extra, 0), out: query },
            Product { matrix: Adapted::new(&layer.key, &extra, 1), out: key },
            Product { matrix: Adapted::new(&layer.value, &extra, 2), out: value },
        ];
        multiply(pool, activations, &mut products);
        self.turn(pool, query, &step.turns, self.shape.query_width());
        self.turn(pool, key, &step.turns, self.shape.kv_width());
        let kv_width = self.shape.kv_width();
        let pairs = key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width));
        for (row, (key, value)) in step.rows.iter().zip(pairs) {
            items[row.item].cache.store(index, row.position, key, value);
        }
        self.attend(pool, index, &step.rows, items, query, attended);
        let extra = step.additions(pool, index, attended, |block| &block.output);
        activations.set(pool, attended, self.shape.query_width());
        let matrix = Adapted::new(&layer.output, &extra, 0);
        multiply(pool, activations, &mut [Product { matrix, out: normed }]);
        vector::add(x, normed);
    }

    fn feed_forward(
        &self,
        pool: &mut Pool,
        index: usize,
        layer: &Layer,
        step: &Step<'_>,
        x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { normed, gated, activations, .. } = scratch;
        self.norm(pool, x, &layer.hidden_norm, normed);
        let extra = step.additions(pool, index, normed, |block| &block.hidden);
        activations.set(pool, normed, self.shape.width);
        let (gate, up) = (Adapted::new(&layer.gate, &extra, 0), Adapted::new(&layer.up, &extra, 1));
        multiply_gated(pool, activations, gate, up, gated);
        let extra = step.additions(pool, index, gated, |block| &block.down);
        activations.set(pool, gated, self.shape.hidden);
        let matrix = Adapted::new(&layer.down, &extra, 0);
        multiply(pool, activations, &mut [Product { matrix, out: normed }]);
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
    fn logits(&self, pool: &mut Pool, items: &[Item<'_>], rows: &[Row], x: &[f32]) -> Vec<Option<Vec<f32>>> {
        let mut logits: Vec<Option<Vec<f32>>> = items.iter().map(|_| None).collect();
        let mut last = Vec::new();
        let mut asked = Vec::new();
        for (row, x) in rows.iter().zip(x.chunks_exact(self.shape.width)) {
            let item = &items[row.item];
            // By now the cache holds the item's tokens.
            if item.wanted == Wanted::Logits && row.position + 1 == item.cache.len() {
                last.extend_from_slice(x);
                asked.push(row.item);
            }
        }
        if !asked.is_empty() {
            let found = self.head(pool, &last);
            for (item, found) in asked.into_iter().zip(found.chunks_exact(self.shape.vocabulary)) {
                logits[item] = Some(found.to_vec());
            }
        }
        logits
    }

    /// Runs the head for the rows behind which a token is named, a few at a time, and keeps only that token's share.
    fn scores(
        &self,
        pool: &mut Pool,
        items: &[Item<'_>],
        rows: &[Row],
        x: &[f32],
        found: &mut [Option<Vec<f32>>],
    ) {
        let width = self.shape.width;
        for (item, found) in items.iter().zip(found.iter_mut()) {
            if matches!(item.wanted, Wanted::Scores(_)) {
                *found = Some(Vec::new());
            }
        }
        let asked: Vec<(usize, usize, u32)> = rows
            .iter()
            .enumerate()
            .filter_map(|(at, row)| {
                let item = &items[row.item];
                let Wanted::Scores(next) = item.wanted else { return None };
                // By now the cache holds the item's tokens.
                Some((at, row.item, next[row.position + next.len() - item.cache.len()]?))
            })
            .collect();
        let mut some = Vec::with_capacity(SCORE_ROWS * width);
        for asked in asked.chunks(SCORE_ROWS) {
            some.clear();
            for (at, ..) in asked {
                some.extend_from_slice(&x[at * width..][..width]);
            }
            let logits = self.head(pool, &some);
            for (logits, (_, item, token)) in logits.chunks_exact(self.shape.vocabulary).zip(asked) {
                let score = logits[*token as usize] - vector::log_sum_exp(logits);
                found[*item].get_or_insert_default().push(score);
            }
        }
    }

    /// Returns the logits of each row of `x`.
    fn head(&self, pool: &mut Pool, x: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; x.len()];
        self.norm(pool, x, &self.norm, &mut normed);
        let mut activations = Activations::new(self.activation);
        activations.set(pool, &normed, self.shape.width);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let mut logits = vec![0.0; x.len() / self.shape.width * head.rows()];
        let matrix = Adapted::plain(head);
        multiply(pool, &activations, &mut [Product { matrix, out: &mut logits }]);
        logits
    }
}

/// Returns the items' places, those of one adapter one after the other, in the order of their first.
fn by_adapter(items: &[Item<'_>]) -> Vec<usize> {
    let address = |item: &Item<'_>| item.adapter.map(std::ptr::from_ref);
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_cached_key(|index| items.iter().position(|item| address(item) == address(&items[*index])));
    order
}

#[cfg(test)]
mod tests;
