//! `tunegate serve`.

use clap::Args;

use super::ConfigOption;
use crate::app::{self, ServeOptions};
use crate::clock;
use crate::config::{self, ProcessEnvironment};
use crate::domain::price::read::{moment, moment_text};
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

    /// Rehearse: the date goes on from this moment, such as 2027-01-14T00:00:00Z; prices and retirements are of then
    #[arg(long, value_name = "MOMENT", value_parser = date)]
    as_of: Option<i64>,
}

/// A moment on the command line, ms since 1970 UTC.
pub(super) fn date(text: &str) -> Result<i64, &'static str> {
    moment(text).ok_or("a day (2027-01-14) or a moment (2027-01-14T00:00:00Z), UTC, stands here")
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    memory::prefer_small_pages();
    if let Some(at_ms) = options.as_of {
        clock::pretend(at_ms);
    }
    let config_path = options.config.path();
    let config = config::load(config_path.as_deref(), &ProcessEnvironment)?;
    log::init(&config.log)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    if let Some(at_ms) = options.as_of {
        tracing::warn!(
            "a rehearsal: the date goes on from {}. What is booked is dated so: use a state folder of its own",
            moment_text(at_ms)
        );
    }
    let &Options { upgrade, accept_new_pepper, .. } = options;
    app::serve(config, &ServeOptions { upgrade, config_path, accept_new_pepper })
}
