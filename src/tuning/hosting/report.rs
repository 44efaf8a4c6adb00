//! What stands, what it costs, and who uses it: told to operators, metrics and routes; and what is done about what
//! nobody uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::follow::is_of;
use super::idle::Unused;
use super::{Asked, Asking, Hosting, LOOKED_BACK_MS, attribution};
use crate::domain::alert::{Alert, HostedIdle, HostingBudget};
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::hosting::{Billing, DAY_MS, DELETED_AFTER_MS, WARNED_BEFORE_MS, ends_ms};
use crate::domain::money::Usd;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Source, Watch};
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
    /// When it was last used, or else since when a gateway watches, ms since 1970 UTC: later by the time in which none
    /// did. None where its use is booked elsewhere.
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
        let unused = match stands {
            true => self.unused(catalog, &row, now_ms).await?,
            false => None,
        };
        let idle_since_ms = unused.map(|unused| unused.idle_since_ms);
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (sku, model) = (text(&row.sku), text(&row.model));
        let known = catalog.deployments.values().filter(|known| is_of(&row, known));
        let said_ms = known.filter_map(|known| said_end(known, now_ms)).min();
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
            deleted_at_ms: unused.filter(|_| taken_away).map(|unused| deleted_at_ms(unused, now_ms)),
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
    pub(super) async fn stand(&self, now_ms: i64, leads: bool, asking: &Asking) -> Result<(), StoreError> {
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
        self.means.retirements.end_by_kind(self.ends(now_ms).await?);
        if leads {
            for one in &all {
                let Some(idle_from_ms) = one.idle_since_ms else { continue };
                let watch = Watch { idle_from_ms, at_ms: now_ms };
                self.rows.watch(&one.deployment, one.since_ms, watch).await?;
            }
            self.warn_of_budgets(&all, now_ms);
            for one in &all {
                self.warn_of_idle(one, now_ms, asking);
            }
        }
        Ok(())
    }

    /// When deployments of the catalog end, by what stands there now, whatever it is booked on: by its kind, or as the
    /// operator says. What was gone lately by the end of its kind stays: requests would find nobody there.
    async fn ends(&self, now_ms: i64) -> Result<HashMap<Arc<str>, i64>, StoreError> {
        let live = self.means.catalog.load();
        let rows = self.rows.standing(now_ms.saturating_sub(LOOKED_BACK_MS)).await?;
        let ends = live.catalog.deployments.values().filter_map(|known| {
            // one that was made anew goes before those that are gone
            let stands = rows.iter().filter(|row| is_of(row, known));
            let last = stands.max_by_key(|row| (row.until_ms.is_none(), row.since_ms))?;
            let by_kind = ends_ms(Some(&last.sku), last.since_ms);
            let ends_ms = match last.until_ms {
                None => by_kind.into_iter().chain(said_end(known, now_ms)).min(),
                Some(until) => by_kind.filter(|ends_ms| until >= *ends_ms),
            };
            Some((Arc::clone(&known.name), ends_ms?))
        });
        Ok(ends.collect())
    }

    /// Says, once a day, which deployment nobody uses, and takes it away where the operator wants that.
    fn warn_of_idle(&self, one: &HostedReport, now_ms: i64, asking: &Asking) {
        let Some(per_hour) = one.usd_per_hour.filter(|per_hour| *per_hour > Usd::ZERO) else { return };
        let Some(since_ms) = one.idle_since_ms.filter(|_| one.idle) else { return };
        if !self.says("idle", &one.deployment, now_ms) {
            return;
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
            self.undeploy(one, asking);
        }
    }

    fn undeploy(&self, one: &HostedReport, asking: &Asking) {
        let account = self.state.lock().accounts.get(&*one.provider).map(|it| Arc::clone(&it.upstream));
        let Some(upstream) = account else { return };
        let (name, deployment) = (one.upstream.clone(), one.deployment.clone());
        // who asks listens as long as the clock runs
        let _ = asking.send(Box::pin(async move {
            let done = match upstream.arm() {
                Some(arm) => arm.delete(&name).await,
                None => Ok(()),
            };
            Asked::Undeployed { deployment, done }
        }));
    }

    /// What came of taking a deployment away. Its clock goes on until a list lacks it: deleting takes its time, and is
    /// billed.
    pub(super) fn undeployed(deployment: &str, done: Result<(), TrainerError>) {
        match done {
            Ok(()) => tracing::info!(deployment, "a deployment that nobody used is taken away"),
            Err(why) => tracing::warn!(deployment, %why, "an idle deployment could not be taken away"),
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

/// When a deployment will be gone, as the operator says.
fn said_end(known: &Deployment, now_ms: i64) -> Option<i64> {
    known.hosted.until_ms.filter(|until| now_ms < *until)
}

/// When its provider takes away what nobody uses. What stands longer than that is used by somebody whom we don't see: it
/// counts from when we watch.
fn deleted_at_ms(unused: Unused, now_ms: i64) -> i64 {
    let [at_ms, watched_ms] =
        [unused.since_ms, unused.idle_since_ms].map(|since| since.saturating_add(DELETED_AFTER_MS));
    if at_ms > now_ms { at_ms } else { watched_ms }
}
