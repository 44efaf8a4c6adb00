//! What those pay who share a call, and how that is booked: one row each.

use std::sync::Arc;

use super::flights::{Asked, Joiner, Worth};
use super::ledger::{Ledger, Settlement};
use super::record::Record;
use crate::domain::cache::{CacheResult, Cached};
use crate::domain::ledger::{Attribution, Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::usage::TokenCounts;

/// What a joiner's end takes.
pub(super) struct Aboard {
    ledger: Arc<Ledger>,
    /// Whether it pays a share, as long as it is booked with the flight.
    pays: bool,
}

impl Aboard {
    /// With the ledger that it is booked in.
    pub(super) fn new(ledger: &Arc<Ledger>, pays: bool) -> Self {
        Self { ledger: Arc::clone(ledger), pays }
    }

    /// What it pays of a share: nothing where it was too late to be booked with the others.
    pub(super) fn share(&self, unbooked: bool, share: Usd) -> Usd {
        if self.pays && !unbooked { share } else { Usd::ZERO }
    }

    /// Notes what a joiner pays of a call that broke off.
    pub(super) fn breaks(&self, record: &mut Record, unbooked: bool, share: Usd) {
        let cached = Cached { result: CacheResult::Joined, saved: Some(Usd::ZERO) };
        record.cached(cached, self.share(unbooked, share));
    }

    /// Notes what a joiner's answer cost and saved, and books it where the flight did not.
    pub(super) fn lands(&self, record: &mut Record, unbooked: Option<Joiner>, asked: &Asked) {
        let share = self.share(unbooked.is_some(), asked.share);
        let saved = asked.worth.cost - share;
        record.cached(Cached { result: CacheResult::Joined, saved: Some(saved) }, share);
        record.note(|outcome| {
            outcome.deployment = Some(Arc::clone(&asked.worth.deployment.name));
            outcome.prompt.clone_from(&asked.worth.prompt);
        });
        if let Some(joiner) = unbooked {
            book(&self.ledger, joiner, &asked.worth, Usd::ZERO, asked.worth.cost);
        }
    }
}

/// Books a joiner: at its share, or as a hit that saved so much.
pub(super) fn book(ledger: &Ledger, joiner: Joiner, worth: &Worth, share: Usd, saved: Usd) {
    let Joiner { request_id, attribution, at_ms, reservation, .. } = joiner;
    if let Some(reservation) = reservation.filter(|_| share > Usd::ZERO) {
        let settlement = Settlement::new(TokenCounts::default(), worth.usage.source, share);
        return reservation.settle(Settlement { saved, ..settlement });
    }
    let attribution = Arc::new(Attribution {
        deployment: Arc::clone(&worth.deployment.name),
        provider: Arc::clone(&worth.deployment.provider.name),
        ..(*attribution).clone()
    });
    let entry = Entry::drafted(EntryKind::CacheHit, at_ms, request_id, attribution);
    ledger.book_loose(Entry {
        tokens: worth.usage.tokens.uncomputed(),
        source: Some(worth.usage.source),
        saved,
        price: Arc::clone(&worth.price),
        ..entry
    });
}
