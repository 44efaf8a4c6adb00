//! `tunegate healthcheck`: for container images that have no other client in them.

use anyhow::bail;
use clap::Args;

use super::ConfigOption;
use super::admin_client::AdminClient;

/// Options of `tunegate healthcheck`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let reply = AdminClient::new(&options.config)?.without_key().ask("GET", "/readyz", None)?;
    if reply.status != 200 {
        bail!("not ready: {}", reply.message());
    }
    Ok(())
}
