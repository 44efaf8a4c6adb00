//! What became of a request, for the key that sent it: its outcome while it is remembered, and what the ledger has of it.

use std::sync::Arc;

use serde::Serialize;

use super::admit::Admitted;
use super::inference::Gateway;
use super::refusal::Refusal;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::outcome::Outcome;

/// A request as its sender may see it.
#[derive(Debug, Serialize)]
pub struct RequestReport {
    /// `tunegate.request`.
    pub object: &'static str,
    /// The value of `x-request-id`.
    pub id: String,
    /// Whether all that was held for it has become a cost, or was given back.
    pub settled: bool,
    /// What it cost so far; corrections included.
    pub cost_usd: Usd,
    /// How it ended, as long as this process remembers it.
    pub outcome: Option<Arc<Outcome>>,
    /// What the ledger has of it, in order.
    pub entries: Vec<Entry>,
}

impl Gateway {
    /// Finds a request of a key's own.
    ///
    /// # Errors
    ///
    /// When there is none of that id, or another key sent it; and when the ledger can't be read.
    pub async fn request_of(&self, admitted: &Admitted, id: &str) -> Result<RequestReport, Refusal> {
        let outcome = self.book.find(id).filter(|outcome| outcome.key_id.as_ref() == Some(&admitted.key.id));
        let entries = self.money.entries.by_request(id).await;
        let mut entries = entries.map_err(|error| Refusal::LedgerAway(error.to_string()))?;
        entries.retain(|entry| entry.attribution.key_id == admitted.key.id);
        if outcome.is_none() && entries.is_empty() {
            return Err(Refusal::UnknownRequest(id.to_owned()));
        }
        let holds = entries.iter().filter(|entry| entry.kind == EntryKind::Hold).count();
        let ended = entries.iter().filter(|entry| entry.kind.ends_a_hold() && entry.of > 0).count();
        Ok(RequestReport {
            object: "tunegate.request",
            id: id.to_owned(),
            settled: holds == ended,
            cost_usd: entries.iter().map(Entry::spends).sum(),
            outcome,
            entries,
        })
    }
}
