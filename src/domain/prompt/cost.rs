//! What other words would have cost on the same traffic. Only the part of a prompt that does not depend on its variables
//! is counted anew; what the variables brought stays as it was.

use crate::domain::money::Usd;

/// The traffic of one version, on one day and deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that its words were put into.
    pub requests: i64,
    /// Its tokens in all of them, as they were counted then.
    pub tokens: i64,
    /// What those cost.
    pub cost: Usd,
}

impl Traffic {
    /// How many tokens another version would have been: those there were, and for each request what its fixed words have
    /// more or less.
    pub fn tokens_instead(&self, fixed: u64, instead: u64) -> i64 {
        let tokens = i128::from(self.tokens) - self.fewer(fixed, instead);
        i64::try_from(tokens.max(0)).unwrap_or(i64::MAX)
    }

    /// What another version would have saved: the difference of the fixed words' tokens, times the requests, times the
    /// mean price that was paid for a token. Negative where it would have cost more; rounded towards less saving, to a
    /// nano-dollar. Nothing where no token was counted.
    pub fn saved(&self, fixed: u64, instead: u64) -> Usd {
        if self.tokens <= 0 {
            return Usd::ZERO;
        }
        let nanos = self.fewer(fixed, instead).saturating_mul(i128::from(self.cost.nanos()));
        let floor = nanos.div_euclid(i128::from(self.tokens));
        Usd::from_nanos(i64::try_from(floor).unwrap_or(if floor > 0 { i64::MAX } else { i64::MIN }))
    }

    /// How many tokens less there would have been; never more than there were.
    fn fewer(&self, fixed: u64, instead: u64) -> i128 {
        let fewer = i128::from(self.requests) * (i128::from(fixed) - i128::from(instead));
        fewer.min(i128::from(self.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_follow_the_mean_price_and_round_down() {
        // requests, tokens, nanos; fixed tokens, those instead → tokens instead, nanos saved
        for (requests, tokens, nanos, fixed, instead, want) in [
            // 10 requests of 100 fixed and 20 variable tokens, 2 nanos each
            (10, 1_200, 2_400, 100, 60, (800, 800)),
            (10, 1_200, 2_400, 100, 100, (1_200, 0)),
            (10, 1_200, 2_400, 60, 100, (1_600, -800)),
            // half of them from the provider's cache: a token less saves the mean
            (3, 30, 50, 10, 9, (27, 5)),
            (3, 30, 49, 10, 9, (27, 4)),
            (3, 30, 49, 9, 10, (33, -5)),
            (5, 0, 0, 10, 1, (0, 0)),
            // more than there were can't be saved
            (10, 50, 500, 100, 0, (0, 500)),
            (i64::MAX, i64::MAX, i64::MAX, u64::MAX, 0, (0, Usd::MAX.nanos())),
            (i64::MAX, i64::MAX, i64::MAX, 0, u64::MAX, (i64::MAX, Usd::from_nanos(i64::MIN).nanos())),
        ] {
            let traffic = Traffic { requests, tokens, cost: Usd::from_nanos(nanos) };
            let found = (traffic.tokens_instead(fixed, instead), traffic.saved(fixed, instead).nanos());
            assert_eq!(found, want, "{traffic:?} {fixed} {instead}");
        }
    }
}
