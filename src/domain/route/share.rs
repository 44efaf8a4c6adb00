//! Shares of a split: who gets which choice, and how a share grows with time.
//!
//! A choice is ranked by weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables",
//! SPAA 2005): the same conversation always gets the same choice, and when a share grows, only conversations that move
//! to it move at all.

use std::fmt;
use std::sync::Arc;

use super::{Facts, Weighted};

/// What keeps a conversation on its choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyBy {
    /// The virtual key.
    Key,
    /// The client's own user: `safety_identifier`, or else `user`.
    EndUser,
    /// A header of the client's, its name in lower case.
    Header(Arc<str>),
}

impl StickyBy {
    /// The header it looks at.
    pub const fn header(&self) -> Option<&Arc<str>> {
        match self {
            Self::Header(name) => Some(name),
            Self::Key | Self::EndUser => None,
        }
    }

    fn of<'a>(&self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            // an operator who explains a route has none
            Self::Key => Some(facts.key).filter(|key| !key.is_empty()),
            Self::EndUser => facts.end_user,
            Self::Header(name) => {
                facts.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
            }
        }
    }
}

/// As the configuration has it.
impl fmt::Display for StickyBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::EndUser => f.write_str("end_user"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// How much of the traffic a choice gets, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its weight.
    pub weight: u32,
    /// Its way to another weight.
    pub ramp: Option<Ramp>,
    /// Tells this choice from the others, whatever their order; see [`salt`].
    pub id: u64,
}

/// A weight that changes evenly from one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// The weight it ends at.
    pub to: u32,
    /// When it begins, ms since 1970 UTC.
    pub from_ms: i64,
    /// When it ends; later than it begins.
    pub until_ms: i64,
}

impl Share {
    /// The weight at a moment, in thousandths.
    pub fn at(&self, now_ms: i64) -> u64 {
        let start = u64::from(self.weight) * 1_000;
        let Some(ramp) = self.ramp else { return start };
        let end = u64::from(ramp.to) * 1_000;
        let span = i128::from(ramp.until_ms) - i128::from(ramp.from_ms);
        let gone = (i128::from(now_ms) - i128::from(ramp.from_ms)).clamp(0, span.max(0));
        if span <= 0 {
            return end;
        }
        let moved = (i128::from(end) - i128::from(start)) * gone / span;
        u64::try_from(i128::from(start) + moved).unwrap_or(0)
    }

    /// Whether it is ever above 0 from a moment on.
    pub fn is_ever_drawn(&self, now_ms: i64) -> bool {
        self.at(now_ms) > 0 || self.ramp.is_some_and(|ramp| ramp.to > 0)
    }
}

/// A number that stands for a text: the same in every process and version (FNV-1a, mixed).
pub fn salt(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

/// Spreads each bit over all (the finisher of SplitMix64).
pub(super) const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Random bits for the draws of one request, all from one seed: the same seed, the same draws (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that begin at a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

impl Weighted {
    /// What keeps a request on its choice, and what its conversation is known by there; nothing where it is drawn anew
    /// each time.
    fn kept_by<'a>(&self, facts: &Facts<'a>) -> Option<(&StickyBy, &'a str)> {
        self.sticky.iter().find_map(|by| Some((by, by.of(facts)?)))
    }

    /// What keeps a request on its choice at a moment, and which choice that is.
    pub fn kept(&self, facts: &Facts<'_>, now_ms: i64) -> Option<(&StickyBy, usize)> {
        let (by, value) = self.kept_by(facts)?;
        Some((by, *self.ranked(salt(value), now_ms).first()?))
    }

    /// The choices for a request: the one drawn first, then its fallbacks. It is ranked by its conversation, or by
    /// random bits where it has none.
    pub(super) fn drawn(&self, facts: &Facts<'_>, random: u64, now_ms: i64) -> Vec<usize> {
        self.ranked(self.kept_by(facts).map_or(random, |(_, value)| salt(value)), now_ms)
    }

    fn ranked(&self, seed: u64, now_ms: i64) -> Vec<usize> {
        ranked(seed, self.choices.iter().map(|(share, _)| (share.id, share.at(now_ms))))
    }
}

/// Choices by rank: the one drawn first, then its fallbacks. Those of weight 0 come last, as written.
pub(super) fn ranked(seed: u64, choices: impl Iterator<Item = (u64, u64)>) -> Vec<usize> {
    let score = |id: u64, weight: u64| {
        if weight == 0 {
            return f64::INFINITY;
        }
        let bits = mix(seed ^ mix(id)) >> 11;
        // (0, 1]: its logarithm is finite
        #[expect(clippy::cast_precision_loss, reason = "53 bits and weights far below 2^53 are exact")]
        let (uniform, weight) = ((bits + 1) as f64 / (1_u64 << 53) as f64, weight as f64);
        -uniform.ln() / weight
    };
    let mut scored: Vec<(f64, usize)> =
        choices.enumerate().map(|(at, (id, weight))| (score(id, weight), at)).collect();
    scored.sort_by(|(a, at), (b, bt)| a.total_cmp(b).then(at.cmp(bt)));
    scored.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn share(weight: u32, ramp: Option<Ramp>) -> Share {
        Share { weight, ramp, id: 0 }
    }

    #[test]
    fn a_ramp_is_even_and_stays_within_its_ends() {
        let up = share(10, Some(Ramp { to: 100, from_ms: 1_000, until_ms: 2_000 }));
        let down = share(100, Some(Ramp { to: 0, from_ms: 1_000, until_ms: 2_000 }));
        for (now, high, low) in [
            (i64::MIN, 10_000, 100_000),
            (1_000, 10_000, 100_000),
            (1_500, 55_000, 50_000),
            (1_999, 99_910, 100),
            (2_000, 100_000, 0),
            (i64::MAX, 100_000, 0),
        ] {
            assert_eq!((up.at(now), down.at(now)), (high, low), "{now}");
        }
        assert_eq!(share(7, None).at(0), 7_000);
        assert!(!share(0, None).is_ever_drawn(0));
        assert!(down.is_ever_drawn(1_999));
        assert!(!down.is_ever_drawn(2_000));
    }

    #[test]
    fn shares_are_kept_and_growing_ones_move_only_who_must() {
        let first = |seed: u64, weights: [u64; 3]| {
            ranked(
                salt(&seed.to_string()),
                weights.into_iter().enumerate().map(|(at, weight)| (salt(&format!("choice-{at}")), weight)),
            )[0]
        };
        let mut counts = [0_u32; 3];
        for seed in 0..30_000 {
            let before = first(seed, [90, 10, 0]);
            counts[before] += 1;
            assert_eq!(before, first(seed, [90, 10, 0]), "sticky");
            let after = first(seed, [80, 20, 0]);
            assert!(before == after || after == 1, "{seed} moved from {before} to {after}");
        }
        // 30,000 draws at 10 %: three standard deviations are 156
        assert!((2_844..=3_156).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn nothing_weighs_nothing() {
        assert_eq!(ranked(7, [(1, 0), (2, 0)].into_iter()), [0, 1]);
        assert_eq!(ranked(7, [(1, 0), (2, 5)].into_iter()), [1, 0]);
        assert!(ranked(7, std::iter::empty()).is_empty());
    }
}
