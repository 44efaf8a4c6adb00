//! The journal in the database.

use std::sync::Arc;

use async_trait::async_trait;

use super::journal::{AppendError, Beat, Journal};
use crate::clock;
use crate::domain::ledger::{Entry, Seq};
use crate::store::instances::InstanceRows;
use crate::store::ledger::{self, LedgerRows};
use crate::store::{Store, StoreError};

/// The table, through connections of its own.
pub struct SqlJournal {
    rows: LedgerRows,
    instances: InstanceRows,
}

impl SqlJournal {
    /// The journal of a store.
    pub fn new(store: &Store) -> Self {
        Self { rows: LedgerRows::new(store), instances: InstanceRows::new(store) }
    }
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[async_trait]
impl Journal for SqlJournal {
    async fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        match self.rows.append(entries).await {
            Ok(()) => Ok(()),
            // a hold that another has ended is seen once its entry is read
            Err(ledger::AppendError::Conflict | ledger::AppendError::EndedBefore) => Err(AppendError::Conflict),
            Err(ledger::AppendError::Store(error)) => Err(error.into()),
        }
    }

    async fn after(&mut self, seq: Seq, limit: usize) -> Result<Vec<Entry>, AppendError> {
        Ok(self.rows.after(seq, limit).await?)
    }

    async fn start(&mut self) -> Result<(Seq, Vec<Entry>), AppendError> {
        let head = self.rows.head().await?;
        let settled = self.rows.settled().await?;
        let open = self.rows.open_holds(settled + 1).await?;
        Ok((head, open.into_iter().filter(|hold| hold.seq <= head).collect()))
    }

    async fn beat(&mut self, instance: &str, beat: i64, open_from: Seq) -> Result<(), AppendError> {
        Ok(self.instances.beat(instance, beat, open_from, clock::unix_ms()).await?)
    }

    async fn ended(&mut self, instance: &str) -> Result<(), AppendError> {
        Ok(self.instances.end(instance).await?)
    }

    async fn beats(&mut self) -> Result<Vec<Beat>, AppendError> {
        let living = self.instances.living().await?;
        let beat = |row: crate::store::instances::InstanceRow| Beat {
            instance: row.id.into(),
            beat: row.beat,
            ended: row.ended,
        };
        Ok(living.into_iter().map(beat).collect())
    }
}
