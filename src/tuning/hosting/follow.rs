//! Who stands: the lists of the accounts, and what the configuration says.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;

use super::{AGAIN, Account, Asked, Asking, GONE_KEPT_MS, Hosting};
use crate::clock;
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::price::read::moment_text;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Source};
use crate::upstream::Upstream;
use crate::upstream::arm::{Arm, ArmDeployment, ArmState};
use crate::upstream::tuning::TrainerError;

/// Two clocks may differ so much, ms: a deployment's beginning as its account tells it, and as it was first seen here.
const SKEW_MS: u64 = 300_000;

impl Hosting {
    /// Follows the catalog: whose lists are read. Who is known keeps its turn.
    pub(super) fn follow_catalog(&self) {
        let live = self.means.catalog.load();
        let now = clock::monotonic();
        let mut state = self.state.lock();
        let mut before = std::mem::take(&mut state.accounts);
        for upstream in live.upstreams().filter(|upstream| upstream.arm().is_some()) {
            let name = &upstream.provider().name;
            let known = before.remove(name).filter(|account| Arc::ptr_eq(&account.upstream, upstream));
            let account = known.unwrap_or_else(|| Account {
                upstream: Arc::clone(upstream),
                next: Some(now),
                read_at_ms: None,
                trouble: None,
            });
            state.accounts.insert(Arc::clone(name), account);
        }
    }

    /// Asks the accounts whose turn it is for their lists.
    pub(super) fn ask_accounts(&self, now: Instant, asking: &mut Asking) {
        let mut state = self.state.lock();
        for account in state.accounts.values_mut() {
            if account.next.is_some_and(|next| next <= now) {
                account.next = None;
                asking.push(list(Arc::clone(&account.upstream)).boxed());
            }
        }
    }

    /// Takes an answer over.
    pub(super) async fn heard(&self, asked: Asked) -> Result<(), StoreError> {
        match asked {
            Asked::Listed { upstream, at_ms, list } => {
                let provider = Arc::clone(&upstream.provider().name);
                self.means.metrics.hosting.read(&provider, list.is_ok());
                self.note_reading(&upstream, at_ms, list.as_ref().err());
                match list {
                    Ok(list) => self.follow_list(&provider, &list, at_ms).await,
                    Err(_) => Ok(()),
                }
            }
            Asked::Undeployed { row, done } => self.undeployed(*row, done).await,
        }
    }

    /// Plans the next reading, and says once what went wrong with this one.
    fn note_reading(&self, upstream: &Arc<Upstream>, at_ms: i64, error: Option<&TrainerError>) {
        let mut state = self.state.lock();
        let provider = &upstream.provider().name;
        let account = state.accounts.get_mut(provider);
        let Some(account) = account.filter(|account| Arc::ptr_eq(&account.upstream, upstream)) else {
            return;
        };
        let every = upstream.arm().map_or(AGAIN, Arm::poll);
        let wait = if error.is_some() { every.min(AGAIN) } else { every };
        // a tenth earlier or later: gateways that met once do not meet for ever
        account.next = Some(clock::monotonic() + wait.mul_f64(0.9 + 0.2 * rand::random::<f64>()));
        let trouble = error.map(ToString::to_string);
        if let Some(why) = trouble.as_ref().filter(|_| trouble != account.trouble) {
            tracing::warn!(
                %provider,
                why,
                "the list of deployments can't be read: what stands there is charged once it can"
            );
        }
        if error.is_none() {
            account.read_at_ms = Some(at_ms);
        }
        account.trouble = trouble;
    }

    /// Who stands at an account now, and who is gone.
    pub(super) async fn follow_list(
        &self,
        provider: &Arc<str>,
        list: &[ArmDeployment],
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let live = self.means.catalog.load();
        let all = self.rows.standing(at_ms.saturating_sub(GONE_KEPT_MS)).await?;
        let own = |row: &HostedRow| row.provider == **provider && row.source == Source::Arm;
        let known: Vec<HostedRow> = all.into_iter().filter(own).collect();
        for found in list.iter().filter(|found| FineTunedName::parse(&found.model).is_some()) {
            self.follow_one(&live.catalog, provider, found, &known, at_ms).await?;
        }
        for row in known.iter().filter(|row| row.until_ms.is_none()) {
            if !list.iter().any(|found| row.upstream.eq_ignore_ascii_case(&found.name)) {
                tracing::info!(
                    deployment = row.deployment,
                    provider = row.provider,
                    seen_s_ago = (at_ms - row.seen_ms) / 1_000,
                    "a deployment is gone: it is charged until this reading, the first without it"
                );
                self.end(row.clone(), at_ms).await?;
            }
        }
        Ok(())
    }

    async fn follow_one(
        &self,
        catalog: &Catalog,
        provider: &str,
        found: &ArmDeployment,
        known: &[HostedRow],
        at_ms: i64,
    ) -> Result<(), StoreError> {
        // what it is called in the catalog may change while it stands; what it is charged on does not
        let of_it = || known.iter().filter(|row| row.upstream.eq_ignore_ascii_case(&found.name));
        let is_same = |row: &HostedRow| {
            found.created_at_ms.is_none_or(|at| at > at_ms || at.abs_diff(row.since_ms) <= SKEW_MS)
        };
        match of_it().find(|row| row.until_ms.is_none()) {
            Some(_) if found.state == ArmState::Going => return Ok(()),
            Some(open) if is_same(open) => return self.rows.put(&seen(open.clone(), found, at_ms)).await,
            // it was made anew between two readings
            Some(open) => self.end(open.clone(), found.created_at_ms.unwrap_or(at_ms).min(at_ms)).await?,
            None => {}
        }
        let since_ms = found.created_at_ms.unwrap_or(at_ms).min(at_ms);
        let name = named(catalog, provider, &found.name);
        let said = catalog.deployments.get(&*name).and_then(|known| known.hosted.until_ms);
        let the_operator_knows_better = said.is_some_and(|until| since_ms < until && until <= at_ms);
        if found.state != ArmState::Stands || the_operator_knows_better {
            return Ok(());
        }
        let back = of_it().find(|row| found.created_at_ms.is_some() && row.since_ms == since_ms);
        let is_back = back.is_some();
        let row = HostedRow {
            deployment: back.map_or(name, |row| row.deployment.clone()),
            since_ms,
            provider: provider.to_owned(),
            upstream: found.name.to_string(),
            model: String::new(),
            sku: String::new(),
            source: Source::Arm,
            seen_ms: at_ms,
            until_ms: None,
        };
        let row = seen(row, found, at_ms);
        self.rows.put(&row).await?;
        if is_back {
            // an earlier reading lacked it, and it has stood all the time
            return self.true_up(&row, since_ms).await;
        }
        let (deployment, sku) = (&row.deployment, &row.sku);
        tracing::info!(deployment, provider, sku, "a deployment of a fine-tuned model stands");
        Ok(())
    }

    /// What the configuration says of accounts without a list, and where it goes before one.
    pub(super) async fn follow_configuration(&self, now_ms: i64) -> Result<(), StoreError> {
        let live = self.means.catalog.load();
        let known = self.rows.standing(now_ms.saturating_sub(GONE_KEPT_MS)).await?;
        for deployment in live.catalog.deployments.values() {
            match is_listed(deployment) {
                true => self.correct_list(deployment, &known, now_ms).await?,
                false => self.follow_words(deployment, &known, now_ms).await?,
            }
        }
        // with what has just been taken in
        let known = self.rows.standing(now_ms.saturating_sub(GONE_KEPT_MS)).await?;
        for row in known.iter().filter(|row| row.source == Source::Configuration && row.until_ms.is_none()) {
            let still = live.catalog.deployments.get(&*row.deployment).is_some_and(|deployment| {
                !is_listed(deployment) && deployment.hosted.from_ms == Some(row.since_ms)
            });
            if !still {
                // said anew with another beginning, or listed by its account now: no hour is charged for both
                let until_ms =
                    known.iter().filter(|other| takes_over(other, row)).map(|other| other.since_ms);
                let until_ms = until_ms.min().unwrap_or(now_ms).min(now_ms);
                tracing::warn!(
                    deployment = row.deployment,
                    until = moment_text(until_ms),
                    "the configuration does not say any more that it stands since then: it is charged until"
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
        let row = HostedRow {
            deployment: deployment.name.to_string(),
            since_ms,
            provider: deployment.provider.name.to_string(),
            upstream: deployment.upstream_model.to_string(),
            model: deployment.base_model.clone().unwrap_or_default(),
            sku: hosted.sku.as_deref().unwrap_or_default().to_owned(),
            source: Source::Configuration,
            seen_ms: since_ms,
            until_ms: hosted.until_ms.filter(|until| *until <= now_ms),
        };
        let before =
            known.iter().find(|known| known.deployment == row.deployment && known.since_ms == since_ms);
        let kept_from_ms = now_ms.saturating_sub(GONE_KEPT_MS);
        let long_gone = row.until_ms.is_some_and(|until| until < kept_from_ms);
        // what is long gone was settled long ago, if it was charged at all
        let settled = long_gone && self.rows.charged_until(&row.deployment, since_ms).await? >= row.until_ms;
        if before == Some(&row) || settled {
            return Ok(());
        }
        self.rows.put(&row).await?;
        if long_gone {
            // behind the window in which it is looked at: charged here, a slice at each look
            let live = self.means.catalog.load();
            return self.charge(&live.catalog, &row, now_ms).await.map(drop);
        }
        self.true_up(&row, since_ms).await
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
        let is_it = |row: &&HostedRow| {
            row.provider == *deployment.provider.name
                && row.upstream.eq_ignore_ascii_case(&deployment.upstream_model)
        };
        for row in known.iter().filter(is_it).filter(later) {
            self.end(row.clone(), said).await?;
        }
        Ok(())
    }

    /// A deployment was gone at a moment: what was charged beyond is given back.
    pub(super) async fn end(&self, row: HostedRow, until_ms: i64) -> Result<(), StoreError> {
        let row = HostedRow { until_ms: Some(until_ms.max(row.since_ms)), ..row };
        self.rows.put(&row).await?;
        self.true_up(&row, until_ms).await
    }

    /// A deployment was taken away by somebody who says so: its clock stops at once.
    ///
    /// # Errors
    ///
    /// When the database fails: the next reading of the list stops it.
    pub async fn ended(&self, provider: &str, upstream: &str, at_ms: i64) -> Result<(), StoreError> {
        let open = self.rows.standing(at_ms).await?.into_iter().filter(|row| row.until_ms.is_none());
        for row in open.filter(|row| row.provider == provider && row.upstream == upstream) {
            self.rows.put(&HostedRow { until_ms: Some(at_ms.max(row.since_ms)), ..row }).await?;
        }
        Ok(())
    }
}

async fn list(upstream: Arc<Upstream>) -> Asked {
    // what the answer holds stood when it was asked for
    let at_ms = clock::unix_ms();
    let list = match upstream.arm() {
        Some(arm) => arm.list().await,
        None => Ok(Vec::new()),
    };
    Asked::Listed { upstream, at_ms, list }
}

/// Whether an account's list tells of a deployment.
fn is_listed(deployment: &Deployment) -> bool {
    deployment.provider.training.as_ref().is_some_and(|training| training.arm.is_some())
}

/// Whether a stand is another telling of one that the configuration no longer tells.
fn takes_over(other: &HostedRow, row: &HostedRow) -> bool {
    let same = other.deployment == row.deployment
        || (other.provider == row.provider && other.upstream.eq_ignore_ascii_case(&row.upstream));
    let is_another = (&other.deployment, other.since_ms) != (&row.deployment, row.since_ms);
    same && is_another && other.until_ms.is_none_or(|until| until > row.since_ms)
}

/// What a deployment of an account is called: its name in the catalog, or its provider's and its own.
pub(super) fn named(catalog: &Catalog, provider: &str, upstream: &str) -> String {
    let is_it =
        |known: &&Arc<Deployment>| *known.provider.name == *provider && *known.upstream_model == *upstream;
    let known = catalog.deployments.values().find(is_it);
    known.map_or_else(|| format!("{provider}/{upstream}"), |known| known.name.to_string())
}

/// A row with what the list says of it now.
fn seen(row: HostedRow, found: &ArmDeployment, at_ms: i64) -> HostedRow {
    HostedRow {
        model: found.model.to_string(),
        sku: found.sku.as_deref().unwrap_or_default().to_owned(),
        seen_ms: at_ms.max(row.seen_ms),
        until_ms: None,
        ..row
    }
}
