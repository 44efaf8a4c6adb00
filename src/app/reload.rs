//! Reads the configuration again while the gateway runs: what a reload can change, all or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;

use super::Built;
use crate::clock;
use crate::config::{self, Config, ProcessEnvironment};
use crate::control::Directory;
use crate::control::budgets::Budgets;
use crate::control::prices::Prices;
use crate::control::prompts::Prompts;
use crate::http::admin::{Reload, Reloaded};
use crate::tuning::registry::Registry;

/// Reads the configuration again, all or nothing.
pub(super) struct Reloader {
    pub(super) current: Arc<Mutex<Config>>,
    run: Reload,
}

impl Reloader {
    /// As others call it.
    pub(super) fn as_fn(&self) -> Reload {
        Arc::clone(&self.run)
    }
}

/// The parts that a reload changes.
struct Parts {
    directory: Arc<Directory>,
    prices: Arc<Prices>,
    budgets: Arc<Budgets>,
    prompts: Arc<Prompts>,
    registry: Arc<Registry>,
}

/// What reads the configuration of a gateway again.
pub(super) fn reload(built: &Built, path: Option<PathBuf>, config: Config) -> Reloader {
    let current = Arc::new(Mutex::new(config));
    let held = Arc::clone(&current);
    let metrics = Arc::clone(built.gateway.book.metrics());
    let parts = Parts {
        directory: Arc::clone(&built.directory),
        prices: Arc::clone(&built.money.prices),
        budgets: Arc::clone(&built.money.budgets),
        prompts: Arc::clone(&built.prompts),
        registry: Arc::clone(&built.registry),
    };
    let (parts, path) = (Arc::new(parts), path.map(Arc::<Path>::from));
    let run = move || {
        let (parts, held, path) = (Arc::clone(&parts), Arc::clone(&held), path.clone());
        let metrics = Arc::clone(&metrics);
        let whole = async move {
            let reloaded = parts.reload(&mut *held.lock().await, path.as_deref()).await;
            metrics.process.reloaded(reloaded.is_ok());
            match &reloaded {
                Ok(_) => metrics.process.configured(clock::unix_ms()),
                Err(problems) => {
                    tracing::error!("the configuration was not changed:\n{}", problems.join("\n"));
                }
            }
            reloaded
        };
        // a task of its own: an operator who hangs up does not leave it half done
        #[expect(
            clippy::disallowed_methods,
            reason = "who asked waits for it; what it changes in memory ends with us"
        )]
        let whole = async { tokio::spawn(whole).await };
        whole.map(|done| done.unwrap_or_else(|error| Err(vec![error.to_string()]))).boxed()
    };
    Reloader { current, run: Arc::new(run) }
}

impl Parts {
    async fn reload(&self, current: &mut Config, path: Option<&Path>) -> Result<Reloaded, Vec<String>> {
        if let Some(path) = path
            && std::fs::metadata(path).is_ok_and(|file| file.len() == 0)
        {
            // half written by an editor or a full disk: a start may do without a file, a running catalog is not given up
            return Err(vec![format!("{} is empty", path.display())]);
        }
        let new = config::load(path, &ProcessEnvironment)
            .map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        let restart_needed = config::restart_needed(current, &new);
        self.directory.declare(new.teams.clone())?;
        let teams_changed = current.teams != new.teams;
        let rebudgeted = current.budgets != new.budgets;
        let declared = self.budgets.declare(new.budgets.clone()).and_then(|()| {
            self.prices
                .replace(Arc::clone(&new.prices))
                .map_err(|error| vec![format!("prices.file: {error}")])
        });
        // all or nothing: what was in force before contradicted nothing
        let undo = || {
            let _ = self.directory.declare(current.teams.clone());
            let _ = self.budgets.declare(current.budgets.clone());
        };
        let repriced = declared.inspect_err(|_| undo())?;
        let rewritten = current.prompts != new.prompts;
        self.carry_out(current, &new).await.inspect_err(|_| {
            undo();
            let _ = self.prices.replace(Arc::clone(&current.prices));
        })?;
        let recatalogued = self.registry.rebase(new.catalog.clone(), new.canary_percent);
        let changed = recatalogued || repriced || teams_changed || rebudgeted || rewritten;
        current.catalog = new.catalog;
        current.prices = new.prices;
        current.teams = new.teams;
        current.budgets = new.budgets;
        current.prompts = new.prompts;
        tracing::info!(changed, ?restart_needed, "configuration read again");
        Ok(Reloaded { changed, restart_needed })
    }

    /// Has the prompts of the new configuration in force before its catalog is, that no request finds its own missing.
    async fn carry_out(&self, current: &Config, new: &Config) -> Result<(), Vec<String>> {
        let rewritten = current.prompts != new.prompts;
        if rewritten {
            self.prompts.declare(new.prompts.clone());
        }
        match self.prompts.refresh(clock::unix_ms()).await {
            Ok(()) => Ok(()),
            Err(error) if rewritten => {
                self.prompts.declare(current.prompts.clone());
                Err(vec![format!("prompts.folder: it could not be carried out: {error}")])
            }
            // what was read before holds: a database that is away keeps no other change out
            Err(error) => {
                tracing::warn!(%error, "the prompts could not be read again");
                Ok(())
            }
        }
    }
}
