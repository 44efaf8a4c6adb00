//! A data set's figures, as each base model counts it: by its tokenizer and its limit on a row.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Empty, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tunegate_dataset::{Options, Report, check};

use crate::domain::dataset::{counter_for, options_for};
use crate::domain::economics::Lesson;
use crate::domain::prompt::hash::system_message_of;
use crate::domain::tokens::Encoding;
use crate::domain::tuning::target::Target;

/// Rows whose system prompt is looked at.
const ROWS: usize = 1_000;
/// Bytes of them, at most.
const MOST_BYTES: u64 = 32 << 20;

/// What is known of a data set, as one base model counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Studied {
    /// Rows.
    pub examples: u64,
    /// What is trained.
    #[serde(flatten)]
    pub lesson: Lesson,
    /// Tokens of all rows.
    pub tokens: u64,
    /// Tokens of all that the assistant says in them.
    pub assistant_tokens: u64,
    /// Tokens of the system prompt that most rows have.
    pub system_prompt_tokens: u64,
}

impl Studied {
    /// The same with so many passes, where somebody says so.
    #[must_use]
    pub fn with_epochs(self, epochs: Option<u32>) -> Self {
        let epochs = epochs.map_or(self.lesson.epochs, u64::from);
        Self { lesson: Lesson { epochs, ..self.lesson }, ..self }
    }
}

/// A file that is counted for one target after the other. Large files take seconds each: not for async threads.
pub struct Book {
    path: PathBuf,
    /// Passes, where somebody says so.
    epochs: Option<u32>,
    /// The system prompt that most rows have.
    system_prompt: Option<String>,
    /// Models that count alike are counted once.
    counted: Vec<(Encoding, Options, Result<Studied, String>)>,
}

impl Book {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn open(path: &Path, epochs: Option<u32>) -> io::Result<Self> {
        let system_prompt = system_prompt(File::open(path)?)?;
        Ok(Self { path: path.to_owned(), epochs, system_prompt, counted: Vec::new() })
    }

    /// Counts it as a target does.
    ///
    /// # Errors
    ///
    /// That it can't be read, or the first reason for which the target would refuse it, in words.
    pub fn study(&mut self, target: &Target) -> Result<Studied, String> {
        let model = &*target.model;
        let encoding = Encoding::of_model(model);
        let options = Options { epochs: self.epochs, fast: true, ..options_for(model) };
        let known = self.counted.iter().find(|(by, to, _)| *by == encoding && *to == options);
        if let Some((.., studied)) = known {
            return studied.clone();
        }
        let studied = self.count(model, &options);
        self.counted.push((encoding, options, studied.clone()));
        studied
    }

    fn count(&self, model: &str, options: &Options) -> Result<Studied, String> {
        let unread = |error: io::Error| format!("the file can't be read: {error}");
        let file = File::open(&self.path).map_err(unread)?;
        let counter = counter_for(model);
        let report = check(file, None::<Empty>, options, &counter, &mut |_| {}).map_err(unread)?;
        if let Some(why) = report.first_error_message() {
            return Err(format!("the file would be refused: {why}"));
        }
        let system_prompt = self.system_prompt.as_deref().unwrap_or_default();
        let system_prompt_tokens = tunegate_dataset::Count::tokens(&counter, system_prompt);
        Ok(studied(&report, u64::try_from(system_prompt_tokens).unwrap_or(u64::MAX)))
    }
}

fn studied(report: &Report, system_prompt_tokens: u64) -> Studied {
    Studied {
        examples: report.examples,
        lesson: Lesson { billed_tokens: report.billed_tokens, epochs: report.epochs.into() },
        tokens: report.tokens.total,
        assistant_tokens: report.assistant_tokens.total,
        system_prompt_tokens,
    }
}

/// The system prompt that most of the first rows have, none where they have none.
fn system_prompt(file: File) -> io::Result<Option<String>> {
    let mut rows = HashMap::<String, usize>::new();
    for line in BufReader::new(file.take(MOST_BYTES)).split(b'\n').take(ROWS) {
        let line = line?;
        let said = std::str::from_utf8(&line).ok().and_then(system_message_of);
        *rows.entry(said.unwrap_or_default()).or_default() += 1;
    }
    let most = rows.into_iter().max_by(|(a, rows_a), (b, rows_b)| (rows_a, b).cmp(&(rows_b, a)));
    Ok(most.map(|(words, _)| words).filter(|words| !words.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;
    use crate::domain::catalog::tests::deployment;

    fn target(model: &str) -> Target {
        Target { provider: Arc::clone(&deployment("d", "m").provider), model: model.into() }
    }

    fn file(rows: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for row in 0..rows {
            writeln!(
                file,
                r#"{{"messages":[{{"role":"system","content":"Be kind."}},{{"role":"user","content":"Question {row}?"}},{{"role":"assistant","content":"Answer."}}]}}"#
            )
            .expect("written");
        }
        file
    }

    #[test]
    fn a_file_is_counted_once_for_models_that_count_alike() {
        let file = file(20);
        let mut book = Book::open(file.path(), Some(2)).expect("read");
        let mini = book.study(&target("gpt-4.1-mini")).expect("sound");
        assert_eq!((mini.examples, mini.lesson.epochs, mini.system_prompt_tokens), (20, 2, 3));
        assert_eq!(mini.lesson.billed_tokens, mini.tokens);
        assert!(mini.assistant_tokens < mini.tokens && mini.assistant_tokens >= 20, "{mini:?}");
        assert_eq!(book.study(&target("gpt-4o")), Ok(mini));
        assert_eq!(book.counted.len(), 1);
        assert!(book.study(&target("gpt-3.5-turbo")).is_ok());
        assert_eq!(book.counted.len(), 2);
    }

    #[test]
    fn what_would_be_refused_has_no_figures() {
        let file = file(9);
        let mut book = Book::open(file.path(), None).expect("read");
        let why = book.study(&target("gpt-4.1-mini")).expect_err("nine rows");
        assert!(why.starts_with("the file would be refused: "), "{why}");
    }
}
