//! Rows that repeat an earlier one are dropped; the first of each group stays.

use std::collections::HashSet;
use std::io::{Read, Write};

use super::{RepairError, each_row, write_raw};
use crate::Options;
use crate::findings::{self, Signatures};

/// Most rows whose texts are compared: each takes 256 bytes of memory.
const MOST_NEAR_ROWS: usize = 1_000_000;

/// What counts as a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The same roles, texts, calls and tools.
    Exact,
    /// Also nearly the same texts, as the check's finding `near_duplicates` has it.
    Near,
}

/// Lines that repeat an earlier one.
///
/// # Errors
///
/// A row that is none, or too many rows.
pub fn plan(source: impl Read, options: &Options, likeness: Likeness) -> Result<HashSet<u64>, RepairError> {
    let (mut seen, mut dropped) = (HashSet::new(), HashSet::new());
    let (mut lines, mut signatures) = (Vec::new(), Signatures::default());
    each_row(source, options, |line, sound| {
        if !seen.insert(findings::row_hash(sound.row)) {
            dropped.insert(line);
            return Ok(());
        }
        if likeness == Likeness::Near {
            if lines.len() == MOST_NEAR_ROWS {
                return Err(RepairError::Impossible(format!(
                    "more than {MOST_NEAR_ROWS} different rows: split the file first"
                )));
            }
            lines.push(line);
            signatures.add(findings::compared(sound.row));
        }
        Ok(())
    })?;
    for (place, first) in signatures.groups().into_iter().enumerate() {
        if first as usize != place {
            dropped.insert(lines[place]);
        }
    }
    Ok(dropped)
}

/// Writes what is left; how many rows that are.
///
/// # Errors
///
/// Those of the files.
pub fn write(
    source: impl Read,
    options: &Options,
    dropped: &HashSet<u64>,
    out: &mut dyn Write,
) -> Result<u64, RepairError> {
    let mut left = 0;
    each_row(source, options, |line, sound| {
        if !dropped.contains(&line) {
            left += 1;
            write_raw(out, sound.raw)?;
        }
        Ok(())
    })?;
    Ok(left)
}
