//! The rows of a held-out file that are asked: drawn by the seed, the same ones each time.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;

use crate::domain::evaluation::Case;
use crate::domain::evaluation::sample::Sample;

/// Longest row, bytes: what the data address takes of a request by default is more.
const MOST_ROW_BYTES: u64 = 4 << 20;

/// The rows that were drawn.
#[derive(Debug)]
pub(super) struct Drawn {
    /// They, in the order of the file.
    pub(super) cases: Vec<Case>,
    /// How many rows the file has.
    pub(super) of: u64,
}

impl Drawn {
    /// The rows whose answers can be scored, by their numbers.
    pub(super) fn scorable(&self) -> impl Iterator<Item = usize> {
        self.cases.iter().enumerate().filter(|(_, case)| case.told().is_some()).map(|(at, _)| at)
    }
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotDrawn {
    /// The operator's to mend.
    #[error("{0}")]
    Row(String),
    /// Our disk's.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// Draws so many rows, and looks at all of them: blocks, for seconds where the file is large.
///
/// # Errors
///
/// The first row that nothing can be asked of, by its line; a file without any row.
pub(super) fn draw(path: &Path, seed: u64, most: u64) -> Result<Drawn, NotDrawn> {
    let mut sample = Sample::new(seed, usize::try_from(most).unwrap_or(usize::MAX));
    let mut reader = BufReader::new(File::open(path)?);
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        if reader.by_ref().take(MOST_ROW_BYTES + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let wrong = |why: &str| NotDrawn::Row(format!("line {number}: {why}"));
        if line.len() as u64 > MOST_ROW_BYTES {
            return Err(wrong("longer than 4 MiB"));
        }
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let row: Value = serde_json::from_slice(text).map_err(|why| wrong(&format!("no JSON: {why}")))?;
        sample.pass(Case::read(&row).map_err(wrong)?);
    }
    let of = sample.seen();
    match of {
        0 => Err(NotDrawn::Row("there is no row in it".to_owned())),
        _ => Ok(Drawn { cases: sample.kept(), of }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn drawn(text: &str, most: u64) -> Result<Drawn, NotDrawn> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        draw(file.path(), 7, most)
    }

    #[test]
    fn the_same_rows_are_drawn_each_time() {
        let rows: String =
            (0..50).map(|at| format!("{{\"prompt\":\"q\",\"completion\":\"a{at}\"}}\r\n\n")).collect();
        let text = format!("\u{feff}{rows}");
        let answers = |most| {
            let drawn = drawn(&text, most).expect("rows");
            assert_eq!(drawn.of, 50);
            drawn.cases.into_iter().map(|case| case.reference.text).collect::<Vec<_>>()
        };
        assert_eq!(answers(100).len(), 50);
        assert_eq!(answers(5), answers(5));
        assert_eq!(answers(5).len(), 5);
    }

    #[test]
    fn a_row_that_can_t_be_asked_is_named() {
        for (text, why) in [
            ("", "there is no row"),
            ("\n \n", "there is no row"),
            ("{\"prompt\":\"q\",\"completion\":\"a\"}\n{", "line 2: no JSON"),
            ("{\"messages\":[]}", "line 1: no message of an assistant"),
        ] {
            let error = drawn(text, 10).expect_err("nothing to ask").to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
