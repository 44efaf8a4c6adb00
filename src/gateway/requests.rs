//! What became of a request, for the key that sent it: its outcome while it is remembered, and what the ledger has of it.

use std::sync::Arc;

use serde::Serialize;

use super::admit::Admitted;
use super::inference::Gateway;
use super::refusal::Refusal;
use crate::domain::key::VirtualKey;
use crate::domain::ledger::{Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::outcome::Outcome;
use crate::domain::team::Team;

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

/// A request that somebody speaks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedRequest {
    /// The model that it asked for.
    pub model: Arc<str>,
    /// Whether it got an answer that another request was answered with.
    pub reused: bool,
}

impl Gateway {
    /// A request that was a key's own, or its team's; nothing where there is no such request.
    ///
    /// # Errors
    ///
    /// When the ledger can't be read.
    pub async fn own_request(
        &self,
        key: &VirtualKey,
        team: Option<&Team>,
        id: &str,
    ) -> Result<Option<ServedRequest>, Refusal> {
        let is_its = |key_id: &str, of: Option<&Arc<str>>| {
            *key_id == *key.id || team.is_some_and(|team| of.is_some_and(|of| **of == *team.alias))
        };
        if let Some(outcome) = self.book.find(id)
            && outcome.key_id.as_ref().is_some_and(|key_id| is_its(key_id, outcome.team.as_ref()))
            && let Some(model) = &outcome.model
        {
            let reused = outcome.cache.as_ref().is_some_and(|cached| cached.saved.is_some());
            return Ok(Some(ServedRequest { model: Arc::clone(model), reused }));
        }
        let entries = self.money.entries.by_request(id).await;
        let entries = entries.map_err(|error| Refusal::LedgerAway(error.to_string()))?;
        let own = |entry: &&Entry| is_its(&entry.attribution.key_id, entry.attribution.team.as_ref());
        Ok(entries.iter().find(own).map(|entry| ServedRequest {
            model: Arc::clone(&entry.attribution.model),
            reused: entries.iter().any(|entry| entry.kind == EntryKind::CacheHit),
        }))
    }

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
