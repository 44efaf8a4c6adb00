//! Training files of a model: how its tokens are counted, and what its rows are held against.
//!
//! Source: OpenAI's guides on fine-tuning and its page of models, read on 2026-11-21. The checks themselves are a package
//! of their own, `dataset/`.

use tunegate_dataset::pieces::{PieceCounter, Split};
use tunegate_dataset::{Count, Format, Options};

use super::model_name::{base_of, is_of_family};
use super::tokens::Encoding;

/// Tokens of one training example, by families of base names; the first match wins. `gpt-3.5-turbo` without a date is its
/// last version.
const ROW_LIMITS: [(&str, usize); 10] = [
    ("gpt-3.5-turbo-0613", 4_096),
    ("gpt-35-turbo-0613", 4_096),
    ("gpt-3.5-turbo", 16_385),
    ("gpt-35-turbo", 16_385),
    ("gpt-4o", 65_536),
    ("gpt-4.1", 65_536),
    ("gpt-4.5", 65_536),
    ("gpt-4", 8_192),
    ("babbage-002", 16_384),
    ("davinci-002", 16_384),
];

/// Families that are trained with text alone.
const WITHOUT_IMAGES: [&str; 5] = ["gpt-3.5", "gpt-35", "gpt-4-0613", "babbage-002", "davinci-002"];
/// Families that are trained with completions, and with nothing else.
const OF_COMPLETIONS: [&str; 2] = ["babbage-002", "davinci-002"];
/// Families that are trained with chats.
const OF_CHATS: [&str; 4] = ["gpt-", "o1", "o3", "o4"];

/// What a model's training file is held against. A model that is not known is held against what any of them takes.
pub fn options_for(model: &str) -> Options {
    let base = base_of(model);
    let is_of = |families: &[&str]| families.iter().any(|family| is_of_family(base, family));
    let usual = Options::default();
    let limit = ROW_LIMITS.iter().find(|(family, _)| is_of_family(base, family)).map(|(_, limit)| *limit);
    Options {
        format: is_of(&OF_COMPLETIONS).then_some(Format::Completion),
        row_limit: limit.unwrap_or(usual.row_limit),
        completions_allowed: !is_of(&OF_CHATS),
        images_allowed: !is_of(&WITHOUT_IMAGES),
        ..usual
    }
}

/// Counts as a model's tokenizer does; one that is not known, with o200k.
pub fn counter_for(model: &str) -> impl Count + use<> {
    Counter::new(Encoding::of_model(model))
}

/// A counter of one encoding.
enum Counter {
    /// Cut by hand, which is several times faster.
    Pieces(PieceCounter<fn(&str) -> usize>),
    Whole(Encoding),
}

impl Counter {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Cl100k => {
                Self::Pieces(PieceCounter::new(Split::Cl100k, |piece| tokens(Encoding::Cl100k, piece)))
            }
            Encoding::O200k | Encoding::O200kHarmony => {
                Self::Pieces(PieceCounter::new(Split::O200k, |piece| tokens(Encoding::O200k, piece)))
            }
            Encoding::P50k | Encoding::R50k => Self::Whole(encoding),
        }
    }
}

impl Count for Counter {
    fn tokens(&self, text: &str) -> usize {
        match self {
            Self::Pieces(pieces) => pieces.tokens(text),
            Self::Whole(encoding) => tokens(*encoding, text),
        }
    }
}

/// On 64 bits a count always fits.
fn tokens(encoding: Encoding, text: &str) -> usize {
    usize::try_from(encoding.count(text)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_model_takes() {
        for (model, row_limit, format, completions, images) in [
            ("gpt-3.5-turbo-0613", 4_096, None, false, false),
            ("gpt-3.5-turbo", 16_385, None, false, false),
            ("azure/res/gpt-35-turbo-1106", 16_385, None, false, false),
            ("gpt-4-0613", 8_192, None, false, false),
            ("gpt-4o-mini-2024-07-18", 65_536, None, false, true),
            ("ft:gpt-4.1-mini-2025-04-14:acme::x", 65_536, None, false, true),
            ("gpt-4.1-2025-04-14.ft-0a1b", 65_536, None, false, true),
            ("davinci-002", 16_384, Some(Format::Completion), true, false),
            ("local/smollm2-135m", 65_536, None, true, true),
        ] {
            let found = options_for(model);
            assert_eq!(
                (found.row_limit, found.format, found.completions_allowed, found.images_allowed),
                (row_limit, format, completions, images),
                "{model}"
            );
        }
    }

    #[test]
    fn both_ways_of_counting_agree() {
        let text = "The cat's 12345 meows — 猫はニャーと鳴く。\n\n  'Tis THE END";
        for model in ["gpt-4o", "gpt-3.5-turbo", "gpt-oss-20b", "text-davinci-003", "davinci"] {
            let want = tokens(Encoding::of_model(model), text);
            assert_eq!(counter_for(model).tokens(text), want, "{model}");
        }
    }
}
