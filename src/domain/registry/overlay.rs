//! The configuration's catalog with the registry laid over it: a deployment for each model that can be asked, a name of
//! its owner's for it, and routes as moves have left them.
//!
//! What the configuration says itself wins: its deployments, names and labels are never replaced. What can't be laid over
//! it is told and left out, so that a registry never keeps a configuration from being read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Assignment, Canary, HostedState, Placement, Registered};
use crate::domain::catalog::{Catalog, Deployment, Model, OwnedName};
use crate::domain::deployment;
use crate::domain::fine_tuned_name::FineTunedName;
use crate::domain::ids::ModelName;
use crate::domain::model_name;
use crate::domain::provider::{Provider, ProviderKind};
use crate::domain::route::{MAX_DEPTH, MAX_PLACES, Plan, Route, Share, StickyBy, Weighted, salt};
use crate::domain::tuning::Owner;

/// The label that a route's candidate is asked by.
pub const CANDIDATE: &str = "candidate";

/// A catalog with the registry over it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlaid {
    /// What may be asked.
    pub catalog: Catalog,
    /// What could not be laid over the configuration.
    pub troubles: Vec<Trouble>,
}

/// Something of the registry that the configuration has no place for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Trouble {
    /// The provider is gone.
    #[error("the model {model} was made by the provider {provider}, which the configuration has no longer")]
    NoProvider {
        /// Which model.
        model: Arc<str>,
        /// Whose.
        provider: Arc<str>,
    },
    /// The name is somebody else's.
    #[error(
        "the deployment {name} of the registry's {model} is left out: the configuration has another of that name"
    )]
    Taken {
        /// The name.
        name: Arc<str>,
        /// Which model.
        model: Arc<str>,
    },
    /// The route is gone.
    #[error("there is no model {route} in the configuration any more: what was moved there is not asked")]
    NoRoute {
        /// The route.
        route: Arc<str>,
    },
    /// Nobody serves it.
    #[error("{model} is on the route {route}, but nobody serves it: its place is left out")]
    NotServed {
        /// The route.
        route: Arc<str>,
        /// Which model.
        model: Arc<str>,
    },
    /// The route asks for more.
    #[error(
        "{model} can't do what `requires` of the model {route} asks of every deployment: its place is left out"
    )]
    Unable {
        /// The route.
        route: Arc<str>,
        /// Which model.
        model: Arc<str>,
    },
    /// The label is the configuration's.
    #[error("the model {route} has a label {CANDIDATE} in the configuration, which stays as it is")]
    Labelled {
        /// The route.
        route: Arc<str>,
    },
    /// Too much of it.
    #[error(
        "with the registry over it, the plan of {route} would be too large: it stays as the configuration has it"
    )]
    TooLarge {
        /// The route.
        route: Arc<str>,
    },
}

/// Lays the registry over a catalog.
pub fn overlay(base: &Catalog, registered: &[Registered], assignments: &[Assignment]) -> Overlaid {
    if registered.is_empty() && assignments.is_empty() {
        return Overlaid { catalog: base.clone(), troubles: Vec::new() };
    }
    let mut laying = Laying::new(base);
    for model in registered {
        laying.register(model);
    }
    for assignment in assignments {
        laying.assign(assignment);
    }
    laying.finish(base)
}

/// Whether a model of the catalog can be a route of the registry's; why not, in words.
///
/// # Errors
///
/// That it is a pattern, or another model of the registry.
pub fn can_be_route(model: &Model) -> Result<(), &'static str> {
    if model.name.as_str().ends_with('*') {
        return Err("a pattern has no one plan: name it as a model of its own in the configuration");
    }
    if model.owner.is_some() {
        return Err("it is a model of the registry itself, not a route of the configuration");
    }
    Ok(())
}

/// A catalog in the making.
struct Laying<'c> {
    base: &'c Catalog,
    deployments: BTreeMap<Arc<str>, Arc<Deployment>>,
    /// The deployments that serve a model or checkpoint, who is asked first in front.
    serving: BTreeMap<Arc<str>, Vec<Arc<Deployment>>>,
    routes: BTreeMap<Arc<str>, Model>,
    named: Vec<Model>,
    /// Providers' own names of what belongs to somebody.
    owned: BTreeMap<OwnedName, Owner>,
    troubles: Vec<Trouble>,
}

impl<'c> Laying<'c> {
    fn new(base: &'c Catalog) -> Self {
        Self {
            base,
            deployments: base.deployments.clone(),
            serving: BTreeMap::new(),
            routes: BTreeMap::new(),
            named: Vec::new(),
            owned: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    fn register(&mut self, model: &Registered) {
        self.own(model);
        let Some(provider) = self.base.providers.get(&model.provider) else {
            let (model, provider) = (Arc::clone(&model.name), Arc::clone(&model.provider));
            return self.troubles.push(Trouble::NoProvider { model, provider });
        };
        let is_deployed = provider.dialect.kind() == ProviderKind::Azure;
        for name in model.names() {
            let served: Vec<Arc<Deployment>> = match is_deployed {
                true => self.hosted(model, name, provider),
                false => self.direct(model, name, provider).into_iter().collect(),
            };
            if !served.is_empty() {
                self.name(model, name, &served, is_deployed);
                self.serving.insert(Arc::clone(name), served);
            }
        }
    }

    /// Where a model is served by its own name.
    fn direct(
        &mut self,
        model: &Registered,
        name: &Arc<str>,
        provider: &Arc<Provider>,
    ) -> Option<Arc<Deployment>> {
        let made = deployment_of(self.base, model, name, name, provider);
        self.put(model, made)
    }

    /// Where a model was deployed, the dearer tiers first.
    fn hosted(
        &mut self,
        model: &Registered,
        name: &Arc<str>,
        provider: &Arc<Provider>,
    ) -> Vec<Arc<Deployment>> {
        let is_asked = |state| matches!(state, HostedState::Ready);
        let mut all: Vec<_> =
            model.hosted.iter().filter(|hosted| hosted.model == *name && is_asked(hosted.state)).collect();
        all.sort_by(|one, other| (one.tier, &one.name).cmp(&(other.tier, &other.name)));
        let made = all.into_iter().map(|hosted| Deployment {
            // a deployment's name says nothing of its model, on which the price depends
            base_model: Some(name.to_string()),
            // one name may stand for one model after the other
            model_version: Some(Arc::clone(name)),
            retires_at_ms: hosted.ends_at_ms,
            hosted: deployment::Hosted {
                sku: Some(hosted.tier.sku().into()),
                ..deployment::Hosted::default()
            },
            ..deployment_of(self.base, model, name, &hosted.name, provider)
        });
        let made: Vec<Deployment> = made.collect();
        made.into_iter().filter_map(|made| self.put(model, made)).collect()
    }

    /// Puts a deployment into the catalog; the configuration's own of the same model at the same provider stands for it.
    fn put(&mut self, model: &Registered, made: Deployment) -> Option<Arc<Deployment>> {
        let same = |known: &&Arc<Deployment>| {
            known.provider.name == made.provider.name && known.upstream_model == made.upstream_model
        };
        if let Some(known) = self.base.deployments.values().find(same) {
            return Some(Arc::clone(known));
        }
        if self.deployments.contains_key(&made.name) {
            let (name, model) = (made.name, Arc::clone(&model.name));
            self.troubles.push(Trouble::Taken { name, model });
            return None;
        }
        let made = Arc::new(made);
        self.deployments.insert(Arc::clone(&made.name), Arc::clone(&made));
        Some(made)
    }

    /// Notes by which names providers know what belongs to a model's owner: no pattern leads others there, also where its
    /// provider has another name by now, or what was deployed does not answer yet.
    fn own(&mut self, model: &Registered) {
        let models = model.names().map(|name| OwnedName::model(name));
        // only on Azure is a model deployed
        let hosted = model.hosted.iter();
        let deployed = hosted.map(|hosted| OwnedName::deployment(ProviderKind::Azure, &hosted.name));
        self.owned.extend(models.chain(deployed).map(|name| (name, model.owner.clone())));
    }

    /// Gives a model its name, and on Azure those of its deployments, unless the configuration leads them elsewhere.
    fn name(&mut self, model: &Registered, name: &Arc<str>, served: &[Arc<Deployment>], is_deployed: bool) {
        let is_free = |name: &ModelName| !self.base.has_exactly(name);
        let names = served.iter().filter(|_| is_deployed).map(|deployment| &deployment.upstream_model);
        let mut names =
            [name].into_iter().chain(names).filter_map(|name| ModelName::parse(name).ok()).filter(is_free);
        let Some(own) = names.next() else { return };
        let aliases = names.filter(|alias| *alias != own).collect();
        let plan = Plan::Ordered(served.iter().cloned().map(Plan::To).collect());
        self.named.push(Model {
            owner: Some(model.owner.clone()),
            created_at_ms: Some(model.made_at_ms(name)),
            aliases,
            ..Model::plain(own, plan)
        });
    }

    fn assign(&mut self, assignment: &Assignment) {
        let Assignment { route, placement } = assignment;
        if placement.is_empty() {
            return;
        }
        let found = self.base.models().find(|model| model.name.as_str() == &**route);
        let Some(model) = found.filter(|model| can_be_route(model).is_ok()) else {
            return self.troubles.push(Trouble::NoRoute { route: Arc::clone(route) });
        };
        let laid = self.laid(model, route, placement);
        self.routes.insert(Arc::clone(route), laid);
    }

    /// A model of the configuration with a placement over it.
    fn laid(&mut self, model: &Model, route: &Arc<str>, placement: &Placement) -> Model {
        let mut laid = model.clone();
        let firsts = [&placement.production, &placement.former].into_iter().flatten();
        let firsts: Vec<Plan> = firsts.filter_map(|name| self.place(model, route, name)).collect();
        let mut plan = model.route.plan.clone();
        if !firsts.is_empty() {
            plan = Plan::Ordered(firsts.into_iter().chain([plan]).collect());
        }
        if let Some(Canary { model: name, percent }) = &placement.canary
            && let Some(canary) = self.place(model, route, name)
        {
            plan = split(route, plan, canary, name, *percent, sticky(&model.route.plan));
        }
        if plan != model.route.plan {
            match plan.places() <= MAX_PLACES && plan.depth() <= MAX_DEPTH {
                true => laid.route = Arc::new(like(&model.route, plan)),
                false => self.troubles.push(Trouble::TooLarge { route: Arc::clone(route) }),
            }
        }
        if let Some(name) = &placement.candidate {
            if model.labels.contains_key(CANDIDATE) {
                self.troubles.push(Trouble::Labelled { route: Arc::clone(route) });
            } else if let Some(plan) = self.place(model, route, name) {
                laid.labels.insert(CANDIDATE.into(), Arc::new(like(&model.route, plan)));
            }
        }
        laid
    }

    /// A place of a route for a model or checkpoint.
    fn place(&mut self, model: &Model, route: &Arc<str>, name: &Arc<str>) -> Option<Plan> {
        let Some(serving) = self.serving.get(name) else {
            let (route, model) = (Arc::clone(route), Arc::clone(name));
            self.troubles.push(Trouble::NotServed { route, model });
            return None;
        };
        let drops = |deployment: &Deployment| {
            model.route.prompt.is_some() && deployment.prompt.is_none() && deployment.drops_instructions()
        };
        let able = |deployment: &&Arc<Deployment>| {
            model.requires.iter().all(|wanted| deployment.can(*wanted)) && !drops(deployment)
        };
        let mut able: Vec<Plan> = serving.iter().filter(able).cloned().map(Plan::To).collect();
        match able.len() {
            0 => {
                let (route, model) = (Arc::clone(route), Arc::clone(name));
                self.troubles.push(Trouble::Unable { route, model });
                None
            }
            1 => able.pop(),
            _ => Some(Plan::Ordered(able)),
        }
    }

    fn finish(mut self, base: &Catalog) -> Overlaid {
        let models = base.models().map(|model| match self.routes.remove(model.name.as_str()) {
            Some(laid) => laid,
            None => (**model).clone(),
        });
        let models: Vec<Model> = models.collect();
        let models = models.into_iter().chain(self.named).collect();
        let catalog = Catalog::new(base.providers.clone(), self.deployments, models).with_owned(self.owned);
        self.troubles.sort();
        self.troubles.dedup();
        Overlaid { catalog, troubles: self.troubles }
    }
}

/// A route of another plan, all else as before.
fn like(route: &Route, plan: Plan) -> Route {
    Route { prompt: route.prompt.clone(), cache: route.cache.clone(), ..Route::new(plan) }
}

/// A part of a route for a canary. The ids of the shares stay from move to move, so that a canary that grows keeps its
/// conversations, and another model draws others.
fn split(route: &str, plan: Plan, canary: Plan, name: &str, percent: u8, sticky: Vec<StickyBy>) -> Plan {
    let share = |weight: u8, id: &str| Share { weight: weight.into(), ramp: None, id: salt(id) };
    let rest = (share(100 - percent, &format!("{route}/registry")), plan);
    let part = (share(percent, &format!("{route}/registry/{name}")), canary);
    Plan::Weighted(Weighted { choices: vec![rest, part], sticky })
}

/// What keeps a conversation with a canary or away from it: what the route's own split says, else the client's own user.
fn sticky(plan: &Plan) -> Vec<StickyBy> {
    match plan {
        Plan::Weighted(weighted) if !weighted.sticky.is_empty() => weighted.sticky.clone(),
        _ => vec![StickyBy::EndUser],
    }
}

/// A deployment of a registered model or checkpoint. How long it is waited for, and what it can do, is as with one of the
/// configuration's that is most like it.
fn deployment_of(
    base: &Catalog,
    model: &Registered,
    name: &Arc<str>,
    upstream: &Arc<str>,
    provider: &Arc<Provider>,
) -> Deployment {
    let plain = Deployment::plain(Arc::clone(upstream), Arc::clone(provider), Arc::clone(upstream));
    let likeness = |known: &Deployment| {
        let is_base = model_name::undated(known.lineage().base)
            == model_name::undated(model_name::base_of(&model.base));
        (!known.upstream_model.contains('*') && is_base, known.lineage().fine_tuned)
    };
    let of_provider = base.deployments.values().filter(|known| known.provider.name == provider.name);
    let alike = of_provider.max_by_key(|known| likeness(known));
    let plain = match alike {
        None => plain,
        Some(alike) => Deployment {
            timeouts: alike.timeouts,
            on_client_gone: alike.on_client_gone,
            drain: alike.drain,
            breaker: alike.breaker,
            // our own machine costs the same whatever it serves; elsewhere a fine-tuned model has a price of its own
            pricing: match provider.dialect.kind() {
                ProviderKind::Candle => alike.pricing.clone(),
                ProviderKind::OpenAi | ProviderKind::Azure => plain.pricing,
            },
            ..plain
        },
    };
    let of_base = alike.filter(|alike| likeness(alike).0);
    let able = match of_base {
        None => plain,
        Some(alike) => Deployment {
            endpoints: alike.endpoints.clone(),
            max_output_tokens: alike.max_output_tokens,
            default_output_tokens: alike.default_output_tokens,
            context_window: alike.context_window,
            capabilities: alike.capabilities.clone(),
            unsupported: alike.unsupported.clone(),
            on_unsupported: alike.on_unsupported,
            ..plain
        },
    };
    Deployment {
        base_model: of_base_model(model, name, provider),
        reasoning: model_name::makes_unseen_tokens(name) || model_name::makes_unseen_tokens(&model.base),
        direct: true,
        prompt: model.bound.clone(),
        trained_with: model.trained_with(),
        ..able
    }
}

/// What a model was trained from, where its own name does not say.
fn of_base_model(model: &Registered, name: &str, provider: &Provider) -> Option<String> {
    let tells = FineTunedName::parse(name).is_some();
    (!tells && provider.dialect.kind() != ProviderKind::Azure)
        .then(|| model_name::base_of(&model.base).to_owned())
}

#[cfg(test)]
mod tests;
