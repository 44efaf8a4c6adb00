//! Routes as operators see them: where each name leads at this moment, and how its deployments stand. Looking takes
//! nothing.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::board::{Board, Lengths};
use super::inference::Gateway;
use super::retirements::Retirements;
use crate::clock;
use crate::domain::breaker::State;
use crate::domain::capability::Capability;
use crate::domain::catalog::{Deployment, Model, Resolved};
use crate::domain::ids::ModelName;
use crate::domain::retirement::Stage;
use crate::domain::route::{Route, Told};

/// A plan, as a tree and in words.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// The tree.
    pub plan: Told,
    /// The same in words.
    pub words: String,
}

impl PlanReport {
    fn of(route: &Route, now_ms: i64) -> Self {
        Self::from(Told::of(&route.plan, None, now_ms))
    }
}

impl From<Told> for PlanReport {
    fn from(plan: Told) -> Self {
        Self { words: plan.to_string(), plan }
    }
}

/// A label of a model.
#[derive(Debug, Serialize)]
pub struct LabelReport {
    /// What stands behind the `@`.
    pub label: Arc<str>,
    /// Its plan.
    #[serde(flatten)]
    pub plan: PlanReport,
}

/// A model and where it leads.
#[derive(Debug, Serialize)]
pub struct RouteReport {
    /// `route`.
    pub object: &'static str,
    /// Its name, or the pattern of its names.
    pub model: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What every deployment of its plans can do.
    pub requires: Vec<Capability>,
    /// Its plan.
    #[serde(flatten)]
    pub plan: PlanReport,
    /// The plans behind its labels.
    pub labels: Vec<LabelReport>,
    /// The plan for requests that are too long.
    pub longer_context: Option<PlanReport>,
    /// The plan for requests that a content filter has stopped.
    pub content_filtered: Option<PlanReport>,
    /// How long its answers have been, output tokens; none where none was seen.
    pub answers: Option<Lengths>,
    /// All deployments of all its plans, each once.
    pub deployments: Vec<DeploymentReport>,
}

/// A deployment and how it stands.
#[derive(Debug, Serialize)]
pub struct DeploymentReport {
    /// Its name.
    pub deployment: Arc<str>,
    /// Who serves it.
    pub provider: Arc<str>,
    /// The provider's own name for the model.
    pub upstream_model: Arc<str>,
    /// The operator's score, 0 to 1.
    pub quality: Option<f64>,
    /// Most tokens of input and output together.
    pub context_window: Option<u64>,
    /// What it can do beyond plain text; none where nobody said.
    pub capabilities: Option<Vec<Capability>>,
    /// The day its provider ends it.
    pub retires_on: Option<String>,
    /// Who says so: `operator`, `provider` or `published`.
    pub retires_by: Option<&'static str>,
    /// `closed`, `open`, `half_open` or `cooling_down`.
    pub breaker: &'static str,
    /// Whether its provider has ended it: nobody is sent there any more.
    pub retired: bool,
    /// What went wrong there last, in one word; it says nothing about now.
    pub last_trouble: Option<&'static str>,
    /// When a breaker that is not closed lets somebody through, ms from now.
    pub ready_in_ms: u64,
    /// Requests being served.
    pub in_flight: u32,
    /// Most of them at once.
    pub at_once: Option<u32>,
    /// Requests in the queue.
    pub waiting: u32,
    /// Most of them.
    pub queue: u32,
    /// What is left of its quota at the provider, 0 to 1; none where no quota is known.
    pub quota_left: Option<f64>,
    /// That quota, tokens a minute.
    pub tokens_per_minute: Option<u64>,
    /// From the request to the first token, ms; none where nothing was measured lately.
    pub first_token_ms: Option<u64>,
    /// Tokens in a second after that.
    pub tokens_per_second: Option<f64>,
}

/// Who knows how deployments stand.
#[derive(Clone, Copy)]
pub(super) struct Sights<'a> {
    pub(super) board: &'a Board,
    pub(super) retirements: &'a Retirements,
    pub(super) now: Instant,
}

impl Sights<'_> {
    /// How a deployment stands, for a request of so many tokens.
    pub(super) fn deployment(
        self,
        deployment: &Deployment,
        resolved: &Resolved,
        tokens: u64,
    ) -> DeploymentReport {
        let upstream_model = resolved.upstream_model(deployment);
        let standing = self.board.standing(deployment, tokens, self.now);
        let retirement = self.retirements.of(deployment, &upstream_model);
        DeploymentReport {
            deployment: Arc::clone(&deployment.name),
            provider: Arc::clone(&deployment.provider.name),
            quality: deployment.quality.map(of_thousand),
            context_window: deployment.context_window,
            capabilities: deployment.capabilities.clone(),
            retires_on: retirement.map(|retirement| retirement.day()),
            retires_by: retirement.map(|retirement| retirement.source.name()),
            breaker: match standing.breaker {
                State::Closed => "closed",
                State::Open { .. } => "open",
                State::HalfOpen { .. } => "half_open",
                State::CoolingDown { .. } => "cooling_down",
            },
            retired: retirement.is_some_and(|retirement| {
                self.retirements.stage(&retirement, clock::unix_ms()) == Stage::Retired
            }),
            last_trouble: Some(standing.cause).filter(|cause| !cause.is_empty()),
            ready_in_ms: standing.wait_ms,
            in_flight: standing.in_flight,
            at_once: standing.at_once,
            waiting: standing.waiting,
            queue: standing.queue,
            quota_left: standing.quota_left_permille.map(of_thousand),
            tokens_per_minute: standing.tokens_per_minute,
            first_token_ms: standing.speed.map(|speed| speed.ttft_us.div_ceil(1_000)),
            tokens_per_second: standing.speed.and_then(|speed| per_second(speed.per_token_us)),
            upstream_model,
        }
    }
}

/// Thousandths as a part of 1.
fn of_thousand(thousandths: u16) -> f64 {
    f64::from(thousandths) / 1_000.0
}

/// How many of so many µs fit into a second, to the tenth.
fn per_second(us: u64) -> Option<f64> {
    let tenths = 10_000_000_u64.checked_div(us)?;
    Some(f64::from(u32::try_from(tenths).ok()?) / 10.0)
}

impl Gateway {
    /// All models, patterns included.
    pub fn routes(&self) -> Vec<RouteReport> {
        let catalog = &self.catalog.load().catalog;
        let own = catalog.models().filter_map(|model| catalog.resolve(&model.name));
        own.map(|resolved| self.reported(&resolved)).collect()
    }

    /// The model that a name leads to: its own, a pattern's, an alias, one with a label, or any that a pattern matches.
    pub fn route(&self, name: &str) -> Option<RouteReport> {
        let resolved = self.catalog.load().catalog.resolve(&ModelName::parse(name).ok()?)?;
        Some(self.reported(&resolved))
    }

    fn reported(&self, resolved: &Resolved) -> RouteReport {
        let now_ms = clock::unix_ms();
        let model: &Model = &resolved.model;
        let sights = Sights { board: &self.board, retirements: &self.retirements, now: clock::monotonic() };
        let aside = |route: &Option<Arc<Route>>| route.as_deref().map(|route| PlanReport::of(route, now_ms));
        let label = |(label, route): (&Arc<str>, &Arc<Route>)| LabelReport {
            label: Arc::clone(label),
            plan: PlanReport::of(route, now_ms),
        };
        RouteReport {
            object: "route",
            model: model.name.as_str().to_owned(),
            aliases: model.aliases.iter().map(|alias| alias.as_str().to_owned()).collect(),
            requires: model.requires.clone(),
            plan: PlanReport::of(&model.route, now_ms),
            labels: model.labels.iter().map(label).collect(),
            longer_context: aside(&model.longer_context),
            content_filtered: aside(&model.content_filtered),
            answers: self.board.lengths(model.name.as_str()),
            deployments: deployments(model).map(|one| sights.deployment(one, resolved, 0)).collect(),
        }
    }
}

/// All deployments of a model's plans, each once, in written order.
fn deployments(model: &Model) -> impl Iterator<Item = &Arc<Deployment>> {
    let mut each: Vec<&Arc<Deployment>> = Vec::new();
    for deployment in model.routes().flat_map(|route| &route.deployments) {
        if each.iter().all(|known| known.name != deployment.name) {
            each.push(deployment);
        }
    }
    each.into_iter()
}
