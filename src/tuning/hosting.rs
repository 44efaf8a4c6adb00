//! The hosting clock: who is billed by the hour, since when, and what that costs; charged as it goes, never refused.
//!
//! Which deployments stand is read from Azure's resource manager where there is one, else from the configuration. One
//! process charges, by its lease. What the resource manager told us of is charged as far as it was seen to stand: while
//! it can't be asked nothing is guessed, and nothing is lost.

mod charge;
mod follow;
mod idle;
mod report;
#[cfg(test)]
mod tests;
mod witness;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::follow::named;
use super::lease::Lease;
use crate::clock;
use crate::control::prices::Prices;
use crate::domain::alert::Alert;
use crate::domain::catalog::{Catalog, Deployment};
use crate::domain::hosting::Rate;
use crate::domain::ledger::{Attribution, Purpose};
use crate::domain::price::book::Found;
use crate::domain::team::TEAM_ID_PREFIX;
use crate::domain::tuning::Owner;
use crate::gateway::catalog::LiveCatalog;
use crate::gateway::ledger::Ledger;
use crate::gateway::retirements::Retirements;
use crate::store::hosting::{HostedRow, HostingRows};
use crate::store::leases::LeaseRows;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;
use crate::upstream::arm::ArmDeployment;
use crate::upstream::tuning::TrainerError;

pub use report::{AccountReport, HostedReport};
pub use witness::{Made, Witness};

/// The lease of who charges.
const LEASE: &str = "hosting";
/// The longest time between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The shortest, where accounts are read more often: tests do.
const LOOK_SHORTEST: Duration = Duration::from_millis(20);
/// Between two looks at how all stand, for metrics and for routes.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Behind a reading that failed, the next one comes after so long at most.
const AGAIN: Duration = Duration::from_secs(60);
/// For readings under way while the process ends.
const END_LIMIT: Duration = Duration::from_secs(2);
/// What stands behind a model's name in that of one of its checkpoints.
const CHECKPOINT: &str = ":ckpt-step-";
/// How far back it is looked whether somebody used a deployment: longer than Azure keeps one that nobody does.
const LOOKED_BACK_MS: i64 = 30 * crate::domain::hosting::DAY_MS;
/// What is gone is looked at again for so long, ms, and longer where it is not charged to its end: another process may
/// have noted its end that could not charge it.
const GONE_KEPT_MS: i64 = 2 * crate::domain::hosting::DAY_MS;
/// The periods of what is gone are kept for so long, ms: far longer than corrections reach.
const PERIODS_KEPT_MS: i64 = 30 * crate::domain::hosting::DAY_MS;
/// Between two sweeps of old periods.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// What is done about deployments that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// So long without a request a deployment is idle.
    pub idle_after: Duration,
    /// Whether idle ones are taken away.
    pub undeploy_idle: bool,
    /// How long the process that charges may be silent before another one does it.
    pub lease: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            idle_after: Duration::from_secs(72 * 3_600),
            undeploy_idle: false,
            lease: Duration::from_secs(20),
        }
    }
}

/// Told what a person should hear of.
pub type Tell = Arc<dyn Fn(Alert) + Send + Sync>;

/// What the clock works with.
pub struct Means {
    /// Which deployments there are.
    pub catalog: Arc<LiveCatalog>,
    /// What they cost.
    pub prices: Arc<Prices>,
    /// Where that is booked.
    pub ledger: Arc<Ledger>,
    /// Which of them end by their kind.
    pub retirements: Arc<Retirements>,
    /// Who is told.
    pub tell: Tell,
    /// How it stands, in figures.
    pub metrics: Arc<Metrics>,
}

/// The clock.
pub struct Hosting {
    config: Config,
    means: Means,
    rows: HostingRows,
    lease: Lease,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<Arc<str>, Account>,
    /// What is gone, and whose charges were compared with that: not again while this process lives.
    settled: HashSet<(String, i64, i64)>,
    /// When a deployment that stands since a moment was last used.
    used: HashMap<(String, i64), i64>,
    /// What was said of a deployment, and on which day: once a day.
    said: HashMap<(&'static str, String), i64>,
    /// What could not be done the last time: it is said once.
    trouble: Option<String>,
    /// Why nothing could be booked the last time.
    unwritten: Option<String>,
}

/// An account whose list is read.
struct Account {
    upstream: Arc<Upstream>,
    /// None while it is being read.
    next: Option<Instant>,
    read_at_ms: Option<i64>,
    trouble: Option<String>,
}

/// What came of asking the resource manager something.
enum Asked {
    /// Its list, as it was when it was asked for.
    Listed { upstream: Arc<Upstream>, at_ms: i64, list: Result<Vec<ArmDeployment>, TrainerError> },
    /// A deployment that nobody used was to be taken away.
    Undeployed { deployment: String, done: Result<(), TrainerError> },
}

/// Takes what is to be asked; the answers come while the clock goes on.
type Asking = mpsc::UnboundedSender<BoxFuture<'static, Asked>>;

impl Hosting {
    /// A clock that has not looked yet. `process` is this process's id.
    pub fn new(config: Config, means: Means, store: &Store, process: Arc<str>) -> Self {
        let lease = Lease::new(LeaseRows::new(store), LEASE, process, config.lease);
        Self { config, means, rows: HostingRows::new(store), lease, state: Mutex::default() }
    }

    /// Looks, and charges, until `stop`; whoever runs this owns it.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (asking, mut asked) = mpsc::unbounded_channel();
        let (answers, mut heard) = mpsc::unbounded_channel();
        // accounts are asked while rows are read and written: who asks one of them has its turn meanwhile, and others,
        // such as the registry, wait for that
        let questions = stream::poll_fn(|context| asked.poll_recv(context));
        let ask = questions.for_each_concurrent(None, |question: BoxFuture<'static, Asked>| {
            let answers = &answers;
            async move {
                let _ = answers.send(question.await);
            }
        });
        let mut ask = std::pin::pin!(ask);
        tokio::select! {
            () = self.lead(stop, &asking, &mut heard) => {}
            () = &mut ask => {}
        }
        drop(asking);
        let _ = tokio::time::timeout(END_LIMIT, ask).await;
        self.lease.free().await;
    }

    /// Keeps the lease, and looks at what stands and what is due.
    async fn lead(
        &self,
        stop: impl Future<Output = ()> + Send,
        asking: &Asking,
        heard: &mut mpsc::UnboundedReceiver<Asked>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let (mut next_beat, mut next_tell, mut next_sweep) = [clock::monotonic(); 3].into();
        let mut leads = false;
        loop {
            let now = clock::monotonic();
            if now >= next_beat {
                leads = self.leads(now).await;
                next_beat = now + self.lease.beat_every();
            }
            if leads {
                self.follow_catalog();
                self.ask_accounts(now, asking);
                self.noted(self.look(clock::unix_ms()).await);
            }
            if now >= next_tell {
                next_tell = now + TELL_EVERY;
                self.noted(self.stand(clock::unix_ms(), leads, asking).await);
            }
            if leads && now >= next_sweep {
                next_sweep = now + SWEEP_EVERY;
                self.sweep(clock::unix_ms()).await;
            }
            tokio::select! {
                () = &mut stop => return,
                Some(answer) = heard.recv() => {
                    self.noted(self.heard(answer).await);
                    next_tell = now;
                }
                () = sleep(self.look_every()) => {}
            }
        }
    }

    /// Deletes old periods of what is gone.
    async fn sweep(&self, now_ms: i64) {
        if let Err(error) = self.rows.delete_before(now_ms.saturating_sub(PERIODS_KEPT_MS)).await {
            tracing::warn!(%error, "old periods of the hosting clock could not be swept");
        }
    }

    async fn leads(&self, now: Instant) -> bool {
        self.lease.keep(now).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the lease of the hosting clock can't be kept right now");
            self.lease.is_ours(now)
        })
    }

    fn look_every(&self) -> Duration {
        let state = self.state.lock();
        let arms = state.accounts.values().filter_map(|account| account.upstream.arm());
        let shortest = arms.map(|arm| arm.poll() / 4).min().unwrap_or(LOOK_EVERY);
        shortest.clamp(LOOK_SHORTEST, LOOK_EVERY)
    }

    /// One look at what the configuration says and at what is due.
    async fn look(&self, now_ms: i64) -> Result<(), StoreError> {
        // first what can't be corrected before it is booked
        if !self.book_intended().await? {
            return Ok(());
        }
        self.follow_configuration(now_ms).await?;
        self.charge_all(now_ms).await
    }

    /// Says once what can't be done, until it can.
    fn noted(&self, done: Result<(), StoreError>) {
        let trouble = done.err().map(|error| error.to_string());
        let mut state = self.state.lock();
        if let Some(why) = trouble.as_ref().filter(|_| trouble != state.trouble) {
            tracing::warn!(why, "the hosting clock stands still; what is due is charged later");
        }
        state.trouble = trouble;
    }

    /// Whether something is said of a deployment for the first time on a day.
    fn says(&self, what: &'static str, deployment: &str, now_ms: i64) -> bool {
        let day = now_ms.div_euclid(crate::domain::hosting::DAY_MS);
        self.state.lock().said.insert((what, deployment.to_owned()), day) != Some(day)
    }

    /// What a deployment costs from a moment on, and the version of that price; none where nobody knows.
    fn rate(&self, catalog: &Catalog, row: &HostedRow, at_ms: i64) -> Option<(Rate, Arc<str>)> {
        let found = self.price(catalog, row, at_ms)?;
        let sku = Some(&*row.sku).filter(|sku| !sku.is_empty());
        Some((found.price.terms.hosting.as_ref()?.rate(sku)?, found.version))
    }

    fn price(&self, catalog: &Catalog, row: &HostedRow, at_ms: i64) -> Option<Found> {
        let book = self.means.prices.load();
        let model = Some(&*row.model).filter(|model| !model.is_empty());
        let found = match catalog.deployments.get(&*named(catalog, &row.provider, &row.upstream)) {
            Some(deployment) => {
                let mut deployment = Deployment::clone(deployment);
                // what stands there now goes before what the operator once wrote
                deployment.base_model = model.map(str::to_owned).or(deployment.base_model);
                book.price_of(&deployment, &row.upstream, at_ms)
            }
            None => {
                let kind = catalog.providers.get(&*row.provider)?.dialect.kind();
                book.find(kind, model?, model, at_ms)
            }
        };
        found.ok()
    }

    /// Whether somebody has said how time is rounded.
    fn billing_is_verified(&self, catalog: &Catalog, row: &HostedRow, at_ms: i64) -> bool {
        let found = self.price(catalog, row, at_ms);
        found.is_some_and(|found| {
            found.price.terms.hosting.as_ref().is_some_and(|hosting| hosting.billing.is_some())
        })
    }

    /// The team that pays: whose model it is.
    async fn team_of(&self, model: &str) -> Result<Option<Arc<str>>, StoreError> {
        let name = model.split_once(CHECKPOINT).map_or(model, |(name, _)| name);
        let owner = self.rows.owner_of(name).await?.and_then(|owner| owner.parse::<Owner>().ok());
        let Some(team) = owner.as_ref().and_then(Owner::team) else { return Ok(None) };
        let alias = match self.rows.team_alias(team).await? {
            Some(alias) => alias,
            // one that the configuration declares
            None => team.strip_prefix(TEAM_ID_PREFIX).unwrap_or(team).to_owned(),
        };
        Ok(Some(alias.into()))
    }
}

/// Whom hours of a deployment are booked on.
fn attribution(deployment: &str, provider: &str, team: Option<Arc<str>>) -> Attribution {
    let (deployment, provider, purpose) = (deployment.into(), provider.into(), Purpose::Hosting);
    Attribution { team, deployment, provider, purpose, ..Attribution::default() }
}
