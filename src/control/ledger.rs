//! The ledger as operators read it: entries, one request's, what is unconfirmed, and the proof that it adds up.

use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::usage::UsageSource;
use crate::store::ledger::{LedgerFilter, LedgerPages};
use crate::store::proof::{Audit, Books};
use crate::store::{Store, StoreError};

/// Entries on one page, at most.
pub const MAX_PAGE: usize = 500;

/// Some entries, the latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPage {
    /// They.
    pub entries: Vec<Entry>,
    /// Whether there are more before the last of them.
    pub has_more: bool,
}

/// The ledger, for reading.
#[derive(Debug, Clone)]
pub struct LedgerRecords {
    pages: LedgerPages,
    books: Books,
}

impl LedgerRecords {
    /// The ledger of a store.
    pub fn new(store: &Store) -> Self {
        Self { pages: LedgerPages::new(store), books: Books::new(store) }
    }

    /// The entries that a filter lets through.
    pub async fn page(&self, filter: &LedgerFilter, limit: usize) -> Result<LedgerPage, StoreError> {
        let limit = limit.min(MAX_PAGE);
        Ok(cut(self.pages.page(filter, limit + 1).await?, limit))
    }

    /// Settlements that were charged an upper bound and that nobody has corrected yet.
    pub async fn unconfirmed(&self, before: Option<Seq>, limit: usize) -> Result<LedgerPage, StoreError> {
        let limit = limit.min(MAX_PAGE);
        Ok(cut(self.pages.unconfirmed(before, limit + 1).await?, limit))
    }

    /// The unconfirmed settlement of a request, or of a number, that nobody has corrected yet; the last one.
    pub async fn unconfirmed_entry(&self, request_or_seq: &str) -> Result<Option<Entry>, StoreError> {
        let entries = match request_or_seq.parse::<Seq>() {
            Ok(seq) => match self.pages.get(seq).await? {
                Some(entry) => self.pages.by_request(&entry.request_id).await?,
                None => Vec::new(),
            },
            Err(_) => self.pages.by_request(request_or_seq).await?,
        };
        let asked = request_or_seq.parse::<Seq>().ok();
        let corrected =
            |seq| entries.iter().any(|entry| entry.kind == EntryKind::Adjustment && entry.of == seq);
        let found = entries.iter().rev().find(|entry| {
            entry.kind == EntryKind::Usage
                && entry.source == Some(UsageSource::Unconfirmed)
                && asked.is_none_or(|seq| seq == entry.seq)
                && !corrected(entry.seq)
        });
        Ok(found.cloned())
    }

    /// All entries of a request, or the one of a number.
    pub async fn show(&self, request_or_seq: &str) -> Result<Vec<Entry>, StoreError> {
        match request_or_seq.parse::<Seq>() {
            Ok(seq) => Ok(self.pages.get(seq).await?.into_iter().collect()),
            Err(_) => self.pages.by_request(request_or_seq).await,
        }
    }

    /// Adds everything up again and says what does not agree.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        self.books.audit().await
    }
}

/// One more than asked was read, to know whether there are more.
fn cut(mut entries: Vec<Entry>, limit: usize) -> LedgerPage {
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    LedgerPage { entries, has_more }
}
