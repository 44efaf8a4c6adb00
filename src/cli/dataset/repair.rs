//! The repairs that need nothing but the file.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use tunegate_dataset::repair::{convert, dedupe, mask, split};

use super::new_file::NewFile;
use super::{Progress, Watched, counted, open};
use crate::cli::say;

/// Rows of any kind are repaired: whether a model takes them is the check's question.
fn any_rows() -> tunegate_dataset::Options {
    tunegate_dataset::Options::default()
}

/// Opens a file that is read once more or once only.
fn watched<'p>(path: &Path, progress: &'p Progress) -> anyhow::Result<Watched<'p>> {
    Ok(Watched { source: open(path)?, progress, done: 0 })
}

fn progress_of(path: &Path) -> anyhow::Result<Progress> {
    Ok(Progress::new(open(path)?.metadata()?.len()))
}

pub(super) fn split(
    file: &Path,
    share: f64,
    seed: u64,
    training_out: &Path,
    validation_out: &Path,
) -> anyhow::Result<()> {
    if !(share > 0.0 && share < 1.0) {
        bail!("--validation is a share between 0 and 1, such as 0.1");
    }
    let parts = {
        let progress = progress_of(file)?;
        let (mut training, mut validation) =
            (NewFile::create(training_out)?, NewFile::create(validation_out)?);
        let plan = split::plan(watched(file, &progress)?, &any_rows(), share, seed)?;
        let parts =
            split::write(watched(file, &progress)?, &any_rows(), &plan, &mut training, &mut validation)?;
        training.finish()?;
        validation.finish()?;
        parts
    };
    say(&format!(
        "{}: {}\n{}: {}",
        training_out.display(),
        counted(parts.training, "row", "rows"),
        validation_out.display(),
        counted(parts.validation, "row", "rows")
    ));
    Ok(())
}

pub(super) fn dedupe(file: &Path, near: bool, out: &Path) -> anyhow::Result<()> {
    let likeness = if near { dedupe::Likeness::Near } else { dedupe::Likeness::Exact };
    let (dropped, left) = {
        let progress = progress_of(file)?;
        let mut new = NewFile::create(out)?;
        let dropped = dedupe::plan(watched(file, &progress)?, &any_rows(), likeness)?;
        let left = dedupe::write(watched(file, &progress)?, &any_rows(), &dropped, &mut new)?;
        new.finish()?;
        (dropped.len() as u64, left)
    };
    say(&format!(
        "{}: {}, {} dropped",
        out.display(),
        counted(left, "row", "rows"),
        counted(dropped, "row", "rows")
    ));
    Ok(())
}

pub(super) fn mask(file: &Path, out: &Path) -> anyhow::Result<()> {
    let masked = {
        let progress = progress_of(file)?;
        let mut new = NewFile::create(out)?;
        let masked = mask::write(watched(file, &progress)?, &any_rows(), &mut new)?;
        new.finish()?;
        masked
    };
    let mut text = format!(
        "{}: {}, {} changed",
        out.display(),
        counted(masked.rows, "row", "rows"),
        counted(masked.changed, "row", "rows")
    );
    for (kind, count) in &masked.of {
        text.push_str(&format!("\n  {} {}", counted(*count, "of", "of"), kind.plural()));
    }
    say(&text);
    Ok(())
}

pub(super) fn convert(file: &Path, system: Option<&Path>, out: &Path) -> anyhow::Result<()> {
    let system = match system {
        Some(path) => {
            Some(fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?)
        }
        None => None,
    };
    // an editor puts a line break at the end of a file that is no part of the words
    let system = system.as_deref().map(str::trim_end);
    let converted = {
        let progress = progress_of(file)?;
        let mut new = NewFile::create(out)?;
        let converted = convert::write(watched(file, &progress)?, &any_rows(), system, &mut new)?;
        new.finish()?;
        converted
    };
    let mut text = format!("{}: {}", out.display(), counted(converted.rows, "row", "rows"));
    for (rows, what) in [
        (converted.functions, "functions became tools"),
        (converted.completions, "completions became chats"),
        (converted.preferences, "preferred_completion became preferred_output"),
        (converted.prompts, "the words of the system were set"),
    ] {
        if rows > 0 {
            text.push_str(&format!("\n  in {}: {what}", counted(rows, "row", "rows")));
        }
    }
    say(&text);
    Ok(())
}
