//! An evaluation is asked for: everything that it names is looked up, and its file is read once, before anything is asked.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Order, Payer, Plan};
use super::rows::{self, NotDrawn};
use super::{EvaluationError, Evaluations};
use crate::clock;
use crate::control::audit::{self, Actor};
use crate::control::form::Problem;
use crate::control::teams::TeamsError;
use crate::domain::catalog::{Catalog, Resolved};
use crate::domain::endpoint::Endpoint;
use crate::domain::evaluation::{Measure, general};
use crate::domain::ids::ModelName;
use crate::domain::money::Usd;
use crate::domain::tuning::{Caller, Id, Owner, TrainingFile};
use crate::gateway::admit::Admitted;
use crate::store::StoreError;
use crate::store::evaluations::{EvaluationRow, EvaluationStatus};
use crate::tuning::{Noun, TuningError};

fn wrong(path: &str, message: impl Into<String>) -> Problem {
    Problem { path: path.to_owned(), message: message.into() }
}

impl Evaluations {
    /// Makes an evaluation of a body; it waits for those before it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the body; a model, a key, a team or a file that is not there; a row that nothing can
    /// be asked of.
    pub async fn create(&self, body: &Value) -> Result<EvaluationRow, EvaluationError> {
        let mut order = Order::read(body).map_err(EvaluationError::Invalid)?;
        let mut problems = Vec::new();
        let payer = match self.payer(&mut order.plan).await {
            Ok(payer) => Some(payer),
            Err(EvaluationError::Invalid(more)) => {
                problems.extend(more);
                None
            }
            Err(EvaluationError::Team(why @ TeamsError::Unknown(_))) => {
                problems.push(wrong("team", why.to_string()));
                None
            }
            Err(error) => return Err(error),
        };
        {
            let live = self.gateway.catalog.load();
            resolve(&live.catalog, &mut order, payer.as_ref(), &mut problems);
        }
        let (file, rows) = match self.file(&mut order.plan).await {
            Ok(Some((file, rows))) => (Some(file), rows),
            Ok(None) => (None, Rows::default()),
            Err(EvaluationError::Invalid(more)) => {
                problems.extend(more);
                (None, Rows::default())
            }
            Err(error) => return Err(error),
        };
        if !problems.is_empty() {
            problems.sort();
            return Err(EvaluationError::Invalid(problems));
        }
        self.write(&order.plan, file, rows).await
    }

    async fn write(
        &self,
        plan: &Plan,
        file: Option<TrainingFile>,
        rows: Rows,
    ) -> Result<EvaluationRow, EvaluationError> {
        let now_ms = clock::unix_ms();
        let row = EvaluationRow {
            id: Id::Evaluation.mint(rand::random()),
            owner: owner(plan),
            status: EvaluationStatus::Queued,
            plan: json!(plan).to_string(),
            questions: i64::try_from(questions(plan, rows)).unwrap_or(i64::MAX),
            answers: 0,
            cost: Usd::ZERO,
            is_cancelled: false,
            why: String::new(),
            report: None,
            created_at_ms: now_ms,
            started_at_ms: None,
            ended_at_ms: None,
        };
        let told = audit::row(Actor::Admin, "evaluation.create", &row.id, &json!(plan), now_ms)?;
        let file = file.as_ref().map(|file| &*file.id);
        match (self.rows.insert(&row, file, &told).await, file) {
            (Ok(()), _) => {}
            (Err(StoreError::Taken), Some(file)) => {
                return Err(TuningError::not_found(Noun::File, file).into());
            }
            (Err(error), _) => return Err(error.into()),
        }
        self.wake.notify_one();
        Ok(row)
    }

    /// Who pays; a key is kept by its id.
    async fn payer(&self, plan: &mut Plan) -> Result<Admitted, EvaluationError> {
        let admitted = self.admitted(&plan.payer).await?;
        if let Payer::Key(key) = &mut plan.payer {
            *key = admitted.key.id.to_string();
        }
        Ok(admitted)
    }

    /// The held-out file, and how many of its rows are asked.
    async fn file(&self, plan: &mut Plan) -> Result<Option<(TrainingFile, Rows)>, EvaluationError> {
        let Some(id) = &plan.file else { return Ok(None) };
        let invalid = |message: String| EvaluationError::Invalid(vec![wrong("file", message)]);
        let file = match self.files.find(&Caller::Operator { team: None }, id).await {
            Ok(file) => file,
            Err(why @ TuningError::NotFound { .. }) => return Err(invalid(why.to_string())),
            Err(error) => return Err(error.into()),
        };
        let (path, seed, most) = (self.files.path(&file).await?, plan.seed, plan.rows);
        let drawn = tokio::task::spawn_blocking(move || rows::draw(&path, seed, most)).await;
        plan.sha256 = Some(file.sha256.clone());
        match drawn {
            Ok(Ok(drawn)) => {
                let rows = Rows { all: drawn.cases.len() as u64, scorable: drawn.scorable().count() as u64 };
                Ok(Some((file, rows)))
            }
            Ok(Err(NotDrawn::Row(why))) => {
                Err(invalid(format!("nothing can be asked of {}: {why}", file.id)))
            }
            Ok(Err(NotDrawn::Disk(error))) => Err(unreadable(&error)),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

/// What is said when our disk fails; why stands in the log.
pub(super) fn unreadable(error: &dyn std::error::Error) -> EvaluationError {
    tracing::error!(%error, "a held-out file can't be read");
    TuningError::Unavailable(
        "the gateway's folder of files can't be read right now: try again in a moment".to_owned(),
    )
    .into()
}

fn owner(plan: &Plan) -> Owner {
    match &plan.payer {
        Payer::Operator => Owner::Operator,
        Payer::Team(team) => Owner::Team(team.as_str().into()),
        Payer::Key(key) => Owner::Key(key.as_str().into()),
    }
}

/// How many rows of the file are asked.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    all: u64,
    /// Those whose answers can be scored.
    scorable: u64,
}

/// How many questions a plan has, over all models, the judge and the losses included.
fn questions(plan: &Plan, rows: Rows) -> u64 {
    let general = if plan.general { general::questions().len() as u64 } else { 0 };
    let models = plan.models.len() as u64;
    // a judge's marks are kept for each model
    let marks = if plan.judge.is_some() { rows.all * models } else { 0 };
    let scored = plan.models.iter().filter(|candidate| candidate.scored).count() as u64;
    (rows.all + general) * models + marks + rows.scorable * scored
}

/// Finds every model; a name that a deployment of the route has is that deployment.
fn resolve(catalog: &Catalog, order: &mut Order, payer: Option<&Admitted>, problems: &mut Vec<Problem>) {
    let find = |name: &str| -> Result<Resolved, String> {
        let asked = ModelName::parse(name).map_err(|error| error.to_string())?;
        let found = catalog.resolve(&asked).ok_or_else(|| format!("there is no model {name}"))?;
        match payer {
            Some(payer) if !found.is_for(&asked, &payer.key) => Err(format!(
                "whoever pays may not ask {name}: it is another's, or the key's models leave it out"
            )),
            _ => Ok(found),
        }
    };
    let mut route: Option<(Arc<str>, Resolved)> = None;
    if let Some(name) = &order.route {
        match find(name) {
            Ok(found) => route = Some((name.as_str().into(), found)),
            Err(why) => problems.push(wrong("route", why)),
        }
    }
    let mut gate = route.as_ref().and_then(|(_, found)| found.model.gate.clone());
    for (at, candidate) in order.plan.models.iter_mut().enumerate() {
        let of_route = route.as_ref().filter(|(_, found)| {
            found.route.deployments.iter().any(|deployment| *deployment.name == *candidate.name)
        });
        if let Some((model, found)) = of_route {
            candidate.only = Some(Arc::clone(&candidate.name));
            candidate.model = Arc::clone(model);
            candidate.scored = tells_loss(found, candidate.only.as_ref());
            continue;
        }
        match find(&candidate.name) {
            Ok(found) => {
                candidate.scored = tells_loss(&found, None);
                if at == 0 && gate.is_none() {
                    gate.clone_from(&found.model.gate);
                }
            }
            Err(why) => problems.push(wrong(&format!("models[{at}]"), why)),
        }
    }
    if let Some(judge) = &order.plan.judge
        && let Err(why) = find(&judge.model)
    {
        problems.push(wrong("judge.model", why));
    }
    if !order.has_gate
        && let Some(gate) = gate
    {
        order.plan.gate = gate.rules.rules().iter().map(ToString::to_string).collect();
    }
    // a rule about loss asks for it
    order.plan.loss |= order.plan.gate().rules().iter().any(|rule| rule.is_about(Measure::Loss));
    let loss = order.plan.loss;
    for candidate in &mut order.plan.models {
        candidate.scored &= loss;
    }
}

/// Whether one of the deployments that a model leads to can tell how likely a known answer is; of one of them, whether it
/// can.
fn tells_loss(found: &Resolved, only: Option<&Arc<str>>) -> bool {
    let asked = found.route.deployments.iter().filter(|one| only.is_none_or(|only| one.name == *only));
    asked.into_iter().any(|deployment| deployment.serves(Endpoint::Score))
}
