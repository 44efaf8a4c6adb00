//! What was spent, by whatever an operator asks; and the work behind it: entries are folded into sums, old ones are
//! cleaned up, in small steps that leave the database to the requests in between.

mod served;

use std::time::Duration;

pub use self::served::Served;
use crate::domain::spend::recent::Spending;
use crate::store::ledger::LedgerPages;
use crate::store::spend::{PromptPlace, PromptSums, SpendQuery, SpendRow, SpendRows, Step};
use crate::store::{Store, StoreError};

/// Entries folded or cleaned up in one transaction: the ledger's writer waits no longer than it takes.
const STEP: usize = 500;
/// Steps before a report: it shows what was just spent, but nobody waits for a long backlog.
const STEPS_FIRST: usize = 50;
/// Steps of one round; the next one goes on.
const STEPS_A_ROUND: usize = 1_000;

/// What totals are watched over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lately {
    /// What was spent, by account.
    pub spending: Vec<Spending>,
    /// Entries at an upper bound that nobody has resolved.
    pub unconfirmed: i64,
}

/// The sums of the ledger.
#[derive(Debug, Clone)]
pub struct Reports {
    rows: SpendRows,
    pages: LedgerPages,
    /// How long entries stay in the journal; nothing for ever.
    kept: Option<Duration>,
}

impl Reports {
    /// The sums in a store, whose entries are kept for a time, or for ever.
    pub fn new(store: &Store, kept: Option<Duration>) -> Self {
        Self { rows: SpendRows::new(store), pages: LedgerPages::new(store), kept }
    }

    /// What was spent, the most expensive first.
    pub async fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, StoreError> {
        self.fold(STEPS_FIRST).await?;
        self.rows.report(query).await
    }

    /// What was spent lately, up to the last entry that is durable, and how many entries wait for somebody to confirm
    /// them.
    pub async fn recent(&self, now_ms: i64) -> Result<Lately, StoreError> {
        self.fold(STEPS_A_ROUND).await?;
        let spending = self.rows.recent(now_ms).await?;
        Ok(Lately { spending, unconfirmed: self.pages.count_unconfirmed().await? })
    }

    /// What the versions of a prompt cost on the days from one to another, both included, days since 1970-01-01.
    pub async fn prompt_days(
        &self,
        prompt: &str,
        from_day: i64,
        to_day: i64,
    ) -> Result<Vec<(PromptPlace, PromptSums)>, StoreError> {
        self.fold(STEPS_FIRST).await?;
        self.rows.prompt_days(prompt, from_day, to_day).await
    }

    /// Works up what is new and takes away what is old. Returns how many entries were cleaned up.
    pub async fn work_up(&self, now_ms: i64) -> Result<usize, StoreError> {
        self.fold(STEPS_A_ROUND).await?;
        let Some(kept) = self.kept else { return Ok(0) };
        let older_than_ms = now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        let mut cleaned = 0;
        for _ in 0..STEPS_A_ROUND {
            match self.rows.clean_up(older_than_ms, STEP).await? {
                Step::Done(entries) => cleaned += entries,
                // whoever was first goes on with it
                Step::Nothing | Step::Elsewhere => break,
            }
        }
        Ok(cleaned)
    }

    async fn fold(&self, steps: usize) -> Result<(), StoreError> {
        for _ in 0..steps {
            if self.rows.fold_next(STEP).await? == Step::Nothing {
                break;
            }
        }
        Ok(())
    }
}
