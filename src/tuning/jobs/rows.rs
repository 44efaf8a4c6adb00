//! The texts of a training file's rows, for those who judge them; a few at a time, however long the file is.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::domain::tuning::JobError;

/// Batches that wait to be judged.
const WAITING: usize = 2;
/// Lines that are named.
const MOST_NAMED: usize = 20;

/// The text of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line, from 1.
    pub(super) line: u64,
    /// All that is said in it.
    pub(super) text: String,
}

/// Reads a file off the async threads, so many rows at a time. The reader ends with the receiver.
pub(super) fn texts(path: PathBuf, at_once: usize) -> mpsc::Receiver<io::Result<Vec<Row>>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(path, at_once, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

fn read(path: PathBuf, at_once: usize, sender: &mpsc::Sender<io::Result<Vec<Row>>>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(at_once);
    for (index, line) in BufReader::new(File::open(path)?).split(b'\n').enumerate() {
        let text = said(&serde_json::from_slice(&line?).unwrap_or_default());
        if text.is_empty() {
            continue;
        }
        batch.push(Row { line: u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1), text });
        if batch.len() == at_once && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        let _ = sender.blocking_send(Ok(batch));
    }
    Ok(())
}

/// All that is said in a row, whatever its format: what stands under the members that hold words.
fn said(row: &Value) -> String {
    let mut words = Vec::new();
    gather(row, &mut words);
    words.join("\n")
}

fn gather<'a>(value: &'a Value, words: &mut Vec<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, words)),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("content" | "text" | "prompt" | "completion" | "arguments", Value::String(text)) => {
                        words.push(text);
                    }
                    _ => gather(member, words),
                }
            }
        }
        _ => {}
    }
}

/// What is said of rows that may not be trained on.
pub(super) fn unsafe_rows(lines: &[u64]) -> JobError {
    let named: Vec<String> = lines.iter().take(MOST_NAMED).map(u64::to_string).collect();
    let more = match lines.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    JobError {
        code: Some("unsafe_file".to_owned()),
        message: Some(format!(
            "moderation flagged rows of the training file, in the lines {}{more}: take them out and upload the rest",
            named.join(", ")
        )),
        param: Some("training_file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn rows_come_in_batches_with_their_lines() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let rows = [
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]}]}"#,
            "",
            r#"{"prompt":"c","completion":"d"}"#,
            r#"{"input":{"messages":[{"role":"user","content":"e"}]},"preferred_output":[{"role":"assistant","content":"f"}]}"#,
        ];
        write!(file, "{}", rows.join("\n")).expect("written");
        let mut batches = texts(file.path().to_owned(), 2);
        let mut all = Vec::new();
        while let Some(batch) = batches.recv().await {
            let batch = batch.expect("read");
            assert!(batch.len() <= 2);
            all.extend(batch.into_iter().map(|row| (row.line, row.text)));
        }
        let mut words: Vec<(u64, Vec<&str>)> =
            all.iter().map(|(line, text)| (*line, text.split('\n').collect())).collect();
        words.iter_mut().for_each(|(_, words)| words.sort_unstable());
        assert_eq!(words, [(1, vec!["a", "b"]), (3, vec!["c", "d"]), (4, vec!["e", "f"])]);
        let mut none = texts("/nowhere".into(), 2);
        assert!(none.recv().await.expect("told").is_err());
    }

    #[test]
    fn flagged_lines_are_named() {
        let said = |count: u64| unsafe_rows(&(1..=count).collect::<Vec<_>>()).message.expect("words");
        assert!(said(2).contains("lines 1, 2:"));
        assert!(said(25).contains("19, 20 and 5 more:"));
    }
}
