//! What stands, what it costs, and who uses it: told to operators, metrics and routes; and what is done about what
//! nobody uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Asked, Asking, Hosting, attribution};
use crate::clock;
use crate::domain::alert::{Alert, HostedIdle, HostingBudget};
use crate::domain::catalog::Catalog;
use crate::domain::hosting::{Billing, DAY_MS, DELETED_AFTER_MS, WARNED_BEFORE_MS, ends_ms};
use crate::domain::money::Usd;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Source};
use crate::telemetry::metrics::HostedNow;
use crate::upstream::tuning::TrainerError;

const HOUR_MS: i64 = 3_600_000;
/// What is gone is told of for so long.
const TOLD_FOR_MS: i64 = DAY_MS;

/// A team, where one pays, and a provider.
type Payer<'a> = (Option<Arc<str>>, &'a str);

/// A deployment that is billed by the hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostedReport {
    /// What it is booked on.
    pub deployment: String,
    /// Whose it is.
    pub provider: String,
    /// The provider's name of it.
    pub upstream: String,
    /// The model behind it; none where nobody said.
    pub model: Option<String>,
    /// Its kind; none where nobody said.
    pub sku: Option<String>,
    /// The team that pays.
    pub team: Option<Arc<str>>,
    /// Who says that it stands: `arm` or `configuration`.
    pub source: &'static str,
    /// Since when it stands, ms since 1970 UTC.
    pub since_ms: i64,
    /// When it was gone, ms since 1970 UTC.
    pub until_ms: Option<i64>,
    /// When it was last known to stand, ms since 1970 UTC.
    pub seen_ms: i64,
    /// What an hour costs now; none where nobody knows.
    pub usd_per_hour: Option<Usd>,
    /// How time is rounded.
    pub billing: Billing,
    /// Whether somebody has compared that with a bill.
    pub billing_verified: bool,
    /// What it was charged in the last 24 hours.
    pub day_usd: Usd,
    /// What it was charged since it stands.
    pub charged_usd: Usd,
    /// When it was last used, or else since when it stands; none where its use is booked elsewhere.
    pub idle_since_ms: Option<i64>,
    /// Whether it is idle, as the operator has defined that.
    pub idle: bool,
    /// When it ends, by its kind or as the operator says, ms since 1970 UTC.
    pub ends_at_ms: Option<i64>,
    /// When its provider takes it away if nobody uses it, ms since 1970 UTC.
    pub deleted_at_ms: Option<i64>,
}

/// An account whose list of deployments is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountReport {
    /// The provider.
    pub provider: Arc<str>,
    /// When its list was last read by this process, ms since 1970 UTC.
    pub read_at_ms: Option<i64>,
    /// Why it could not be read the last time.
    pub error: Option<String>,
}

impl Hosting {
    /// What stands, and what was gone within a day.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn report(&self, now_ms: i64) -> Result<Vec<HostedReport>, StoreError> {
        let live = self.means.catalog.load();
        let mut all = Vec::new();
        for row in self.rows.standing(now_ms - TOLD_FOR_MS).await? {
            all.push(self.report_of(&live.catalog, row, now_ms).await?);
        }
        Ok(all)
    }

    /// The accounts that this process reads; none where another one does.
    pub fn accounts(&self) -> Vec<AccountReport> {
        let state = self.state.lock();
        let report = |(provider, account): (&Arc<str>, &super::Account)| AccountReport {
            provider: Arc::clone(provider),
            read_at_ms: account.read_at_ms,
            error: account.trouble.clone(),
        };
        state.accounts.iter().map(report).collect()
    }

    async fn report_of(
        &self,
        catalog: &Catalog,
        row: HostedRow,
        now_ms: i64,
    ) -> Result<HostedReport, StoreError> {
        let rate = self.rate(catalog, &row, now_ms);
        let charged = |from_ms| self.rows.charged_since(&row.deployment, row.since_ms, from_ms);
        let (day_usd, charged_usd) = (charged(now_ms - DAY_MS).await?, charged(row.since_ms).await?);
        let stands = row.until_ms.is_none();
        let idle_since_ms = match stands {
            true => self.idle_since(catalog, &row, now_ms).await?,
            false => None,
        };
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (sku, model) = (text(&row.sku), text(&row.model));
        let known = catalog.deployments.get(&*super::named(catalog, &row.provider, &row.upstream));
        let said_ms = known.and_then(|known| known.hosted.until_ms).filter(|until| now_ms < *until);
        let taken_away = row.source == Source::Arm && ends_ms(sku.as_deref(), row.since_ms).is_none();
        Ok(HostedReport {
            team: self.team_of(&row.model).await?,
            source: row.source.name(),
            since_ms: row.since_ms,
            until_ms: row.until_ms,
            seen_ms: if row.source == Source::Configuration && stands { now_ms } else { row.seen_ms },
            usd_per_hour: rate.as_ref().map(|(rate, _)| rate.per_hour),
            billing: rate.as_ref().map(|(rate, _)| rate.billing).unwrap_or_default(),
            billing_verified: self.billing_is_verified(catalog, &row, now_ms),
            day_usd,
            charged_usd,
            idle: idle_since_ms.is_some_and(|since| now_ms - since >= self.idle_after_ms()),
            ends_at_ms: [ends_ms(sku.as_deref(), row.since_ms), said_ms].into_iter().flatten().min(),
            deleted_at_ms: idle_since_ms.filter(|_| taken_away).map(|since| since + DELETED_AFTER_MS),
            idle_since_ms,
            deployment: row.deployment,
            provider: row.provider,
            upstream: row.upstream,
            model,
            sku,
        })
    }

    fn idle_after_ms(&self) -> i64 {
        i64::try_from(self.config.idle_after.as_millis()).unwrap_or(i64::MAX)
    }

    /// Tells metrics and routes how all stand; whoever charges also says what a person should hear of.
    pub(super) async fn stand(
        &self,
        now_ms: i64,
        leads: bool,
        asking: &mut Asking,
    ) -> Result<(), StoreError> {
        let all: Vec<HostedReport> =
            self.report(now_ms).await?.into_iter().filter(|one| one.until_ms.is_none()).collect();
        let now_of = |one: &HostedReport| {
            let idle_ms = one.idle_since_ms.map_or(0, |since| (now_ms - since).max(0));
            Some(HostedNow {
                deployment: one.deployment.as_str().into(),
                provider: one.provider.as_str().into(),
                per_hour: one.usd_per_hour?,
                idle: Duration::from_millis(idle_ms.unsigned_abs()),
                ends_at_ms: one.ends_at_ms,
            })
        };
        self.means.metrics.hosting.stands(&all.iter().filter_map(now_of).collect::<Vec<_>>());
        let ends = all.iter().filter_map(|one| Some((Arc::from(one.deployment.as_str()), one.ends_at_ms?)));
        self.means.retirements.end_by_kind(ends.collect());
        if leads {
            self.warn_of_budgets(&all, now_ms);
            for one in &all {
                self.warn_of_idle(one, now_ms, asking).await?;
            }
        }
        Ok(())
    }

    /// Says, once a day, which deployment nobody uses, and takes it away where the operator wants that.
    async fn warn_of_idle(
        &self,
        one: &HostedReport,
        now_ms: i64,
        asking: &mut Asking,
    ) -> Result<(), StoreError> {
        let Some(per_hour) = one.usd_per_hour.filter(|per_hour| *per_hour > Usd::ZERO) else { return Ok(()) };
        let Some(since_ms) = one.idle_since_ms.filter(|_| one.idle) else { return Ok(()) };
        if !self.says("idle", &one.deployment, now_ms) {
            return Ok(());
        }
        let idle_hours = (now_ms - since_ms) / HOUR_MS;
        let deleted_at_ms = one.deleted_at_ms.filter(|at_ms| now_ms >= at_ms - WARNED_BEFORE_MS);
        let undeploys = self.config.undeploy_idle && one.source == Source::Arm.name();
        tracing::warn!(
            deployment = one.deployment,
            idle_hours,
            usd_per_hour = %per_hour,
            deleted_at_ms,
            undeploys,
            "a deployment costs by the hour and nobody uses it"
        );
        (self.means.tell)(Alert::HostedIdle(HostedIdle {
            deployment: one.deployment.as_str().into(),
            provider: one.provider.as_str().into(),
            per_hour,
            idle_hours,
            deleted_at_ms,
        }));
        if undeploys {
            self.undeploy(one, now_ms, asking).await?;
        }
        Ok(())
    }

    async fn undeploy(&self, one: &HostedReport, now_ms: i64, asking: &mut Asking) -> Result<(), StoreError> {
        let account = self.state.lock().accounts.get(&*one.provider).map(|it| Arc::clone(&it.upstream));
        let is_it = |row: &HostedRow| row.deployment == one.deployment && row.until_ms.is_none();
        let row = self.rows.standing(now_ms).await?.into_iter().find(is_it);
        let (Some(upstream), Some(row)) = (account, row) else { return Ok(()) };
        asking.push(Box::pin(async move {
            let done = match upstream.arm() {
                Some(arm) => arm.delete(&row.upstream).await,
                None => Ok(()),
            };
            Asked::Undeployed { row: Box::new(row), done }
        }));
        Ok(())
    }

    /// What came of taking a deployment away.
    pub(super) async fn undeployed(
        &self,
        row: HostedRow,
        done: Result<(), TrainerError>,
    ) -> Result<(), StoreError> {
        match done {
            Ok(()) => {
                tracing::info!(deployment = row.deployment, "a deployment that nobody used is taken away");
                self.end(row, clock::unix_ms()).await
            }
            Err(why) => {
                tracing::warn!(deployment = row.deployment, %why, "an idle deployment could not be taken away");
                Ok(())
            }
        }
    }

    /// Says, once a day, where a day of what stands costs more than is left. Nothing is refused: it stands already.
    fn warn_of_budgets(&self, all: &[HostedReport], now_ms: i64) {
        let mut payers: HashMap<Payer<'_>, (Usd, &HostedReport)> = HashMap::new();
        for one in all {
            let Some(per_hour) = one.usd_per_hour.filter(|per_hour| *per_hour > Usd::ZERO) else { continue };
            let (sum, dearest) = payers.entry((one.team.clone(), &one.provider)).or_insert((Usd::ZERO, one));
            *sum += per_hour;
            if dearest.usd_per_hour < Some(per_hour) {
                *dearest = one;
            }
        }
        for ((team, _), (per_hour, dearest)) in payers {
            let on = attribution(&dearest.deployment, &dearest.provider, team.clone());
            let per_day = Usd::from_nanos(per_hour.nanos().saturating_mul(24));
            let Some(left) = self.means.ledger.left_for(&on, now_ms).filter(|left| *left < per_day) else {
                continue;
            };
            if self.says("budget", &dearest.deployment, now_ms) {
                tracing::warn!(
                    deployment = dearest.deployment,
                    team = team.as_deref(),
                    usd_per_day = %per_day,
                    left_usd = %left,
                    "what stands by the hour costs more within a day than a budget has left"
                );
                (self.means.tell)(Alert::HostingBudget(HostingBudget {
                    deployment: dearest.deployment.as_str().into(),
                    team,
                    per_day,
                    left,
                }));
            }
        }
    }
}
