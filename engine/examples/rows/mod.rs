//! The rows that the examples learn from.

use std::num::ParseIntError;

use tunegate_engine::train::Example;

/// Reads the rows of a language, or of `all`: a line is its name, then tokens, those that count with a star.
pub(crate) fn read(text: &str, language: &str) -> Result<Vec<Example>, ParseIntError> {
    let of_language = |line: &&str| {
        let named = line.split(' ').next().unwrap_or_default();
        named == language || (language == "all" && !matches!(named, "" | "#"))
    };
    let row = |line: &str| {
        let words = line.split(' ').skip(1);
        let weights = words.clone().map(|word| f32::from(u8::from(word.starts_with('*')))).collect();
        let tokens = words.map(|word| word.trim_start_matches('*').parse()).collect::<Result<_, _>>()?;
        Ok(Example { tokens, weights })
    };
    text.lines().filter(of_language).map(row).collect()
}
