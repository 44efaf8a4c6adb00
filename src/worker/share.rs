//! Whose a step's time is: one of answers, or a batch of texts that become vectors.
//!
//! A step is one pass over the weights for all that are in it, and what it takes grows with the tokens in it. So each
//! request's share is as its tokens are to all of the step's: an answer brings one, a prompt that is read a whole chunk.
//! Alone, a request pays for all of its steps; beside seven others it pays for its part. What is shared out is the step,
//! to the microsecond: nothing is paid twice, and nothing by nobody.

use std::time::Duration;

/// The shares of those who brought so many tokens each, microseconds, in their order. They sum up to the step, whole
/// microseconds of it.
pub(super) fn shares_us(took: Duration, brought: &[usize]) -> Vec<u64> {
    let all: u128 = brought.iter().map(|tokens| *tokens as u128).sum();
    let (mut tokens_before, mut given) = (0, 0);
    let share = |tokens: &usize| {
        tokens_before += *tokens as u128;
        // up to the end of this share; less what was given before, no fraction is lost
        let end = (took.as_micros() * tokens_before).checked_div(all).unwrap_or(0);
        let share = end - given;
        given = end;
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    brought.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_as_the_tokens() {
        for (took_us, brought, want) in [
            (1_000, &[1][..], &[1_000][..]),
            (1_000, &[1, 1, 1], &[333, 333, 334]),
            (4_900, &[48, 1], &[4_800, 100]),
            (3, &[1, 1, 1, 1], &[0, 1, 1, 1]),
            (0, &[5, 1], &[0, 0]),
            (7, &[], &[]),
        ] {
            assert_eq!(shares_us(Duration::from_micros(took_us), brought), want, "{took_us} {brought:?}");
        }
        assert_eq!(shares_us(Duration::from_nanos(2_999), &[1]), [2], "whole microseconds");
    }

    proptest! {
        #[test]
        fn shares_are_the_step(
            took_us in 0..1_u64 << 40, brought in prop::collection::vec(1..200_usize, 1..64),
        ) {
            let shares = shares_us(Duration::from_micros(took_us), &brought);
            prop_assert_eq!(shares.iter().sum::<u64>(), took_us);
            let all: u64 = brought.iter().map(|tokens| *tokens as u64).sum();
            for (share, tokens) in shares.iter().zip(&brought) {
                let fair = u128::from(took_us) * *tokens as u128 / u128::from(all);
                prop_assert!(u128::from(*share).abs_diff(fair) <= 1);
            }
        }
    }
}
