//! Repairs: each reads a file and writes a new one. Rows that are not touched pass byte for byte.
//!
//! A file with a row that the provider would refuse is not repaired: the check names it first.

pub mod augment;
pub mod convert;
pub mod dedupe;
pub mod mask;
pub mod split;

use std::io::{self, Read, Write};

use crate::{Options, Rows, Sound};

/// Why a file was not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A row that is none.
    #[error("line {line}: {message}; `tunegate dataset check` names all such lines")]
    Row {
        /// Which line.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// It can't be done with these rows.
    #[error("{0}")]
    Impossible(String),
}

/// Hands each row on, with its line.
fn each_row(
    source: impl Read,
    options: &Options,
    mut take: impl FnMut(u64, Sound<'_>) -> Result<(), RepairError>,
) -> Result<(), RepairError> {
    let mut rows = Rows::new(source, options);
    loop {
        let taken = rows.next_row(|line, row, _| match row {
            Ok(sound) => take(line, sound),
            Err(rejected) => Err(RepairError::Row { line, message: rejected.words() }),
        })?;
        match taken {
            None => return Ok(()),
            Some(taken) => taken?,
        }
    }
}

/// Writes a row as it came.
fn write_raw(out: &mut dyn Write, raw: &[u8]) -> io::Result<()> {
    out.write_all(raw)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests;
