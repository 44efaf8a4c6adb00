//! Attention of one row over its sequence's cache.

use crate::cache::{Cache, TILE};
use crate::gguf::Shape;
use crate::kernels::vector;

/// One row's query heads that share a key head.
pub(crate) struct Group {
    pub(crate) layer: usize,
    /// The key head.
    pub(crate) head: usize,
    /// Positions that the row sees, its own among them.
    pub(crate) length: usize,
}

/// Query heads that one pass over keys and values serves.
const AT_ONCE: usize = 4;

/// Writes `softmax(q · k / √width) · v` for the query heads in `query`, one after the other.
///
/// `scores` is scratch space, kept by the caller between calls.
pub(crate) fn attend(
    shape: &Shape,
    cache: &Cache,
    group: &Group,
    query: &[f32],
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let width = shape.head_width;
    let tiles = group.length.div_ceil(TILE);
    for (query, out) in query.chunks(AT_ONCE * width).zip(out.chunks_mut(AT_ONCE * width)) {
        let heads = query.len() / width;
        scores.resize(heads * tiles * TILE, 0.0);
        for tile in 0..tiles {
            let keys = cache.keys(group.layer, tile, group.head, width);
            score_tile(query, keys, width, &mut scores[tile * TILE..], tiles * TILE);
        }
        for scores in scores.chunks_exact_mut(tiles * TILE) {
            vector::softmax(&mut scores[..group.length]);
        }
        out.fill(0.0);
        let stride = shape.kv_width();
        let offset = group.head * width;
        let mut done = 0;
        for values in cache.values(group.layer) {
            let positions = (group.length - done).min(values.len() / stride);
            let sum = Sum { values, stride, offset, positions, weights: &scores[done..], row: tiles * TILE };
            sum.add_to(width, out);
            done += positions;
            if done == group.length {
                break;
            }
        }
    }
}

/// Writes the scaled scores of sixteen positions for up to four heads, `row` apart.
fn score_tile(query: &[f32], keys: &[u16], width: usize, scores: &mut [f32], row: usize) {
    let scale = 1.0 / (width as f32).sqrt();
    #[cfg(target_arch = "x86_64")]
    if vector::level() == vector::Level::Avx512 {
        // SAFETY: `level` says that the instructions exist.
        unsafe {
            match query.len() / width {
                4 => wide::score_tile::<4>(query, keys, scale, scores, row),
                3 => wide::score_tile::<3>(query, keys, scale, scores, row),
                2 => wide::score_tile::<2>(query, keys, scale, scores, row),
                _ => wide::score_tile::<1>(query, keys, scale, scores, row),
            }
        }
        return;
    }
    score_tile_portable(query, keys, width, scale, scores, row);
}

fn score_tile_portable(
    query: &[f32],
    keys: &[u16],
    width: usize,
    scale: f32,
    scores: &mut [f32],
    row: usize,
) {
    let mut sums = [[0f32; TILE]; AT_ONCE];
    for (channel, keys) in keys.as_chunks::<TILE>().0.iter().enumerate() {
        let keys = widen(keys);
        for (sums, query) in sums.iter_mut().zip(query.chunks_exact(width)) {
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum += query[channel] * key;
            }
        }
    }
    for (head, sums) in sums.iter().take(query.len() / width).enumerate() {
        for (score, sum) in scores[head * row..][..TILE].iter_mut().zip(sums) {
            *score = sum * scale;
        }
    }
}

/// Widens some halves, by hardware where it can.
fn widen<const N: usize>(halves: &[u16; N]) -> [f32; N] {
    use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
    let mut out = [0.0; N];
    halves.reinterpret_cast::<half::f16>().convert_to_f32_slice(&mut out);
    out
}

/// A weighted sum over the values of one page.
struct Sum<'a> {
    values: &'a [u16],
    /// Numbers from one position to the next.
    stride: usize,
    /// Where the head begins within a position.
    offset: usize,
    positions: usize,
    /// One a position; the next head's are `row` further on.
    weights: &'a [f32],
    row: usize,
}

impl Sum<'_> {
    /// Adds the sum to up to four heads of `width` channels.
    fn add_to(&self, width: usize, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if vector::level() == vector::Level::Avx512 && width.is_multiple_of(TILE) {
            // SAFETY: `level` says that the instructions exist.
            unsafe {
                match out.len() / width {
                    4 => wide::add_values::<4>(self, width, out),
                    3 => wide::add_values::<3>(self, width, out),
                    2 => wide::add_values::<2>(self, width, out),
                    _ => wide::add_values::<1>(self, width, out),
                }
            }
            return;
        }
        self.add_to_portable(width, out);
    }

    fn add_to_portable(&self, width: usize, out: &mut [f32]) {
        // Heads of an even width at least: eight channels at a time, then the rest.
        for (position, values) in self.values.chunks(self.stride).take(self.positions).enumerate() {
            let values = &values[self.offset..][..width];
            let mut channel = 0;
            while channel < width {
                let wide: [f32; 8] = match values[channel..].first_chunk() {
                    Some(values) => widen(values),
                    None => {
                        let mut rest = [0; 8];
                        rest[..width - channel].copy_from_slice(&values[channel..]);
                        widen(&rest)
                    }
                };
                for (head, out) in out.chunks_exact_mut(width).enumerate() {
                    let weight = self.weights[head * self.row + position];
                    for (out, value) in out[channel..].iter_mut().zip(wide) {
                        *out += weight * value;
                    }
                }
                channel += wide.len();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512, _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{Sum, TILE};

    /// # Safety
    /// The machine must have AVX-512 F and F16C.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,f16c,fma")]
    unsafe fn widen(halves: &[u16; TILE]) -> __m512 {
        // SAFETY: sixteen halves are the 32 bytes that are read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast())) }
    }

    /// # Safety
    /// The machine must have AVX-512 F and F16C.
    #[target_feature(enable = "avx512f,avx512vl,f16c,fma")]
    pub(super) unsafe fn score_tile<const HEADS: usize>(
        query: &[f32],
        keys: &[u16],
        scale: f32,
        scores: &mut [f32],
        row: usize,
    ) {
        let width = query.len() / HEADS;
        let mut sums = [_mm512_setzero_ps(); HEADS];
        for (channel, keys) in keys.as_chunks::<TILE>().0.iter().take(width).enumerate() {
            // SAFETY: the features are this function's contract.
            let keys = unsafe { widen(keys) };
            for (head, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(query[head * width + channel]), keys, *sum);
            }
        }
        for (head, sum) in sums.into_iter().enumerate() {
            let scores = &mut scores[head * row..][..TILE];
            // SAFETY: sixteen floats are written, which the slice has.
            unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), _mm512_mul_ps(sum, _mm512_set1_ps(scale))) };
        }
    }

    /// # Safety
    /// The machine must have AVX-512 F and F16C; `width` is a multiple of 16.
    #[target_feature(enable = "avx512f,avx512vl,f16c,fma")]
    pub(super) unsafe fn add_values<const HEADS: usize>(sum: &Sum<'_>, width: usize, out: &mut [f32]) {
        let weights: [&[f32]; HEADS] =
            std::array::from_fn(|head| &sum.weights[head * sum.row..][..sum.positions]);
        for channel in (0..width).step_by(TILE) {
            let mut sums: [__m512; HEADS] = std::array::from_fn(|head| {
                let out = &out[head * width + channel..][..TILE];
                // SAFETY: the slice is sixteen floats.
                unsafe { _mm512_loadu_ps(out.as_ptr()) }
            });
            let positions = sum.values[sum.offset + channel..].chunks(sum.stride);
            for (position, values) in positions.take(sum.positions).enumerate() {
                let Some(values) = values.first_chunk::<TILE>() else { return };
                // SAFETY: the features are this function's contract.
                let values = unsafe { widen(values) };
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[position]), values, *sum);
                }
            }
            for (head, sum) in sums.into_iter().enumerate() {
                let out = &mut out[head * width + channel..][..TILE];
                // SAFETY: the slice is sixteen floats.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(heads: usize, kv_heads: usize, head_width: usize) -> Shape {
        Shape {
            width: 32,
            hidden: 32,
            layers: 2,
            heads,
            kv_heads,
            head_width,
            vocabulary: 32,
            context: 256,
            epsilon: 1e-5,
            rope_base: 1e4,
        }
    }

    fn noise(seed: usize) -> f32 {
        ((seed.wrapping_mul(2_654_435_761) >> 7) % 2001) as f32 / 1000.0 - 1.0
    }

    #[test]
    fn equals_the_textbook() {
        for (heads, kv_heads, width) in [(9, 3, 64), (6, 1, 32), (2, 2, 24), (5, 1, 16)] {
            let shape = shape(heads, kv_heads, width);
            let (kv_width, layer) = (shape.kv_width(), 1);
            let mut cache = Cache::new(&shape);
            let number =
                |p: usize, c: usize, k: usize| half::f16::from_f32(noise(p * 1009 + c * 13 + k)).to_f32();
            let length = 150;
            for p in 0..length {
                cache.reserve(1);
                let key: Vec<f32> = (0..kv_width).map(|c| number(p, c, 0)).collect();
                let value: Vec<f32> = (0..kv_width).map(|c| number(p, c, 5)).collect();
                cache.store(layer, p, &key, &value);
                cache.advance(1);
            }
            for seen in [1, 15, 16, 17, 64, 65, 128, 150] {
                for head in 0..kv_heads {
                    let heads = heads / kv_heads;
                    let query: Vec<f32> = (0..heads * width).map(|i| noise(i * 31 + seen)).collect();
                    let mut out = vec![0.0; heads * width];
                    let group = Group { layer, head, length: seen };
                    attend(&shape, &cache, &group, &query, &mut Vec::new(), &mut out);
                    for h in 0..heads {
                        let score = |p: usize| -> f64 {
                            let dot: f64 = (0..width)
                                .map(|c| {
                                    f64::from(query[h * width + c])
                                        * f64::from(number(p, head * width + c, 0))
                                })
                                .sum();
                            (dot / (width as f64).sqrt()).exp()
                        };
                        let weights: Vec<f64> = (0..seen).map(score).collect();
                        let total: f64 = weights.iter().sum();
                        for c in 0..width {
                            let exact: f64 = (0..seen)
                                .map(|p| weights[p] / total * f64::from(number(p, head * width + c, 5)))
                                .sum();
                            assert!(
                                (f64::from(out[h * width + c]) - exact).abs() < 1e-5,
                                "{heads} {seen} {c}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_portable_loops_equal_the_fast_ones() {
        let (width, heads, row) = (48, 3, 32);
        let halves: Vec<u16> = (0..4000).map(|i| half::f16::from_f32(noise(i)).to_bits()).collect();
        let query: Vec<f32> = (0..heads * width).map(|i| noise(i * 7)).collect();
        let (mut fast, mut plain) = (vec![0.0; heads * row], vec![0.0; heads * row]);
        score_tile(&query, &halves[..TILE * width], width, &mut fast, row);
        score_tile_portable(&query, &halves[..TILE * width], width, 1.0 / 48f32.sqrt(), &mut plain, row);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&fast, &plain));
        for width in [48, 20] {
            let weights: Vec<f32> = (0..heads * row).map(|i| noise(i * 3)).collect();
            let sum = Sum { values: &halves, stride: 100, offset: 40, positions: 17, weights: &weights, row };
            let (mut fast, mut plain) = (vec![1.0; heads * width], vec![1.0; heads * width]);
            sum.add_to(width, &mut fast);
            sum.add_to_portable(width, &mut plain);
            assert!(near(&fast, &plain), "{width}");
        }
    }
}
