//! What the configuration says of who stands, and how a stand goes from one telling to another.

use super::follow::{is_of, is_read};
use super::{GONE_KEPT_MS, Hosting};
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::price::read::moment_text;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Source};

/// What an operator writes of a beginning may be so much later than the account has it, ms.
const ROUNDED_MS: i64 = 60_000;

impl Hosting {
    /// What the configuration says of accounts without a list, and where it goes before one.
    pub(super) async fn follow_configuration(&self, now_ms: i64) -> Result<(), StoreError> {
        let live = self.means.catalog.load();
        let known = self.rows.unsettled(now_ms.saturating_sub(GONE_KEPT_MS)).await?;
        for deployment in live.catalog.deployments.values() {
            match is_listed(deployment) {
                true => self.correct_list(deployment, &known, now_ms).await?,
                false => self.follow_words(deployment, &known, now_ms).await?,
            }
        }
        // with what has just been taken in
        let known = self.rows.unsettled(now_ms.saturating_sub(GONE_KEPT_MS)).await?;
        for row in known.iter().filter(|row| row.until_ms.is_none()) {
            let (still, last_ms) = match row.source {
                Source::Configuration => (is_said(&live.catalog, row), now_ms),
                Source::Arm => (is_read(&live.catalog, row), row.seen_ms),
            };
            if !still {
                // said anew with another beginning, or by the other source: no hour is charged for both
                let is_told = |other: &&HostedRow| other.until_ms.is_none() || is_said(&live.catalog, other);
                let others = known.iter().filter(|other| takes_over(other, row)).filter(is_told);
                let until_ms = others.map(|other| other.since_ms).min().unwrap_or(last_ms).min(last_ms);
                tracing::warn!(
                    deployment = row.deployment,
                    until = moment_text(until_ms),
                    "neither the configuration nor a list says any more that it stands since then: it is charged until"
                );
                self.end(row.clone(), until_ms).await?;
            }
        }
        Ok(())
    }

    async fn follow_words(
        &self,
        deployment: &Deployment,
        known: &[HostedRow],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let hosted = &deployment.hosted;
        let Some(since_ms) = hosted.from_ms.filter(|from| *from < now_ms) else { return Ok(()) };
        let live = self.means.catalog.load();
        let stand = || known.iter().filter(|known| known.since_ms == since_ms);
        let renamed = |known: &&HostedRow| {
            known.source == Source::Configuration
                && is_of(known, deployment)
                && !live.catalog.deployments.contains_key(&*known.deployment)
        };
        let before = stand().find(|known| known.deployment == *deployment.name);
        let before = before.or_else(|| stand().find(renamed));
        let row = HostedRow {
            // what it is charged on does not change while it stands
            deployment: before
                .map_or_else(|| deployment.name.to_string(), |before| before.deployment.clone()),
            since_ms,
            provider: deployment.provider.name.to_string(),
            upstream: deployment.upstream_model.to_string(),
            model: deployment.base_model.clone().unwrap_or_default(),
            sku: hosted.sku.as_deref().unwrap_or_default().to_owned(),
            source: Source::Configuration,
            seen_ms: since_ms,
            until_ms: hosted.until_ms.filter(|until| *until <= now_ms),
        };
        let kept_from_ms = now_ms.saturating_sub(GONE_KEPT_MS);
        let long_gone = row.until_ms.is_some_and(|until| until < kept_from_ms);
        // what is out of sight was settled long ago, if it was charged at all; what is in sight may stand on
        let settled = before.is_none()
            && long_gone
            && self.rows.charged_until(&row.deployment, since_ms).await? >= row.until_ms;
        if before == Some(&row) || settled || (before.is_none() && !self.goes_before(&row).await?) {
            return Ok(());
        }
        self.becomes(&row, since_ms).await.map(drop)
    }

    /// A stand is told for the first time: no hour is charged for it and as the other source told it, however long ago
    /// that fell silent. Whether that is done.
    pub(super) async fn goes_before(&self, row: &HostedRow) -> Result<bool, StoreError> {
        for told in self.rows.standing(row.since_ms).await? {
            let is_same = told.upstream.eq_ignore_ascii_case(&row.upstream) && takes_over(row, &told);
            if told.source == row.source
                || !is_same
                || told.until_ms.is_some_and(|until| until <= row.since_ms)
            {
                continue;
            }
            // a moment that was written by hand may lack the seconds
            let is_rounded = row.source == Source::Configuration && row.since_ms - told.since_ms < ROUNDED_MS;
            let until_ms = if is_rounded { told.since_ms } else { row.since_ms };
            if !self.end(told, until_ms).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The operator knows better when a deployment was gone.
    async fn correct_list(
        &self,
        deployment: &Deployment,
        known: &[HostedRow],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some(said) = deployment.hosted.until_ms.filter(|until| *until <= now_ms) else { return Ok(()) };
        let later = |row: &&HostedRow| row.since_ms < said && row.until_ms.is_none_or(|until| said < until);
        for row in known.iter().filter(|row| is_of(row, deployment)).filter(later) {
            self.end(row.clone(), said).await?;
        }
        Ok(())
    }

    /// A deployment was gone at a moment: what was charged beyond is given back. Whether that is done: else the next
    /// look begins it anew.
    pub(super) async fn end(&self, row: HostedRow, until_ms: i64) -> Result<bool, StoreError> {
        let row = HostedRow { until_ms: Some(until_ms.max(row.since_ms)), ..row };
        self.becomes(&row, until_ms).await
    }

    /// Brings what was charged beyond a moment to what a stand is now, and only then writes that down: wherever it is cut
    /// off, whoever looks next finds the stand as it was, and does all of it. Whether it is done.
    pub(super) async fn becomes(&self, row: &HostedRow, from_ms: i64) -> Result<bool, StoreError> {
        if !self.true_up(row, from_ms).await? {
            return Ok(false);
        }
        self.rows.put(row).await?;
        Ok(true)
    }
}

/// Whether an account's list tells of a deployment.
fn is_listed(deployment: &Deployment) -> bool {
    deployment.provider.training.as_ref().is_some_and(|training| training.arm.is_some())
}

/// Whether the configuration tells of a stand, under whichever name.
fn is_said(catalog: &Catalog, row: &HostedRow) -> bool {
    catalog.deployments.values().any(|deployment| {
        !is_listed(deployment)
            && deployment.hosted.from_ms == Some(row.since_ms)
            && (*deployment.name == *row.deployment || is_of(row, deployment))
    })
}

/// Whether a stand is another telling of one that the configuration no longer tells.
fn takes_over(other: &HostedRow, row: &HostedRow) -> bool {
    let same = other.deployment == row.deployment
        || (other.provider == row.provider && other.upstream.eq_ignore_ascii_case(&row.upstream));
    let is_another = (&other.deployment, other.since_ms) != (&row.deployment, row.since_ms);
    same && is_another && other.until_ms.is_none_or(|until| until > row.since_ms)
}
