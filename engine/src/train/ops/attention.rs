//! Attention of one sequence, with its rotation and its mask.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Real, for_its_kind, numbers, result, tensor};
use crate::gguf;

/// Positions whose scores are in memory together: with all, a long row would need their square.
const BLOCK: usize = 256;

/// By how much each pair of channels is turned at each position: cosine and sine, `[position][pair]`.
pub(in crate::train) struct Angles(Vec<(f64, f64)>);

impl Angles {
    /// Returns those of a sequence's first positions.
    pub(in crate::train) fn new(shape: &gguf::Shape, positions: usize) -> Self {
        let pairs = shape.head_width / 2;
        let frequency = |pair| shape.rope_base.powf(-(pair as f64) / pairs as f64);
        let frequencies: Vec<f64> = (0..pairs).map(frequency).collect();
        let angles = (0..positions).flat_map(|at| frequencies.iter().map(move |f| at as f64 * f));
        Self(angles.map(|angle| (angle.cos(), angle.sin())).collect())
    }
}

/// `y = softmax(rope(q) · rope(k)ᵀ / √w) · v` for all heads, nobody seeing what comes later.
///
/// Arguments and answer have a row a token and the heads side by side, their channels in GGUF's order: a rotated pair
/// is two neighbours. Nothing but the arguments is kept for the way back: the scores are computed again.
#[derive(Clone)]
pub(in crate::train) struct Attention {
    /// Query heads.
    pub(in crate::train) heads: usize,
    /// Key and value heads, each seen by as many query heads, side by side.
    pub(in crate::train) kv_heads: usize,
    /// By how much a position is turned.
    pub(in crate::train) angles: Arc<Angles>,
}

/// Some positions of the query heads that share a key head.
struct Block {
    kv_head: usize,
    first: usize,
    end: usize,
}

impl Attention {
    fn blocks(&self, tokens: usize) -> impl Iterator<Item = Block> + use<> {
        let block = move |kv_head, first| Block { kv_head, first, end: tokens.min(first + BLOCK) };
        (0..self.kv_heads).flat_map(move |head| (0..tokens).step_by(BLOCK).map(move |at| block(head, at)))
    }

    /// Returns the heads of `x` apart, `[head][token][channel]`, turned or as they are.
    fn split(&self, x: &Tensor, heads: usize, turn: Turn) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let apart = x.reshape((tokens, heads, width / heads))?.transpose(0, 1)?.contiguous()?;
        self.turned(apart, turn)
    }

    /// Returns the heads of `x` side by side again, turned or as they are.
    fn join(&self, x: Tensor, turn: Turn) -> Result<Tensor> {
        let x = self.turned(x, turn)?;
        let (heads, tokens, width) = x.dims3()?;
        x.transpose(0, 1)?.contiguous()?.reshape((tokens, heads * width))
    }

    fn turned(&self, x: Tensor, turn: Turn) -> Result<Tensor> {
        match turn {
            Turn::Not => Ok(x),
            turn => x.apply_op1_no_bwd(&Turned { angles: Arc::clone(&self.angles), turn }),
        }
    }

    /// Returns the rows of a block of `x`, the query heads one behind the other.
    fn rows(&self, x: &Tensor, block: &Block) -> Result<Tensor> {
        let group = self.heads / self.kv_heads;
        let length = block.end - block.first;
        let rows = x.narrow(0, block.kv_head * group, group)?.narrow(1, block.first, length)?;
        rows.contiguous()?.reshape((group * length, x.dim(2)?))
    }

    /// Returns the keys or values that a block sees.
    fn seen(x: &Tensor, block: &Block) -> Result<Tensor> {
        x.get(block.kv_head)?.narrow(0, 0, block.end)
    }

    /// Puts together what was made block by block: `[query head][token][channel]`.
    fn collect(&self, parts: &[Tensor]) -> Result<Tensor> {
        let group = self.heads / self.kv_heads;
        let apart = |part: &Tensor| part.reshape((group, part.dim(0)? / group, part.dim(1)?));
        let each = parts.len() / self.kv_heads;
        let heads = parts.chunks(each).map(|parts| {
            let parts = parts.iter().map(apart).collect::<Result<Vec<_>>>()?;
            Tensor::cat(&parts, 1)
        });
        Tensor::cat(&heads.collect::<Result<Vec<_>>>()?, 0)
    }

    fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let tokens = q.dim(0)?;
        let q = self.split(q, self.heads, Turn::Forth)?;
        let (k, v) = (self.split(k, self.kv_heads, Turn::Forth)?, self.split(v, self.kv_heads, Turn::Not)?);
        let mut mixed = Vec::new();
        for block in self.blocks(tokens) {
            let shares = Softmax::of(&self.rows(&q, &block)?, &Self::seen(&k, &block)?, &block)?;
            mixed.push(shares.matmul(&Self::seen(&v, &block)?)?);
        }
        self.join(self.collect(&mixed)?, Turn::Not)
    }

    fn backward(&self, q: &Tensor, k: &Tensor, v: &Tensor, gradient: &Tensor) -> Result<[Tensor; 3]> {
        let tokens = q.dim(0)?;
        let q = self.split(q, self.heads, Turn::Forth)?;
        let (k, v) = (self.split(k, self.kv_heads, Turn::Forth)?, self.split(v, self.kv_heads, Turn::Not)?);
        let gradient = self.split(gradient, self.heads, Turn::Not)?;
        let mut for_q = Vec::new();
        let (mut for_k, mut for_v) = (vec![None; self.kv_heads], vec![None; self.kv_heads]);
        for block in self.blocks(tokens) {
            let (queries, gradient) = (self.rows(&q, &block)?, self.rows(&gradient, &block)?);
            let (keys, values) = (Self::seen(&k, &block)?, Self::seen(&v, &block)?);
            let shares = Softmax::of(&queries, &keys, &block)?;
            let of_shares = gradient.matmul(&values.t()?)?;
            let scale = scale(&queries)?;
            let of_scores = shares.apply_op2_no_bwd(&of_shares, &SoftmaxBackward { scale })?;
            for_q.push(of_scores.matmul(&keys)?);
            add(&mut for_k[block.kv_head], &of_scores.t()?.matmul(&queries)?, tokens)?;
            add(&mut for_v[block.kv_head], &shares.t()?.matmul(&gradient)?, tokens)?;
        }
        let all =
            |heads: Vec<Option<Tensor>>| Tensor::stack(&heads.into_iter().flatten().collect::<Vec<_>>(), 0);
        Ok([
            self.join(self.collect(&for_q)?, Turn::Back)?,
            self.join(all(for_k)?, Turn::Back)?,
            self.join(all(for_v)?, Turn::Not)?,
        ])
    }
}

/// Adds a block's share to the gradient of all keys, which may be more than the block saw.
fn add(sum: &mut Option<Tensor>, part: &Tensor, tokens: usize) -> Result<()> {
    let part = part.pad_with_zeros(0, 0, tokens - part.dim(0)?)?;
    *sum = Some(match sum.take() {
        None => part,
        Some(sum) => (sum + part)?,
    });
    Ok(())
}

/// Returns what scores are multiplied with: one by the root of a head's width.
fn scale(queries: &Tensor) -> Result<f64> {
    Ok(1.0 / (queries.dim(1)? as f64).sqrt())
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        result(&self.forward(&tensor(q, q_layout)?, &tensor(k, k_layout)?, &tensor(v, v_layout)?)?)
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [q, k, v] = self.backward(&q.detach(), &k.detach(), &v.detach(), gradient)?;
        Ok((Some(q), Some(k), Some(v)))
    }
}

/// Whether and which way heads are turned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Not,
    Forth,
    /// As a gradient goes: the inverse of a rotation is its transpose.
    Back,
}

/// Turns every pair of neighbouring channels of `[head][token][channel]` by its angle.
struct Turned {
    angles: Arc<Angles>,
    turn: Turn,
}

impl CustomOp1 for Turned {
    fn name(&self) -> &'static str {
        "turned"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(x, turned(self, x, layout))
    }
}

fn turned<T: Real>(how: &Turned, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let (_, tokens, width) = layout.shape().dims3()?;
    let sign = if how.turn == Turn::Back { -1.0 } else { 1.0 };
    let Some(angles) = how.angles.0.get(..tokens * width / 2) else {
        candle_core::bail!("{tokens} tokens, and angles for less")
    };
    let angles: Vec<(T, T)> =
        angles.iter().map(|(cos, sin)| (T::from_f64(*cos), T::from_f64(sign * *sin))).collect();
    let mut y = numbers::<T>(x, layout)?.to_vec();
    for head in y.chunks_exact_mut(tokens * width) {
        for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(&angles) {
            (pair[0], pair[1]) = (pair[0] * *cos - pair[1] * *sin, pair[0] * *sin + pair[1] * *cos);
        }
    }
    Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
}

/// From scores to shares: a row may see as many keys as its position allows.
struct Softmax {
    scale: f64,
    /// Position of the block's first row.
    first: usize,
    /// Positions of the block, once for each query head.
    length: usize,
}

impl Softmax {
    /// Returns how much each query of the block takes of each key's value.
    fn of(queries: &Tensor, keys: &Tensor, block: &Block) -> Result<Tensor> {
        let softmax = Self { scale: scale(queries)?, first: block.first, length: block.end - block.first };
        queries.matmul(&keys.t()?)?.apply_op1_no_bwd(&softmax)
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(scores, shares(self, scores, layout))
    }
}

fn shares<T: Real>(how: &Softmax, scores: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let (_, keys) = layout.shape().dims2()?;
    let scale = T::from_f64(how.scale);
    let scores = numbers::<T>(scores, layout)?;
    let mut shares = vec![T::zero(); scores.len()];
    let rows = scores.chunks_exact(keys).zip(shares.chunks_exact_mut(keys));
    for (row, (scores, shares)) in rows.enumerate() {
        let visible = how.first + row % how.length + 1;
        let (scores, shares) = (&scores[..visible], &mut shares[..visible]);
        let largest = scores.iter().fold(scores[0], |a, b| if *b > a { *b } else { a });
        let mut total = T::zero();
        for (share, score) in shares.iter_mut().zip(scores) {
            *share = ((*score - largest) * scale).exp();
            total += *share;
        }
        for share in shares {
            *share /= total;
        }
    }
    Ok((T::to_cpu_storage_owned(shares), layout.shape().clone()))
}

/// The gradient of the scores, from the shares and their gradient: `scale · p ∘ (dp − Σ p ∘ dp)`.
struct SoftmaxBackward {
    scale: f64,
}

impl CustomOp2 for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax, backward"
    }

    fn cpu_fwd(
        &self,
        shares: &CpuStorage,
        shares_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_its_kind!(shares, slopes(self.scale, shares, shares_layout, gradient, gradient_layout))
    }
}

fn slopes<T: Real>(
    scale: f64,
    shares: &CpuStorage,
    layout: &Layout,
    gradient: &CpuStorage,
    gradient_layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (_, keys) = layout.shape().dims2()?;
    let (shares, gradient) = (numbers::<T>(shares, layout)?, numbers::<T>(gradient, gradient_layout)?);
    let scale = T::from_f64(scale);
    let mut slopes = Vec::with_capacity(shares.len());
    for (shares, gradient) in shares.chunks_exact(keys).zip(gradient.chunks_exact(keys)) {
        let mean = shares.iter().zip(gradient).fold(T::zero(), |sum, (p, g)| sum + *p * *g);
        slopes.extend(shares.iter().zip(gradient).map(|(p, g)| scale * *p * (*g - mean)));
    }
    Ok((T::to_cpu_storage_owned(slopes), layout.shape().clone()))
}
