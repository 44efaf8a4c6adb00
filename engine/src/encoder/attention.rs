//! Every token of a text looks at every other.

use crate::kernels::vector::{self, Level, level};

/// Writes `softmax(q · k / √w) · v` for all heads of one text, whose rows hold query, key and value side by side, each
/// `width` numbers for `heads` heads.
pub(super) fn attend(seen: &[f32], width: usize, heads: usize, out: &mut [f32]) {
    let (length, narrow) = (out.len() / width, width / heads);
    // Keys with the positions side by side, so that one query's scores are computed together.
    let mut keys = vec![0.0; narrow * length];
    let mut scores = vec![0.0; length];
    for head in 0..heads {
        let first = head * narrow;
        for (position, row) in seen.chunks_exact(3 * width).enumerate() {
            for (channel, key) in row[width + first..][..narrow].iter().enumerate() {
                keys[channel * length + position] = *key;
            }
        }
        for (row, out) in seen.chunks_exact(3 * width).zip(out.chunks_exact_mut(width)) {
            score(&row[first..][..narrow], &keys, &mut scores);
            vector::softmax(&mut scores);
            mix(&scores, seen, 3 * width, 2 * width + first, &mut out[first..][..narrow]);
        }
    }
}

vector::for_every_machine! {
    /// Writes a query's scaled product with each key.
    fn score(query: &[f32], keys: &[f32], scores: &mut [f32]) {
        scores.fill(0.0);
        let scale = 1.0 / (query.len() as f32).sqrt();
        for (query, keys) in query.iter().zip(keys.chunks_exact(scores.len())) {
            let query = query * scale;
            for (score, key) in scores.iter_mut().zip(keys) {
                *score += query * key;
            }
        }
    }
}

vector::for_every_machine! {
    /// Adds up the values by their weights: one every `stride` numbers from `first` on.
    fn mix(weights: &[f32], rows: &[f32], stride: usize, first: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (weight, row) in weights.iter().zip(rows.chunks_exact(stride)) {
            for (out, value) in out.iter_mut().zip(&row[first..]) {
                *out += weight * value;
            }
        }
    }
}
