//! A job's money: one hold while it goes on, one settlement when it is over. What stands in the ledger is the truth, also
//! about what a process did just before it died; it is read from the database, as the books of this process may lag behind
//! another's entries.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Jobs, stored};
use crate::clock;
use crate::domain::bound::UpperBound;
use crate::domain::budget::Exceeded;
use crate::domain::ledger::{Entry, EntryKind, Seq};
use crate::domain::money::Usd;
use crate::domain::tuning::bill::{Bill, Quote, TrainingPrice, day_of};
use crate::domain::tuning::lifecycle::Told;
use crate::domain::usage::{MOST_TOKENS, TokenCounts};
use crate::gateway::ledger::{Ask, BookError, HoldError, Settlement};
use crate::store::StoreError;
use crate::store::jobs::JobRow;
use crate::tuning::TuningError;
use crate::tuning::paces::{LOOKED_AT, Paces};
use crate::tuning::quote::Trained;

const MICROS: u64 = 1_000_000;

/// What the ledger has of a job.
struct Written {
    /// Holds that nothing has ended, the latest last.
    open: Vec<(Seq, Usd)>,
    /// Its bill is booked.
    is_paid: bool,
}

impl Jobs {
    async fn written(&self, job: &JobRow) -> Result<Written, StoreError> {
        let entries = self.entries.by_request(&job.id).await?;
        let ended: HashSet<Seq> =
            entries.iter().filter(|entry| entry.kind.ends_a_hold()).map(|entry| entry.of).collect();
        let holds =
            entries.iter().filter(|entry| entry.kind == EntryKind::Hold && !ended.contains(&entry.seq));
        let open = holds.map(|entry| (entry.seq, entry.held)).collect();
        let is_paid =
            entries.iter().any(|entry| matches!(entry.kind, EntryKind::Usage | EntryKind::Training));
        Ok(Written { open, is_paid })
    }

    /// Holds what a job is quoted; nothing where that is nothing.
    pub(super) async fn try_hold(&self, job: &JobRow) -> Result<Option<(Seq, Usd)>, HoldError> {
        let Some(quote) = job.course.quote.as_ref().filter(|quote| !quote.price.is_nothing()) else {
            return Ok(None);
        };
        let held = self.ledger.hold(ask(job, quote, quote.amount())).await?.stands();
        Ok(Some((held.seq, held.held)))
    }

    /// Finds a job's hold, or makes it.
    pub(super) async fn hold(&self, job: &JobRow) -> Told {
        let found = match self.written(job).await {
            Ok(found) => found.open.last().copied(),
            Err(error) => return away(error),
        };
        if found.is_some() {
            return Told::Held(found);
        }
        match self.try_hold(job).await {
            Ok(held) => Told::Held(held),
            Err(HoldError::Exceeded(exceeded)) => Told::NoMoney(too_little(&exceeded)),
            Err(HoldError::Unavailable(words)) => away(words),
        }
    }

    /// Holds another amount instead of a job's.
    pub(super) async fn rehold(&self, job: &JobRow, amount: Usd) -> Told {
        let Some(quote) = &job.course.quote else { return away("it has no quote") };
        let open = match self.written(job).await {
            Ok(written) => written.open,
            Err(error) => return away(error),
        };
        let ask = ask(job, quote, amount);
        // one that was laid and whose answer was lost is another than the row's
        let held = match open.iter().find(|(seq, _)| Some(*seq) == job.course.hold).or(open.last()) {
            Some((seq, held)) if *held == amount => return Told::Held(Some((*seq, *held))),
            Some((seq, _)) => self.ledger.rehold(ask, *seq).await,
            None => self.ledger.hold(ask).await,
        };
        match held {
            Ok(held) => {
                let held = held.stands();
                Told::Held(Some((held.seq, held.held)))
            }
            Err(HoldError::Exceeded(exceeded)) => Told::NoMoney(too_little(&exceeded)),
            Err(HoldError::Unavailable(words)) => away(words),
        }
    }

    /// Brings a job's row and the ledger together: a process may have died between the two.
    pub(super) async fn compare(&self, job: &mut JobRow) -> Result<(), StoreError> {
        // it may have told the provider something, too
        job.course.doubt = true;
        let written = self.written(job).await?;
        let Some((seq, held)) = written.open.last().copied() else { return Ok(()) };
        for (older, _) in written.open.iter().filter(|(older, _)| *older != seq) {
            tracing::warn!(job = %job.id, seq = older, "a job had two holds; the older one is released");
            let _ = self.ledger.end_standing(*older, None).await;
        }
        job.course.hold = Some(seq);
        job.course.held_nanos = held.nanos();
        Ok(())
    }

    /// Draws a job's bill. The lock on bills must be held until it is written: a day's free tokens are given away once.
    pub(super) async fn bill(&self, job: &JobRow) -> Told {
        let at_ms = job.course.outcome.as_ref().map_or_else(clock::unix_ms, |outcome| outcome.at_ms);
        let nothing = TrainingPrice::nothing("none");
        let price = job.course.quote.as_ref().map_or(&nothing, |quote| &quote.price);
        match self.rows.billed_on(&job.provider, &price.row, day_of(at_ms), &job.id).await {
            Ok(used_today) => Told::Billed(Bill::of(job.course.used(), price, at_ms, used_today)),
            Err(error) => away(error),
        }
    }

    /// What jobs were billed for on the UTC day of a moment, ms since 1970 UTC.
    ///
    /// # Errors
    ///
    /// When the database can't be asked.
    pub async fn trained_on(&self, at_ms: i64) -> Result<Trained, TuningError> {
        let rows = self.rows.billed_by_row(day_of(at_ms)).await.map_err(|error| stored(&error))?;
        Ok(Trained(rows.into_iter().collect()))
    }

    /// How fast our own machines train, by the jobs that they did last.
    ///
    /// # Errors
    ///
    /// When the database can't be asked.
    pub async fn paces(&self) -> Result<Paces, TuningError> {
        let ran = self.rows.computed(LOOKED_AT).await.map_err(|error| stored(&error))?;
        Ok(Paces::of(&ran))
    }

    /// Books a job's bill and ends its hold. Done before, it is found so.
    pub(super) async fn settle(&self, job: &JobRow) -> Told {
        let Some(bill) = job.course.bill else { return away("it has no bill") };
        let written = match self.written(job).await {
            Ok(written) => written,
            Err(error) => return away(error),
        };
        let owned =
            written.open.iter().find(|(seq, _)| Some(*seq) == job.course.hold).or(written.open.last());
        let Some((seq, _)) = owned.copied() else {
            return self.settle_without_hold(job, bill, written.is_paid).await;
        };
        let others = written.open.iter().filter(|(other, _)| *other != seq);
        let paid = written.is_paid || bill.is_nothing();
        let ends = others.map(|(other, _)| (*other, None)).chain([(seq, (!paid).then(|| settlement(bill)))]);
        for (seq, settlement) in ends {
            // ended meanwhile, or not in our books yet: it is looked at again
            if let Err(error) = self.ledger.end_standing(seq, settlement).await {
                return away(error);
            }
        }
        Told::Done
    }

    /// Of what had no hold because it costs nothing, or whose hold somebody has ended.
    async fn settle_without_hold(&self, job: &JobRow, bill: Bill, is_paid: bool) -> Told {
        if is_paid || bill.is_nothing() {
            return Told::Done;
        }
        let price =
            job.course.quote.as_ref().map(|quote| Arc::clone(&quote.price.version)).unwrap_or_default();
        let drafted = Entry::drafted(
            EntryKind::Training,
            clock::unix_ms(),
            job.id.as_str().into(),
            Arc::clone(&job.booked_on),
        );
        let entry =
            Entry { tokens: used(bill), source: Some(bill.source), cost: bill.cost(), price, ..drafted };
        match self.ledger.book(entry).await {
            // an append whose answer was lost has booked it
            Ok(_) | Err(BookError::Charged(_)) => Told::Done,
            Err(error) => away(error),
        }
    }
}

fn away(words: impl std::fmt::Display) -> Told {
    Told::Away { perhaps: true, again_ms: None, words: words.to_string() }
}

fn settlement(bill: Bill) -> Settlement {
    Settlement::new(used(bill), bill.source, bill.cost())
}

fn used(bill: Bill) -> TokenCounts {
    let compute_us = bill.computed_seconds.saturating_mul(MICROS).min(MOST_TOKENS);
    TokenCounts { compute_us, ..tokens(bill.tokens) }
}

/// Trained tokens are input, as the ledger sees it.
fn tokens(prompt: u64) -> TokenCounts {
    TokenCounts { prompt, ..TokenCounts::default() }
}

fn ask(job: &JobRow, quote: &Quote, amount: Usd) -> Ask {
    Ask {
        request_id: job.id.as_str().into(),
        attribution: Arc::clone(&job.booked_on),
        bound: UpperBound::fixed(amount),
        tokens: tokens(quote.all_tokens()),
        price: Arc::clone(&quote.price.version),
    }
}

/// What is said where a budget can't pay for a job.
pub(super) fn too_little(exceeded: &Exceeded) -> String {
    let Exceeded { budget, limit, spent, reserved, wanted, .. } = exceeded;
    let whose =
        if exceeded.subject.is_empty() { String::new() } else { format!(" for `{}`", exceeded.subject) };
    format!(
        "budget `{budget}`{whose} ({}, {}) has not enough left for this job: {spent} USD spent and {reserved} USD held \
         of {limit} USD, {wanted} USD wanted; train on fewer tokens or for fewer epochs, or ask your operator for more",
        exceeded.scope, exceeded.window
    )
}
