//! `[tuning]`: where training files are kept, and how much of them; how large a canary is.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::domain::registry::MAX_PERCENT;
use crate::tuning::files;

use super::file;
use super::problem::{Checker, Place};
use super::values::in_range;

/// One file, bytes: up to OpenAI's limit.
const FILE_BYTES: RangeInclusive<u64> = 1 << 10..=files::Config::FILE_BYTES;
/// All files together, bytes: up to a PiB.
const FOLDER_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Where they are, below the state folder, unless the operator says otherwise.
const FOLDER: &str = "files";

/// What a canary gets of a route's requests unless the operator says otherwise, percent.
const CANARY_PERCENT: u8 = 10;

/// Checks what `[tuning]` says of canaries: their usual part of a route, percent.
pub(super) fn canary_percent(section: &file::Tuning, checker: &mut Checker<'_>) -> u8 {
    let place = Place::top("tuning").key("canary_percent");
    in_range(&place, section.canary_percent, CANARY_PERCENT, 1..=MAX_PERCENT, checker)
}

/// Checks what `[tuning]` says of files.
pub(super) fn files(section: &file::Tuning, state_dir: &Path, checker: &mut Checker<'_>) -> files::Config {
    let place = Place::top("tuning");
    let folder = match &section.folder {
        Some(folder) if folder.as_os_str().is_empty() => {
            checker.wrong(&place.key("folder"), "empty: name a folder that only tunegate uses");
            state_dir.join(FOLDER)
        }
        Some(folder) => folder.clone(),
        None => state_dir.join(FOLDER),
    };
    let usual = files::Config::FILE_BYTES;
    let max_file_bytes =
        in_range(&place.key("max_file_bytes"), section.max_file_bytes, usual, FILE_BYTES, checker);
    let most = place.key("max_folder_bytes");
    let usual = files::Config::FOLDER_BYTES;
    let max_folder_bytes = in_range(&most, section.max_folder_bytes, usual, FOLDER_BYTES, checker);
    if max_folder_bytes < max_file_bytes {
        checker.wrong(&most, format!("less than one file may have, {max_file_bytes}"));
    }
    files::Config { folder, max_file_bytes, max_folder_bytes }
}
