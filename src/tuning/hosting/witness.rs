//! What the gateway has seen of a deployment with its own eyes: that it was made, that it is gone. The clock starts and
//! stops there, and does not wait for the next reading of the account's list; whoever has the lease charges.

use crate::store::hosting::{HostedRow, HostingRows, Source};
use crate::store::{Store, StoreError};

/// A deployment at an account whose list is read.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// What it is called, with us and at its provider.
    pub name: &'a str,
    /// Whose it is.
    pub provider: &'a str,
    /// The provider's name of the model behind it.
    pub model: &'a str,
    /// The provider's name of its kind.
    pub sku: &'a str,
    /// When it was made, as its provider says, ms since 1970 UTC.
    pub since_ms: i64,
}

/// Writes down what was seen.
pub struct Witness {
    rows: HostingRows,
}

impl Witness {
    /// One who writes into a store.
    pub fn new(store: &Store) -> Self {
        Self { rows: HostingRows::new(store) }
    }

    /// A deployment stands that was asked for here. A list that was read before may have told of it already.
    ///
    /// # Errors
    ///
    /// When the database fails: the next reading of the list starts the clock.
    pub async fn made(&self, made: Made<'_>, at_ms: i64) -> Result<(), StoreError> {
        let all = self.at(made.provider, made.name, made.since_ms).await?;
        if all.iter().any(|row| row.until_ms.is_none() || row.since_ms >= made.since_ms) {
            return Ok(());
        }
        let row = HostedRow {
            deployment: made.name.to_owned(),
            since_ms: made.since_ms,
            provider: made.provider.to_owned(),
            upstream: made.name.to_owned(),
            model: made.model.to_owned(),
            sku: made.sku.to_owned(),
            source: Source::Arm,
            seen_ms: at_ms,
            until_ms: None,
        };
        self.rows.begin(&row).await
    }

    /// Nobody found a deployment at its provider when they looked at a moment: its clock stops there. What a list has
    /// shown since stands on.
    ///
    /// # Errors
    ///
    /// When the database fails: the next reading of the list stops it.
    pub async fn gone(&self, provider: &str, name: &str, at_ms: i64) -> Result<(), StoreError> {
        for row in self.at(provider, name, at_ms).await? {
            self.rows.close(&row, at_ms.max(row.since_ms)).await?;
        }
        Ok(())
    }

    /// What an account has told of a name: what stands, and what was gone at or after a moment.
    async fn at(&self, provider: &str, name: &str, gone_since_ms: i64) -> Result<Vec<HostedRow>, StoreError> {
        let is_it = |row: &HostedRow| {
            // Azure takes the case of letters for the same
            row.source == Source::Arm && row.provider == provider && row.upstream.eq_ignore_ascii_case(name)
        };
        Ok(self.rows.standing(gone_since_ms).await?.into_iter().filter(is_it).collect())
    }
}
