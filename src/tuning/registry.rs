//! The model registry as operators and jobs use it: what jobs have made, where it is served, and which routes lead there.
//! It keeps the configuration's catalog and publishes it with the registry laid over it, at each change and each reload.

mod bind;
mod deploys;
mod gate;
mod hands;
mod moves;
mod outside;
mod removal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;

pub use self::deploys::{Asked, HostingCost};
pub use self::hands::Hands;
pub use self::moves::Moved;
pub use self::outside::{AtProviders, OutsideError, Stand, StandState};
use super::hosting::Witness;
use super::{Noun, TuningError};
use crate::control::audit::{self, Actor};
use crate::control::form::Problem;
use crate::control::prices::Prices;
use crate::control::prompts::{Prompts, PromptsError};
use crate::control::random::NoRandom;
use crate::domain::catalog::Catalog;
use crate::domain::money::Usd;
use crate::domain::registry::{
    NoMove, Point, Registered, Stage, SystemPrompt, Trouble, Variant, curve, overlay,
};
use crate::domain::tuning::{Caller, Checkpoint, Owner};
use crate::store::audit::AuditRow;
use crate::store::evaluations::EvaluationRows;
use crate::store::registry::{Change, Everything, HostedRow, MoveRow, RegistryRows};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// How often another process may be faster before we give up.
const ATTEMPTS: usize = 16;
/// Most checkpoints that are kept of a job, the last ones; providers keep three.
const MAX_CHECKPOINTS: usize = 16;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent; nothing was changed", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// The operator's mistake.
    #[error("there is no registered model {0}: `tunegate models list` has them all")]
    Unknown(String),
    /// The operator's mistake.
    #[error("{route} is no route that a model can be moved onto: {why}")]
    NoRoute {
        /// What was named.
        route: String,
        /// Why not.
        why: &'static str,
    },
    /// The operator's mistake.
    #[error("there is no deployment {0} of the registry's")]
    NoDeployment(String),
    /// Nothing would change.
    #[error(transparent)]
    NoMove(#[from] NoMove),
    /// There is nothing to undo.
    #[error("nothing was moved on the route {0} that is not undone already")]
    NothingToUndo(String),
    /// It can't be so now.
    #[error("{0}")]
    Refused(String),
    /// It has not passed what the route asks for.
    #[error("{0}")]
    Gate(String),
    /// The provider said no, or nothing.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// The prompt could not be stored.
    #[error("its prompt could not be stored: {0}")]
    Prompt(#[from] PromptsError),
    /// Others change it all the time.
    #[error("other processes changed the registry meanwhile: try again")]
    Contended,
    /// The machine has no random bits for the audit log.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a job that has ended well hands over.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The provider's name for the model: `fine_tuned_model`.
    pub name: Arc<str>,
    /// Whose it is.
    pub owner: Owner,
    /// The name of the provider that made it.
    pub provider: Arc<str>,
    /// What it was trained from, as the job was asked for it.
    pub base: Arc<str>,
    /// Our id of the job.
    pub job_id: Arc<str>,
    /// SHA-256 of the training file.
    pub dataset_sha256: Arc<str>,
    /// What all rows of the training file begin with, empty where none has any; nothing where they differ.
    pub system_prompt: Option<Arc<str>>,
    /// Models of the middle of the job.
    pub checkpoints: Vec<Checkpoint>,
    /// The version of the prices that the cost was computed with.
    pub price_version: Arc<str>,
    /// Billed tokens, over all epochs.
    pub trained_tokens: Option<u64>,
    /// What the training cost.
    pub cost: Usd,
    /// The result file, CSV.
    pub results: Option<String>,
    /// When the job was made, ms since 1970 UTC.
    pub created_at_ms: i64,
    /// When it ended, ms since 1970 UTC.
    pub finished_at_ms: i64,
}

/// A model as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What the job made.
    pub model: Registered,
    /// How far it is, on the route where it is furthest.
    pub stage: Stage,
    /// How far it or one of its checkpoints is, by route.
    pub routes: Vec<Standing>,
}

/// Where a model or a checkpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The route.
    pub route: Arc<str>,
    /// The model's name, or the checkpoint's.
    pub model: Arc<str>,
    /// How far it is.
    pub stage: Stage,
    /// Which part of the route's requests it is first asked for, percent.
    pub percent: u8,
}

/// Swaps the catalog that requests begin with; says whether it is another one.
pub type Publish = Box<dyn Fn(Catalog) -> bool + Send + Sync>;

/// What a registry is built of.
pub struct Parts<'s> {
    /// Where its rows are.
    pub store: &'s Store,
    /// The configuration's catalog.
    pub catalog: Catalog,
    /// Stored prompts, for those of datasets.
    pub prompts: Arc<Prompts>,
    /// Prices, for what a deployment costs by the hour.
    pub prices: Arc<Prices>,
    /// The hands at providers.
    pub outside: Arc<dyn AtProviders>,
    /// What a canary gets where nobody says, percent.
    pub canary_percent: u8,
    /// Where models are counted.
    pub metrics: Arc<Metrics>,
    /// Publishes a catalog.
    pub publish: Publish,
}

/// The configuration's catalog, and what is known of the registry.
#[derive(Default)]
struct Laid {
    base: Catalog,
    known: Arc<Everything>,
    /// What a canary gets where nobody says, percent.
    canary_percent: u8,
    /// What was said of it.
    troubles: Vec<Trouble>,
}

/// All registered models.
pub struct Registry {
    rows: RegistryRows,
    evaluations: EvaluationRows,
    prompts: Arc<Prompts>,
    prices: Arc<Prices>,
    outside: Arc<dyn AtProviders>,
    /// Tells the hosting clock what is made and what is gone.
    witness: Witness,
    metrics: Arc<Metrics>,
    publish: Publish,
    /// Held while a catalog is made and published.
    laid: Mutex<Laid>,
    known: ArcSwap<Everything>,
    /// Held while rows and what is known change together.
    changing: tokio::sync::Mutex<()>,
    /// Models whose provider is deleting them right now, here.
    going: Mutex<BTreeSet<Arc<str>>>,
}

impl Registry {
    /// Reads the registry, lays it over the configuration's catalog and publishes that.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn open(parts: Parts<'_>) -> Result<Self, RegistryError> {
        let registry = Self {
            rows: RegistryRows::new(parts.store),
            evaluations: EvaluationRows::new(parts.store),
            prompts: parts.prompts,
            prices: parts.prices,
            outside: parts.outside,
            witness: Witness::new(parts.store),
            metrics: parts.metrics,
            publish: parts.publish,
            laid: Mutex::new(Laid {
                base: parts.catalog,
                canary_percent: parts.canary_percent,
                ..Laid::default()
            }),
            known: ArcSwap::default(),
            changing: tokio::sync::Mutex::default(),
            going: Mutex::default(),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Reads all again, for what another process has changed.
    pub async fn refresh(&self) -> Result<(), RegistryError> {
        let _only_one = self.changing.lock().await;
        self.read().await.map(drop)
    }

    /// Takes over the catalog of a new configuration; what was moved stays. Says whether requests see another catalog.
    pub fn rebase(&self, base: Catalog, canary_percent: u8) -> bool {
        let mut laid = self.laid.lock();
        laid.base = base;
        laid.canary_percent = canary_percent;
        self.publish(&mut laid)
    }

    /// Registers what a job has made. A second time nothing is changed.
    ///
    /// # Errors
    ///
    /// When the database fails: then it is to be called again.
    pub async fn register(&self, finished: Finished) -> Result<(), RegistryError> {
        let curve = finished.results.as_deref().map(curve::read).unwrap_or_default();
        let now_ms = finished.finished_at_ms;
        let model = registered(finished);
        let detail = json!({
            "owner": model.owner.to_string(),
            "provider": &*model.provider,
            "base": &*model.base,
            "job": &*model.job_id,
        });
        let told = audit::row(Actor::Gateway, "model.register", &model.name, &detail, now_ms)?;
        let _only_one = self.changing.lock().await;
        if self.rows.register(&model, &curve, &told).await? {
            tracing::info!(model = %model.name, job = %model.job_id, "a model was registered");
        }
        self.read().await.map(drop)
    }

    /// All models, the latest first.
    pub async fn list(&self) -> Result<Vec<Listed>, RegistryError> {
        let known = self.read_alone().await?;
        let mut models: Vec<&Registered> = known.models.iter().collect();
        models.sort_by(|one, other| {
            other.finished_at_ms.cmp(&one.finished_at_ms).then(one.name.cmp(&other.name))
        });
        Ok(models.into_iter().map(|model| listed(model, &known)).collect())
    }

    /// A model, by its own name or that of one of its checkpoints.
    pub async fn get(&self, name: &str) -> Result<Listed, RegistryError> {
        let known = self.read_alone().await?;
        find(&known, name).map(|model| listed(model, &known))
    }

    /// How a model's training went.
    pub async fn curve(&self, name: &str) -> Result<Vec<Point>, RegistryError> {
        Ok(self.rows.curve(name).await?)
    }

    /// All deployments at providers that serve only what was deployed.
    pub async fn deployments(&self) -> Result<Vec<HostedRow>, RegistryError> {
        Ok(self.read_alone().await?.hosted.clone())
    }

    /// What was moved on a route, or on all of them, the latest first.
    pub async fn moves(&self, route: Option<&str>) -> Result<Vec<MoveRow>, RegistryError> {
        let route = route.map(|route| self.route(route)).transpose()?;
        Ok(self.rows.moves(route.as_deref()).await?)
    }

    /// The name of the provider that made a model, for a job that trains it further; none where it is not registered.
    ///
    /// # Errors
    ///
    /// That there is none of the caller's: it belongs to another.
    pub fn maker_of(&self, caller: &Caller, name: &str) -> Result<Option<Arc<str>>, TuningError> {
        let known = self.known.load();
        match find(&known, name) {
            Err(_) => Ok(None),
            Ok(model) if caller.finds(&model.owner) => Ok(Some(Arc::clone(&model.provider))),
            Ok(_) => Err(TuningError::not_found(Noun::Model, name)),
        }
    }

    async fn read_alone(&self) -> Result<Arc<Everything>, RegistryError> {
        let _only_one = self.changing.lock().await;
        self.read().await
    }

    /// Reads all of it; what is new is published.
    async fn read(&self) -> Result<Arc<Everything>, RegistryError> {
        let now = Arc::new(self.rows.everything().await?);
        self.known.store(Arc::clone(&now));
        self.count(&now);
        let mut laid = self.laid.lock();
        if *laid.known != *now {
            laid.known = Arc::clone(&now);
            self.publish(&mut laid);
        }
        Ok(now)
    }

    /// Lays the registry over the configuration's catalog and publishes that; what has no place there is said once.
    fn publish(&self, laid: &mut Laid) -> bool {
        let overlaid = overlay(&laid.base, &laid.known.models, &laid.known.assignments());
        for trouble in overlaid.troubles.iter().filter(|trouble| !laid.troubles.contains(trouble)) {
            tracing::warn!("the model registry: {trouble}");
        }
        laid.troubles = overlaid.troubles;
        (self.publish)(overlaid.catalog)
    }

    /// What would have no place if the registry were so, and has one now.
    fn new_troubles(&self, everything: &Everything) -> Vec<Trouble> {
        let laid = self.laid.lock();
        let then = overlay(&laid.base, &everything.models, &everything.assignments()).troubles;
        then.into_iter().filter(|trouble| !laid.troubles.contains(trouble)).collect()
    }

    fn count(&self, known: &Everything) {
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for model in &known.models {
            *counts.entry(listed(model, known).stage.name()).or_default() += 1;
        }
        let counts: Vec<_> = counts.into_iter().collect();
        self.metrics.models.registered(&counts);
    }

    /// Whether changes were written; not where another process was first.
    async fn write(&self, changes: Vec<Change>, told: &[AuditRow]) -> Result<bool, RegistryError> {
        match self.rows.write(changes, told).await {
            Ok(()) => Ok(true),
            Err(StoreError::Taken) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What clients are told where the database fails us.
fn unavailable(error: &RegistryError) -> TuningError {
    tracing::error!(%error, "the model registry could not be changed");
    TuningError::Unavailable("the model registry can't be used at the moment: try again".to_owned())
}

fn registered(finished: Finished) -> Registered {
    let variant = |checkpoint: Checkpoint| Variant {
        step: checkpoint.step,
        name: checkpoint.model,
        created_at_ms: Some(checkpoint.created_at.saturating_mul(1_000)),
        metrics: checkpoint.metrics,
    };
    let mut checkpoints: Vec<Variant> = finished.checkpoints.into_iter().map(variant).collect();
    // the last one may be the model itself
    checkpoints.retain(|checkpoint| checkpoint.name != finished.name);
    checkpoints.sort_by_key(|checkpoint| checkpoint.step);
    checkpoints.drain(..checkpoints.len().saturating_sub(MAX_CHECKPOINTS));
    Registered {
        name: finished.name,
        owner: finished.owner,
        provider: finished.provider,
        base: finished.base,
        job_id: finished.job_id,
        dataset_sha256: finished.dataset_sha256,
        system_prompt: finished.system_prompt.as_deref().map(SystemPrompt::new),
        trained_tokens: finished.trained_tokens,
        cost: finished.cost,
        price_version: finished.price_version,
        checkpoints,
        created_at_ms: finished.created_at_ms,
        finished_at_ms: finished.finished_at_ms,
        retired_at_ms: None,
        bound: None,
        hosted: Vec::new(),
    }
}

/// A model by its own name or that of one of its checkpoints.
fn find<'k>(known: &'k Everything, name: &str) -> Result<&'k Registered, RegistryError> {
    let mut models = known.models.iter();
    let found = models.find(|model| model.names().any(|known| **known == *name));
    found.ok_or_else(|| RegistryError::Unknown(name.chars().take(200).collect()))
}

fn listed(model: &Registered, known: &Everything) -> Listed {
    let mut routes = Vec::new();
    for (route, (_, placement)) in &known.placed {
        for name in model.names() {
            let Some(stage) = placement.stage_of(name) else { continue };
            let canary = placement.canary.as_ref().map_or(0, |canary| canary.percent);
            let percent = match stage {
                Stage::Candidate | Stage::Retired => 0,
                Stage::Canary => canary,
                Stage::Production => 100 - canary,
            };
            routes.push(Standing { route: Arc::clone(route), model: Arc::clone(name), stage, percent });
        }
    }
    let furthest = routes.iter().map(|standing| standing.stage).max();
    let stage = match (furthest, model.retired_at_ms) {
        (Some(stage), _) => stage,
        (None, Some(_)) => Stage::Retired,
        (None, None) => Stage::Candidate,
    };
    Listed { model: model.clone(), stage, routes }
}

#[cfg(test)]
mod tests;
