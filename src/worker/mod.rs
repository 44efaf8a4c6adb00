//! The local backend: one model file behind OpenAI's API.
//!
//! It is a process of its own, because inference saturates cores and memory: it can crash, be limited or run on another
//! machine, and the gateway does not feel it. To the gateway it is one more upstream. So this room imports nothing of
//! the gateway, and nothing of the gateway imports it but the command line. What both declare of themselves is in
//! `telemetry`: the gateway passes its own worker's metrics on.
//!
//! Beside it an embedding model may stand (`embedding`), with a thread and a queue of its own, so that neither waits for
//! the other.
//!
//! A request walks through it in a line: `wire` reads it, `prepare` turns it into tokens, `scheduler` computes it
//! among others, `serve` sends the events back.
//!
//! It has no authentication: who can connect may use it. A unix socket it makes is readable by its owner only.

mod adapters;
mod embedding;
mod listen;
mod model;
mod prepare;
mod scheduler;
mod serve;
mod share;
pub mod shelved;
mod supervise;
#[cfg(test)]
mod testing;
mod text;
mod timing;
mod tuning;
mod wire;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use adapters::{AdapterBounds, ShelfError};
pub use listen::{Listen, ListenError};
pub use model::LoadError;
pub use tuning::trainer::{TrainerError, TrainerOptions, train};

/// Threads that prepare requests: their texts become tokens while sockets are served.
const PREPARING_THREADS: usize = 4;
/// Threads that wait for a disk, for all adapters, jobs and files together: few, since one disk is not faster for more,
/// and an adapter that is read takes more than twice its file in memory.
const DISK_THREADS: usize = 2;

/// How one worker serves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The GGUF file.
    pub model_file: PathBuf,
    /// The name it answers to; `local/` before it is accepted too.
    pub name: String,
    /// What makes vectors of texts, if anything does.
    pub embedding: Option<EmbeddingConfig>,
    /// What it trains, if it trains anything.
    pub tuning: Option<TuningConfig>,
    /// Where it is reached.
    pub listen: Listen,
    /// Threads that compute, the scheduler's among them.
    pub threads: NonZeroUsize,
    /// Answers computed together.
    pub max_batch: NonZeroUsize,
    /// Requests that wait for their turn; more are turned away with 429. As many may wait for vectors.
    pub queue: usize,
    /// Tokens held in memory by all running requests together; by default `max_batch` whole contexts. Also the longest
    /// context of one request.
    pub kv_budget_tokens: Option<NonZeroUsize>,
    /// How long one request may take from its acceptance to its last token.
    pub request_limit: Duration,
    /// How long a client may leave its stream unread.
    pub unread_limit: Duration,
    /// Activations in 8 bits: faster, and less exact.
    pub eight_bits: bool,
    /// Whether it ends when nobody holds `GET /internal/supervise` open.
    pub supervision: Option<Supervision>,
}

impl Config {
    /// Returns the defaults for a file, a name and a place.
    pub fn new(model_file: PathBuf, name: String, listen: Listen) -> Self {
        Self {
            model_file,
            name,
            embedding: None,
            tuning: None,
            listen,
            threads: NonZeroUsize::MIN,
            max_batch: const { NonZeroUsize::new(8).expect("eight is not zero") },
            queue: 32,
            kv_budget_tokens: None,
            request_limit: Duration::from_secs(600),
            unread_limit: Duration::from_secs(30),
            eight_bits: false,
            supervision: None,
        }
    }
}

/// How a worker trains.
#[derive(Debug, Clone)]
pub struct TuningConfig {
    /// Holds jobs, their files and the adapters that are served; made where it is missing.
    pub folder: PathBuf,
    /// What stands for us in the names of models: `ft:BASE:ORGANIZATION:SUFFIX:ID`.
    pub organization: String,
    /// Threads that train; by default as many as serve.
    pub threads: Option<NonZeroUsize>,
    /// What a trainer may allocate, MiB.
    pub memory_mib: u64,
    /// The longest row, tokens: memory grows with it.
    pub longest_row: usize,
    /// How long a run may go without a checkpoint.
    pub checkpoint_every: Duration,
    /// How many adapters are held in memory.
    pub adapters: AdapterBounds,
}

impl TuningConfig {
    /// Returns the defaults for a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            organization: "local".to_owned(),
            threads: None,
            memory_mib: 4096,
            longest_row: 1024,
            checkpoint_every: Duration::from_secs(30),
            adapters: AdapterBounds::default(),
        }
    }
}

/// Which embedding model is served beside the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingConfig {
    /// Holds `config.json`, `tokenizer.json` and `model.safetensors`.
    pub folder: PathBuf,
    /// The name it answers to; `local/` before it is accepted too.
    pub name: String,
}

/// How long a supervised worker lives without its supervisor.
#[derive(Debug, Clone, Copy)]
pub struct Supervision {
    /// From the start until somebody supervises.
    pub start: Duration,
    /// After the last supervisor let go.
    pub lost: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self { start: Duration::from_secs(30), lost: Duration::from_secs(10) }
    }
}

/// Why a worker did not start, or ended in error. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The place cannot be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gives no threads.
    #[error("cannot start the worker's threads: {0}")]
    Threads(std::io::Error),
    /// The system's signals can't be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// The folder of local training can't be used.
    #[error("the tuning folder {}: {source}", path.display())]
    Tuning {
        /// The folder.
        path: PathBuf,
        /// As the system says.
        source: std::io::Error,
    },
    /// Another worker trains in the folder.
    #[error(
        "another worker trains in {}: give each a folder of its own (--tuning-folder), or end the other one first",
        .0.display()
    )]
    TuningTaken(PathBuf),
    /// The folder of adapters can't be read.
    #[error(transparent)]
    Adapters(#[from] ShelfError),
    /// A metric is declared wrongly.
    #[error("cannot declare the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A thread that computes ended by itself.
    #[error("the engine has stopped working")]
    Engine,
}

/// Serves until it is told to stop: by SIGTERM or SIGINT, `POST /internal/stop`, or the loss of its supervisor.
///
/// # Errors
/// If the model cannot be loaded, the place is taken, or the engine breaks.
pub fn run(config: Config) -> Result<(), WorkerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine has its own threads; sockets and JSON need little beside it.
        .worker_threads(2)
        .max_blocking_threads(PREPARING_THREADS + DISK_THREADS)
        .thread_name("worker-http")
        .enable_all()
        .build()
        .map_err(WorkerError::Threads)?;
    let outcome = runtime.block_on(serve::serve(config));
    // Connections that outlived the grace are cut.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}
