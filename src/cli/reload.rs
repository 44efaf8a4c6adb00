//! `tunegate reload`.

use clap::Args;
use serde::Deserialize;

use super::admin_client::AdminClient;
use super::{ConfigOption, say, warn};

/// Options of `tunegate reload`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,
}

/// `POST /admin/v1/reload`
#[derive(Debug, Deserialize)]
struct Reloaded {
    changed: bool,
    #[serde(default)]
    restart_needed: Vec<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let reloaded: Reloaded = client.ask("POST", "/admin/v1/reload", None)?.read(200)?;
    say(if reloaded.changed { "reloaded" } else { "nothing has changed" });
    if !reloaded.restart_needed.is_empty() {
        warn(&format!("only a restart applies: {}", reloaded.restart_needed.join(", ")));
    }
    Ok(())
}
