//! The HTTP face of the worker.

mod doors;
mod places;
mod reply;
mod tuning;

use std::sync::Arc;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use places::Places;
use tokio::sync::Semaphore;
use tunegate_engine::{Pool, Shape};

use super::adapters::Adapters;
use super::embedding::{EmbeddingDesk, EmbeddingModel};
use super::listen::{self, Bound};
use super::model::{LoadError, Model};
use super::prepare::Served;
use super::scheduler::{Limits, Machine, Scheduler};
use super::supervise::{Signals, Stop, Supervisors};
use super::tuning::desk::{Training, TuningDesk};
use super::tuning::folder::{Claim, ClaimError, Folder};
use super::tuning::limits;
use super::{Config, DISK_THREADS, TuningConfig, WorkerError};
use crate::clock;
use crate::telemetry::metrics::{Occupancy, WorkerMetrics};

/// How long running answers may take when the system, not a person, ends the worker.
const GRACE: Duration = Duration::from_secs(10);
/// How long they may take when the supervisor is lost: most of their readers are lost with it.
const GRACE_OF_ORPHANS: Duration = Duration::from_secs(1);
/// How often the threads that compute are looked at.
const PULSE: Duration = Duration::from_secs(1);

/// What the doors need.
pub(super) struct Worker {
    pub(super) model: Model,
    pub(super) scheduler: Scheduler,
    /// Nothing where no embedding model is served.
    pub(super) embedding: Option<Embedding>,
    /// Nothing where nothing is trained.
    pub(super) local: Option<Local>,
    /// Places for work that waits for a disk.
    pub(super) disk: Arc<Semaphore>,
    /// Places for requests that wait for a thread, and that wait for a disk: as many each as the engine takes. Apart, so
    /// that a slow disk takes none of those who need none.
    for_thread: Places,
    for_disk: Places,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) supervisors: Supervisors,
    pub(super) stop: Stop,
    /// How long one request may take.
    pub(super) request_limit: Duration,
    /// Seconds since 1970.
    pub(super) started: i64,
}

/// What is trained here, and what came of it.
pub(super) struct Local {
    pub(super) adapters: Arc<Adapters>,
    pub(super) desk: TuningDesk,
}

impl Worker {
    /// What there is to answer with.
    pub(super) fn served(&self) -> Served<'_> {
        Served { model: &self.model, adapters: self.local.as_ref().map(|local| &*local.adapters) }
    }
}

/// What makes vectors of texts.
pub(super) struct Embedding {
    pub(super) model: Arc<EmbeddingModel>,
    pub(super) desk: EmbeddingDesk,
    /// Places for requests that wait for a thread: as many as its desk takes.
    for_thread: Places,
}

/// Loads the model, listens, and serves until it is told to stop.
pub(super) async fn serve(config: Config) -> Result<(), WorkerError> {
    let begun = clock::monotonic();
    let mut signals = Signals::listen().map_err(WorkerError::Signals)?;
    // Bound first: where a worker serves already, this one must not load a second copy of the model.
    let bound = listen::bind(&config.listen).await?;
    let claimed = config.tuning.as_ref().map(claim).transpose()?;
    let worker = Arc::new(start(&config, claimed)?);
    let load_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(model = worker.model.name, load_ms, threads = config.threads, "the model is loaded");
    match bound {
        Bound::Tcp(listener) => {
            let address = listener.local_addr().map_or_else(|_| config.listen.to_string(), |a| a.to_string());
            tracing::info!(address, "listening");
            // A token is sent when it is there, not when a packet is full.
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
            });
            until_stopped(listener, &worker, &config, &mut signals).await
        }
        Bound::Unix(listener, claim) => {
            tracing::info!(address = %config.listen, "listening");
            let outcome = until_stopped(listener, &worker, &config, &mut signals).await;
            drop(claim);
            outcome
        }
    }
}

/// Takes the folder of training, before the model is loaded and anything in it is touched.
fn claim(tuning: &TuningConfig) -> Result<(Folder, Claim), WorkerError> {
    let path = || tuning.folder.clone();
    let unusable = |source| WorkerError::Tuning { path: path(), source };
    let folder = Folder::open(&tuning.folder).map_err(unusable)?;
    match folder.claim() {
        Ok(claim) => Ok((folder, claim)),
        Err(ClaimError::Taken) => Err(WorkerError::TuningTaken(path())),
        Err(ClaimError::System(source)) => Err(unusable(source)),
    }
}

fn start(config: &Config, claimed: Option<(Folder, Claim)>) -> Result<Worker, WorkerError> {
    let (model, engine) = Model::load(config)?;
    let pool = Pool::new(config.threads).map_err(WorkerError::Threads)?;
    let shape = *engine.shape();
    let batch = config.max_batch.get();
    let tokens =
        config.kv_budget_tokens.map_or_else(|| batch.saturating_mul(shape.context), |tokens| tokens.get());
    let limits = Limits { batch, queue: config.queue, tokens, unread: config.unread_limit };
    let tokenizer = Arc::clone(&model.texts.tokenizer);
    let most = Occupancy { queue: config.queue, active: batch, kv_tokens: tokens };
    let vectors = config.embedding.as_ref().map(|embedding| embedding.name.as_str());
    let metrics = Arc::new(WorkerMetrics::new(&model.name, vectors, most)?);
    let embedding = embedding(config, &metrics)?;
    let local = local(config, claimed, shape, &metrics)?;
    let machine = Machine { engine, pool };
    let scheduler =
        Scheduler::start(machine, shape, tokenizer, limits, Arc::clone(&metrics), clock::monotonic)
            .map_err(WorkerError::Threads)?;
    Ok(Worker {
        model,
        scheduler,
        embedding,
        local,
        disk: Arc::new(Semaphore::new(DISK_THREADS)),
        for_thread: Places::new(batch.saturating_add(config.queue), Arc::clone(&metrics)),
        for_disk: Places::new(batch.saturating_add(config.queue), Arc::clone(&metrics)),
        metrics,
        supervisors: Supervisors::new(),
        stop: Stop::new(),
        request_limit: config.request_limit,
        started: clock::unix_ms() / 1000,
    })
}

fn local(
    config: &Config,
    claimed: Option<(Folder, Claim)>,
    shape: Shape,
    metrics: &Arc<WorkerMetrics>,
) -> Result<Option<Local>, WorkerError> {
    let (Some(tuning), Some((folder, claim))) = (&config.tuning, claimed) else { return Ok(None) };
    let unusable = |source| WorkerError::Tuning { path: tuning.folder.clone(), source };
    let adapters =
        Adapters::open(&folder.adapters(), &config.name, shape, tuning.adapters, Arc::clone(metrics))?;
    let adapters = Arc::new(adapters);
    let training = Training {
        program: std::env::current_exe().map_err(unusable)?,
        model_file: config.model_file.clone(),
        organization: tuning.organization.clone(),
        threads: tuning.threads.unwrap_or(config.threads),
        memory_mib: tuning.memory_mib,
        longest_row: tuning.longest_row,
        checkpoint_every: tuning.checkpoint_every,
    };
    let desk = TuningDesk::start((folder, claim), Arc::clone(&adapters), training, Arc::clone(metrics))
        .map_err(unusable)?;
    if let Some(around) = limits::memory_around().map(|bytes| bytes >> 20)
        && tuning.memory_mib > around / 2
    {
        let (memory_mib, limit_mib) = (tuning.memory_mib, around);
        tracing::warn!(
            memory_mib,
            limit_mib,
            "a training may take more than half of the memory that it shares with serving: lower tuning_memory_mib, \
             or the kernel ends it"
        );
    }
    tracing::info!(folder = %tuning.folder.display(), adapters = adapters.all().len(), "local models can be trained");
    Ok(Some(Local { adapters, desk }))
}

fn embedding(config: &Config, metrics: &Arc<WorkerMetrics>) -> Result<Option<Embedding>, WorkerError> {
    let Some(wanted) = &config.embedding else { return Ok(None) };
    if wanted.name == config.name {
        return Err(LoadError::SameName(wanted.name.clone()).into());
    }
    let (model, encoder) = EmbeddingModel::load(wanted)?;
    let desk = EmbeddingDesk::start(encoder, config.queue, Arc::clone(metrics), clock::monotonic)
        .map_err(WorkerError::Threads)?;
    tracing::info!(model = model.name, "the embedding model is loaded");
    let for_thread = Places::new(config.queue.saturating_add(1), Arc::clone(metrics));
    Ok(Some(Embedding { model: Arc::new(model), desk, for_thread }))
}

async fn until_stopped<L>(
    listener: L,
    worker: &Arc<Worker>,
    config: &Config,
    signals: &mut Signals,
) -> Result<(), WorkerError>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let stop = worker.stop.clone();
    let ordered = async move {
        stop.ordered().await;
    };
    let serving = axum::serve(listener, doors::router(Arc::clone(worker))).with_graceful_shutdown(ordered);
    let ending = end(worker, config, signals);
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the listener failed");
            }
            Ok(())
        }
        outcome = ending => outcome,
    }
}

/// Waits for a reason to end, gives the order, and returns when the grace is over.
async fn end(worker: &Worker, config: &Config, signals: &mut Signals) -> Result<(), WorkerError> {
    let mut grace = tokio::select! {
        grace = worker.stop.ordered() => {
            tracing::info!("told to stop");
            grace
        }
        () = signals.received() => {
            tracing::info!("signalled to stop");
            GRACE
        }
        () = worker.supervisors.lost(config.supervision) => {
            tracing::warn!("nobody supervises: stopping");
            GRACE_OF_ORPHANS
        }
        () = broken(worker) => return Err(WorkerError::Engine),
    };
    worker.scheduler.drain();
    if let Some(embedding) = &worker.embedding {
        embedding.desk.drain();
    }
    worker.stop.order(grace);
    if let Some(local) = &worker.local {
        // its checkpoint counts: there is nothing to wait for
        local.desk.end();
    }
    // A second signal, or a second order, may cut the grace short.
    loop {
        tokio::select! {
            () = tokio::time::sleep(grace) => break,
            shorter = worker.stop.changed(grace) => grace = shorter,
            () = signals.received() => break,
        }
    }
    worker.scheduler.end();
    if let Some(embedding) = &worker.embedding {
        embedding.desk.end();
    }
    Ok(())
}

/// Returns when a thread that computes has ended by itself.
async fn broken(worker: &Worker) {
    let embeds = || worker.embedding.as_ref().is_none_or(|embedding| embedding.desk.is_alive());
    let trains = || worker.local.as_ref().is_none_or(|local| local.desk.is_alive());
    while worker.scheduler.is_alive() && embeds() && (trains() || worker.stop.is_ordered()) {
        tokio::time::sleep(PULSE).await;
    }
}
