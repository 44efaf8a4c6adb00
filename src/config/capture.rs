//! `capture` of a model: what is kept of its traffic to train a successor on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::domain::capture::{DAY_MS, Policy};

use super::file;
use super::problem::{Checker, Place};
use super::values::in_range;

/// The share of requests.
const SAMPLE: RangeInclusive<f64> = 0.000_001..=1.0;
const DEFAULT_SAMPLE: f64 = 0.1;
/// How long rows are kept, days: up to a year.
const RETENTION_DAYS: RangeInclusive<u64> = 1..=366;
const DEFAULT_RETENTION_DAYS: u64 = 30;
/// Rows of one model.
const ROWS: RangeInclusive<u64> = 1..=1_000_000;
const DEFAULT_ROWS: u64 = 50_000;
/// One row, bytes: a longer one than 1 MiB no model is trained on.
const ROW_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 20;
const DEFAULT_ROW_BYTES: u64 = 128 << 10;

/// Checks `capture` of a model.
pub(super) fn policy(
    place: &Place,
    written: &file::ModelCapture,
    file: &file::File,
    checker: &mut Checker<'_>,
) -> Policy {
    let sample = in_range(&place.key("sample"), written.sample, DEFAULT_SAMPLE, SAMPLE, checker);
    let days = place.key("retention_days");
    let days = in_range(&days, written.retention_days, DEFAULT_RETENTION_DAYS, RETENTION_DAYS, checker);
    let max_rows = in_range(&place.key("max_rows"), written.max_rows, DEFAULT_ROWS, ROWS, checker);
    let row = place.key("max_row_bytes");
    let max_row_bytes = in_range(&row, written.max_row_bytes, DEFAULT_ROW_BYTES, ROW_BYTES, checker);
    if written.mask == Some(false) {
        let what = "personal data and keys are written to the database as they were said";
        checker.notice(&place.key("mask"), what);
    }
    Policy {
        sample_ppm: per_million(sample),
        retention_ms: i64::try_from(days).unwrap_or(1) * DAY_MS,
        mask: written.mask.unwrap_or(true),
        max_rows,
        max_row_bytes: usize::try_from(max_row_bytes).unwrap_or(usize::MAX),
        deployments: written.deployments.as_ref().map(|names| deployments(place, names, file, checker)),
    }
}

fn deployments(
    place: &Place,
    names: &[String],
    file: &file::File,
    checker: &mut Checker<'_>,
) -> Vec<Arc<str>> {
    let place = place.key("deployments");
    if names.is_empty() {
        checker.wrong(&place, "names none: leave it out for all of them");
    }
    for (index, name) in names.iter().enumerate() {
        if !file.deployments.contains_key(name) {
            // the registry of models makes some while we run
            let what =
                format!("there is no deployment {name} in this file: nothing is kept until there is one");
            checker.notice(&place.index(index), what);
        }
    }
    names.iter().map(|name| name.as_str().into()).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a checked share is from a millionth to 1"
)]
fn per_million(share: f64) -> u64 {
    (share * 1_000_000.0).round() as u64
}
