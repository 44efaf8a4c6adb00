//! The journal in the store's tables.

use std::sync::Arc;

use async_trait::async_trait;

use super::journal::{AppendError, Beat, Journal};
use crate::clock;
use crate::domain::ledger::{Entry, Seq};
use crate::store::instances::InstanceRows;
use crate::store::ledger::{self, LedgerRows};
use crate::store::{Store, StoreError};

/// The rows of the journal, and of the processes that write it.
#[derive(Debug)]
pub struct StoredJournal {
    rows: LedgerRows,
    instances: InstanceRows,
}

impl StoredJournal {
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
impl Journal for StoredJournal {
    async fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError> {
        self.rows.append(entries).await.map_err(|error| match error {
            // another process has ended it: what it wrote is to be read in either case
            ledger::AppendError::Conflict | ledger::AppendError::EndedBefore => AppendError::Conflict,
            ledger::AppendError::Store(error) => error.into(),
        })
    }

    async fn after(&mut self, seq: Seq, limit: usize) -> Result<Vec<Entry>, AppendError> {
        Ok(self.rows.after(seq, limit).await?)
    }

    async fn head(&mut self) -> Result<Seq, AppendError> {
        Ok(self.rows.head().await?)
    }

    async fn start(&mut self) -> Result<(Seq, Vec<Entry>), AppendError> {
        // the head first: what is written meanwhile is behind it, and read as such
        let head = self.rows.head().await?;
        let settled = self.rows.settled().await?;
        let mut open = self.rows.open_holds(settled + 1).await?;
        open.retain(|hold| hold.seq <= head);
        Ok((head, open))
    }

    async fn beat(&mut self, instance: &str, beat: i64, open_from: Seq) -> Result<(), AppendError> {
        Ok(self.instances.beat(instance, beat, open_from, clock::unix_ms()).await?)
    }

    async fn ended(&mut self, instance: &str) -> Result<(), AppendError> {
        Ok(self.instances.end(instance).await?)
    }

    async fn close(&mut self) {
        self.rows.close().await;
        self.instances.close().await;
    }

    async fn beats(&mut self) -> Result<Vec<Beat>, AppendError> {
        let living = self.instances.living().await?;
        let beats = living.into_iter();
        Ok(beats.map(|row| Beat { instance: row.id.into(), beat: row.beat, ended: row.ended }).collect())
    }
}
