//! `tunegate serve`.

use clap::Args;

use super::ConfigOption;
use crate::app::{self, ServeOptions};
use crate::config::{self, ProcessEnvironment};
use crate::memory;
use crate::telemetry::log;

/// Options of `tunegate serve`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,

    /// Take the listening sockets over from the gateway that runs, without refusing a connection
    #[arg(long)]
    upgrade: bool,

    /// Go on with a pepper that the live keys were not hashed with: they are void then
    #[arg(long)]
    accept_new_pepper: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    memory::prefer_small_pages();
    let config_path = options.config.path();
    let config = config::load(config_path.as_deref(), &ProcessEnvironment)?;
    log::init(&config.log)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    let &Options { upgrade, accept_new_pepper, .. } = options;
    app::serve(config, &ServeOptions { upgrade, config_path, accept_new_pepper })
}
