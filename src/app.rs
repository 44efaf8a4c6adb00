//! Builds the gateway from a configuration; starts and stops its services. Only this room sees all the others, and it
//! hands each part just what it needs.

mod alerts;
pub mod banner;
mod bookkeeper;
mod capturer;
mod evaluationkeeper;
mod fidelity;
mod filekeeper;
mod happenings;
mod hostkeeper;
mod jobkeeper;
mod modelkeeper;
mod money;
mod reload;
mod services;
#[cfg(feature = "otel")]
mod spans;
mod watcher;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service;
use pingora::time::fast_timeout::set_fast_timeout_to_tokio_threshold;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use self::bookkeeper::Bookkeeper;
use self::capturer::CaptureKeeper;
use self::evaluationkeeper::EvaluationKeeper;
use self::fidelity::Fidelity;
use self::filekeeper::FileKeeper;
use self::hostkeeper::HostKeeper;
use self::jobkeeper::JobKeeper;
use self::modelkeeper::ModelKeeper;
use self::reload::{Reloader, reload};
use self::services::{Exporter, Farewells, Greeter, Housekeeper, Starter, Warden};
use self::watcher::Watcher;
use crate::clock;
use crate::config::{Config, state};
use crate::control::audit::AuditLog;
use crate::control::keys::Keys;
use crate::control::ledger::LedgerRecords;
use crate::control::prompts::Prompts;
use crate::control::teams::Teams;
use crate::control::{Directory, pepper};
use crate::domain::prompt::PromptBook;
use crate::domain::secret::Secret;
use crate::gateway::admit::KeyRing;
use crate::gateway::answers::Answers;
use crate::gateway::board::Board;
use crate::gateway::capture::{Capturer, Queued};
use crate::gateway::catalog::LiveCatalog;
use crate::gateway::flights::Flights;
use crate::gateway::limits::Limits;
use crate::gateway::pins::Pins;
use crate::gateway::prompts::LivePrompts;
use crate::gateway::record::Book;
use crate::gateway::retirements::Retirements;
use crate::gateway::retries::Retries;
use crate::gateway::semantic::Semantic;
use crate::gateway::{Gateway, Money, REFUSAL_CODES};
use crate::http::admin::{self, Admin};
use crate::http::{Check, Door, OK, Readiness, TuningDesk};
use crate::store::Store;
use crate::store::audit::AuditRows;
use crate::store::installation::InstallationRows;
use crate::store::keys::KeyRows;
use crate::store::ledger::LedgerPages;
use crate::store::pins::PinRows;
use crate::store::teams::TeamRows;
use crate::telemetry::metrics::Metrics;
use crate::tuning;
use crate::tuning::captures::{self, Captures};
use crate::tuning::evaluations::Evaluations;
use crate::tuning::files::Files;
use crate::tuning::hosting::Hosting;
use crate::tuning::jobs::Jobs;
use crate::tuning::registry::{self, Registry};
use crate::upstream::embedder::Embedder;
use crate::upstream::worker::{Scrape, Supervisor, WorkerState};

/// How `tunegate serve` was called.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// Take the listening sockets over from the process that runs.
    pub upgrade: bool,
    /// The file that a reload reads again; none for the built-in defaults.
    pub config_path: Option<PathBuf>,
    /// Go on with a pepper that the keys were not hashed with: they are void then.
    pub accept_new_pepper: bool,
}

/// An answer's head waits for its body in a buffer of this size; pingora's own, 1,460 bytes, parts all but the smallest.
const WRITES_TOGETHER: L4BufferSettings = L4BufferSettings { read: None, write: Some(8 << 10) };
const TLS_RECORD_BYTES: usize = 17 << 10;

/// Beyond this a time-out is tokio's. pingora's own are never taken back: each 10 ms of traffic would leave one behind
/// in each thread until it is due, ten minutes later for the first byte of an answer.
const LONG_TIMEOUT: Duration = Duration::from_secs(29);

/// What has been built and now runs.
struct Built {
    gateway: Arc<Gateway>,
    directory: Arc<Directory>,
    keys: Arc<Keys>,
    money: money::Opened,
    prompts: Arc<Prompts>,
    files: Arc<Files>,
    jobs: Arc<Jobs>,
    evaluations: Arc<Evaluations>,
    registry: Arc<Registry>,
    hosting: Arc<Hosting>,
    captures: Arc<Captures>,
    /// What waits to be kept; taken when the services are started.
    captured: Mutex<Option<Receiver<Queued>>>,
    store: Store,
    readiness: Arc<Readiness>,
    supervisor: Option<Arc<Supervisor>>,
    /// How spans are sent; taken when the services are started.
    exporter: Mutex<Option<Exporter>>,
    first_key: Option<(Arc<str>, Secret)>,
}

/// Serves until it is told to stop.
///
/// # Errors
///
/// When it can't begin: an address in use, a state folder or certificate that can't be read.
pub fn serve(config: Config, options: &ServeOptions) -> anyhow::Result<()> {
    set_fast_timeout_to_tokio_threshold(Some(LONG_TIMEOUT));
    let state = state::open(&config.state_dir, config.admin_key.as_ref())?;
    for notice in &state.notices {
        tracing::warn!("{notice}");
    }
    if !options.upgrade {
        let addresses = [Some(config.http.listen), Some(config.http.admin_listen), config.http.h2c_listen];
        addresses.into_iter().flatten().try_for_each(must_be_free)?;
    }
    // the store's own runtime: it lives until the process ends
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let built = build(&config, state.pepper, &runtime, options)?;
    let reload = reload(&built, options.config_path.clone(), config);
    let current = Arc::clone(&reload.current);
    let admin_key = state.admin_key;
    let config = current.blocking_lock();
    let mut server = Server::new_with_opt_and_conf(
        Opt { upgrade: options.upgrade, ..Opt::default() },
        server_conf(&config),
    );
    server.bootstrap();
    add_listeners(&mut server, &config, &built, &reload, admin_key)?;
    let hangups = {
        let _in_runtime = runtime.enter();
        signal(SignalKind::hangup()).context("SIGHUP can't be listened for")?
    };
    add_background(&mut server, &config, &built, &reload, hangups)?;
    drop(config);
    server.run(RunArgs { shutdown_signal: Box::new(services::Signals) });
    runtime.block_on(built.store.close());
    Ok(())
}

fn must_be_free(address: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{address} is in use: stop what listens there, or set another address (server.listen, admin.listen, or \
             TUNEGATE__SERVER__LISTEN)"
        ),
        Err(error) => Err(error).with_context(|| format!("{address} can't be listened on")),
    }
}

fn build(
    config: &Config,
    pepper: Secret,
    runtime: &Runtime,
    options: &ServeOptions,
) -> anyhow::Result<Built> {
    let metrics = Arc::new(Metrics::new(config.metrics)?);
    let ring = Arc::new(KeyRing::new(&pepper));
    let publish = {
        let ring = Arc::clone(&ring);
        move |live| ring.publish(live)
    };
    let catalog = Arc::new(LiveCatalog::new(config.catalog.clone()));
    let live_prompts = Arc::new(LivePrompts::default());
    let fidelity = Arc::new(Fidelity::new(&catalog, &live_prompts));
    let publish_prompts = {
        let (live, metrics) = (Arc::clone(&live_prompts), Arc::clone(&metrics));
        let (fidelity, first) = (Arc::clone(&fidelity), AtomicBool::new(true));
        move |book: PromptBook| {
            metrics.prompts.labels(&book);
            live.publish(book);
            // the first book is empty: nothing was read yet
            if !first.swap(false, Ordering::Relaxed) {
                fidelity.look();
            }
        }
    };
    let board = Arc::new(Board::new(&config.catalog, Arc::clone(&metrics), clock::monotonic()));
    let (store, directory, keys, first, money, prompts, registry) = runtime.block_on(async {
        let store = Store::open(&config.database).await?;
        let (installation, rows) = (InstallationRows::new(&store), KeyRows::new(&store));
        if pepper::check(&installation, &rows, &pepper, options.accept_new_pepper).await? {
            tracing::error!("the pepper is another one: every key made before is void");
        }
        let teams = config.teams.clone();
        let directory = Arc::new(Directory::open(rows, TeamRows::new(&store), teams, publish).await?);
        let keys = Keys::new(Arc::clone(&directory), pepper);
        let first = keys.ensure_first_key(clock::unix_ms()).await?;
        let money = money::open(config, &catalog, &store, &metrics).await?;
        let (reports, files) = (Arc::clone(&money.reports), config.prompts.clone());
        let prompts = Prompts::open(&store, reports, files, publish_prompts, clock::unix_ms()).await?;
        let prompts = Arc::new(prompts);
        let parts = registry::Parts {
            store: &store,
            catalog: config.catalog.clone(),
            prompts: Arc::clone(&prompts),
            prices: Arc::clone(&money.prices),
            outside: Arc::new(registry::Hands::new(Arc::clone(&catalog))),
            canary_percent: config.canary_percent,
            metrics: Arc::clone(&metrics),
            publish: modelkeeper::publisher(&catalog, &board, &fidelity),
        };
        let registry = Arc::new(Registry::open(parts).await?);
        anyhow::Ok((store, directory, keys, first, money, prompts, registry))
    })?;
    fidelity.look();
    let files = Files::open(config.files.clone(), &store)
        .with_context(|| format!("tuning.folder {} can't be used", config.files.folder.display()))?;
    let files = Arc::new(files);
    let supervisor = match &config.worker {
        None => None,
        Some(worker) => {
            let binary = std::env::current_exe().context("the path of this program")?;
            Some(Arc::new(Supervisor::new(worker.clone(), binary, Arc::clone(&metrics), options.upgrade)))
        }
    };
    let (spans, exporter) = match &config.tracing {
        #[cfg(feature = "otel")]
        Some(tracing) => Some(spans::open(tracing, &metrics)),
        // the configuration refuses it where it is not built in
        _ => None,
    }
    .unzip();
    let answers = Arc::new(Answers::new(config.cache, Arc::clone(&metrics)));
    let semantic = config.worker.as_ref().and_then(|worker| {
        let embedder = Embedder::new(worker.socket.clone(), Arc::clone(&worker.embedding.as_ref()?.name));
        Some(Semantic::new(embedder, config.embed_timeout, config.cache.max_bytes, Arc::clone(&metrics)))
    });
    let (capturer, captured) = Capturer::new(Arc::clone(&metrics));
    let captures = Captures::new(captures::Parts {
        store: store.clone(),
        instance: Arc::clone(&money.instance),
        lease: config.jobs.lease,
        catalog: Arc::clone(&catalog),
        capturer: capturer.clone(),
        metrics: Arc::clone(&metrics),
    });
    let gateway = Gateway {
        capturer,
        keys: ring,
        catalog,
        board,
        limits: Arc::new(Limits::new(config.limits, clock::monotonic())),
        retries: Retries::default(),
        flights: Arc::new(Flights::new(Arc::clone(&metrics), answers.most_answer_bytes())),
        semantic,
        answers,
        prompts: live_prompts,
        sampling: config.tracing.as_ref().map(|tracing| tracing.ratio),
        book: Arc::new(Book::new(metrics, spans)),
        pins: Arc::new(Pins::new(PinRows::new(&store))),
        retirements: Arc::new(Retirements::new(config.retirements)),
        money: Money {
            ledger: Arc::clone(&money.ledger),
            prices: money.prices.live(),
            entries: LedgerPages::new(&store),
            exceeded_status: config.http.budget_exceeded.as_u16(),
            alert: {
                let alerts = money.alerts.clone();
                Box::new(move |alert| alerts.give(alert))
            },
        },
    };
    let jobs = jobkeeper::open(config.jobs, &gateway, &money, &store, &files, &registry);
    let hosting = hostkeeper::open(config.hosting, &gateway, &money, &store);
    let checks = checks(&money.written, supervisor.as_deref());
    let metrics = gateway.book.metrics();
    metrics.requests.refuses(REFUSAL_CODES);
    metrics.requests.refuses(tuning::CODES);
    metrics.process.configured(clock::unix_ms());
    let gateway = Arc::new(gateway);
    let evaluations = evaluationkeeper::open(
        (config.jobs.lease, config.evaluations_at_once),
        &gateway,
        &money,
        &store,
        &files,
        &directory,
    );
    Ok(Built {
        gateway,
        directory,
        keys: Arc::new(keys),
        money,
        prompts,
        files,
        jobs,
        evaluations,
        registry,
        hosting,
        captures: Arc::new(captures),
        captured: Mutex::new(Some(captured)),
        store,
        readiness: Arc::new(Readiness::on(checks)),
        supervisor,
        exporter: Mutex::new(exporter),
        first_key: first.map(|(listed, secret)| (listed.key.alias, secret)),
    })
}

/// What the gateway stands on, as it is known already: looking asks nobody.
fn checks(written: &Arc<AtomicBool>, supervisor: Option<&Supervisor>) -> Vec<Check> {
    let written = Arc::clone(written);
    let database = Check::new("database", move || match written.load(Ordering::Relaxed) {
        true => OK,
        false => "unavailable",
    });
    let worker = supervisor.map(|supervisor| {
        let state = supervisor.state();
        Check::new("worker", move || match *state.borrow() {
            WorkerState::Ready => OK,
            WorkerState::Starting => "starting",
            WorkerState::NoModel => "no_model",
        })
    });
    std::iter::once(database).chain(worker).collect()
}

fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.http.threads,
        upgrade_sock: config.state_dir.join("upgrade.sock").to_string_lossy().into_owned(),
        // the warden ends the process as soon as nothing is in flight; this is behind all of its own limits
        grace_period_seconds: Some((config.http.drain_timeout + services::PARTING_LIMIT).as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        // a connection stays with its thread: a hold that is durable wakes it there, and no other thread looks for work
        work_stealing: false,
        ..ServerConf::default()
    }
}

fn add_listeners(
    server: &mut Server,
    config: &Config,
    built: &Built,
    reload: &Reloader,
    admin_key: Secret,
) -> anyhow::Result<()> {
    let http = &config.http;
    let audit = Arc::new(AuditLog::new(AuditRows::new(&built.store)));
    let tuning = Arc::new(TuningDesk {
        gateway: Arc::clone(&built.gateway),
        teams: Arc::new(Teams::new(Arc::clone(&built.directory))),
        files: Arc::clone(&built.files),
        captures: Arc::clone(&built.captures),
        jobs: Arc::clone(&built.jobs),
        registry: Arc::clone(&built.registry),
        audit: Arc::clone(&audit),
    });
    let door = |h2c| Door::data(Arc::clone(&tuning), &built.readiness, http.limits.clone(), h2c);
    let mut data = Service::new("data".to_owned(), door(false));
    match &http.tls {
        // read straight into each request's own buffer; head and body of an answer leave in one write
        None => {
            let plain = ListenerConfig::tcp(http.listen.to_string());
            data.add_listener(plain.l4_buffer(WRITES_TOGETHER.read(0)));
        }
        Some(tls) => {
            let (cert, key) = (tls.cert_file.to_string_lossy(), tls.key_file.to_string_lossy());
            let mut settings = TlsSettings::intermediate(&cert, &key)
                .map_err(|error| anyhow::anyhow!("server.tls can't be used: {error}"))?;
            settings.enable_h2();
            // what a TLS record holds is read at once
            let buffers = WRITES_TOGETHER.read(TLS_RECORD_BYTES);
            data.add_listener(ListenerConfig::tcp(http.listen.to_string()).tls(settings).l4_buffer(buffers));
        }
    }
    server.add_service(data);
    if let Some(address) = http.h2c_listen {
        let mut h2c = Service::new("h2c".to_owned(), door(true));
        h2c.add_listener(ListenerConfig::tcp(address.to_string()).l4_buffer(WRITES_TOGETHER));
        server.add_service(h2c);
    }
    let operators = Admin {
        hosting: Arc::clone(&built.hosting),
        key: admin_key.clone(),
        keys: Arc::clone(&built.keys),
        prices: Arc::clone(&built.money.prices),
        files: Arc::clone(&built.files),
        captures: Arc::clone(&built.captures),
        jobs: Arc::clone(&built.jobs),
        prompts: Arc::clone(&built.prompts),
        registry: Arc::clone(&built.registry),
        evaluations: Arc::clone(&built.evaluations),
        budgets: Arc::clone(&built.money.budgets),
        standings: Arc::clone(&built.money.ledger),
        ledger: LedgerRecords::new(&built.store),
        reports: Arc::clone(&built.money.reports),
        teams: Arc::new(Teams::new(Arc::clone(&built.directory))),
        audit,
        prove: money::proof(&built.money.ledger, &built.store),
        resolving: Arc::default(),
        gateway: Arc::clone(&built.gateway),
        book: Arc::clone(&built.gateway.book),
        worker: config.worker.as_ref().map(|worker| Arc::new(Scrape::new(worker.socket.clone()))),
        reload: reload.as_fn(),
    };
    let router = admin::router(operators, &built.readiness);
    let door = Door::admin(admin_key, tuning, router, &built.readiness, http.limits.clone());
    let mut admin = Service::new("admin".to_owned(), door);
    admin.threads = Some(1);
    admin.add_tcp(&http.admin_listen.to_string());
    server.add_service(admin);
    Ok(())
}

fn add_background(
    server: &mut Server,
    config: &Config,
    built: &Built,
    reload: &Reloader,
    hangups: Signal,
) -> anyhow::Result<()> {
    let farewells = Farewells::new(server.watch_execution_phase());
    let (farewell, parting) = watch::channel(None);
    let (worker_gone, gone) = watch::channel(built.supervisor.is_none());
    if let Some(supervisor) = &built.supervisor {
        let starter = Starter { supervisor: Arc::clone(supervisor), parting, gone: worker_gone };
        server.add_service(background_service("worker", starter));
    }
    let flush_spans = built.exporter.lock().take().map(|exporter| {
        (exporter.serve)(server);
        exporter.flush
    });
    let warden = Warden {
        book: Arc::clone(&built.gateway.book),
        readiness: Arc::clone(&built.readiness),
        farewells,
        farewell,
        worker_gone: gone,
        ledger: Arc::clone(&built.money.ledger),
        store: built.store.clone(),
        flush_spans,
        capturer: built.gateway.capturer.clone(),
        limit: config.http.drain_timeout,
    };
    server.add_service(background_service("warden", warden));
    let housekeeper = Housekeeper {
        keys: Arc::clone(&built.keys),
        prices: Arc::clone(&built.money.prices),
        budgets: Arc::clone(&built.money.budgets),
        prompts: Arc::clone(&built.prompts),
        registry: Arc::clone(&built.registry),
        catalog: Arc::clone(&built.gateway.catalog),
        pins: PinRows::new(&built.store),
        reload: reload.as_fn(),
        hangups: Mutex::new(Some(hangups)),
    };
    server.add_service(background_service("housekeeper", housekeeper));
    if let Some(teller) = built.money.teller.lock().take() {
        server.add_service(background_service("teller", teller));
    }
    let bookkeeper = Bookkeeper {
        reports: Arc::clone(&built.money.reports),
        store: built.store.clone(),
        catalog: Arc::clone(&built.gateway.catalog),
        metrics: Arc::clone(built.gateway.book.metrics()),
    };
    server.add_service(background_service("bookkeeper", bookkeeper));
    let keeper = ModelKeeper { registry: Arc::clone(&built.registry) };
    server.add_service(background_service("modelkeeper", keeper));
    let metrics = Arc::clone(built.gateway.book.metrics());
    let filekeeper = FileKeeper { files: Arc::clone(&built.files), metrics };
    server.add_service(background_service("filekeeper", filekeeper));
    server.add_service(background_service("jobkeeper", JobKeeper { jobs: Arc::clone(&built.jobs) }));
    let captures = Arc::clone(&built.captures);
    let keeper = CaptureKeeper { captures, queue: Mutex::new(built.captured.lock().take()) };
    server.add_service(background_service("capturer", keeper));
    let evaluations = EvaluationKeeper { evaluations: Arc::clone(&built.evaluations) };
    server.add_service(background_service("evaluationkeeper", evaluations));
    let hosting = Arc::clone(&built.hosting);
    server.add_service(background_service("hostkeeper", HostKeeper { hosting }));
    let watcher = Watcher {
        gateway: Arc::clone(&built.gateway),
        metrics: Arc::clone(built.gateway.book.metrics()),
        every: config.retirements_polled,
    };
    server.add_service(background_service("watcher", watcher));
    server.add_service(background_service("greeter", greeter(config, built)?));
    Ok(())
}

fn greeter(config: &Config, built: &Built) -> anyhow::Result<Greeter> {
    let missing =
        config.worker.as_ref().map(|worker| worker.model_file.clone()).filter(|file| !file.is_file());
    let worker = built.supervisor.as_ref().map(|supervisor| supervisor.state());
    let model = |runs| banner::example_model(config, runs);
    Ok(Greeter {
        listen: config.http.listen,
        tls: config.http.tls.is_some(),
        admin_listen: config.http.admin_listen,
        first_key: built.first_key.clone(),
        keys: Arc::clone(&built.keys),
        model_with_worker: model(missing.is_none()),
        model_without: model(false),
        missing_model_file: missing,
        worker: worker.unwrap_or_else(|| watch::Sender::new(WorkerState::Ready).subscribe()),
    })
}
