//! The rows of one step or measurement, one after the other.

use super::base::{Answer, Base, Keep};
use super::ops::Real;
use super::pairs::{Chance, Gradients, Pairs, Role};
use super::rows::{Example, Pair, Row};
use super::settings::{Method, Settings};
use super::{TrainError, dpo};
use crate::adapter::LoraWeights;

/// Tokens of a row whose graphs are kept whole, 1 MiB a token of a model of 135 million weights; of a longer row each
/// layer is computed twice.
const KEPT_TOKENS: usize = 256;

/// What rows are gone through with.
pub(super) struct Round<'a, T> {
    pub(super) base: &'a Base<T>,
    pub(super) settings: &'a Settings,
    pub(super) pairs: &'a Pairs,
    /// What pairs are judged beside, where that is not the model alone.
    pub(super) reference: Option<&'a LoraWeights>,
    /// The steps made, which chance depends on.
    pub(super) step: u64,
}

/// What rows gave.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) loss: f64,
    hits: usize,
    /// What `hits` is a share of.
    judged: usize,
}

impl Sum {
    fn add(&mut self, loss: f64, hits: usize, judged: usize) {
        self.loss += loss;
        self.hits += hits;
        self.judged += judged;
    }

    pub(super) fn accuracy(&self) -> f64 {
        self.hits as f64 / self.judged as f64
    }
}

impl<T: Real> Round<'_, T> {
    /// Goes through all rows, of which there must be one; and back, where there are gradients to add to.
    pub(super) fn go(&self, rows: &[Row<'_>], mut to: Option<&mut Gradients>) -> Result<Sum, TrainError> {
        let mut sum = Sum::default();
        let marks: f64 = rows.iter().flat_map(Row::examples).flat_map(Example::marks).sum();
        let before = match self.reference {
            None => Pairs::none(&self.base.shape),
            Some(weights) => self.base.pairs(weights, Role::Fixed)?,
        };
        for (index, row) in rows.iter().enumerate() {
            let to = to.as_deref_mut();
            match (*row, self.settings.method) {
                (Row::Pair(pair), Method::Dpo { beta }) => {
                    self.pair(index, pair, &before, (beta, 1.0 / rows.len() as f64), &mut sum, to)?;
                }
                (Row::Example(example), Method::Sft) => self.example(index, example, marks, &mut sum, to)?,
                (row, method) => row.suits(index, method)?,
            }
        }
        Ok(sum)
    }

    fn example(
        &self,
        index: usize,
        example: &Example,
        marks: f64,
        sum: &mut Sum,
        to: Option<&mut Gradients>,
    ) -> Result<(), TrainError> {
        let keep = kept(example.needed().len(), to.is_some());
        let answer = self.answer(example, (index, 0), keep)?;
        let counts: Vec<f64> = example.marks().map(|mark| mark / marks).collect();
        let loss = answer.losses.iter().zip(&counts).map(|(loss, count)| loss * count).sum();
        sum.add(loss, answer.hits, counts.len());
        to.map_or(Ok(()), |to| self.base.learn(answer, &counts, self.pairs, to))
    }

    fn pair(
        &self,
        index: usize,
        pair: &Pair,
        before: &Pairs,
        (beta, share): (f64, f64),
        sum: &mut Sum,
        mut to: Option<&mut Gradients>,
    ) -> Result<(), TrainError> {
        let both = [&pair.chosen, &pair.rejected];
        let keep = kept(both.iter().map(|example| example.needed().len()).sum(), to.is_some());
        let answers = [self.answer(both[0], (index, 0), keep)?, self.answer(both[1], (index, 1), keep)?];
        let mut gains = [0.0; 2];
        for ((gain, answer), example) in gains.iter_mut().zip(&answers).zip(both) {
            let was = self.base.answer(example, before, None, Keep::Nothing)?;
            *gain = loss(&was, example) - loss(answer, example);
        }
        let verdict = dpo::verdict(beta, gains[0], gains[1]);
        sum.add(verdict.loss * share, usize::from(verdict.gained), 1);
        for ((answer, example), sign) in answers.into_iter().zip(both).zip([1.0, -1.0]) {
            let Some(to) = to.as_deref_mut() else { break };
            let counts: Vec<f64> = example.marks().map(|mark| mark * sign * verdict.slope * share).collect();
            self.base.learn(answer, &counts, self.pairs, to)?;
        }
        Ok(())
    }

    fn answer(
        &self,
        example: &Example,
        (row, which): (usize, usize),
        keep: Keep,
    ) -> Result<Answer, TrainError> {
        let chance = match keep {
            Keep::Nothing => None,
            Keep::Graphs | Keep::Inputs => Chance::new(self.settings, self.step, row, which),
        };
        self.base.answer(example, self.pairs, chance, keep)
    }
}

fn kept(tokens: usize, trained: bool) -> Keep {
    match trained {
        false => Keep::Nothing,
        true if tokens <= KEPT_TOKENS => Keep::Graphs,
        true => Keep::Inputs,
    }
}

/// Returns the loss of a whole answer.
fn loss(answer: &Answer, example: &Example) -> f64 {
    answer.losses.iter().zip(example.marks()).map(|(loss, mark)| loss * mark).sum()
}
