//! The local worker, as a supervised child.

use std::path::PathBuf;
use std::sync::Arc;

/// How the local worker is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The GGUF file; checked when the worker is started, not when the configuration is read.
    pub model_file: PathBuf,
    /// The model's name.
    pub name: Arc<str>,
    /// Where it listens: a socket in the state folder.
    pub socket: PathBuf,
    /// Its threads.
    pub threads: usize,
    /// Requests decoded together.
    pub max_batch: usize,
    /// Requests that wait.
    pub queue: usize,
}
