use std::path::Path;

use super::condition::{KEYS, TOKEN_KEYS};
use super::read::{CASE_KEYS, CHOICE_KEYS, KINDS, MEASURES, RAMP_KEYS};

#[test]
fn every_key_of_plans_is_in_the_full_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.toml");
    let text = std::fs::read_to_string(path).expect("there");
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let kinds = KINDS.iter().flat_map(|(kind, beside)| std::iter::once(kind).chain(*beside));
    let measures = MEASURES.iter().map(|(name, _)| name);
    let others = [&KEYS[..], &TOKEN_KEYS, &CASE_KEYS, &CHOICE_KEYS, &RAMP_KEYS].concat();
    for key in kinds.chain(measures).chain(&others) {
        assert!(words.contains(key), "{key} is not in full.toml");
    }
}
