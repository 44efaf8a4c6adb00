//! Kept exchanges become a training file, page by page: memory does not grow with it.

use std::collections::HashSet;

use bytes::Bytes;

use super::{Captures, stored};
use crate::domain::capture::Rating;
use crate::domain::capture::rows::{preference, said, supervised};
use crate::domain::prompt::hash::sha256_of;
use crate::domain::tuning::{Caller, Purpose, TrainingFile, filename};
use crate::store::captures::{Filter, Told};
use crate::tuning::TuningError;
use crate::tuning::files::{Files, NewFile};

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which exchanges.
    pub filter: Filter,
    /// At most so many rows, the newest.
    pub limit: u64,
    /// Whether rows that repeat a newer one are left out.
    pub dedupe: bool,
    /// Whether pairs for DPO are made: a correction and what it corrects, a good answer and a bad one to the same prompt.
    pub preference: bool,
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The file; its check has begun.
    pub file: TrainingFile,
    /// Rows in it.
    pub rows: u64,
    /// Of which so many have a correction for an answer.
    pub corrected: u64,
    /// Rows left out that repeat another.
    pub repeated: u64,
    /// Exchanges of which no row can be made.
    pub unfit: u64,
}

/// What is counted on the way.
#[derive(Default)]
struct Tally {
    rows: u64,
    corrected: u64,
    repeated: u64,
    unfit: u64,
    /// Hashes of the rows that were written.
    seen: HashSet<String>,
}

impl Captures {
    /// Makes a training file of kept exchanges, newest first. It is the caller's, and its check begins by itself.
    ///
    /// # Errors
    ///
    /// When there are no such exchanges, there is no room, or the database fails.
    pub async fn export(
        &self,
        files: &Files,
        caller: &Caller,
        order: &Order,
        now_ms: i64,
    ) -> Result<Exported, TuningError> {
        let mut receiving = files.receive(caller).await?;
        let mut tally = Tally::default();
        let mut before: Option<(i64, String)> = None;
        while tally.rows < order.limit {
            let at = before.as_ref().map(|(ms, id)| (*ms, id.as_str()));
            let page = self.rows.page(&order.filter, at).await.map_err(|error| stored(&error))?;
            let Some(last) = page.last() else { break };
            before = Some((last.row.at_ms, last.row.request_id.clone()));
            let mut lines = Vec::new();
            for told in &page {
                if tally.rows == order.limit {
                    break;
                }
                if let Some(row) = self.row(told, order, &mut tally).await? {
                    lines.extend_from_slice(row.as_bytes());
                    lines.push(b'\n');
                }
            }
            receiving.push(Bytes::from(lines)).await?;
        }
        if tally.rows == 0 {
            return Err(TuningError::Conflict { message: nothing(order, &tally), param: None });
        }
        let kind = if order.preference { "pairs" } else { "traffic" };
        let name = format!("{}-{kind}.jsonl", order.filter.model);
        let new = NewFile {
            filename: filename(&name).unwrap_or_else(|_| format!("{kind}.jsonl")),
            purpose: Purpose::FineTune,
            expires_after_ms: None,
        };
        let file = files.create(caller, receiving, new, now_ms).await?;
        let Tally { rows, corrected, repeated, unfit, .. } = tally;
        Ok(Exported { file, rows, corrected, repeated, unfit })
    }

    /// The row of an exchange, counted; nothing where it has none.
    async fn row(
        &self,
        told: &Told,
        order: &Order,
        tally: &mut Tally,
    ) -> Result<Option<String>, TuningError> {
        let is_corrected = !told.correction.is_empty();
        let made = match order.preference {
            true => self.pair(told).await?,
            false if is_corrected => supervised(&told.row.prompt, &said(&told.correction)),
            false => supervised(&told.row.prompt, &told.row.answer),
        };
        let Some(made) = made else {
            tally.unfit += 1;
            return Ok(None);
        };
        if order.dedupe && !tally.seen.insert(sha256_of(&made)) {
            tally.repeated += 1;
            return Ok(None);
        }
        tally.rows += 1;
        tally.corrected += u64::from(is_corrected);
        Ok(Some(made))
    }

    /// The pair of an exchange: its correction before its answer, or another's good answer before its bad one.
    async fn pair(&self, told: &Told) -> Result<Option<String>, TuningError> {
        let row = &told.row;
        if !told.correction.is_empty() {
            return Ok(preference(&row.prompt, &said(&told.correction), &row.answer));
        }
        if told.rating != Some(Rating::Down) {
            return Ok(None);
        }
        let better = self.rows.better(row).await.map_err(|error| stored(&error))?;
        Ok(better.and_then(|better| preference(&row.prompt, &better.row.answer, &row.answer)))
    }
}

/// Why a file would be empty, and what to do.
fn nothing(order: &Order, tally: &Tally) -> String {
    let model = &order.filter.model;
    match (order.preference, tally.unfit) {
        (true, 1..) => format!(
            "of the kept traffic of `{model}` that fits, none has a correction, or a bad and a good answer to the same \
             prompt: no pair can be made yet"
        ),
        _ => format!(
            "no kept traffic of `{model}` fits: `tunegate dataset captured` says what there is; models.{model}.capture \
             switches it on"
        ),
    }
}
