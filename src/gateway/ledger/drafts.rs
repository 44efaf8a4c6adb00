//! What the ledger's own entries say: a hold, and what ends one, whoever ends it.

use std::sync::Arc;

use super::desk::End;
use super::{Ask, Settlement};
use crate::domain::budget::{Books, Grant};
use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::money::Usd;
use crate::domain::usage::UsageSource;

/// The entry that an entry corrects.
pub(super) fn corrects(entry: &Entry) -> Option<Seq> {
    (entry.kind == EntryKind::Adjustment && entry.of > 0).then_some(entry.of)
}

/// What an entry charges that may be charged once: the period of a deployment, or a job that has no hold.
pub(super) fn once(entry: &Entry) -> Option<&Arc<str>> {
    matches!(entry.kind, EntryKind::Hosting | EntryKind::Training).then_some(&entry.request_id)
}

pub(super) fn hold(ask: &Ask, grant: &Grant, now_ms: i64) -> Entry {
    let drafted =
        Entry::drafted(EntryKind::Hold, now_ms, Arc::clone(&ask.request_id), Arc::clone(&ask.attribution));
    Entry { held: grant.amount, tokens: ask.tokens, price: Arc::clone(&ask.price), ..drafted }
}

/// The entry that says how something ended; none where nothing is left to say.
pub(super) fn ending(end: &End, books: &Books) -> Option<Entry> {
    match end {
        End::Loose(entry) => Some((**entry).clone()),
        End::Orphan(hold) => {
            books.open_hold(hold.seq)?;
            let whole = Settlement::new(hold.tokens, UsageSource::Unconfirmed, hold.held);
            let note = Some("its process ended before it could be settled".into());
            Some(Entry { note, ..settled(hold, Some(&whole)) })
        }
        End::Settle { hold, settlement } if books.open_hold(hold.seq).is_some() => {
            Some(settled(hold, settlement.as_ref()))
        }
        // another process took us for dead and charged it whole, and nobody knows better: it stays unconfirmed
        End::Settle { hold, settlement: Some(settlement) }
            if settlement.source == UsageSource::Unconfirmed
                && (settlement.open || settlement.cost >= hold.held) =>
        {
            None
        }
        // what it really cost is known after all, or at least how long our machine can have computed for it
        End::Settle { hold, settlement } => {
            let cost = settlement.as_ref().map_or(Usd::ZERO, |settlement| settlement.cost);
            let note = Some("settled after its lease had run out".into());
            let tokens = settlement.as_ref().map(|settlement| settlement.tokens).unwrap_or_default();
            let injected = settlement.as_ref().and_then(|settlement| settlement.injected.clone());
            let drafted = settled(hold, None);
            let adjusted =
                Entry { kind: EntryKind::Adjustment, held: Usd::ZERO, cost: cost - hold.held, ..drafted };
            // who charged it whole did not know of any words in it
            Some(Entry { note, tokens, injected, ..adjusted })
        }
    }
}

pub(super) fn settled(hold: &Entry, settlement: Option<&Settlement>) -> Entry {
    let kind = if settlement.is_some() { EntryKind::Usage } else { EntryKind::Release };
    let drafted =
        Entry::drafted(kind, hold.at_ms, Arc::clone(&hold.request_id), Arc::clone(&hold.attribution));
    Entry {
        of: hold.seq,
        tokens: settlement.map(|settlement| settlement.tokens).unwrap_or_default(),
        source: settlement.map(|settlement| settlement.source),
        injected: settlement.and_then(|settlement| settlement.injected.clone()),
        held: hold.held,
        cost: settlement.map_or(Usd::ZERO, |settlement| settlement.cost),
        saved: settlement.map_or(Usd::ZERO, |settlement| settlement.saved),
        price: Arc::clone(&hold.price),
        ..drafted
    }
}
