//! How fast machines of our own train: as the last jobs there did.

use std::collections::BTreeMap;

use crate::domain::tuning::target::Target;
use crate::store::jobs::Ran;

/// So many of the last jobs are looked at, all machines together.
pub(super) const LOOKED_AT: i64 = 200;
/// So many jobs of one model tell its pace, the newest: a machine may be another one than it was.
const NEWEST: u64 = 5;

/// Tokens a second, by provider and base model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paces(BTreeMap<(String, String), Sum>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    jobs: u64,
    tokens: u64,
    seconds: u64,
}

impl Paces {
    /// Of jobs, the newest first.
    pub fn of(ran: &[Ran]) -> Self {
        let mut paces = Self::default();
        for Ran { provider, base, tokens, computed_seconds } in ran {
            let sum = paces.0.entry((provider.clone(), base.clone())).or_default();
            if sum.jobs < NEWEST {
                sum.jobs += 1;
                sum.tokens = sum.tokens.saturating_add(*tokens);
                sum.seconds = sum.seconds.saturating_add(*computed_seconds);
            }
        }
        paces
    }

    /// How fast a target trains: as the operator says, else as its last jobs did; none where nobody knows.
    pub fn at(&self, target: &Target) -> Option<u64> {
        let said = target.provider.training.as_ref().and_then(|training| training.tokens_per_second);
        said.or_else(|| {
            let sum = self.0.get(&(target.provider.name.to_string(), target.model.to_string()))?;
            // less than a token a second is no pace to divide by
            sum.tokens.checked_div(sum.seconds).filter(|pace| *pace > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::catalog::tests::deployment;
    use crate::domain::catalog::{Provider, Training};

    #[test]
    fn the_last_jobs_tell_unless_the_operator_does() {
        let ran = |base: &str, tokens, computed_seconds| Ran {
            provider: "local".to_owned(),
            base: base.to_owned(),
            tokens,
            computed_seconds,
        };
        let target = |model: &str, tokens_per_second| {
            let training = Some(Training { tokens_per_second, ..Training::default() });
            let plain = (*deployment("d", "m").provider).clone();
            let provider = Provider { name: "local".into(), training, ..plain };
            Target { provider: Arc::new(provider), model: model.into() }
        };
        let mut jobs = vec![ran("a", 1_000, 10), ran("b", 7, 9), ran("a", 500, 5)];
        assert_eq!(Paces::of(&jobs).at(&target("a", None)), Some(100));
        assert_eq!(Paces::of(&jobs).at(&target("a", Some(40))), Some(40), "the operator's word");
        assert_eq!(Paces::of(&jobs).at(&target("b", None)), None, "slower than can be told");
        assert_eq!(Paces::of(&jobs).at(&target("c", None)), None);
        jobs.extend([ran("a", 300, 3), ran("a", 300, 3), ran("a", 300, 3), ran("a", 1, 90_000)]);
        assert_eq!(Paces::of(&jobs).at(&target("a", None)), Some(100), "what is long ago tells nothing");
    }
}
