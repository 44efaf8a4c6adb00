//! The text of one answer while it grows.

use super::Tokenizer;
use super::detokenizer::Detokenizer;
use super::stops::{Passed, Stops};

/// Turns the tokens of one answer into text that may be sent.
#[derive(Debug)]
pub(in crate::worker) struct Transcript {
    detokenizer: Detokenizer,
    stops: Stops,
}

/// What one token added.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) struct Piece {
    /// Text that may be sent; empty while a character or a possible stop sequence is held back.
    pub(in crate::worker) text: String,
    /// A stop sequence came: the answer ends before it.
    pub(in crate::worker) stopped: bool,
}

impl Transcript {
    /// Begins an answer that ends before any of `stops`.
    pub(in crate::worker) fn new(stops: Vec<String>) -> Self {
        Self { detokenizer: Detokenizer::default(), stops: Stops::new(stops) }
    }

    /// Takes a token that does not end the answer.
    pub(in crate::worker) fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Piece {
        let Passed { text, stopped } = self.stops.push(&self.detokenizer.push(tokenizer.bytes(token)));
        Piece { text, stopped }
    }

    /// Returns what was held back, at the answer's end.
    pub(in crate::worker) fn finish(&mut self) -> String {
        let Passed { mut text, stopped } = self.stops.push(&self.detokenizer.finish());
        if !stopped {
            text += &self.stops.finish();
        }
        text
    }
}
