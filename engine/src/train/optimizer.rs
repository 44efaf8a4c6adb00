//! `AdamW` (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), with moments that can be kept.
//!
//! candle's skips a tensor without a gradient in silence, and nobody can read its moments. Here a gradient for every
//! tensor is what the types ask for.

const FIRST_DECAY: f64 = 0.9;
const SECOND_DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// What the optimiser remembers of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    /// The running mean of the gradient.
    pub(super) first: Vec<f32>,
    /// The running mean of its square.
    pub(super) second: Vec<f32>,
}

/// One step's figures, the same for all tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    /// The step, counted from 1.
    pub(super) step: u64,
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    /// What gradients are multiplied with, to shorten them.
    pub(super) shortened: f64,
}

impl Moments {
    /// Returns those of a tensor that was never stepped.
    pub(super) fn new(length: usize) -> Self {
        Self { first: vec![0.0; length], second: vec![0.0; length] }
    }

    /// Moves the weights against their gradient. All three are as long as the moments.
    pub(super) fn step(&mut self, update: Update, weights: &mut [f32], gradient: &[f32]) {
        let Update { step, learning_rate, weight_decay, shortened } = update;
        let first_correction = 1.0 - FIRST_DECAY.powf(step as f64);
        let second_correction = (1.0 - SECOND_DECAY.powf(step as f64)).sqrt();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
            let gradient = f64::from(*gradient) * shortened;
            let mean = FIRST_DECAY * f64::from(*first) + (1.0 - FIRST_DECAY) * gradient;
            let square = SECOND_DECAY * f64::from(*second) + (1.0 - SECOND_DECAY) * gradient * gradient;
            (*first, *second) = (mean as f32, square as f32);
            let direction = mean / first_correction / (square.sqrt() / second_correction + EPSILON);
            let kept = f64::from(*weight) * (1.0 - learning_rate * weight_decay);
            *weight = (kept - learning_rate * direction) as f32;
        }
    }
}

/// Returns the length of a gradient over all tensors together.
pub(super) fn length(gradients: &[Vec<f32>]) -> f64 {
    gradients.iter().flatten().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(step: u64) -> Update {
        Update { step, learning_rate: 0.01, weight_decay: 0.0, shortened: 1.0 }
    }

    #[test]
    fn the_first_step_goes_by_the_sign() {
        let mut weights = [1.0, 1.0, 1.0];
        Moments::new(3).step(update(1), &mut weights, &[3.0, -1e-3, 0.0]);
        for (weight, want) in weights.iter().zip([0.99, 1.01, 1.0]) {
            assert!((weight - want).abs() < 1e-6, "{weights:?}");
        }
    }

    #[test]
    fn decay_is_apart_from_the_gradient() {
        let mut weights = [2.0];
        Moments::new(1).step(Update { weight_decay: 0.5, ..update(1) }, &mut weights, &[0.0]);
        assert!((weights[0] - 2.0 * (1.0 - 0.01 * 0.5)).abs() < 1e-6, "{weights:?}");
    }

    #[test]
    fn a_shortened_gradient_is_a_smaller_one() {
        let (mut short, mut small) = (Moments::new(1), Moments::new(1));
        let (mut a, mut b) = ([0.0], [0.0]);
        for step in 1..5 {
            let gradient = 1.0 / step as f32;
            short.step(Update { shortened: 0.25, ..update(step) }, &mut a, &[gradient]);
            small.step(update(step), &mut b, &[gradient * 0.25]);
        }
        assert_eq!((a, short), (b, small));
        assert_eq!(length(&[vec![3.0], vec![], vec![0.0, 4.0]]), 5.0);
    }
}
