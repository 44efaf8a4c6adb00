//! Who stands, by the lists of the accounts.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;

use super::{AGAIN, Account, Asked, Asking, GONE_KEPT_MS, Hosting};
use crate::clock;
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::hosting::ends_ms;
use crate::domain::price::read::moment_text;
use crate::store::StoreError;
use crate::store::hosting::{HostedRow, Source};
use crate::upstream::Upstream;
use crate::upstream::arm::{Arm, ArmDeployment, ArmState};
use crate::upstream::tuning::TrainerError;

/// Where nobody has looked for so long, ms, somebody should say when a deployment was gone.
const LONG_UNSEEN_MS: i64 = 3_600_000;

/// A list as an account has given it.
struct Reading<'a> {
    catalog: &'a Catalog,
    provider: &'a str,
    /// When it was asked for, ms since 1970 UTC.
    at_ms: i64,
    /// Who stood, or was gone lately, when it came: of all accounts, and as the configuration says.
    rows: &'a [HostedRow],
}

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
    pub(super) fn ask_accounts(&self, now: Instant, asking: &Asking) {
        let mut state = self.state.lock();
        for account in state.accounts.values_mut() {
            if account.next.is_some_and(|next| next <= now) {
                account.next = None;
                // who asks listens as long as the clock runs
                let _ = asking.send(list(Arc::clone(&account.upstream)).boxed());
            }
        }
    }

    /// Takes an answer over.
    pub(super) async fn heard(&self, asked: Asked) -> Result<(), StoreError> {
        match asked {
            Asked::Listed { upstream, at_ms, list } => {
                let provider = Arc::clone(&upstream.provider().name);
                self.means.metrics.hosting.read(&provider, list.is_ok());
                let is_its = self.note_reading(&upstream, at_ms, list.as_ref().err());
                match list {
                    Ok(list) if is_its => self.follow_list(&provider, &list, at_ms).await,
                    _ => Ok(()),
                }
            }
            Asked::Undeployed { deployment, done } => {
                Self::undeployed(&deployment, done);
                Ok(())
            }
        }
    }

    /// Plans the next reading, and says once what went wrong with this one. Whether it is of an account that is still
    /// read: a new configuration may have put another one in its place.
    fn note_reading(&self, upstream: &Arc<Upstream>, at_ms: i64, error: Option<&TrainerError>) -> bool {
        let mut state = self.state.lock();
        let provider = &upstream.provider().name;
        let account = state.accounts.get_mut(provider);
        let Some(account) = account.filter(|account| Arc::ptr_eq(&account.upstream, upstream)) else {
            return false;
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
        true
    }

    /// Who stands at an account now, and who is gone.
    pub(super) async fn follow_list(
        &self,
        provider: &Arc<str>,
        list: &[ArmDeployment],
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let live = self.means.catalog.load();
        let rows = self.rows.standing(at_ms.saturating_sub(GONE_KEPT_MS)).await?;
        let reading = Reading { catalog: &live.catalog, provider, at_ms, rows: &rows };
        for found in list.iter().filter(|found| FineTunedName::parse(&found.model).is_some()) {
            self.follow_one(&reading, found).await?;
        }
        // what was seen since then is on the next list
        let stood = |row: &&HostedRow| row.until_ms.is_none() && row.seen_ms <= at_ms;
        let own = |row: &&HostedRow| row.source == Source::Arm && row.provider == **provider;
        for row in rows.iter().filter(own).filter(stood) {
            if !list.iter().any(|found| row.upstream.eq_ignore_ascii_case(&found.name)) {
                self.vanished(row, at_ms).await?;
            }
        }
        Ok(())
    }

    /// A list lacks a deployment: it was gone at the latest then, and at the latest when its kind ends.
    async fn vanished(&self, row: &HostedRow, at_ms: i64) -> Result<(), StoreError> {
        let ends_ms = ends_ms(Some(&row.sku), row.since_ms).unwrap_or(at_ms);
        let gone_ms = ends_ms.min(at_ms).max(row.seen_ms);
        let (deployment, until) = (&row.deployment, moment_text(gone_ms));
        if gone_ms - row.seen_ms >= LONG_UNSEEN_MS {
            let seen = moment_text(row.seen_ms);
            tracing::warn!(
                deployment,
                seen,
                until,
                "a deployment is gone, and nobody had looked for long: it is charged until the first reading \
                 without it; set hosted_until where you know when it was gone"
            );
        } else {
            tracing::info!(deployment, until, "a deployment is gone: it is charged until");
        }
        self.end(row.clone(), gone_ms).await.map(drop)
    }

    async fn follow_one(&self, reading: &Reading<'_>, found: &ArmDeployment) -> Result<(), StoreError> {
        let at_ms = reading.at_ms;
        // what it is called in the catalog may change while it stands; what it is charged on does not
        match reading.of_it(found).find(|row| row.until_ms.is_none()) {
            Some(_) if found.state == ArmState::Going => return Ok(()),
            Some(open) if is_same(open, found) => {
                return self.rows.see(&seen(open.clone(), found, at_ms)).await;
            }
            // it was made anew between two readings
            Some(open) => {
                let made_ms = found.created_at_ms.unwrap_or(at_ms).min(at_ms);
                if !self.end(open.clone(), made_ms).await? {
                    return Ok(());
                }
            }
            None => {}
        }
        // as the account's clock has it, even where ours is behind: it tells the stand from the next one of its name
        let since_ms = found.created_at_ms.unwrap_or(at_ms);
        let name = named(reading.catalog, reading.provider, &found.name);
        let said = reading.catalog.deployments.get(&*name).and_then(|known| known.hosted.until_ms);
        let the_operator_knows_better = said.is_some_and(|until| since_ms < until && until <= at_ms);
        if found.state != ArmState::Stands || the_operator_knows_better {
            return Ok(());
        }
        let ended = reading.of_it(found).filter(|row| row.until_ms.is_some() && is_same(row, found));
        let ended = ended.max_by_key(|row| row.since_ms);
        if ended.is_some_and(|row| row.until_ms >= Some(at_ms)) {
            // it was taken away while this list was on its way
            return Ok(());
        }
        if found.created_at_ms.is_some()
            && ended.is_none()
            && let Some(twin) = self.twin_of(reading, found, since_ms).await?
        {
            // one that another provider's list tells of is charged there
            return match is_read(reading.catalog, &twin) {
                true => Ok(()),
                false => self.carries_on(reading, twin, found).await,
            };
        }
        // one that the registry is still warming is not in the catalog yet
        let deployed = self.rows.deployed_as(reading.provider, &found.name).await?;
        let row = HostedRow {
            deployment: deployed.unwrap_or(name),
            since_ms,
            provider: reading.provider.to_owned(),
            upstream: found.name.to_string(),
            model: String::new(),
            sku: String::new(),
            source: Source::Arm,
            seen_ms: at_ms,
            until_ms: None,
        };
        match ended.filter(|_| found.created_at_ms.is_some()) {
            // an earlier reading lacked it, and it has stood all the time
            Some(back) => self.becomes(&seen(back.clone(), found, at_ms), since_ms).await.map(drop),
            None => self.stands(seen(row, found, at_ms)).await,
        }
    }

    /// The stand of a deployment as another provider's list told it: it stands, or that list is read no more.
    async fn twin_of(
        &self,
        reading: &Reading<'_>,
        found: &ArmDeployment,
        since_ms: i64,
    ) -> Result<Option<HostedRow>, StoreError> {
        let is_it = |row: &HostedRow| {
            row.source == Source::Arm
                && row.provider != reading.provider
                && row.since_ms == since_ms
                && row.upstream.eq_ignore_ascii_case(&found.name)
                && *row.model == *found.model
                && (row.until_ms.is_none() || !is_read(reading.catalog, row))
        };
        Ok(self.rows.standing(since_ms).await?.into_iter().find(is_it))
    }

    /// The provider of a stand has another name now: the stand goes on, and what it is booked on stays.
    async fn carries_on(
        &self,
        reading: &Reading<'_>,
        row: HostedRow,
        found: &ArmDeployment,
    ) -> Result<(), StoreError> {
        let row = HostedRow { provider: reading.provider.to_owned(), ..seen(row, found, reading.at_ms) };
        if self.becomes(&row, row.since_ms).await? {
            let HostedRow { deployment, provider, .. } = &row;
            tracing::info!(deployment, provider, "a deployment goes on under another provider's name");
        }
        Ok(())
    }

    /// A deployment is listed for the first time.
    async fn stands(&self, row: HostedRow) -> Result<(), StoreError> {
        // the configuration may have told of it before its account was read
        if !self.goes_before(&row).await? {
            return Ok(());
        }
        self.rows.put(&row).await?;
        let HostedRow { deployment, provider, sku, .. } = &row;
        tracing::info!(deployment, provider, sku, "a deployment of a fine-tuned model stands");
        Ok(())
    }
}

impl Reading<'_> {
    /// The stands of a deployment that this account has told of before.
    fn of_it(&self, found: &ArmDeployment) -> impl Iterator<Item = &HostedRow> {
        let is_it = |row: &&HostedRow| {
            row.source == Source::Arm
                && row.provider == self.provider
                && row.upstream.eq_ignore_ascii_case(&found.name)
        };
        self.rows.iter().filter(is_it)
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

/// Whether an account's list tells of a stand.
pub(super) fn is_read(catalog: &Catalog, row: &HostedRow) -> bool {
    let training = catalog.providers.get(&*row.provider).and_then(|provider| provider.training.as_ref());
    training.is_some_and(|training| training.arm.is_some())
}

/// Whether a stand is of a deployment of the catalog, whatever that was called.
pub(super) fn is_of(row: &HostedRow, deployment: &Deployment) -> bool {
    row.provider == *deployment.provider.name && row.upstream.eq_ignore_ascii_case(&deployment.upstream_model)
}

/// Whether what a list tells is the stand in a row: one that was made anew was made later than that began.
fn is_same(row: &HostedRow, found: &ArmDeployment) -> bool {
    found.created_at_ms.is_none_or(|created| created <= row.since_ms)
}

/// What a deployment of an account is called: its name in the catalog, or its provider's and its own.
pub(super) fn named(catalog: &Catalog, provider: &str, upstream: &str) -> String {
    let is_it = |known: &&Arc<Deployment>| {
        // Azure takes the case of letters for the same
        *known.provider.name == *provider && known.upstream_model.eq_ignore_ascii_case(upstream)
    };
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
