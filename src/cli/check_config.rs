//! `tunegate check-config`.

use std::os::unix::net::UnixStream;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{ConfigOption, routes, say, warn};
use crate::config::{self, Config, ProcessEnvironment};
use crate::domain::catalog::{Address, Provider};
use crate::upstream;

/// Options of `tunegate check-config`.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOption,

    /// Also ask each provider whether it would serve us
    #[arg(long)]
    probe: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let path = options.config.path();
    let config = config::load(path.as_deref(), &ProcessEnvironment)?;
    for notice in &config.notices {
        warn(&format!("note: {notice}"));
    }
    if options.probe {
        probe_all(&config)?;
    }
    for model in config.catalog.models() {
        say(&routes::line(model));
    }
    say(&summary(&config));
    Ok(())
}

fn summary(config: &Config) -> String {
    let catalog = &config.catalog;
    let models = catalog.models().count();
    let counts = [
        counted(catalog.providers.len(), "provider"),
        counted(catalog.deployments.len(), "deployment"),
        counted(models, "model"),
    ];
    let source = match &config.source {
        Some(path) => path.display().to_string(),
        None => "built-in defaults".to_owned(),
    };
    format!("ok: {} ({source})", counts.join(", "))
}

fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn probe_all(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start a runtime")?;
    let mut failed = 0;
    for (name, provider) in &config.catalog.providers {
        if is_our_worker(config, provider) {
            say(&format!("{name}: not running; `tunegate serve` starts it"));
            continue;
        }
        match runtime.block_on(probe(provider)) {
            Ok(answer) => say(&format!("{name}: {answer}")),
            Err(reason) => {
                failed += 1;
                warn(&format!("{name}: {reason}"));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} would not serve us", counted(config.catalog.providers.len(), "provider"));
    }
    Ok(())
}

/// Whether it is the worker that `serve` will start, and nobody has yet.
fn is_our_worker(config: &Config, provider: &Provider) -> bool {
    let Address::Unix(path) = &provider.address else { return false };
    config.worker.as_ref().is_some_and(|worker| worker.socket == **path) && UnixStream::connect(path).is_err()
}

async fn probe(provider: &Provider) -> Result<String, String> {
    upstream::probe(provider).await
}
