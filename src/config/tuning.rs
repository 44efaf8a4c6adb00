//! `[tuning]`: where training files are kept, and how much of them; how jobs and hosted deployments are looked after; how
//! large a canary is.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::domain::registry::MAX_PERCENT;
use crate::tuning::{files, hosting, jobs};

use super::file;
use super::problem::{Checker, Place};
use super::values::in_range;

/// One file, bytes: up to OpenAI's limit.
const FILE_BYTES: RangeInclusive<u64> = 1 << 10..=files::Config::FILE_BYTES;
/// All files together, bytes: up to a PiB.
const FOLDER_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Where they are, below the state folder, unless the operator says otherwise.
const FOLDER: &str = "files";

/// Without a request, hours: Azure takes a deployment away after 15 days.
const IDLE_HOURS: RangeInclusive<u64> = 1..=360;
/// What a canary gets of a route's requests unless the operator says otherwise, percent.
const CANARY_PERCENT: u8 = 10;

/// Checks what `[tuning]` says of canaries: their usual part of a route, percent.
pub(super) fn canary_percent(section: &file::Tuning, checker: &mut Checker<'_>) -> u8 {
    let place = Place::top("tuning").key("canary_percent");
    in_range(&place, section.canary_percent, CANARY_PERCENT, 1..=MAX_PERCENT, checker)
}

/// Evaluations that are asked at once: each has its own questions at once.
const EVALUATIONS_AT_ONCE: RangeInclusive<usize> = 1..=8;
const USUAL_EVALUATIONS: usize = 2;

/// Checks what `[evaluations]` says: how many are asked at once.
pub(super) fn evaluations_at_once(section: &file::Evaluations, checker: &mut Checker<'_>) -> usize {
    let place = Place::top("evaluations").key("at_once");
    in_range(&place, section.at_once, USUAL_EVALUATIONS, EVALUATIONS_AT_ONCE, checker)
}

/// Between two looks at a job, ms.
const POLL_MS: RangeInclusive<u64> = 50..=3_600_000;

/// Checks what `[tuning]` says of jobs. `lease` is how long a process may be silent.
pub(super) fn jobs(section: &file::Tuning, lease: Duration, checker: &mut Checker<'_>) -> jobs::Config {
    let place = Place::top("tuning");
    let usual = jobs::Config::default();
    let mut time = |key: &str, value: Option<u64>, usual: Duration| {
        let usual = u64::try_from(usual.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(in_range(&place.key(key), value, usual, POLL_MS, checker))
    };
    let poll = time("poll_ms", section.poll_ms, usual.poll);
    let poll_max = time("poll_max_ms", section.poll_max_ms, usual.poll_max.max(poll));
    if poll_max < poll {
        checker.wrong(&place.key("poll_max_ms"), "shorter than poll_ms: it would never apply");
    }
    jobs::Config { poll, poll_max, moderate: section.moderate.unwrap_or(usual.moderate), lease }
}

/// Checks that there is somebody to moderate rows where that is wanted: each job would wait for them for ever.
pub(super) fn moderator(whole: &file::File, checker: &mut Checker<'_>) {
    let speaks = |provider: &file::Provider| provider.kind == Some(file::ProviderKind::Openai);
    if whole.tuning.moderate == Some(true) && !whole.providers.values().any(speaks) {
        let place = Place::top("tuning").key("moderate");
        checker.wrong(&place, "needs a provider of kind \"openai\": nobody else moderates rows");
    }
}

/// Checks what `[tuning]` says of deployments that cost by the hour. `lease` is how long a process may be silent.
pub(super) fn hosting(section: &file::Tuning, lease: Duration, checker: &mut Checker<'_>) -> hosting::Config {
    let place = Place::top("tuning").key("idle_after_hours");
    let usual = hosting::Config::default();
    let hours = usual.idle_after.as_secs() / 3_600;
    let hours = in_range(&place, section.idle_after_hours, hours, IDLE_HOURS, checker);
    hosting::Config {
        idle_after: Duration::from_secs(hours * 3_600),
        undeploy_idle: section.undeploy_idle.unwrap_or(usual.undeploy_idle),
        lease,
    }
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
