//! One file becomes two: what is learned, and what the model is tried with. Rows with the same prompt stay together.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};

use super::{RepairError, each_row, write_raw};
use crate::{Options, findings, hash};

/// Which prompts go where.
#[derive(Debug)]
pub struct Plan {
    validation: HashSet<u64>,
}

/// How many rows went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// Rows to learn from.
    pub training: u64,
    /// Rows to try with.
    pub validation: u64,
}

/// Draws prompts until a share of the rows is for validation; the same seed draws the same ones.
///
/// # Errors
///
/// A row that is none, or a file whose rows all have the same prompt.
pub fn plan(source: impl Read, options: &Options, share: f64, seed: u64) -> Result<Plan, RepairError> {
    let mut rows_of: HashMap<u64, u64> = HashMap::new();
    let mut rows = 0_u64;
    each_row(source, options, |_, sound| {
        rows += 1;
        *rows_of.entry(findings::prompt_hash(sound.row)).or_default() += 1;
        Ok(())
    })?;
    if rows_of.len() < 2 {
        return Err(RepairError::Impossible(format!(
            "{rows} rows with {} prompts can't be split: rows with the same prompt stay together",
            rows_of.len()
        )));
    }
    let wanted = ((rows as f64 * share).round() as u64).clamp(1, rows - 1);
    let mut drawn: Vec<(u64, u64, u64)> =
        rows_of.into_iter().map(|(prompt, rows)| (hash::mix(seed, prompt), prompt, rows)).collect();
    drawn.sort_unstable();
    let mut validation = HashSet::new();
    let mut taken = 0;
    for (_, prompt, rows) in &drawn {
        if taken + rows <= wanted {
            taken += rows;
            validation.insert(*prompt);
        }
    }
    if validation.is_empty() {
        // every prompt has more rows than are wanted: the smallest group it is
        validation.extend(drawn.iter().min_by_key(|(_, _, rows)| *rows).map(|(_, prompt, _)| *prompt));
    }
    Ok(Plan { validation })
}

/// Writes both files.
///
/// # Errors
///
/// Those of the files.
pub fn write(
    source: impl Read,
    options: &Options,
    plan: &Plan,
    training: &mut dyn Write,
    validation: &mut dyn Write,
) -> Result<Parts, RepairError> {
    let mut parts = Parts::default();
    each_row(source, options, |_, sound| {
        if plan.validation.contains(&findings::prompt_hash(sound.row)) {
            parts.validation += 1;
            write_raw(validation, sound.raw)?;
        } else {
            parts.training += 1;
            write_raw(training, sound.raw)?;
        }
        Ok(())
    })?;
    Ok(parts)
}
