//! Which of two answers is preferred, and how strongly.

/// How a pair stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// `−ln σ(β · margin)`, where the margin is what the chosen answer gained more than the rejected one.
    pub(super) loss: f64,
    /// The loss's slope by the chosen answer's own loss; by the rejected one's it is the opposite.
    pub(super) slope: f64,
    /// Whether the chosen answer gained more.
    pub(super) gained: bool,
}

/// Judges a pair by what each answer gained in log-probability since before the training.
pub(super) fn verdict(beta: f64, chosen: f64, rejected: f64) -> Verdict {
    let margin = beta * (chosen - rejected);
    // ln(1 + e^−m), without an overflow on either side.
    let loss = (-margin.abs()).exp().ln_1p() + (-margin).max(0.0);
    Verdict { loss, slope: beta / (1.0 + margin.exp()), gained: margin > 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_loss_by_the_chosen_answers_loss() {
        for beta in [0.1, 1.0] {
            for (chosen, rejected) in [(0.0, 0.0), (3.0, -2.0), (-4.0, 5.0)] {
                let found = verdict(beta, chosen, rejected);
                let exact = (1.0 + (-beta * (chosen - rejected)).exp()).ln();
                assert!((found.loss - exact).abs() < 1e-12);
                // A gain is a loss's opposite.
                let h = 1e-6;
                let slope = (verdict(beta, chosen - h, rejected).loss
                    - verdict(beta, chosen + h, rejected).loss)
                    / (2.0 * h);
                assert!((found.slope - slope).abs() < 1e-8, "{chosen} {rejected}: {found:?}, not {slope}");
                assert_eq!(found.gained, chosen > rejected);
            }
        }
        for far in [1e4, -1e4] {
            let found = verdict(1.0, far, 0.0);
            assert!(found.loss.is_finite() && found.slope.is_finite(), "{found:?}");
        }
    }
}
