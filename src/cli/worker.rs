//! `tunegate worker`.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::memory;
use crate::worker::{Config, EmbeddingConfig, Listen, Supervision};

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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(crate::worker::run(options.into())?)
}

impl From<Options> for Config {
    fn from(options: Options) -> Self {
        let supervision = options.supervised.then_some(Supervision {
            start: Duration::from_millis(options.supervise_start_ms),
            lost: Duration::from_millis(options.supervise_lost_ms),
        });
        let embedding =
            options.embedding_model.map(|folder| EmbeddingConfig { folder, name: options.embedding_name });
        Self {
            embedding,
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

/// One core is left to whoever asks: the gateway, or the worker's own sockets.
fn cores_but_one() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores - 1).unwrap_or(NonZeroUsize::MIN)
}
