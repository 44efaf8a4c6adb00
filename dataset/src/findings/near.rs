//! Rows that nearly say the same, found without comparing each with each.
//!
//! MinHash in one permutation (Li, Owen, Zhang 2012) with optimal densification (Shrivastava 2017) over shingles of five
//! characters; rows that agree in one of 21 bands of six values are compared by all values.

use crate::hash;

/// Values of a signature.
const VALUES: usize = 128;
/// Values in which rows must agree to be compared.
const BAND: usize = 6;
const BANDS: usize = VALUES / BAND;
/// Rows whose values agree so often are near: an estimated Jaccard similarity of 0.8.
const NEAR: usize = VALUES * 4 / 5 + 1;
/// Characters of a shingle.
const SHINGLE: usize = 5;
/// A row is compared with so many groups of its bucket.
const MOST_COMPARED: usize = 16;
const SEED: u64 = 5;

/// What of a row is remembered.
type Signature = [u16; VALUES];

/// The method, as a report says it.
pub(crate) const METHOD: &str = "MinHash: 128 values over shingles of 5 characters of all that user and assistant say, white \
                                 space and case left out; rows that agree in one of 21 bands of 6 values are compared";
/// The threshold, as a report says it.
pub(crate) const THRESHOLD: &str = "estimated Jaccard similarity of at least 0.8";

/// Rows' signatures, by the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    all: Vec<Signature>,
    shingles: Vec<u64>,
}

impl Signatures {
    /// Adds a row's text.
    pub(crate) fn add<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        self.shingles.clear();
        for text in texts {
            shingles(text, &mut self.shingles);
        }
        self.all.push(signature(&self.shingles));
    }

    /// Keeps those of which `keep` says so, by their place.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut place = 0;
        self.all.retain(|_| {
            place += 1;
            keep(place - 1)
        });
    }

    /// For each row the first row of its group of near ones: itself, where there are none before it.
    pub(crate) fn groups(&self) -> Vec<u32> {
        let mut first: Vec<u32> = (0..self.all.len() as u32).collect();
        let mut keyed: Vec<(u64, u32)> = Vec::with_capacity(self.all.len());
        for band in 0..BANDS {
            keyed.clear();
            keyed.extend(self.all.iter().zip(0..).map(|(signature, row)| (key(signature, band), row)));
            keyed.sort_unstable();
            for bucket in keyed.chunk_by(|one, other| one.0 == other.0) {
                self.join(bucket, &mut first);
            }
        }
        (0..first.len() as u32).map(|row| root(&mut first, row)).collect()
    }

    fn join(&self, bucket: &[(u64, u32)], first: &mut [u32]) {
        let mut apart: Vec<u32> = Vec::new();
        for (_, row) in bucket {
            let own = root(first, *row);
            let mut joined = false;
            for other in &apart {
                let theirs = root(first, *other);
                if theirs == own {
                    joined = true;
                    break;
                }
                if self.are_near(*row, *other) {
                    let (low, high) = (own.min(theirs), own.max(theirs));
                    first[high as usize] = low;
                    joined = true;
                    break;
                }
            }
            if !joined && apart.len() < MOST_COMPARED {
                apart.push(*row);
            }
        }
    }

    fn are_near(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.all[one as usize], &self.all[other as usize]);
        one.iter().zip(other).filter(|(one, other)| one == other).count() >= NEAR
    }
}

fn root(first: &mut [u32], row: u32) -> u32 {
    let mut at = row;
    while first[at as usize] != at {
        let above = first[first[at as usize] as usize];
        first[at as usize] = above;
        at = above;
    }
    at
}

fn key(signature: &Signature, band: usize) -> u64 {
    signature[band * BAND..][..BAND]
        .iter()
        .fold(band as u64, |state, value| hash::mix(state, u64::from(*value)))
}

/// Hashes of all stretches of five characters; of a shorter text, of the whole.
fn shingles(text: &str, into: &mut Vec<u64>) {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let falls_out = (0..SHINGLE).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut window = [0_u64; SHINGLE];
    let (mut rolling, mut seen) = (0_u64, 0_usize);
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        let c = if c.is_ascii() { c.to_ascii_lowercase() } else { c.to_lowercase().next().unwrap_or(c) };
        // 0 would be lost at the beginning
        let number = u64::from(c) + 1;
        let oldest = std::mem::replace(&mut window[seen % SHINGLE], number);
        rolling =
            rolling.wrapping_mul(BASE).wrapping_add(number).wrapping_sub(oldest.wrapping_mul(falls_out));
        seen += 1;
        if seen >= SHINGLE {
            into.push(hash::mix(rolling, SEED));
        }
    }
    if (1..SHINGLE).contains(&seen) {
        into.push(hash::mix(rolling, SEED));
    }
}

fn signature(shingles: &[u64]) -> Signature {
    const EMPTY: u64 = u64::MAX;
    let mut least = [EMPTY; VALUES];
    for shingle in shingles {
        let bin = &mut least[(shingle >> 57) as usize];
        *bin = (*bin).min(shingle & (u64::MAX >> 7));
    }
    let mut values = [0; VALUES];
    if shingles.is_empty() {
        return values;
    }
    for (at, value) in values.iter_mut().enumerate() {
        // an empty bin takes the value of another, the same one in all rows where that is not empty
        let mut from = at;
        let mut attempt = 0;
        while least[from] == EMPTY {
            attempt += 1;
            from = (hash::mix(at as u64, attempt) >> 57) as usize;
        }
        *value = (hash::mix(least[from], from as u64) >> 48) as u16;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn groups(texts: &[String]) -> Vec<u32> {
        let mut signatures = Signatures::default();
        texts.iter().for_each(|text| signatures.add(std::iter::once(text.as_str())));
        signatures.groups()
    }

    fn jaccard(one: &str, other: &str) -> f64 {
        let set = |text: &str| {
            let mut found = Vec::new();
            shingles(text, &mut found);
            found.into_iter().collect::<BTreeSet<u64>>()
        };
        let (one, other) = (set(one), set(other));
        one.intersection(&other).count() as f64 / one.union(&other).count().max(1) as f64
    }

    #[test]
    fn near_rows_are_found_and_others_are_not() {
        let story = |ending: &str| {
            format!(
                "Once upon a time there was a cat on a red roof who looked at the moon every night, and when the rain \
                 came he hid below the chimney of the neighbour and dreamt of fish, {ending}"
            )
        };
        let texts = [
            story("the end"),
            "Something that has nothing to do with animals: how do I reset my password?".to_owned(),
            story("and that was all"),
            story("THE  END"),
            "猫".to_owned(),
            "猫".to_owned(),
            "犬".to_owned(),
            String::new(),
            String::new(),
        ];
        assert_eq!(groups(&texts), [0, 1, 0, 0, 4, 4, 6, 7, 7]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Texts of 40 words, some with a few words changed: what is far above the threshold is found, what is far below
        /// is not.
        #[test]
        fn it_agrees_with_comparing_each_with_each(
            seeds in prop::collection::vec((0_u64..6, 0_usize..14), 2..14)
        ) {
            let text = |seed: u64, changed: usize| (0..40_u64).map(|place| {
                let odd = place < changed as u64;
                let word = hash::mix(seed * 1_000 + place, if odd { 77 + changed as u64 } else { 1 });
                format!("{:x} ", word % 0xfff_ffff)
            }).collect::<String>();
            let texts: Vec<String> = seeds.iter().map(|(seed, changed)| text(*seed, *changed)).collect();
            let found = groups(&texts);
            for one in 0..texts.len() {
                for other in 0..one {
                    let same = found[one] == found[other];
                    let likeness = jaccard(&texts[one], &texts[other]);
                    prop_assert!(likeness < 0.95 || same, "{one} {other} {likeness}");
                    // chains of near rows are one group, so only strangers are surely apart
                    prop_assert!(likeness > 0.2 || !same, "{one} {other} {likeness}");
                }
            }
        }
    }
}
