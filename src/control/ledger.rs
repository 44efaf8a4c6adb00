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
        // a correction names the settlement, or the hold that it ended
        let corrected = |end: &Entry| {
            let names_it = |entry: &&Entry| entry.of == end.seq || entry.of == end.of;
            entries
                .iter()
                .filter(|entry| entry.kind == EntryKind::Adjustment && entry.of > 0)
                .any(|entry| names_it(&entry))
        };
        let found = entries.iter().rev().find(|entry| {
            entry.kind == EntryKind::Usage
                && entry.source == Some(UsageSource::Unconfirmed)
                && asked.is_none_or(|seq| seq == entry.seq)
                && !corrected(entry)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::Usd;
    use crate::domain::usage::TokenCounts;
    use crate::store::ledger::LedgerRows;
    use crate::store::testing::for_each_database;

    #[tokio::test]
    async fn what_its_own_process_has_corrected_late_is_not_resolved_once_more() {
        for_each_database(async |database| {
            let store = database.open().await;
            let held = Usd::from_nanos(40);
            let one = |seq, kind, of| Entry {
                seq,
                kind,
                at_ms: 0,
                written_at_ms: 0,
                of,
                request_id: "req_1".into(),
                instance: "i".into(),
                attribution: std::sync::Arc::default(),
                tokens: TokenCounts::default(),
                source: None,
                held,
                cost: Usd::ZERO,
                saved: Usd::ZERO,
                price: "p".into(),
                note: None,
                injected: None,
            };
            let charged =
                Entry { cost: held, source: Some(UsageSource::Unconfirmed), ..one(2, EntryKind::Usage, 1) };
            let mut rows = LedgerRows::new(&store);
            rows.append(&[one(1, EntryKind::Hold, 0), charged]).await.expect("written");
            let records = LedgerRecords::new(&store);
            for name in ["req_1", "2"] {
                let found = records.unconfirmed_entry(name).await.expect("read");
                assert_eq!(found.map(|entry| entry.seq), Some(2), "{name}");
            }
            // as the ledger books it: it names the hold
            let late =
                Entry { cost: Usd::from_nanos(-25), held: Usd::ZERO, ..one(3, EntryKind::Adjustment, 1) };
            rows.append(&[late]).await.expect("written");
            for name in ["req_1", "2"] {
                assert_eq!(records.unconfirmed_entry(name).await.expect("read"), None, "{name}");
            }
            assert!(records.unconfirmed(None, 10).await.expect("read").entries.is_empty());
        })
        .await;
    }
}
