//! Where the ledger's entries are kept: a table that many processes append to.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::ledger::{Entry, Seq};

/// Entries in one append, at most.
pub const BATCH: usize = 64;

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Another process has written an entry of that number.
    #[error("another process has written first")]
    Conflict,
    /// The database said no, or nothing in time: the entries may or may not be there.
    #[error("{0}")]
    Failed(String),
}

/// How a process is seen by the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The process.
    pub instance: Arc<str>,
    /// Goes up while it lives.
    pub beat: i64,
    /// Whether it has said good-bye.
    pub ended: bool,
}

/// An append-only journal.
#[async_trait]
pub trait Journal: Send + 'static {
    /// Appends entries with contiguous numbers, all or none; at most [`BATCH`].
    async fn append(&mut self, entries: &[Arc<Entry>]) -> Result<(), AppendError>;

    /// The entries behind a number, in order; at most `limit`.
    async fn after(&mut self, seq: Seq, limit: usize) -> Result<Vec<Entry>, AppendError>;

    /// The number of the last entry there is or was.
    async fn head(&mut self) -> Result<Seq, AppendError>;

    /// Where to start reading: the number of the last entry that needs no reading, and the holds up to it that are open.
    async fn start(&mut self) -> Result<(Seq, Vec<Entry>), AppendError>;

    /// Says that this process lives, and that no hold of its own before a number is open.
    async fn beat(&mut self, instance: &str, beat: i64, open_from: Seq) -> Result<(), AppendError>;

    /// Says that a process has ended: itself, or one whose holds were all settled.
    async fn ended(&mut self, instance: &str) -> Result<(), AppendError>;

    /// Gives its connections up: nothing more is written.
    async fn close(&mut self);

    /// All processes on this journal.
    async fn beats(&mut self) -> Result<Vec<Beat>, AppendError>;
}
