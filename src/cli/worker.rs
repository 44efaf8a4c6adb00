//! `tunegate worker`.

use clap::Args;

/// How the worker serves.
#[derive(Args)]
pub(super) struct Options {}

pub(super) fn run(_options: Options) -> anyhow::Result<()> {
    Ok(())
}
