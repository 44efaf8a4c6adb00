//! The services beside the doors. Each is a pingora background service: it has an owner, and ends with the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use pingora::server::{
    ExecutionPhase, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch, UnixShutdownSignalWatch,
};
use pingora::services::background::BackgroundService;
use pingora::time::{sleep, timeout};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{broadcast, watch};

use super::banner::{Banner, BannerKey, banner};
use crate::clock;
use crate::control::budgets::Budgets;
use crate::control::keys::Keys;
use crate::control::prices::Prices;
use crate::control::prompts::Prompts;
use crate::domain::catalog::Address;
use crate::domain::secret::Secret;
use crate::gateway::capture::Capturer;
use crate::gateway::catalog::{Live, LiveCatalog};
use crate::gateway::ledger::Ledger;
use crate::gateway::record::Book;
use crate::http::Readiness;
use crate::http::admin::Reload;
use crate::store::Store;
use crate::store::pins::PinRows;
use crate::tuning::registry::Registry;
use crate::upstream::worker::{Farewell, Supervisor, WorkerState};

/// Between two looks at what is in flight while we end.
const LOOK: Duration = Duration::from_millis(20);
/// For requests that were cut off to write their outcomes.
const CUT_LIMIT: Duration = Duration::from_secs(2);
/// For the worker to end.
const WORKER_LIMIT: Duration = Duration::from_secs(8);
/// For what has ended to be written into the ledger.
const LEDGER_LIMIT: Duration = Duration::from_secs(6);
/// For the spans that wait to be sent.
const SPANS_LIMIT: Duration = Duration::from_secs(2);
/// For the traffic that is on its way to be kept.
const CAPTURES_LIMIT: Duration = Duration::from_secs(1);
/// For the store to be closed.
const STORE_LIMIT: Duration = Duration::from_secs(2);
/// For all that comes after the drain time: longer than these together.
pub(super) const PARTING_LIMIT: Duration = Duration::from_secs(22);
/// How long the first banner waits for the worker.
const BANNER_PATIENCE: Duration = Duration::from_secs(20);
/// Between two look-ups of the providers' names.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// For one look-up.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
/// How long a stored response can be found again: as long as OpenAI keeps it (30 days, guide "Your data", 2026).
const PINS_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// Rounds of the housekeeper between two sweeps of old pins: about an hour.
const SWEEP_EVERY: u32 = 120;

/// Starts and watches the worker.
pub(super) struct Starter {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) parting: watch::Receiver<Option<Farewell>>,
    /// Set when the worker is out of our hands.
    pub(super) gone: watch::Sender<bool>,
}

#[async_trait]
impl BackgroundService for Starter {
    async fn start(&self, _shutdown: ShutdownWatch) {
        self.supervisor.run(self.parting.clone()).await;
        self.gone.send_replace(true);
    }
}

/// Tells an upgrade from an end.
pub(super) struct Farewells(Mutex<broadcast::Receiver<ExecutionPhase>>);

impl Farewells {
    pub(super) const fn new(phases: broadcast::Receiver<ExecutionPhase>) -> Self {
        Self(Mutex::new(phases))
    }

    fn kind(&self) -> Farewell {
        let mut phases = self.0.lock();
        let mut kind = Farewell::Stop;
        while let Ok(phase) = phases.try_recv() {
            if matches!(phase, ExecutionPhase::GracefulUpgradeTransferringFds) {
                kind = Farewell::HandOver;
            }
        }
        kind
    }
}

/// SIGTERM and SIGINT: end when the last answer is out. SIGQUIT: hand the listeners over to a new process.
pub(super) struct Signals;

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let unix = UnixShutdownSignalWatch;
        match unix.recv().await {
            ShutdownSignal::GracefulUpgrade => ShutdownSignal::GracefulUpgrade,
            ShutdownSignal::GracefulTerminate | ShutdownSignal::FastShutdown => {
                ShutdownSignal::GracefulTerminate
            }
        }
    }
}

/// How the spans of requests are sent.
pub(super) struct Exporter {
    /// Sends what waits, at the end.
    pub(super) flush: Flush,
    /// Adds the service that sends.
    pub(super) serve: Box<dyn FnOnce(&mut Server) + Send>,
}

/// Sends what still waits to be sent.
pub(super) type Flush = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Ends the process as soon as its last answer is out. pingora itself would always wait for its whole grace period.
pub(super) struct Warden {
    pub(super) book: Arc<Book>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) farewells: Farewells,
    pub(super) farewell: watch::Sender<Option<Farewell>>,
    pub(super) worker_gone: watch::Receiver<bool>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) store: Store,
    pub(super) flush_spans: Option<Flush>,
    pub(super) capturer: Capturer,
    pub(super) limit: Duration,
}

#[async_trait]
impl BackgroundService for Warden {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        stopping(&mut shutdown).await;
        self.readiness.drain();
        let mut interrupts = signal(SignalKind::interrupt()).ok();
        tracing::info!(
            in_flight = self.book.in_flight(),
            "ending: running answers may finish; SIGINT cuts them off"
        );
        let interrupted = async {
            match &mut interrupts {
                Some(interrupts) => drop(interrupts.recv().await),
                None => std::future::pending().await,
            }
        };
        let quiet = tokio::select! {
            quiet = timeout(self.limit, self.quiet()) => quiet.is_ok(),
            // the person at the keyboard does not want to wait
            () = interrupted => false,
        };
        if !quiet {
            tracing::warn!(
                in_flight = self.book.in_flight(),
                "the time to finish is over; what runs is cut off"
            );
            self.readiness.cut_off();
            let _ = timeout(CUT_LIMIT, self.quiet()).await;
        }
        self.farewell.send_replace(Some(self.farewells.kind()));
        if let Some(flush) = &self.flush_spans {
            let _ = timeout(SPANS_LIMIT, flush()).await;
        }
        let _ = timeout(CAPTURES_LIMIT, self.capturer.flushed()).await;
        let mut worker_gone = self.worker_gone.clone();
        let _ = timeout(WORKER_LIMIT, worker_gone.wait_for(|gone| *gone)).await;
        let _ = timeout(LEDGER_LIMIT, self.ledger.close()).await;
        let _ = timeout(STORE_LIMIT, self.store.close()).await;
        tracing::info!("ended");
        // every answer is out, and pingora has no other early end
        std::process::exit(0);
    }
}

impl Warden {
    /// Resolves when nothing has been in flight for a moment: a request that was just accepted is not counted yet.
    async fn quiet(&self) {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.book.in_flight() == 0 { quiet + 1 } else { 0 };
            sleep(LOOK).await;
        }
    }
}

/// Looks the providers' names up, sweeps old pins, loads token tables, sees what other processes have done to keys and prices,
/// and reads the configuration again on SIGHUP.
pub(super) struct Housekeeper {
    pub(super) keys: Arc<Keys>,
    pub(super) prices: Arc<Prices>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) prompts: Arc<Prompts>,
    pub(super) registry: Arc<Registry>,
    pub(super) catalog: Arc<LiveCatalog>,
    pub(super) pins: PinRows,
    pub(super) reload: Reload,
    /// Listened for since before the first request: unheard, a hang-up would end the process.
    pub(super) hangups: Mutex<Option<Signal>>,
}

#[async_trait]
impl BackgroundService for Housekeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        load_token_tables(&self.catalog.load());
        let Some(mut hangups) = self.hangups.lock().take() else { return };
        let mut round: u32 = 0;
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => return,
                _ = hangups.recv() => {
                    // it says itself what came of it
                    let _ = (self.reload)().await;
                    self.refresh().await;
                }
                () = sleep(RESOLVE_EVERY) => {
                    self.refresh().await;
                    self.resolve().await;
                    if round.is_multiple_of(SWEEP_EVERY) {
                        self.sweep().await;
                    }
                    round = round.wrapping_add(1);
                }
            }
        }
    }
}

/// Resolves when this process is to end.
pub(super) async fn stopping(shutdown: &mut ShutdownWatch) {
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

impl Housekeeper {
    /// During an upgrade, or where gateways share a database, a key may be made or revoked elsewhere, a price, a budget
    /// or a prompt changed, a model moved.
    async fn refresh(&self) {
        if let Err(error) = self.keys.refresh().await {
            tracing::warn!(%error, "the keys could not be read again");
        }
        if let Err(error) = self.prices.refresh().await {
            tracing::warn!(%error, "the prices could not be read again");
        }
        if let Err(error) = self.budgets.refresh().await {
            tracing::warn!(%error, "the budgets could not be read again");
        }
        if let Err(error) = self.prompts.refresh(clock::unix_ms()).await {
            tracing::warn!(%error, "the prompts could not be read again");
        }
        if let Err(error) = self.registry.refresh().await {
            tracing::warn!(%error, "the model registry could not be read again");
        }
    }

    async fn resolve(&self) {
        for upstream in self.catalog.load().upstreams() {
            upstream.link.sweep();
            let provider = upstream.provider();
            if matches!(provider.address, Address::Host { .. })
                && let Err(error) = upstream.link.resolve(RESOLVE_LIMIT).await
            {
                tracing::warn!(provider = %provider.name, %error, "the old addresses stay in use");
            }
            if let Err(error) = upstream.authorization(clock::monotonic()).await {
                tracing::warn!(provider = %provider.name, %error, "no credential for now");
            }
        }
    }

    async fn sweep(&self) {
        if let Err(error) = self.pins.delete_before(clock::unix_ms() - PINS_KEPT_MS).await {
            tracing::warn!(%error, "old response ids could not be swept");
        }
    }
}

/// Builds the token tables a catalog needs, on a thread of their own: half a second each, once.
pub(super) fn load_token_tables(live: &Live) {
    let encodings = live.encodings();
    if encodings.is_empty() {
        return;
    }
    let built = std::thread::Builder::new().name("token-tables".to_owned()).spawn(move || {
        for encoding in encodings {
            encoding.table();
        }
    });
    if let Err(error) = built {
        tracing::warn!(%error, "token tables are built when they are first needed");
    }
}

/// Prints the banner once there is something to talk to.
pub(super) struct Greeter {
    pub(super) listen: SocketAddr,
    pub(super) tls: bool,
    pub(super) admin_listen: SocketAddr,
    pub(super) first_key: Option<(Arc<str>, Secret)>,
    pub(super) keys: Arc<Keys>,
    pub(super) model_with_worker: Option<String>,
    pub(super) model_without: Option<String>,
    pub(super) missing_model_file: Option<PathBuf>,
    pub(super) worker: watch::Receiver<WorkerState>,
}

#[async_trait]
impl BackgroundService for Greeter {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut worker = self.worker.clone();
        let settled = worker.wait_for(|state| *state != WorkerState::Starting);
        let ready = match timeout(BANNER_PATIENCE, settled).await {
            Ok(Ok(state)) => *state == WorkerState::Ready,
            _ => false,
        };
        let existing = self.existing_alias().await;
        let key = match (&self.first_key, &existing) {
            (Some((alias, key)), _) => BannerKey::New { alias, key },
            (None, Some(alias)) => BannerKey::Existing { alias },
            (None, None) => BannerKey::None,
        };
        let model = if ready { &self.model_with_worker } else { &self.model_without };
        say(&banner(&Banner {
            listen: self.listen,
            tls: self.tls,
            admin_listen: self.admin_listen,
            key,
            model: model.as_deref(),
            missing_model_file: self.missing_model_file.as_deref(),
        }));
    }
}

impl Greeter {
    async fn existing_alias(&self) -> Option<String> {
        let keys = self.keys.list(clock::unix_ms()).await.ok()?;
        let mut live = keys.iter().map(|listed| &listed.key).filter(|key| key.revoked_at_ms.is_none());
        live.next().map(|key| key.alias.to_string())
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the banner is for the person who started us; the log goes to stderr"
)]
fn say(text: &str) {
    println!("{text}");
}
