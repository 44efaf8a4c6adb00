//! Texts to vectors: what `/v1/embeddings` computes with.
//!
//! The model is small and read-only, and its thread is its own: a long answer of the other model holds up no vector, and
//! a thousand texts hold up no answer for longer than the machine's cores are shared.

mod desk;

use std::path::Path;

use tokenizers::Tokenizer;
use tunegate_engine::Encoder;

pub(super) use desk::{Embedded, EmbeddingDesk};

use super::EmbeddingConfig;
use super::model::{LoadError, is_meant};
use super::wire::{EmbeddingRequest, Refusal, VectorForm};

/// The most tokens of a text, with the two that open and close it: what all-MiniLM-L6-v2's card says it was made for,
/// though it has more positions.
const MOST_TOKENS: usize = 256;
/// A longer text is refused without counting its tokens, which takes time: its words would have 256 characters each.
const MOST_BYTES: usize = 64 << 10;

/// What answers requests for vectors, but for the encoder, which its own thread owns.
pub(super) struct EmbeddingModel {
    /// The name it answers to.
    pub(super) name: String,
    tokenizer: Tokenizer,
    dimensions: usize,
    /// The most tokens of a text, with those that open and close it.
    most: usize,
    /// How many open and close a text.
    frame: usize,
}

/// A request that the desk can take.
pub(super) struct Prepared {
    /// The tokens of each text, with those that open and close it.
    pub(super) texts: Vec<Vec<u32>>,
    /// How the vectors are to be written.
    pub(super) form: VectorForm,
    /// The tokens of all texts, without those that open and close each: never more than a text has bytes, so that a
    /// request can be paid for before it is sent.
    pub(super) tokens: usize,
}

impl EmbeddingModel {
    /// Loads the folder of `config`; takes some tenths of a second.
    pub(super) fn load(config: &EmbeddingConfig) -> Result<(Self, Encoder), LoadError> {
        let folder = &config.folder;
        if !folder.is_dir() {
            return Err(LoadError::MissingFolder(folder.clone()));
        }
        let encoder =
            Encoder::load(folder).map_err(|source| LoadError::Folder { folder: folder.clone(), source })?;
        let path = folder.join("tokenizer.json");
        let wrong = |why: String| LoadError::EmbeddingTokenizer { path: path.clone(), why };
        let tokenizer = tokenizer(&path).map_err(wrong)?;
        let tokens = tokenizer.get_vocab_size(true);
        if tokens > encoder.vocabulary() {
            return Err(wrong(format!("it has {tokens} tokens, the model {}", encoder.vocabulary())));
        }
        let frame = tokenizer.encode("", true).map_err(|error| wrong(error.to_string()))?.len();
        let model = Self {
            name: config.name.clone(),
            tokenizer,
            dimensions: encoder.dimensions(),
            most: encoder.positions().min(MOST_TOKENS),
            frame,
        };
        Ok((model, encoder))
    }

    /// Whether the model answers to `name`.
    pub(super) fn is_called(&self, name: &str) -> bool {
        is_meant(&self.name, name)
    }

    /// Reads a request and turns its texts into tokens.
    pub(super) fn prepare(&self, body: &[u8]) -> Result<Prepared, Refusal> {
        let request = EmbeddingRequest::parse(body, self.dimensions)?;
        if !self.is_called(&request.model) {
            return Err(Refusal::unknown_model(&request.model));
        }
        let texts = request.texts.iter().map(|(text, path)| self.tokens(text, path));
        let texts: Vec<Vec<u32>> = texts.collect::<Result<_, _>>()?;
        let tokens = texts.iter().map(|tokens| tokens.len() - self.frame).sum();
        Ok(Prepared { texts, form: request.form, tokens })
    }

    fn tokens(&self, text: &str, path: &str) -> Result<Vec<u32>, Refusal> {
        if text.len() > MOST_BYTES {
            let reason = format!("{} bytes; at most {MOST_BYTES} are taken", text.len());
            return Err(Refusal::invalid(path, &reason));
        }
        let encoding = self.tokenizer.encode(text, true).map_err(|error| {
            tracing::error!(%error, "the embedding model's tokenizer failed on a request");
            Refusal::failed()
        })?;
        let tokens = encoding.get_ids();
        if tokens.len() > self.most {
            return Err(Refusal::context_exceeded(self.most - self.frame, tokens.len() - self.frame, path));
        }
        Ok(tokens.to_vec())
    }
}

/// Reads the file, but for what it says of cutting and filling up: a text is taken whole or refused.
fn tokenizer(path: &Path) -> Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::from_file(path).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
    // What a user writes is text, whatever it looks like.
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::testing;
    use serde_json::json;

    fn prepared(input: &serde_json::Value) -> Result<Prepared, Refusal> {
        let (model, _) = testing::embedding_model();
        model.prepare(json!({"model": "local/mini", "input": input}).to_string().as_bytes())
    }

    #[test]
    fn texts_become_the_tokens_of_the_reference() {
        let golden = include_str!("../../engine/tests/golden/embeddings.txt");
        let mut compared = 0;
        let mut lines = golden.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((_, text)) = line.strip_prefix("text ").and_then(|text| text.split_once(' ')) else {
                continue;
            };
            let mut want = Vec::new();
            while let Some(ids) = lines.next_if(|line| line.starts_with("tokens ")) {
                want.extend(ids.split(' ').skip(1).map(|id| id.parse::<u32>().unwrap()));
            }
            let found = prepared(&json!(text)).unwrap();
            assert_eq!((found.tokens, &found.texts[0]), (want.len() - 2, &want), "{text}");
            compared += 1;
        }
        assert_eq!(compared, 5);
    }

    #[test]
    fn a_text_is_text_and_no_more_tokens_than_bytes() {
        for text in ["[SEP]", "[CLS] a [MASK]", "a", " ", "\u{200b}", "日本語", "각", "é", "ﷺ", "🦀"]
        {
            let found = prepared(&json!(text)).unwrap();
            assert!(found.tokens <= text.len(), "{text}: {}", found.tokens);
            let inside = &found.texts[0][1..=found.tokens];
            assert!(!inside.iter().any(|id| [101, 102, 103].contains(id)), "{text}: {inside:?}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_told_how_much_is_taken() {
        assert_eq!(prepared(&json!("a ".repeat(254))).unwrap().tokens, 254);
        for (input, want) in [
            (json!("a ".repeat(255)), "length is 254 tokens. However, your input resulted in 255 tokens"),
            (json!(["a", "b ".repeat(300)]), "your input[1] resulted in 300 tokens"),
            (json!("a".repeat(70_000)), "'input': 70000 bytes; at most 65536 are taken"),
        ] {
            let refusal = prepared(&input).err().map(|refusal| refusal.to_json()).unwrap_or_default();
            assert!(refusal.contains(want), "{refusal}");
        }
    }
}
