//! A hash that stays the same in every version and on every machine: seeds of splits and samples depend on it.
//!
//! 64 bits by folded multiplication, as wyhash does it. Not for secrets: whoever wants two texts to be taken for the same
//! finds some.

const FIRST: u64 = 0xa076_1d64_78bd_642f;
const SECOND: u64 = 0xe703_7ed1_a0b4_28db;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Mixes two numbers.
pub fn mix(a: u64, b: u64) -> u64 {
    fold(a ^ FIRST, b ^ SECOND)
}

/// The hash of bytes.
pub fn of(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        for (seed, text, want) in [
            (0, "", 0x832f_f0d4_5093_5050),
            (0, "cat", 0xbc30_41e0_5586_61cf),
            (1, "cat", 0xab18_972b_3757_01ee),
            (0, "a text of more than eight bytes", 0x4773_f843_5897_de67),
        ] {
            assert_eq!(of(seed, text.as_bytes()), want, "{seed} {text}");
        }
    }

    #[test]
    fn its_bits_are_spread() {
        let mut low = [0_u32; 64];
        for number in 0..64_000_u64 {
            low[(of(7, &number.to_le_bytes()) % 64) as usize] += 1;
        }
        assert!(low.iter().all(|count| (850..1_150).contains(count)), "{low:?}");
    }
}
