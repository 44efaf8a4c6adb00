//! `tunegate worker`.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::memory;
use crate::worker::{
    AdapterBounds, Config, EmbeddingConfig, Listen, Supervision, TrainerOptions, TuningConfig,
};

/// How the worker serves.
///
/// It speaks OpenAI's API: POST /v1/chat/completions, /v1/completions and (with an
/// embedding model) /v1/embeddings, GET /v1/models and /health. GET /metrics is
/// for Prometheus.
#[derive(Args)]
#[command(after_help = "Try it:\n  \
    tunegate worker --model-file models/SmolLM2-135M-Instruct.Q4_1.gguf\n  \
    curl http://127.0.0.1:8090/v1/chat/completions -H 'content-type: application/json' \\\n    \
    -d '{\"model\":\"smollm2-135m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n\n\
    The worker asks for no credentials. Beyond this machine, put the gateway before it.\n\
    RUST_LOG sets what is logged, on standard error (default: info).")]
pub(super) struct Options {
    /// The model: a GGUF file of a llama-like model.
    #[arg(long, value_name = "PATH")]
    model_file: PathBuf,

    /// The name it answers to (`local/NAME` is understood too).
    #[arg(long, value_name = "NAME", default_value = "smollm2-135m")]
    name: String,

    /// A folder with an embedding model (config.json, tokenizer.json, model.safetensors of a BERT-like model). Without
    /// one there is no POST /v1/embeddings.
    #[arg(long, value_name = "PATH")]
    embedding_model: Option<PathBuf>,

    /// The name it answers to (`local/NAME` is understood too).
    #[arg(long, value_name = "NAME", default_value = "all-minilm-l6-v2")]
    embedding_name: String,

    /// A folder for fine-tuning: its jobs, their files, and the adapters that are served beside the model. Without one
    /// nothing is trained here.
    #[arg(long, value_name = "PATH")]
    tuning_folder: Option<PathBuf>,

    /// What stands for you in the names of fine-tuned models, `ft:NAME:ORGANIZATION:SUFFIX:ID`.
    #[arg(long, value_name = "NAME", default_value = "local")]
    tuning_organization: String,

    /// Threads that train [default: as many as serve].
    #[arg(long, value_name = "N")]
    tuning_threads: Option<NonZeroUsize>,

    /// Memory that a training may take, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    tuning_memory_mib: u64,

    /// The longest row that is trained on, tokens: memory grows with it.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    tuning_longest_row: usize,

    /// Milliseconds that a training may go without a checkpoint.
    #[arg(long, value_name = "MS", default_value_t = 30_000, hide = true)]
    tuning_checkpoint_ms: u64,

    /// Adapters held in memory; more are read from disk when they are asked for.
    #[arg(long, value_name = "N", default_value_t = 32)]
    max_adapters: usize,

    /// Memory of all adapters together, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    max_adapter_mib: usize,

    /// The largest rank of an adapter.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_adapter_rank: usize,

    /// Where it listens: HOST:PORT, or unix:PATH for a socket that only you may use.
    #[arg(long, value_name = "PLACE", default_value = "127.0.0.1:8090")]
    listen: Listen,

    /// Threads that compute [default: all cores but one].
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Answers computed together.
    #[arg(long, value_name = "N", default_value = "8")]
    max_batch: NonZeroUsize,

    /// Requests that wait for their turn; more are turned away with 429. As many may wait for embeddings.
    #[arg(long, value_name = "N", default_value_t = 32)]
    queue: usize,

    /// Tokens held in memory by all running requests; also the longest context [default: max-batch whole contexts].
    #[arg(long, value_name = "N")]
    kv_budget_tokens: Option<NonZeroUsize>,

    /// Seconds one request may take.
    #[arg(long, value_name = "S", default_value_t = 600)]
    request_limit_s: u64,

    /// Compute with 8-bit activations: faster, but small models answer differently.
    #[arg(long)]
    eight_bits: bool,

    /// End when nobody holds GET /internal/supervise open: for a gateway that starts its own worker.
    #[arg(long)]
    supervised: bool,

    /// Milliseconds to wait for the first supervisor.
    #[arg(long, value_name = "MS", default_value_t = 30_000, hide = true)]
    supervise_start_ms: u64,

    /// Milliseconds to live on after the last supervisor.
    #[arg(long, value_name = "MS", default_value_t = 10_000, hide = true)]
    supervise_lost_ms: u64,
}

/// Serves until it is told to stop.
pub(super) fn run(options: Options) -> anyhow::Result<()> {
    memory::allow_huge_pages();
    listen_to_log();
    Ok(crate::worker::run(options.into())?)
}

fn listen_to_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

impl From<Options> for Config {
    fn from(options: Options) -> Self {
        let supervision = options.supervised.then_some(Supervision {
            start: Duration::from_millis(options.supervise_start_ms),
            lost: Duration::from_millis(options.supervise_lost_ms),
        });
        let embedding =
            options.embedding_model.map(|folder| EmbeddingConfig { folder, name: options.embedding_name });
        let tuning = options.tuning_folder.map(|folder| TuningConfig {
            organization: options.tuning_organization,
            threads: options.tuning_threads,
            memory_mib: options.tuning_memory_mib,
            longest_row: options.tuning_longest_row,
            checkpoint_every: Duration::from_millis(options.tuning_checkpoint_ms),
            adapters: AdapterBounds {
                resident: options.max_adapters,
                bytes: options.max_adapter_mib.saturating_mul(1 << 20),
                rank: options.max_adapter_rank,
            },
            ..TuningConfig::new(folder)
        });
        Self {
            embedding,
            tuning,
            threads: options.threads.unwrap_or_else(cores_but_one),
            max_batch: options.max_batch,
            queue: options.queue,
            kv_budget_tokens: options.kv_budget_tokens,
            request_limit: Duration::from_secs(options.request_limit_s),
            eight_bits: options.eight_bits,
            supervision,
            ..Self::new(options.model_file, options.name, options.listen)
        }
    }
}

/// What a worker starts to train one job; not for people.
#[derive(Args)]
pub(super) struct Trainer {
    #[arg(long)]
    job: PathBuf,
    #[arg(long)]
    model_file: PathBuf,
    #[arg(long)]
    training_file: PathBuf,
    #[arg(long)]
    validation_file: Option<PathBuf>,
    #[arg(long)]
    start_adapter: Option<PathBuf>,
    #[arg(long)]
    threads: NonZeroUsize,
    #[arg(long)]
    memory_mib: u64,
    #[arg(long)]
    longest_row: usize,
    #[arg(long)]
    checkpoint_ms: u64,
    #[arg(long)]
    parent: u32,
}

/// Trains until the job is done, paused or hopeless.
pub(super) fn train(options: Trainer) -> anyhow::Result<()> {
    memory::allow_huge_pages();
    listen_to_log();
    crate::worker::train(&TrainerOptions {
        job: options.job,
        model_file: options.model_file,
        training_file: options.training_file,
        validation_file: options.validation_file,
        start_adapter: options.start_adapter,
        threads: options.threads,
        memory_mib: options.memory_mib,
        longest_row: options.longest_row,
        checkpoint_every: Duration::from_millis(options.checkpoint_ms),
        parent: options.parent,
    })?;
    Ok(())
}

/// One core is left to whoever asks: the gateway, or the worker's own sockets.
fn cores_but_one() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}
