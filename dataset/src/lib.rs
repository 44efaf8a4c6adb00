//! Training files: checked row by row, and repaired.
//!
//! Pure computation: what is read and written is handed in, and so is the counter of tokens. No network, no database, no
//! clock, no randomness (seeds are arguments). Memory stays bounded whatever the file: a line is held only up to
//! [`Options::max_line_bytes`], and what is remembered of the rows has a limit.

mod check;
pub mod figures;
mod findings;
pub mod hash;
pub mod json;
mod language;
pub mod lines;
pub mod personal;
pub mod pieces;
pub mod repair;
pub mod report;
pub mod row;
pub mod tokens;

use std::io::{self, Empty, Read};

pub use check::{Rejected, Rows, Sound};
use figures::Distribution;
pub use report::{Finding, Problem, Report, Warning};
pub use row::Format;

/// Counts tokens as the model that is trained does.
pub trait Count: Sync {
    /// Tokens of a text; what looks like a special token is text, too.
    fn tokens(&self, text: &str) -> usize;
}

/// What a file is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The kind of rows that is expected; none where the first row decides.
    pub format: Option<Format>,
    /// Tokens that the model takes in one training example; what is beyond is cut off.
    pub row_limit: usize,
    /// How often the file is trained on; none for what the cookbook guesses.
    pub epochs: Option<u32>,
    /// Only format and figures, without the checks beyond them.
    pub fast: bool,
    /// Whether the model is trained with rows of `prompt` and `completion`.
    pub completions_allowed: bool,
    /// Whether the model is trained with images.
    pub images_allowed: bool,
    /// Longest line, bytes: a longer one is an error, and never held in memory.
    pub max_line_bytes: usize,
    /// Fewer examples are an error (of a validation file, none).
    pub min_examples: u64,
}

impl Default for Options {
    /// For a file whose model is not known yet.
    fn default() -> Self {
        Self {
            format: None,
            row_limit: 65_536,
            epochs: None,
            fast: false,
            completions_allowed: true,
            images_allowed: true,
            max_line_bytes: 16 << 20,
            min_examples: 10,
        }
    }
}

/// What a price needs to know about a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Rows that can be trained on.
    pub examples: u64,
    /// Rows longer than the limit.
    pub over_limit: u64,
    /// Tokens of all rows, each up to the limit.
    pub billed_tokens: u64,
    /// How often the file is trained on.
    pub epochs: u32,
    /// `billed_tokens` × `epochs`.
    pub total_billed_tokens: u64,
    /// Tokens of a row.
    pub tokens: Distribution,
}

/// Checks a training file, and a validation file beside it. `progress` is told the bytes read so far, of both.
///
/// # Errors
///
/// Those of the sources. What is wrong in the files is in the report.
pub fn check(
    source: impl Read,
    validation: Option<impl Read>,
    options: &Options,
    count: &dyn Count,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Report> {
    check::Check::new(options, count, progress).run(source, validation)
}

/// The figures alone.
///
/// # Errors
///
/// Those of the source.
pub fn figures(source: impl Read, options: &Options, count: &dyn Count) -> io::Result<Figures> {
    let options = Options { fast: true, ..*options };
    let report = check(source, None::<Empty>, &options, count, &mut |_| {})?;
    Ok(Figures {
        examples: report.examples,
        over_limit: report.over_limit,
        billed_tokens: report.billed_tokens,
        epochs: report.epochs,
        total_billed_tokens: report.total_billed_tokens,
        tokens: report.tokens,
    })
}
