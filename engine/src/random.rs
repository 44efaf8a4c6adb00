//! Chance that can be repeated: SplitMix64 (Steele, Lea and Flood 2014), the same numbers for the same seed.

/// A sequence of random numbers. Deterministic: its only source is its seed.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Starts the sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Starts the sequence of one place under a seed: what is drawn in one place says nothing about another, and
    /// nobody need remember how much was drawn before.
    pub(crate) fn at(seed: u64, place: &[u64]) -> Self {
        Self::new(place.iter().fold(mix(seed), |state, part| mix(state ^ part.wrapping_mul(STEP))))
    }

    /// Returns 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        scramble(self.state)
    }

    /// Returns a number from 0 up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The golden ratio in 64 bits.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(state: u64) -> u64 {
    scramble(state.wrapping_add(STEP))
}

fn scramble(state: u64) -> u64 {
    let mut bits = state;
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_own_numbers() {
        let places: [&[u64]; 6] = [&[], &[0], &[1], &[0, 0], &[0, 1], &[1, 0]];
        let firsts: std::collections::HashSet<u64> =
            places.iter().map(|place| Random::at(7, place).bits()).collect();
        assert_eq!(firsts.len(), places.len());
        assert_eq!(Random::at(7, &[3, 4]).bits(), Random::at(7, &[3, 4]).bits());
        assert_ne!(Random::at(7, &[3, 4]).bits(), Random::at(8, &[3, 4]).bits());
    }

    #[test]
    fn numbers_fill_the_unit() {
        let mut random = Random::new(3);
        let mean = (0..10_000).map(|_| random.unit()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
