//! From the last hidden rows to how surprising the tokens are that follow them.
//!
//! The head is by far the widest matrix, so only rows that bear loss come here, a few at a time: their logits are
//! never in memory together. It is frozen, so the slope of a token's loss is known at once, before anybody knows how
//! much that loss will count, and the head is gone through once more only for that.

use candle_core::{Device, Result, Tensor};

use super::ops::{Real, Weight};

/// Rows whose logits are in memory together: 12 MiB of a vocabulary of 49,152.
const TOGETHER: usize = 64;

/// Whether the way back will be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slopes {
    /// For training.
    Wanted,
    /// For measuring.
    Not,
}

/// What the head said of some rows.
pub(super) struct Judged {
    /// A row's loss: minus the logarithm of the probability that the right token had.
    pub(super) losses: Vec<f64>,
    /// Rows where the right token was the likeliest; of equally likely ones the lowest id counts.
    pub(super) hits: usize,
    /// The gradient of each row's own loss, in the rows' shape; where it was wanted.
    pub(super) slopes: Option<Tensor>,
}

/// Judges `hidden`, a row for each of `targets`, by the matrix `head`.
pub(super) fn judge<T: Real>(
    hidden: &Tensor,
    head: &Weight<T>,
    targets: &[u32],
    slopes: Slopes,
) -> Result<Judged> {
    let (width, vocabulary) = (hidden.dim(1)?, head.outputs());
    let rows: Vec<T> = hidden.flatten_all()?.to_vec1()?;
    let mut judged = Judged { losses: Vec::with_capacity(targets.len()), hits: 0, slopes: None };
    let mut gradient = Vec::new();
    for (rows, targets) in rows.chunks(TOGETHER * width).zip(targets.chunks(TOGETHER)) {
        let mut logits = head.forth(rows);
        for (row, target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
            let (loss, hit) = surprise(row, *target as usize);
            judged.losses.push(loss);
            judged.hits += usize::from(hit);
        }
        if slopes == Slopes::Wanted {
            gradient.extend(head.back(&logits));
        }
    }
    if slopes == Slopes::Wanted {
        judged.slopes = Some(Tensor::from_vec(gradient, hidden.shape(), &Device::Cpu)?);
    }
    Ok(judged)
}

/// Returns a row's loss and whether its target is the likeliest token; leaves the loss's gradient in the row.
fn surprise<T: Real>(logits: &mut [T], target: usize) -> (f64, bool) {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    let (largest, right) = (logits[best], logits[target]);
    let mut total = 0.0;
    for logit in &mut *logits {
        *logit = (*logit - largest).exp();
        total += logit.to_f64();
    }
    let inverse = T::from_f64(1.0 / total);
    for logit in &mut *logits {
        *logit *= inverse;
    }
    logits[target] -= T::one();
    (total.ln() - (right - largest).to_f64(), best == target)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::pool::Pool;

    #[test]
    fn a_row_is_judged_by_its_softmax() {
        let cases: [(&[f64], usize, f64, bool); 5] = [
            (&[0.0, 0.0, 0.0, 0.0], 0, 4f64.ln(), true),
            (&[0.0, 0.0, 0.0, 0.0], 3, 4f64.ln(), false),
            (&[1000.0, 0.0], 0, 0.0, true),
            (&[1000.0, 0.0], 1, 1000.0, false),
            (&[2f64.ln(), 3f64.ln(), 5f64.ln()], 1, (10.0f64 / 3.0).ln(), false),
        ];
        for (logits, target, loss, hit) in cases {
            let mut row = logits.to_vec();
            let found = surprise(&mut row, target);
            assert!((found.0 - loss).abs() < 1e-12, "{logits:?} {target}: {found:?}");
            assert_eq!(found.1, hit, "{logits:?} {target}");
            assert!(row.iter().sum::<f64>().abs() < 1e-12, "a softmax's slopes sum to nothing");
        }
        assert!(surprise(&mut [0.0, f64::NAN, 1.0], 2).0.is_nan(), "a broken logit is not hidden");
    }

    #[test]
    fn many_rows_are_judged_as_each_alone() {
        let number = |i: usize| ((i * 7919 % 997) as f64 - 500.0) * 0.004;
        let (rows, width, vocabulary) = (2 * TOGETHER + 3, 8, 11);
        let make =
            |rows: usize, from: usize| -> Vec<f64> { (0..rows * width).map(|i| number(i + from)).collect() };
        let hidden = Tensor::from_vec(make(rows, 0), (rows, width), &Device::Cpu).unwrap();
        let pool = Arc::new(Mutex::new(Pool::new(NonZeroUsize::MIN).unwrap()));
        let head = Weight::new(width, &make(vocabulary, 31), &pool);
        let targets: Vec<u32> = (0..rows as u32).map(|row| row * 5 % vocabulary as u32).collect();
        let all = judge(&hidden, &head, &targets, Slopes::Wanted).unwrap();
        let slopes = all.slopes.unwrap();
        let mut hits = 0;
        for (row, target) in targets.iter().enumerate() {
            let one = hidden.narrow(0, row, 1).unwrap();
            let alone = judge(&one, &head, &[*target], Slopes::Wanted).unwrap();
            assert!((alone.losses[0] - all.losses[row]).abs() < 1e-12, "row {row}");
            let gap = (alone.slopes.unwrap() - slopes.narrow(0, row, 1).unwrap()).unwrap();
            assert!(gap.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() < 1e-12, "row {row}");
            hits += alone.hits;
        }
        assert_eq!(hits, all.hits);
        assert!(judge(&hidden, &head, &targets, Slopes::Not).unwrap().slopes.is_none());
    }
}
