//! What is learned from: rows of tokens that say what each counts.

use super::{Method, TrainError};
use crate::gguf::Shape;

/// A row whose marked tokens are to become likelier.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The whole row, prompt and answer.
    pub tokens: Vec<u32>,
    /// What predicting the token of this place counts: 0 for a prompt's, 1 for an answer's. As many as tokens; the
    /// first is not looked at, because nothing stands before it to predict it from.
    pub weights: Vec<f32>,
}

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The one to become likelier.
    pub chosen: Example,
    /// The one to become less likely.
    pub rejected: Example,
}

/// One row of a step.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    /// For [`Method::Sft`](super::Method).
    Example(&'a Example),
    /// For [`Method::Dpo`](super::Method).
    Pair(&'a Pair),
}

impl Example {
    /// Returns the places whose tokens count.
    pub(super) fn marked(&self) -> impl Iterator<Item = usize> {
        (1..self.tokens.len()).filter(|at| self.weights[*at] > 0.0)
    }

    /// Returns what the marked tokens count, in their order.
    pub(super) fn marks(&self) -> impl Iterator<Item = f64> {
        self.marked().map(|at| f64::from(self.weights[at]))
    }

    /// Returns the tokens that must be gone through to predict the last marked one.
    pub(super) fn needed(&self) -> &[u32] {
        &self.tokens[..self.marked().last().unwrap_or(0)]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        let Self { tokens, weights } = self;
        if tokens.len() != weights.len() {
            return Err(format!("it has {} tokens and {} weights", tokens.len(), weights.len()));
        }
        // The last token is predicted, and predicts nothing.
        if tokens.len() > shape.context + 1 {
            return Err(format!("it has {} tokens, beyond the context of {}", tokens.len(), shape.context));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= shape.vocabulary) {
            return Err(format!("the token {token} is outside the vocabulary"));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            return Err(format!("the weight {weight} is not a number from 0 up"));
        }
        if self.marked().next().is_none() {
            return Err("none of its tokens counts".to_owned());
        }
        Ok(())
    }
}

impl<'a> Row<'a> {
    /// Returns the row's one example, or its two.
    pub(super) fn examples(&self) -> impl Iterator<Item = &'a Example> + use<'a> {
        let (first, second) = match *self {
            Row::Example(example) => (example, None),
            Row::Pair(pair) => (&pair.chosen, Some(&pair.rejected)),
        };
        std::iter::once(first).chain(second)
    }

    /// Checks that the row can be learned from, so that nothing is computed for one that cannot.
    pub(super) fn check(&self, index: usize, method: Method, shape: &Shape) -> Result<(), TrainError> {
        self.suits(index, method)?;
        let refuse = |reason| TrainError::Row { index, reason };
        self.examples().try_for_each(|example| example.check(shape)).map_err(refuse)
    }

    /// Checks that the row is of the kind that the method learns from.
    pub(super) fn suits(&self, index: usize, method: Method) -> Result<(), TrainError> {
        let reason = match (method, self) {
            (Method::Sft, Row::Example(_)) | (Method::Dpo { .. }, Row::Pair(_)) => return Ok(()),
            (Method::Sft, Row::Pair(_)) => "it is a pair, and the method learns from examples",
            (Method::Dpo { .. }, Row::Example(_)) => "it is an example, and the method learns from pairs",
        };
        Err(TrainError::Row { index, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        width: 8,
        hidden: 8,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_width: 8,
        vocabulary: 10,
        context: 4,
        epsilon: 1e-5,
        rope_base: 1e4,
    };

    #[test]
    fn only_what_can_be_learned_from_is_taken() {
        let cases: [(&[u32], &[f32], &str); 8] = [
            (&[1, 2, 3], &[0.0, 0.0, 1.0], ""),
            (&[1, 2, 3, 4, 5], &[0.0, 0.0, 0.0, 0.0, 0.5], ""),
            (&[1, 2, 3], &[0.0, 1.0], "3 tokens and 2 weights"),
            (&[1, 2, 3, 4, 5, 6], &[1.0; 6], "6 tokens, beyond the context of 4"),
            (&[1, 10], &[1.0; 2], "the token 10"),
            (&[1, 2], &[0.0, f32::NAN], "the weight NaN"),
            (&[1, 2], &[0.0, -1.0], "the weight -1"),
            (&[1, 2], &[1.0, 0.0], "none of its tokens counts"),
        ];
        for (tokens, weights, want) in cases {
            let example = Example { tokens: tokens.to_vec(), weights: weights.to_vec() };
            let found = Row::Example(&example).check(3, Method::Sft, &SHAPE);
            let found = found.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(found.contains(want) && want.is_empty() == found.is_empty(), "{tokens:?}: {found}");
            assert!(found.is_empty() || found.contains("row 3"), "{found}");
        }
        let fine = Example { tokens: vec![1, 2], weights: vec![0.0, 1.0] };
        let pair = Pair { chosen: fine.clone(), rejected: Example { tokens: vec![1], weights: vec![1.0] } };
        let dpo = Method::Dpo { beta: 0.1 };
        assert!(Row::Pair(&pair).check(0, dpo, &SHAPE).is_err(), "both answers are looked at");
        assert!(Row::Example(&fine).check(0, dpo, &SHAPE).is_err(), "the method wants a pair");
        let pair = Pair { chosen: fine.clone(), rejected: fine };
        assert!(Row::Pair(&pair).check(0, dpo, &SHAPE).is_ok());
        assert!(Row::Pair(&pair).check(0, Method::Sft, &SHAPE).is_err(), "the method wants an example");
    }

    #[test]
    fn what_comes_after_the_last_marked_token_is_not_computed() {
        let example = Example { tokens: vec![5, 6, 7, 8, 9], weights: vec![1.0, 0.0, 2.0, 0.0, 0.0] };
        assert_eq!(example.needed(), [5, 6]);
        assert_eq!(example.marked().collect::<Vec<_>>(), [2]);
        assert_eq!(example.marks().collect::<Vec<_>>(), [2.0]);
    }
}
