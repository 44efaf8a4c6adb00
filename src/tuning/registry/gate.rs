//! The gate before a route: a model that is to get any of its requests has to have passed in an evaluation.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Registry, RegistryError, find};
use crate::control::form::Form;
use crate::domain::evaluation::gate::{MOST_RULES, RouteGate};
use crate::domain::evaluation::{Gate, Report, Rule};
use crate::domain::ids::ModelName;
use crate::domain::registry::{Placement, Registered, Stage};
use crate::store::registry::Everything;

/// Evaluations that are told of a model.
const TOLD: usize = 10;

/// What whoever promotes says of gates.
#[derive(Debug, Clone, Default)]
pub(super) struct Demand {
    /// Rules beside the route's.
    rules: Vec<Rule>,
    /// The evaluation that is to count; else the latest that may.
    evaluation: Option<String>,
    /// Promote all the same.
    force: bool,
}

impl Demand {
    /// Reads `gate`, `evaluation` and `force`.
    pub(super) fn read(form: &Form<'_>) -> Self {
        let force = form.read("force", |value| value.as_bool().ok_or("true or false stands here"));
        Self {
            rules: form.list("gate", MOST_RULES, str::parse::<Rule>).unwrap_or_default(),
            evaluation: form.text("evaluation").flatten().map(ToOwned::to_owned),
            force: force.flatten().unwrap_or(false),
        }
    }
}

/// Where a model is to go.
pub(super) struct Onto<'o> {
    /// All that is registered.
    pub(super) known: &'o Everything,
    /// The route.
    pub(super) route: &'o Arc<str>,
    /// What stands there.
    pub(super) placement: &'o Placement,
    /// How far.
    pub(super) to: Stage,
}

impl Registry {
    /// The latest evaluations of a model, by any of its names, with the moments at which they ended.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn evaluations(&self, model: &Registered) -> Result<Vec<(i64, Report)>, RegistryError> {
        let mut found = Vec::new();
        for name in names(model) {
            found.extend(self.evaluations.reports(name).await?);
        }
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        found.truncate(TOLD);
        Ok(found)
    }

    /// Holds a move against the route's gate and the rules that came with it. What the audit log is to say of that; nothing
    /// where no rule is asked.
    ///
    /// # Errors
    ///
    /// That no evaluation passes, why, and what to do.
    pub(super) async fn gated(
        &self,
        model: &Registered,
        name: &str,
        onto: &Onto<'_>,
        demand: &Demand,
        now_ms: i64,
    ) -> Result<Option<Value>, RegistryError> {
        let of_route = self.gate_of(onto);
        let mut rules: Vec<Rule> =
            of_route.iter().flat_map(|gate| gate.rules.rules().iter().cloned()).collect();
        rules.extend(demand.rules.iter().cloned());
        if rules.is_empty() {
            return Ok(None);
        }
        let gate = Gate::new(rules);
        let found = self.passes(model, name, onto, (&gate, of_route.as_deref()), demand, now_ms).await?;
        let result = match (&found, demand.force) {
            (Ok(_), _) => "passed",
            (Err(_), true) => "forced",
            (Err(_), false) => "refused",
        };
        self.metrics.evaluations.promoted(result);
        match found {
            Ok(evaluation) => Ok(Some(json!({"result": result, "evaluation": evaluation}))),
            Err(why) if demand.force => {
                tracing::warn!(
                    model = name,
                    route = &**onto.route,
                    why,
                    "a model was promoted past the gate"
                );
                Ok(Some(json!({"result": result, "why": why})))
            }
            Err(why) => {
                let base = onto.placement.production.as_ref().unwrap_or(onto.route);
                Err(RegistryError::Gate(format!(
                    "{} asks for an evaluation of {name} that passes its gate, and {why}. Evaluate it: `tunegate eval \
                     FILE --models {base},{name}`; or promote it all the same with --force, which the audit log keeps",
                    onto.route
                )))
            }
        }
    }

    /// The route's gate; a candidate gets no requests of the route, and needs to pass none.
    fn gate_of(&self, onto: &Onto<'_>) -> Option<Arc<RouteGate>> {
        if !matches!(onto.to, Stage::Canary | Stage::Production) {
            return None;
        }
        let laid = self.laid.lock();
        laid.base.resolve(&ModelName::parse(onto.route).ok()?)?.model.gate.clone()
    }

    /// The evaluation that passes, or why none does.
    async fn passes(
        &self,
        model: &Registered,
        name: &str,
        onto: &Onto<'_>,
        (gate, of_route): (&Gate, Option<&RouteGate>),
        demand: &Demand,
        now_ms: i64,
    ) -> Result<Result<String, String>, RegistryError> {
        let own = own_names(model, name);
        let mut reports = Vec::new();
        for name in &own {
            reports.extend(self.evaluations.reports(name).await?.into_iter().map(|found| (*name, found)));
        }
        reports.sort_by(|(_, (one, _)), (_, (other, _))| other.cmp(one));
        let standing = self.standing(onto);
        // of the latest that does not count
        let mut why = None;
        for (own, (at_ms, report)) in &reports {
            if demand.evaluation.as_ref().is_some_and(|wanted| *wanted != report.evaluation) {
                continue;
            }
            let unfit = own_file(onto.known, model, report).or_else(|| {
                of_route.and_then(|of_route| unfit(of_route, report, now_ms.saturating_sub(*at_ms)))
            });
            let foreign = report.base().filter(|base| gate.compares() && !standing.contains(&base.model));
            if let Some(base) = foreign {
                why.get_or_insert(format!(
                    "{} compares it with {}, which does not stand there",
                    report.evaluation, base.model
                ));
                continue;
            }
            if let Some(unfit) = unfit {
                why.get_or_insert(format!("{} {unfit}", report.evaluation));
                continue;
            }
            // the latest that may count does: an older one is not looked for that says otherwise
            let lacks = of_route.and_then(|of_route| of_route.lacks(report, own));
            return Ok(match (gate.judge(report, own), lacks) {
                (Some(verdict), None) if verdict.passed => Ok(report.evaluation.clone()),
                (Some(verdict), Some(lacks)) if verdict.passed => {
                    Err(format!("{} {lacks}", report.evaluation))
                }
                (Some(verdict), _) => Err(format!("{} says {}", report.evaluation, verdict.complaints())),
                (None, _) => Err(format!("{} has not evaluated it", report.evaluation)),
            });
        }
        Ok(Err(why.unwrap_or_else(|| match &demand.evaluation {
            Some(id) => format!("{id} has not evaluated it"),
            None => "there is none".to_owned(),
        })))
    }

    /// All that a base may be called that stands on the route.
    fn standing(&self, onto: &Onto<'_>) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<Arc<str>> = onto.placement.models().into_iter().cloned().collect();
        names.insert(Arc::clone(onto.route));
        let laid = self.laid.lock();
        let found = ModelName::parse(onto.route).ok().and_then(|route| laid.base.resolve(&route));
        if let Some(found) = found {
            names.extend(found.model.aliases.iter().map(|alias| Arc::from(alias.as_str())));
            for deployment in &found.route.deployments {
                names.insert(Arc::clone(&deployment.name));
                names.insert(found.upstream_model(deployment));
            }
        }
        names
    }
}

/// Whether a model was asked what it was trained on, or one that it was trained from: that says nothing of it.
fn own_file(known: &Everything, model: &Registered, report: &Report) -> Option<String> {
    let learnt = trained_on(known, model, &report.file.as_ref()?.sha256)?;
    Some(match learnt.name == model.name {
        true => "asks the very file that it was trained on".to_owned(),
        false => {
            format!("asks the very file that {} was trained on, and it was trained from that", learnt.name)
        }
    })
}

/// Who was trained on a file: a model, or one of those that it was trained from, as far as they are registered.
pub(super) fn trained_on<'k>(
    known: &'k Everything,
    model: &'k Registered,
    sha256: &str,
) -> Option<&'k Registered> {
    let parents = std::iter::successors(Some(model), |one| find(known, &one.base).ok());
    // as many as there are: names of others' making might lead round and round
    let mut line = parents.take(known.models.len() + 1);
    line.find(|one| *one.dataset_sha256 == *sha256)
}

/// Why an evaluation does not count for a route.
fn unfit(gate: &RouteGate, report: &Report, age_ms: i64) -> Option<String> {
    let rows = report.file.as_ref().map_or(0, |file| file.rows);
    if rows < gate.rows {
        return Some(format!("has asked {rows} rows of a held-out file, and the gate wants {}", gate.rows));
    }
    (age_ms > gate.max_age_ms).then(|| format!("is {} days old", age_ms / 86_400_000))
}

/// The names that a model is evaluated by: its own, its checkpoints', those of its deployments.
fn names(model: &Registered) -> impl Iterator<Item = &Arc<str>> {
    model.names().chain(model.hosted.iter().map(|hosted| &hosted.name))
}

/// The names of the model or the one checkpoint that is to be promoted.
fn own_names<'n>(model: &'n Registered, name: &'n str) -> Vec<&'n str> {
    let hosted = model.hosted.iter().filter(|hosted| *hosted.model == *name).map(|hosted| &*hosted.name);
    std::iter::once(name).chain(hosted).collect()
}
