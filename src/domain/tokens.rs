//! Counting tokens ourselves: for what is held before a request is sent, and for what a provider did not report.
//!
//! Exact where OpenAI's rules are published (text, messages, flat tools), never below them where they are not. One walk
//! over the body does it all, without a tree in memory; it also finds what can't be counted at all. Must never believe
//! the body: a hostile one costs a bounded time.

mod encoding;
mod images;
mod tools;
mod walk;

pub use encoding::Encoding;

use super::catalog::{Deployment, Dialect};
use super::endpoint::Endpoint;
use super::model_name::{always_searches, base_of};
use super::unboundable::Unboundable;
use images::ImageRule;

/// Of one request's text only so much is counted: 25 to 45 ms of one core for prose, 0.4 s for one run of a letter. The
/// rest is bounded: a byte-level encoding never makes more tokens than there are bytes.
///
/// A linear counter (bpe-openai 0.3.2, equal counts) takes 1.4 times less for prose and 30 times less for one long run,
/// but adds 66 MiB for o200k and 29 MiB for cl100k (measured 2026-11-22): not worth it for texts of this size.
pub const COUNTED_BYTES: usize = 1 << 20;

/// A text that is counted in less time than another thread takes to take over, bytes.
pub const QUICK_BYTES: usize = 4 << 10;

/// What a text costs beside its length, as bytes: a body may be full of empty ones.
const TEXT_BYTES: usize = 16;

/// What text is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scale {
    /// The model's own table.
    Table(Encoding),
    /// The bytes of its UTF-8: the only bound that holds for a byte-level encoding which is not known.
    Bytes,
}

/// Counts the input of requests for one family of models. Equal ones count alike: a count may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenCounter {
    scale: Scale,
    images: ImageRule,
    /// Why nothing that the model is asked can be bounded.
    never: Option<Unboundable>,
}

/// What was counted, tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of the input.
    pub input: u64,
    /// The part of it that may be billed as audio.
    pub audio: u64,
    /// The `prediction` of a chat completion: what is rejected of it is billed as output.
    pub predicted: u64,
    /// The first thing found whose cost the request does not tell; the counts leave it out.
    pub unboundable: Option<Unboundable>,
}

impl TokenCounter {
    /// For an estimate: a model whose name says nothing is counted with o200k.
    pub fn estimating(model: &str) -> Self {
        Self {
            scale: Scale::Table(Encoding::of_model(model)),
            images: ImageRule::of_base(base_of(model)),
            never: None,
        }
    }

    /// For an upper bound on one deployment, asked for one of the provider's models: a table where it is known that it
    /// is the model's, bytes where it is not, and for our worker, which has a table of its own.
    pub fn bounding(deployment: &Deployment, upstream_model: &str) -> Self {
        let identity = deployment.base_model.as_deref().unwrap_or(upstream_model);
        let base = base_of(identity);
        let known = match deployment.provider.dialect {
            Dialect::Candle => None,
            _ => Encoding::known_of(base),
        };
        Self {
            scale: known.map_or(Scale::Bytes, Scale::Table),
            images: ImageRule::of_base(base),
            never: always_searches(identity).then_some(Unboundable::WebSearch),
        }
    }

    /// For what is expected on one deployment: as exact as a bound where its table is known, else with the table that
    /// its name suggests.
    pub fn expecting(deployment: &Deployment, upstream_model: &str) -> Self {
        let bounding = Self::bounding(deployment, upstream_model);
        match bounding.scale {
            Scale::Table(_) => bounding,
            Scale::Bytes => {
                let identity = deployment.base_model.as_deref().unwrap_or(upstream_model);
                Self { scale: Scale::Table(Encoding::of_model(identity)), ..bounding }
            }
        }
    }

    /// The same, but with bytes for tokens: a bound that takes a tenth of the time, and is about four times as high.
    #[must_use]
    pub const fn in_bytes(self) -> Self {
        Self { scale: Scale::Bytes, ..self }
    }

    /// Tokens of a request's input.
    ///
    /// Takes 18 µs (o200k) or 30 µs (cl100k) for a chat of 900 bytes, 1.4 or 2.5 ms for one of 64 KiB (optimised, one
    /// core, 2026-11-22).
    pub fn count(&self, endpoint: Endpoint, body: &[u8]) -> Counted {
        let mut tally = Tally::new(*self);
        match walk::request(&mut tally, endpoint, body) {
            Ok(()) => tally.counted,
            Err(_) => self.count_unreadable(body),
        }
    }

    /// A number or an escape that has no value, or a nest too deep for us, need be no trouble to the provider: then all
    /// the text there is counts.
    fn count_unreadable(&self, body: &[u8]) -> Counted {
        let mut tally = Tally::new(*self);
        tally.cannot(Unboundable::Unreadable);
        tally.add_text(&String::from_utf8_lossy(body));
        tally.counted
    }

    /// Tokens of a text.
    pub fn count_text(&self, text: &str) -> u64 {
        let mut tally = Tally::new(*self);
        tally.add_text(text);
        tally.counted.input
    }
}

/// A count in the making.
struct Tally {
    counter: TokenCounter,
    /// Bytes that may still be counted.
    countable: usize,
    counted: Counted,
}

impl Tally {
    fn new(counter: TokenCounter) -> Self {
        let counted = Counted { unboundable: counter.never, ..Counted::default() };
        Self { counter, countable: COUNTED_BYTES, counted }
    }

    const fn scale(&self) -> Scale {
        self.counter.scale
    }

    fn add(&mut self, tokens: u64) {
        self.counted.input = self.counted.input.saturating_add(tokens);
    }

    fn add_text(&mut self, text: &str) {
        let Scale::Table(encoding) = self.scale() else { return self.add(text.len() as u64) };
        let (counted, beyond) = text.split_at(text.floor_char_boundary(self.countable));
        self.countable = self.countable.saturating_sub(counted.len() + TEXT_BYTES);
        self.add(encoding.count(counted) + beyond.len() as u64);
    }

    fn add_audio(&mut self, tokens: u64) {
        self.add(tokens);
        self.counted.audio = self.counted.audio.saturating_add(tokens);
    }

    fn add_image(&mut self, size: Option<images::Size>, detail: images::Detail) {
        self.add(self.counter.images.tokens(size, detail));
    }

    /// What was added to the input since it had `before` is no input but a prediction.
    fn take_as_predicted(&mut self, before: Counted) {
        let predicted = self.counted.input.saturating_sub(before.input);
        (self.counted.input, self.counted.audio) = (before.input, before.audio);
        self.counted.predicted = self.counted.predicted.saturating_add(predicted);
    }

    fn cannot(&mut self, why: Unboundable) {
        self.counted.unboundable.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests;
