//! Builds the gateway from a configuration; starts and stops its services.

pub mod banner;

use std::path::PathBuf;

use crate::config::Config;

/// How `tunegate serve` was called.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// Take the listening sockets over from the process that runs.
    pub upgrade: bool,
    /// The file that a reload reads again; none for the built-in defaults.
    pub config_path: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub fn serve(_config: Config, _options: ServeOptions) -> anyhow::Result<()> {
    anyhow::bail!("serve is not wired yet")
}
