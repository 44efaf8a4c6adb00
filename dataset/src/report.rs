//! What a check found, as it is stored and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::figures::Distribution;
use crate::row::Format;

/// Errors that are kept with their words; all are counted.
pub const KEPT_ERRORS: usize = 1_000;
/// Lines that are named for each finding.
pub const KEPT_LINES: usize = 100;

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What is learned.
    Training,
    /// What the model is tried with.
    Validation,
}

/// Why the provider would refuse the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// In which file.
    pub file: Side,
    /// On which line, the first is 1; none where it is about the whole file.
    pub line: Option<u64>,
    /// Which member, such as `messages[1].role`; empty for the whole line.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// In one line: `line 3, messages[1].role: "boss" is no role: …`.
    pub fn words(&self) -> String {
        let file = match self.file {
            Side::Training => "",
            Side::Validation => "validation file, ",
        };
        match (self.line, self.path.as_str()) {
            (None, _) => format!("{file}{}", self.message),
            (Some(line), "") => format!("{file}line {line}: {}", self.message),
            (Some(line), path) => format!("{file}line {line}, {path}: {}", self.message),
        }
    }
}

/// What the provider accepts, but a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about, such as `near_duplicates`; the finding of the same name says how it was found.
    pub kind: String,
    /// How many rows, or whatever the words say.
    pub count: u64,
    /// The first lines that it is about.
    pub lines: Vec<u64>,
    /// What was found, and what to do.
    pub message: String,
}

/// One check beyond the format: how it works and what it found, nothing included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, such as `near_duplicates`.
    pub kind: String,
    /// How it is found.
    pub method: String,
    /// From when on it counts.
    pub threshold: String,
    /// Rows that were looked at: all, or a sample.
    pub rows_examined: u64,
    /// Rows that it was found in, or whatever the words say.
    pub count: u64,
    /// The first lines that it was found on.
    pub lines: Vec<u64>,
    /// Lines that belong together, where that is the point; of a leak first the validation file's, then the training
    /// file's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Vec<u64>>,
    /// What was found, in words.
    pub words: String,
}

/// What the rows say as the system, most often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemPrompt {
    /// SHA-256 of the text, 64 hex digits in lower case.
    pub sha256: String,
    /// The text, empty where most rows have none; absent where it is longer than 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Rows with it.
    pub rows: u64,
    /// How many different ones there are, none at all included; of 1,000 on more are not told apart.
    pub distinct: u64,
}

/// Rows whose answer is in one language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanguageRows {
    /// Its code (`ja`), the name of a script where that does not tell (`cyrillic`), `und` where nothing does.
    pub language: String,
    /// How many.
    pub rows: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Rows that can be trained on.
    pub examples: u64,
    /// Why the provider would refuse the file, the first 1,000.
    pub errors: Vec<Problem>,
    /// How many there are.
    pub error_count: u64,
    /// What is accepted but should be looked at.
    pub warnings: Vec<Warning>,
    /// Tokens of a row.
    pub tokens: Distribution,
    /// Tokens of what the assistant says in a row.
    pub assistant_tokens: Distribution,
    /// Messages of a row.
    pub messages: Distribution,
    /// Rows longer than `row_limit`: they are cut at their end.
    pub over_limit: u64,
    /// Tokens of all rows, each up to the limit.
    pub billed_tokens: u64,
    /// How often the file is trained on: as asked, else as the cookbook guesses.
    pub epochs: u32,
    /// `billed_tokens` × `epochs`.
    pub total_billed_tokens: u64,
    /// What that costs, by target: filled by whoever knows prices.
    pub cost_usd_by_target: BTreeMap<String, Value>,
    /// What kind of rows; none where no row could be read.
    pub format: Option<Format>,
    /// Rows in the file, those with errors included.
    pub rows: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Tokens that the model takes in one row.
    pub row_limit: u64,
    /// Tokens that are cut off and not learned.
    pub cut_tokens: u64,
    /// Rows without a message of the system.
    pub missing_system: u64,
    /// Rows without a message of the user.
    pub missing_user: u64,
    /// The words of the system; none where there are no rows, or it was not looked at.
    pub system_prompt: Option<SystemPrompt>,
    /// Languages of the answers, the most frequent first.
    pub languages: Vec<LanguageRows>,
    /// Each check beyond the format.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many reasons there are to refuse the file.
    pub const fn errors_total(&self) -> u64 {
        self.error_count
    }

    /// Whether a provider would take the file.
    pub const fn is_trainable(&self) -> bool {
        self.error_count == 0
    }

    /// The first reason, and how many more there are; none where the file is sound.
    pub fn first_error_message(&self) -> Option<String> {
        let first = self.errors.first()?.words();
        Some(match self.error_count {
            ..=1 => first,
            more => format!("{first} (and {} more)", more - 1),
        })
    }

    /// The check of a name, if it was made.
    pub fn finding(&self, kind: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.kind == kind)
    }
}
