//! What the operator writes → what each room needs, checked as a whole. Everything that is wrong is said at once; with
//! anything wrong we do not start, and a reload changes nothing.
//!
//! Only this room reads the configuration's file, the environment and the state folder's secrets.

mod address;
mod budgets;
mod builtin;
mod cache;
mod capture;
mod catalog;
mod credentials;
mod deployments;
mod environment;
mod file;
mod gates;
mod injections;
mod limits;
mod models;
mod plans;
pub mod prices;
mod problem;
pub mod prompts;
mod providers;
mod read;
mod sections;
pub mod state;
#[cfg(test)]
mod tests;
mod tracing;
mod training;
mod tuning;
mod values;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::control::prompts::FileDraft;
use crate::domain::budget::Budget;
use crate::domain::catalog::Catalog;
use crate::domain::price::read::Sheets;
use crate::domain::secret::Secret;
use crate::domain::team::Team;
use crate::gateway::answers;
use crate::gateway::ledger;
use crate::gateway::limits::Config as Limits;
use crate::gateway::retirements::Config as Retirements;
use crate::store::{DatabaseConfig, Location};
use crate::telemetry::{log, metrics, traces};
use crate::tuning::{files, hosting, jobs};
use crate::upstream::{webhook, worker};

pub use environment::{Environment, ProcessEnvironment};
pub use problem::{ConfigError, Problem};
pub use sections::AdminAccess;

use problem::{Checker, Place};

/// Files that are taken when none is named, the first that exists.
const USUAL_FILES: [&str; 2] = ["tunegate.toml", "config/tunegate.toml"];

/// What each room needs to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// For the doors.
    pub http: crate::http::config::Config,
    /// The configured admin key; without one it is made in the state folder.
    pub admin_key: Option<Secret>,
    /// Database, pepper, admin key, worker socket.
    pub state_dir: PathBuf,
    /// For the store.
    pub database: DatabaseConfig,
    /// For the log.
    pub log: log::Config,
    /// For the metrics.
    pub metrics: metrics::Config,
    /// The local worker, if we start one.
    pub worker: Option<worker::Config>,
    /// Everything a request may be sent to.
    pub catalog: Catalog,
    /// Teams that are declared here.
    pub teams: Vec<Team>,
    /// How much may be under way at once.
    pub limits: Limits,
    /// What it costs, as the price file says.
    pub prices: Arc<Sheets>,
    /// The prompts that files keep.
    pub prompts: Vec<FileDraft>,
    /// For the ledger.
    pub ledger: ledger::Config,
    /// How long its entries are kept; nothing for ever.
    pub ledger_kept: Option<Duration>,
    /// The budgets that the file declares.
    pub budgets: Vec<Budget>,
    /// Who is told of alerts beside the log, if anybody is.
    pub webhook: Option<webhook::Config>,
    /// Where traces go, if any are made.
    pub tracing: Option<traces::Config>,
    /// How the end of a model is met.
    pub retirements: Retirements,
    /// How often the providers are asked when their models end; none never.
    pub retirements_polled: Option<Duration>,
    /// How many answers are kept.
    pub cache: answers::Config,
    /// How long an embedding is waited for, until the semantic cache is left alone.
    pub embed_timeout: Duration,
    /// Where training files are, and how much of them.
    pub files: files::Config,
    /// How fine-tuning jobs are looked after.
    pub jobs: jobs::Config,
    /// How deployments that cost by the hour are looked after.
    pub hosting: hosting::Config,
    /// What a canary gets of a route's requests where nobody says, percent.
    pub canary_percent: u8,
    /// How many evaluations are asked at once.
    pub evaluations_at_once: usize,
    /// The file it came from; none for the built-in defaults.
    pub source: Option<PathBuf>,
    /// What works but an operator should know, a line each.
    pub notices: Vec<String>,
}

/// Returns the file that is taken when none is named: `tunegate.toml`, else `config/tunegate.toml`, below a folder.
pub fn usual_file(folder: &Path) -> Option<PathBuf> {
    USUAL_FILES.into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Reads and checks the whole configuration; without a path, the built-in defaults and the environment.
pub fn load(path: Option<&Path>, environment: &dyn Environment) -> Result<Config, ConfigError> {
    load_with(path, Checker::new(environment))
}

/// Reads and checks all but secrets, for what is computed from a configuration and sent to nobody: a shell without the
/// providers' keys will do.
pub fn load_without_secrets(
    path: Option<&Path>,
    environment: &dyn Environment,
) -> Result<Config, ConfigError> {
    load_with(path, Checker::without_secrets(environment))
}

fn load_with(path: Option<&Path>, mut checker: Checker<'_>) -> Result<Config, ConfigError> {
    let mut file = read_file(path, &mut checker);
    let access = sections::admin(&file, &mut checker);
    let (ledger, budget_exceeded) = budgets::ledger(&file.ledger, &mut checker);
    let ledger_kept = budgets::kept(&file.ledger, &mut checker);
    let http = sections::server(&file.server, access.listen, budget_exceeded, &mut checker);
    let database = sections::database(&file.database, &access.state_dir, &mut checker);
    let log = sections::log(&file.log, &mut checker);
    let metrics = sections::metrics(&file.metrics, &mut checker);
    let worker = sections::worker(&file.worker, &access.state_dir, &mut checker);
    if file.providers.is_empty() {
        builtin::add_from_environment(&mut file, http.listen, &mut checker);
    }
    if let Some(worker) = &worker {
        builtin::add_worker(&mut file, worker, &mut checker);
    }
    let teams = limits::teams(&file.teams, &mut checker);
    let limits = limits::global(&file.limits, http.limits.max_body_bytes, &mut checker);
    let served = providers::check(&file.providers, &mut checker);
    let prices = prices::check(&file.prices, &mut checker);
    let catalog = catalog::check(&file, &served, &prices, &mut checker);
    let prompts = prompts::check(&file.prompts, &mut checker);
    let budgets = budgets::check(&file, &mut checker);
    let webhook = budgets::alerts(&file.alerts, &mut checker);
    let tracing = tracing::check(&file.tracing, &mut checker);
    let (retirements, retirements_polled) = sections::retirements(&file.retirements, &mut checker);
    let (cache, embed_timeout) = cache::check(&file.cache, &mut checker);
    let files = tuning::files(&file.tuning, &access.state_dir, &mut checker);
    let jobs = tuning::jobs(&file.tuning, ledger.lease, &mut checker);
    tuning::moderator(&file, &mut checker);
    let hosting = tuning::hosting(&file.tuning, ledger.lease, &mut checker);
    let canary_percent = tuning::canary_percent(&file.tuning, &mut checker);
    let evaluations_at_once = tuning::evaluations_at_once(&file.evaluations, &mut checker);
    cache::check_worker(&file, worker.as_ref(), &mut checker);
    if catalog.providers.is_empty() {
        checker
            .notice(&Place::top("providers"), "there are none, and no local worker: every model is unknown");
    }
    let notices = checker.finish(path.map(Path::to_owned))?;
    Ok(Config {
        http,
        admin_key: access.key,
        state_dir: access.state_dir,
        database,
        log,
        metrics,
        worker,
        catalog,
        teams,
        limits,
        prices: prices.sheets,
        prompts,
        ledger,
        ledger_kept,
        budgets,
        webhook,
        tracing,
        retirements,
        retirements_polled,
        cache,
        embed_timeout,
        files,
        jobs,
        hosting,
        canary_percent,
        evaluations_at_once,
        source: path.map(Path::to_owned),
        notices,
    })
}

/// Reads only what a client of the control plane needs. A shell without the providers' keys will do, and so will a
/// file that is wrong elsewhere: it may have been edited since the gateway that runs has read it.
pub fn load_admin_access(
    path: Option<&Path>,
    environment: &dyn Environment,
) -> Result<AdminAccess, ConfigError> {
    let mut checker = Checker::new(environment);
    let file = read_file(path, &mut checker);
    let access = sections::admin(&file, &mut checker);
    checker.forget_elsewhere(&[Place::root(), Place::top("admin"), Place::top("state")]);
    checker.finish(path.map(Path::to_owned))?;
    Ok(access)
}

/// Reads only the prices: a file that is wrong elsewhere will do.
pub fn load_prices(path: Option<&Path>, environment: &dyn Environment) -> Result<Arc<Sheets>, ConfigError> {
    let mut checker = Checker::new(environment);
    let file = read_file(path, &mut checker);
    let known = prices::check(&file.prices, &mut checker);
    checker.forget_elsewhere(&[Place::root(), Place::top("prices")]);
    checker.finish(path.map(Path::to_owned))?;
    Ok(known.sheets)
}

fn read_file(path: Option<&Path>, checker: &mut Checker<'_>) -> file::File {
    let text = match path.map(fs::read_to_string).transpose() {
        Ok(text) => text,
        Err(error) => {
            checker.unreadable(Place::root(), format!("can't be read: {error}"));
            return file::File::default();
        }
    };
    read::read(text.as_deref(), checker)
}

/// Returns the keys that differ and that only a restart applies; the catalog and the teams are not among them.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<String> {
    let (server, limits) = ((&old.http, &new.http), (&old.http.limits, &new.http.limits));
    let mut keys = Vec::new();
    let mut compare = |key: &str, same: bool| {
        if !same {
            keys.push(key.to_owned());
        }
    };
    compare("server.listen", server.0.listen == server.1.listen);
    compare("server.threads", server.0.threads == server.1.threads);
    compare("server.tls", server.0.tls == server.1.tls);
    compare("server.h2c_listen", server.0.h2c_listen == server.1.h2c_listen);
    compare("server.max_body_bytes", limits.0.max_body_bytes == limits.1.max_body_bytes);
    compare("server.head_timeout_ms", limits.0.head_timeout == limits.1.head_timeout);
    compare("server.body_read_timeout_ms", limits.0.body_read_timeout == limits.1.body_read_timeout);
    compare("server.body_total_timeout_ms", limits.0.body_total_timeout == limits.1.body_total_timeout);
    compare("server.keepalive_timeout_ms", limits.0.keepalive_timeout == limits.1.keepalive_timeout);
    compare("server.sse_keepalive_ms", limits.0.sse_keepalive == limits.1.sse_keepalive);
    compare("server.drain_timeout_ms", server.0.drain_timeout == server.1.drain_timeout);
    compare("admin.listen", server.0.admin_listen == server.1.admin_listen);
    compare("admin.key", old.admin_key == new.admin_key);
    compare("state.dir", old.state_dir == new.state_dir);
    compare_databases(&old.database, &new.database, &mut compare);
    compare("log.format", old.log.format == new.log.format);
    compare("log.level", old.log.filter == new.log.filter);
    compare("metrics.max_label_values", old.metrics == new.metrics);
    compare("limits.max_in_flight", old.limits.max_in_flight == new.limits.max_in_flight);
    compare("limits.max_body_bytes_in_flight", old.limits.max_body_bytes == new.limits.max_body_bytes);
    compare("ledger.lease_ms", old.ledger.lease == new.ledger.lease);
    compare("ledger.hold_wait_ms", old.ledger.hold_wait == new.ledger.hold_wait);
    compare("ledger.keep_days", old.ledger_kept == new.ledger_kept);
    compare("ledger.budget_exceeded_status", server.0.budget_exceeded == server.1.budget_exceeded);
    let address =
        |config: &Config| config.webhook.clone().map(|webhook| webhook::Config { secret: None, ..webhook });
    let signature = |config: &Config| config.webhook.as_ref().and_then(|webhook| webhook.secret.clone());
    compare("alerts.webhook_url", address(old) == address(new));
    compare("alerts.webhook_secret", signature(old) == signature(new));
    compare("tracing", old.tracing == new.tracing);
    compare("retirements.poll_ms", old.retirements_polled == new.retirements_polled);
    compare("retirements.lead_ms", old.retirements.lead == new.retirements.lead);
    compare("retirements.warn_days", old.retirements.warn == new.retirements.warn);
    compare("cache.max_bytes", old.cache.max_bytes == new.cache.max_bytes);
    compare("cache.max_answer_bytes", old.cache.max_answer_bytes == new.cache.max_answer_bytes);
    compare("cache.embed_timeout_ms", old.embed_timeout == new.embed_timeout);
    // the default moves with the state folder, which is told of already
    let moved = old.state_dir != new.state_dir;
    compare("tuning.folder", moved || old.files.folder == new.files.folder);
    compare("tuning.max_file_bytes", old.files.max_file_bytes == new.files.max_file_bytes);
    compare("tuning.max_folder_bytes", old.files.max_folder_bytes == new.files.max_folder_bytes);
    compare("tuning.poll_ms", old.jobs.poll == new.jobs.poll);
    compare("tuning.poll_max_ms", old.jobs.poll_max == new.jobs.poll_max);
    compare("tuning.moderate", old.jobs.moderate == new.jobs.moderate);
    compare("tuning.undeploy_idle", old.hosting.undeploy_idle == new.hosting.undeploy_idle);
    compare("tuning.idle_after_hours", old.hosting.idle_after == new.hosting.idle_after);
    compare("evaluations.at_once", old.evaluations_at_once == new.evaluations_at_once);
    compare_workers(old.worker.as_ref(), new.worker.as_ref(), &mut compare);
    keys
}

fn compare_databases(old: &DatabaseConfig, new: &DatabaseConfig, compare: &mut impl FnMut(&str, bool)) {
    let url = |database: &DatabaseConfig| match &database.location {
        Location::Postgres(url) => Some(url.clone()),
        Location::Folder(_) => None,
    };
    compare("database.url", url(old) == url(new));
    compare("database.connections", old.connections == new.connections);
    compare("database.acquire_timeout_ms", old.acquire_timeout == new.acquire_timeout);
    compare("database.statement_timeout_ms", old.statement_timeout == new.statement_timeout);
    compare("database.durability", old.durability == new.durability);
}

fn compare_workers(
    old: Option<&worker::Config>,
    new: Option<&worker::Config>,
    compare: &mut impl FnMut(&str, bool),
) {
    compare("worker.enabled", old.is_some() == new.is_some());
    let (Some(old), Some(new)) = (old, new) else { return };
    compare("worker.model_file", old.model_file == new.model_file);
    compare("worker.name", old.name == new.name);
    let folder = |worker: &worker::Config| worker.embedding.as_ref().map(|model| model.folder.clone());
    let name = |worker: &worker::Config| worker.embedding.as_ref().map(|model| Arc::clone(&model.name));
    compare("worker.embedding_model", folder(old) == folder(new));
    compare("worker.embedding_name", name(old) == name(new) || folder(old) != folder(new));
    compare("worker.threads", old.threads == new.threads);
    compare("worker.max_batch", old.max_batch == new.max_batch);
    compare("worker.queue", old.queue == new.queue);
}
