//! Charging: each period's row, then its entry in the ledger, then the row again. Wherever that is cut off, whoever goes
//! on finds the row, looks into the ledger, and books what is not there.

use std::sync::Arc;

use super::{GONE_KEPT_MS, Hosting, attribution};
use crate::clock;
use crate::domain::catalog::Catalog;
use crate::domain::hosting::{Stand, due, owed};
use crate::domain::ledger::{Attribution, Entry, EntryKind, Seq};
use crate::domain::money::Usd;
use crate::gateway::ledger::BookError;
use crate::store::StoreError;
use crate::store::hosting::{Booked, ChargeRow, HostedRow, Source};

/// Periods of one deployment that are charged in one go: a process that was away for long catches up in slices.
const AT_ONCE: usize = 64;
/// The entry of a period that costs nothing: there is none.
const NO_ENTRY: Seq = -1;

impl Hosting {
    /// Books what somebody meant to book who was cut off. Whether to go on.
    pub(super) async fn book_intended(&self) -> Result<bool, StoreError> {
        for row in self.rows.unbooked().await? {
            if !self.book(&row).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Charges what is due.
    pub(super) async fn charge_all(&self, now_ms: i64) -> Result<(), StoreError> {
        let live = self.means.catalog.load();
        for row in self.rows.unsettled(now_ms.saturating_sub(GONE_KEPT_MS)).await? {
            if !self.charge(&live.catalog, &row, now_ms).await? {
                return Ok(());
            }
            self.settle(&row).await?;
        }
        Ok(())
    }

    /// Charges one deployment. Whether to go on: not where the ledger can't be written, or another process charges.
    async fn charge(&self, catalog: &Catalog, row: &HostedRow, now_ms: i64) -> Result<bool, StoreError> {
        let charged_until = self.rows.charged_until(&row.deployment, row.since_ms).await?;
        let known_until_ms = match (row.source, row.until_ms) {
            (Source::Arm, None) => row.seen_ms,
            _ => now_ms,
        };
        let stand = Stand { since_ms: row.since_ms, until_ms: row.until_ms };
        let rate = |at_ms| Some(self.rate(catalog, row, at_ms)?.0);
        let charges = due(stand, charged_until, known_until_ms, AT_ONCE, rate);
        if charges.is_empty() {
            // whose price nobody has said in that time is long gone: no day needs to hear of it
            if row.until_ms.is_none_or(|until| until >= now_ms.saturating_sub(GONE_KEPT_MS)) {
                self.note_unpriced(catalog, row, charged_until.unwrap_or(row.since_ms), known_until_ms);
            }
            return Ok(true);
        }
        let team = self.team_of(&row.model).await?.map(|team| team.to_string()).unwrap_or_default();
        for charge in charges {
            let price = self.rate(catalog, row, charge.from_ms).map(|(_, version)| version.to_string());
            let period = ChargeRow {
                deployment: row.deployment.clone(),
                charge,
                price: price.unwrap_or_default(),
                provider: row.provider.clone(),
                team: team.clone(),
                seq: 0,
            };
            if !self.rows.intend(&period).await? || !self.book(&period).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says once a day what nobody knows the price of.
    fn note_unpriced(&self, catalog: &Catalog, row: &HostedRow, from_ms: i64, until_ms: i64) {
        if from_ms < until_ms
            && self.rate(catalog, row, from_ms).is_none()
            && self.says("unpriced", &row.deployment, until_ms)
        {
            tracing::warn!(
                deployment = row.deployment,
                model = row.model,
                sku = row.sku,
                "a deployment stands whose price by the hour nobody knows: nothing is charged until \
                 hosting_per_hour_usd is set for it, then all of it"
            );
        }
    }

    /// Books a period that stands in its row. Whether to go on.
    async fn book(&self, row: &ChargeRow) -> Result<bool, StoreError> {
        if row.charge.cost == Usd::ZERO {
            self.rows.booked(row, NO_ENTRY, Usd::ZERO).await?;
            return Ok(true);
        }
        let id = request_id(row);
        if let Some(Booked { seq, cost }) = self.rows.entry_of(&id).await? {
            self.rows.booked(row, seq, cost).await?;
            return Ok(true);
        }
        let drafted = Entry::drafted(EntryKind::Hosting, row.charge.from_ms, id.into(), payer(row));
        let entry = Entry { cost: row.charge.cost, price: row.price.as_str().into(), ..drafted };
        let Some(seq) = self.write(entry).await else { return Ok(false) };
        self.rows.booked(row, seq, row.charge.cost).await?;
        Ok(true)
    }

    /// Writes an entry; none where that has to wait, or somebody else has written it.
    async fn write(&self, entry: Entry) -> Option<Seq> {
        // the last look before what must not be done twice; the ledger itself refuses a period that it has
        if !self.lease.is_ours(clock::monotonic()) {
            return None;
        }
        match self.means.ledger.book(entry).await {
            Ok(seq) => Some(seq),
            Err(why @ (BookError::Charged(_) | BookError::Corrected(_))) => {
                tracing::debug!(%why, "another process has charged it");
                None
            }
            Err(why) => {
                self.note_unwritten(&why);
                None
            }
        }
    }

    fn note_unwritten(&self, why: &BookError) {
        let words = Some(why.to_string());
        let mut state = self.state.lock();
        if state.unwritten != words {
            tracing::warn!(%why, "hours of deployments can't be booked; they are booked later");
            state.unwritten = words;
        }
    }

    /// Compares what is gone with what was charged for it, once: a correction may have been cut off.
    async fn settle(&self, row: &HostedRow) -> Result<(), StoreError> {
        let Some(until_ms) = row.until_ms else { return Ok(()) };
        let key = (row.deployment.clone(), row.since_ms, until_ms);
        if self.state.lock().settled.contains(&key) {
            return Ok(());
        }
        if self.true_up(row, until_ms).await? {
            self.state.lock().settled.insert(key);
        }
        Ok(())
    }

    /// Brings the periods that reach beyond a moment to what is owed of them. Corrections are adjustments: downwards
    /// where a deployment was gone earlier, upwards where it was not. Whether all of them are: not where the ledger
    /// can't be written, or a period is not booked yet.
    pub(super) async fn true_up(&self, row: &HostedRow, from_ms: i64) -> Result<bool, StoreError> {
        let reaches = |open: &ChargeRow| {
            let is_its = open.deployment == row.deployment && open.charge.since_ms == row.since_ms;
            is_its && open.charge.until_ms > from_ms
        };
        if self.rows.unbooked().await?.iter().any(reaches) {
            return Ok(false);
        }
        for mut period in self.rows.charged_beyond(&row.deployment, row.since_ms, from_ms).await? {
            // a correction that was booked before that could be written down
            while let Some(Booked { seq, cost }) = self.rows.correction_of(period.seq).await? {
                let net = period.charge.cost + cost;
                self.rows.booked(&period, seq, net).await?;
                period.seq = seq;
                period.charge.cost = net;
            }
            let gone_ms = row.until_ms.unwrap_or(period.charge.until_ms);
            let difference = owed(&period.charge, gone_ms) - period.charge.cost;
            if difference == Usd::ZERO {
                continue;
            }
            let (at_ms, id) = (period.charge.from_ms, request_id(&period));
            let entry = Entry {
                of: period.seq,
                cost: difference,
                price: period.price.as_str().into(),
                note: Some("it stood for another time than was charged".into()),
                ..Entry::drafted(EntryKind::Adjustment, at_ms, id.into(), payer(&period))
            };
            let Some(seq) = self.write(entry).await else { return Ok(false) };
            self.rows.booked(&period, seq, period.charge.cost + difference).await?;
        }
        Ok(true)
    }
}

/// The id of a period's entry: the same whoever books it.
fn request_id(row: &ChargeRow) -> String {
    format!("hosting:{}:{}:{}", row.deployment, row.charge.since_ms, row.charge.from_ms)
}

/// Whom a period is booked on: who owned the model when it was charged.
fn payer(row: &ChargeRow) -> Arc<Attribution> {
    let team = Some(row.team.as_str()).filter(|team| !team.is_empty()).map(Arc::from);
    Arc::new(attribution(&row.deployment, &row.provider, team))
}
