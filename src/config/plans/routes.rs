//! From drafts to plans: names are led to deployments, also through other models' plans, and the whole is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::read::too_deep;
use super::{Choice, Draft, Kind};
use crate::config::file;
use crate::config::prices::Known;
use crate::config::problem::{Checker, Place};
use crate::config::values::known;
use crate::domain::capability::Capability;
use crate::domain::catalog::Deployment;
use crate::domain::route::{
    Cheapest, Condition, Fastest, MAX_DEPTH, MAX_PLACES, Plan, Share, StickyBy, Weighted, When, salt,
};

/// Says that a name is a deployment's.
const DEPLOYMENT: &str = "deployment:";
/// Says that a name is a model's.
const MODEL: &str = "model:";

/// A plan that others can name: a model's, or that of one of its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Id {
    pub(in crate::config) model: String,
    pub(in crate::config) label: Option<String>,
}

/// The name by which it is asked for.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            None => f.write_str(&self.model),
            Some(label) => write!(f, "{}@{label}", self.model),
        }
    }
}

/// Whose plan is read.
pub(in crate::config) struct Root<'a> {
    /// The model's name.
    pub(in crate::config) model: &'a str,
    /// What every deployment must be able to do.
    pub(in crate::config) requires: &'a [Capability],
}

/// All plans that can be named, and what they lead to as far as that is known.
pub(in crate::config) struct Routes<'a> {
    pub(in crate::config) file: &'a file::File,
    pub(in crate::config) deployments: &'a BTreeMap<Arc<str>, Arc<Deployment>>,
    pub(in crate::config) prices: &'a Known,
    pub(in crate::config) now_ms: i64,
    pub(in crate::config) drafts: &'a BTreeMap<Id, Draft>,
    /// What every deployment of a model must be able to do.
    pub(in crate::config) requires: &'a BTreeMap<String, Vec<Capability>>,
    /// Nothing where something is wrong in it.
    pub(in crate::config) known: BTreeMap<Id, Option<Plan>>,
    /// The plans that are being led, each named by the one before.
    pub(in crate::config) under_way: Vec<Id>,
}

impl Routes<'_> {
    /// The plan that a name of a model leads to; nothing where something is wrong in it, which has been said.
    pub(in crate::config) fn named(&mut self, id: &Id, checker: &mut Checker<'_>) -> Option<Plan> {
        if let Some(known) = self.known.get(id) {
            return known.clone();
        }
        let draft = self.drafts.get(id)?;
        let root =
            Root { model: &id.model, requires: self.requires.get(&id.model).map_or(&[], Vec::as_slice) };
        self.under_way.push(id.clone());
        let plan = self.whole(draft, &root, &id.to_string(), checker);
        self.under_way.pop();
        self.known.insert(id.clone(), plan.clone());
        plan
    }

    /// A whole plan. Its splits are drawn apart from those of plans with another scope.
    pub(in crate::config) fn whole(
        &mut self,
        draft: &Draft,
        root: &Root<'_>,
        scope: &str,
        checker: &mut Checker<'_>,
    ) -> Option<Plan> {
        let plan = self.plan(draft, root, scope, checker)?;
        let places = plan.places();
        if places > MAX_PLACES {
            checker.wrong(
                &draft.place,
                format!("has {places} places for deployments, at most {MAX_PLACES} may be"),
            );
            return None;
        }
        if plan.depth() > MAX_DEPTH {
            checker.wrong(&draft.place, too_deep());
            return None;
        }
        Some(plan)
    }

    fn plan(
        &mut self,
        draft: &Draft,
        root: &Root<'_>,
        scope: &str,
        checker: &mut Checker<'_>,
    ) -> Option<Plan> {
        let place = &draft.place;
        match &draft.kind {
            Kind::Broken => None,
            Kind::Deployment(name) => {
                if !self.file.deployments.contains_key(name) {
                    let known = known(self.file.deployments.keys());
                    checker.wrong(place, format!("there is no [deployments.{name}]: {known}"));
                }
                self.deployment(place, name, root, checker)
            }
            Kind::Name(name) => self.name(place, name, root, checker),
            Kind::Ordered(plans) => Some(Plan::Ordered(self.plans(plans, root, scope, checker)?)),
            Kind::Pool(plans) => Some(Plan::Pool(self.plans(plans, root, scope, checker)?)),
            Kind::Weighted { choices, sticky } => self.weighted(place, choices, sticky, root, scope, checker),
            Kind::Cheapest { among, min_quality, ceiling, probe_per_mille } => {
                let among = self.plans(among, root, scope, checker)?;
                let place = place.key("cheapest");
                self.note_unpriced(&place, &among, checker);
                someone_is_good_enough(&draft.place, &among, *min_quality, checker);
                Some(Plan::Cheapest(Cheapest {
                    among,
                    min_quality: *min_quality,
                    ceiling: *ceiling,
                    probe_per_mille: *probe_per_mille,
                }))
            }
            Kind::Fastest { among, by, min_quality, probe_per_mille } => {
                let among = self.plans(among, root, scope, checker)?;
                someone_is_good_enough(place, &among, *min_quality, checker);
                Some(Plan::Fastest(Fastest {
                    among,
                    by: *by,
                    min_quality: *min_quality,
                    probe_per_mille: *probe_per_mille,
                }))
            }
            Kind::When { cases, otherwise } => {
                let led: Vec<Option<(Condition, Plan)>> = cases
                    .iter()
                    .map(|(condition, draft)| {
                        let plan = self.plan(draft, root, scope, checker);
                        condition.clone().zip(plan)
                    })
                    .collect();
                let otherwise = otherwise.as_deref().map(|draft| self.plan(draft, root, scope, checker));
                let otherwise = match otherwise {
                    None => None,
                    Some(plan) => Some(Box::new(plan?)),
                };
                Some(Plan::When(When { cases: led.into_iter().collect::<Option<_>>()?, otherwise }))
            }
        }
    }

    /// All of them, so that all that is wrong in them is said.
    fn plans(
        &mut self,
        drafts: &[Draft],
        root: &Root<'_>,
        scope: &str,
        checker: &mut Checker<'_>,
    ) -> Option<Vec<Plan>> {
        let plans: Vec<Option<Plan>> =
            drafts.iter().map(|draft| self.plan(draft, root, scope, checker)).collect();
        plans.into_iter().collect()
    }

    fn weighted(
        &mut self,
        place: &Place,
        choices: &[Choice],
        sticky: &[StickyBy],
        root: &Root<'_>,
        scope: &str,
        checker: &mut Checker<'_>,
    ) -> Option<Plan> {
        let mut led: Vec<Option<(Share, Plan)>> = Vec::new();
        let mut scopes: Vec<String> = Vec::new();
        for choice in choices {
            // what it leads to first tells a choice from the others, also when they change places
            let mut inner = format!("{scope}/{}", self.plain(choice.to.first_name().unwrap_or_default()));
            while scopes.contains(&inner) {
                inner.push('+');
            }
            let share = Share { weight: choice.weight, ramp: choice.ramp, id: salt(&inner) };
            led.push(self.plan(&choice.to, root, &inner, checker).map(|plan| (share, plan)));
            scopes.push(inner);
        }
        let choices: Vec<(Share, Plan)> = led.into_iter().collect::<Option<_>>()?;
        if !choices.is_empty() && !choices.iter().any(|(share, _)| share.is_ever_drawn(self.now_ms)) {
            checker.wrong(
                &place.key("weighted"),
                "the shares sum to nothing, now and for ever: give at least one a share above 0",
            );
        }
        Some(Plan::Weighted(Weighted { choices, sticky: sticky.to_vec() }))
    }

    /// A name without the prefix that says whose it is.
    fn plain<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(DEPLOYMENT).or_else(|| name.strip_prefix(MODEL)).unwrap_or(name)
    }

    fn name(
        &mut self,
        place: &Place,
        text: &str,
        root: &Root<'_>,
        checker: &mut Checker<'_>,
    ) -> Option<Plan> {
        if let Some(name) = text.strip_prefix(DEPLOYMENT) {
            if !self.file.deployments.contains_key(name) {
                let known = known(self.file.deployments.keys());
                checker.wrong(place, format!("there is no [deployments.{name}]: {known}"));
            }
            return self.deployment(place, name, root, checker);
        }
        if let Some(name) = text.strip_prefix(MODEL) {
            let Some(id) = self.id(name) else {
                checker.wrong(place, self.no_model(name));
                return None;
            };
            return self.route(place, &id, root, checker);
        }
        match (self.file.deployments.contains_key(text), self.id(text)) {
            (true, None) => self.deployment(place, text, root, checker),
            (true, Some(id)) if id.model == root.model || self.is_nothing_but(&id, text) => {
                self.deployment(place, text, root, checker)
            }
            (true, Some(_)) => {
                checker.wrong(
                    place,
                    format!(
                        "{text} is a deployment and a model: write \"{DEPLOYMENT}{text}\" or \"{MODEL}{text}\""
                    ),
                );
                None
            }
            (false, Some(id)) => self.route(place, &id, root, checker),
            (false, None) => {
                let what = match text.rsplit_once('@') {
                    Some((model, _)) if self.file.models.contains_key(model) => self.no_model(text),
                    _ => format!(
                        "there is no deployment and no model {text:?}; of deployments, {}; of models, {}",
                        known(self.file.deployments.keys()),
                        known(self.file.models.keys())
                    ),
                };
                checker.wrong(place, what);
                None
            }
        }
    }

    /// The plan that has a name, in words of clients: a model's, or with `@label` behind it that of a label.
    fn id(&self, name: &str) -> Option<Id> {
        if self.file.models.contains_key(name) {
            return Some(Id { model: name.to_owned(), label: None });
        }
        let (model, label) = name.rsplit_once('@')?;
        let is_there = self.file.models.get(model).is_some_and(|model| model.labels.contains_key(label));
        is_there.then(|| Id { model: model.to_owned(), label: Some(label.to_owned()) })
    }

    fn no_model(&self, name: &str) -> String {
        match name.rsplit_once('@') {
            Some((model, label)) if self.file.models.contains_key(model) => {
                let labels = self.file.models.get(model).map(|model| known(model.labels.keys()));
                format!("{model} has no label {label:?}: {}", labels.unwrap_or_default())
            }
            _ => format!("there is no [models.{name}]: {}", known(self.file.models.keys())),
        }
    }

    /// Whether a model leads to the deployment of that name alone: then both mean the same.
    fn is_nothing_but(&self, id: &Id, deployment: &str) -> bool {
        let model = self.file.models.get(&id.model).filter(|_| id.label.is_none());
        let listed = model.and_then(|model| model.deployments.as_deref());
        listed.is_some_and(|names| matches!(names, [one] if one == deployment))
    }

    fn deployment(
        &self,
        place: &Place,
        name: &str,
        root: &Root<'_>,
        checker: &mut Checker<'_>,
    ) -> Option<Plan> {
        let deployment = self.deployments.get(name)?;
        fits(place, deployment, root, checker);
        Some(Plan::To(Arc::clone(deployment)))
    }

    fn route(&mut self, place: &Place, id: &Id, root: &Root<'_>, checker: &mut Checker<'_>) -> Option<Plan> {
        if let Some(at) = self.under_way.iter().position(|known| known == id) {
            let circle = self.under_way[at..].iter().chain([id]);
            let places = circle.filter_map(|id| self.drafts.get(id)).map(|draft| draft.place.to_string());
            checker.wrong(place, format!("a circle: {}", places.collect::<Vec<_>>().join(" → ")));
            return None;
        }
        if self.under_way.len() >= MAX_DEPTH {
            checker.wrong(place, too_deep());
            return None;
        }
        let plan = self.named(id, checker)?;
        for deployment in plan.deployments() {
            fits(place, deployment, root, checker);
        }
        Some(plan)
    }

    /// Says which deployments can't be the cheapest, as nobody knows what they cost.
    fn note_unpriced(&self, place: &Place, among: &[Plan], checker: &mut Checker<'_>) {
        for deployment in among.iter().flat_map(Plan::deployments) {
            if !self.prices.knows(deployment) {
                checker
                    .notice(place, format!("{} has no known price: it is never asked here", deployment.name));
            }
        }
    }
}

/// Notes what keeps a deployment out of a model's plan.
fn fits(place: &Place, deployment: &Deployment, root: &Root<'_>, checker: &mut Checker<'_>) {
    let name = &deployment.name;
    if deployment.upstream_model.contains('*') && !root.model.ends_with('*') {
        let what = format!("{name} needs what a pattern's `*` matched, but this model's name has none");
        checker.wrong(place, what);
    }
    let lacking = root.requires.iter().filter(|wanted| !deployment.can(**wanted));
    let lacking: Vec<&str> = lacking.map(|capability| capability.name()).collect();
    if !lacking.is_empty() {
        let what = format!(
            "{name} can't do {}, which `requires` of this model asks of every deployment",
            lacking.join(", ")
        );
        checker.wrong(place, what);
    }
}

/// Notes a floor that nobody reaches.
fn someone_is_good_enough(
    place: &Place,
    among: &[Plan],
    min_quality: Option<u16>,
    checker: &mut Checker<'_>,
) {
    let Some(floor) = min_quality else { return };
    let mut all = among.iter().flat_map(Plan::deployments);
    if !all.any(|deployment| deployment.quality.is_some_and(|quality| quality >= floor)) {
        checker.wrong(
            &place.key("min_quality"),
            "no deployment here has such a `quality`: this plan would never lead anywhere",
        );
    }
}
