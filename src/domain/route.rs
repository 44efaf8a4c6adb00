//! Routes: how the name that a client asks for becomes an order of deployments.
//!
//! A plan is a tree. It is drawn once for each request, from the request's facts, from what is known of each deployment
//! at that moment, and from random bits; what comes out is the whole order in which deployments are asked.

mod condition;
mod draw;
mod share;
mod told;

use std::sync::Arc;
use std::time::Duration;

pub use condition::{Condition, Facts, HeaderIs, Never, TokenRange};
pub use draw::{Chosen, Drawn, Late, Out, Seen, Sight, draw, left_alone};
pub use share::{Dice, Ramp, Share, StickyBy, salt};
pub use told::{Case, Choice, Told};

use super::cache;
use super::deployment::Deployment;
use super::prompt::Injection;

/// Most deployments in one plan, each place counted: plans nest, and nests multiply.
pub const MAX_PLACES: usize = 256;
/// Deepest nest of plans.
pub const MAX_DEPTH: usize = 16;

/// How deployments are put in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One deployment.
    To(Arc<Deployment>),
    /// As written: the next where the one before can't or fails.
    Ordered(Vec<Plan>),
    /// One is drawn by its share, the others follow as its fallback.
    Weighted(Weighted),
    /// By what this request is expected to cost.
    Cheapest(Cheapest),
    /// By how long its answer is expected to take.
    Fastest(Fastest),
    /// Several deployments of one model: the more of its quota is left, the more is asked of it.
    Pool(Vec<Plan>),
    /// By the facts of the request.
    When(When),
}

/// A split by shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    /// The shares. With none of them above 0 nothing is drawn first, and they stand as written.
    pub choices: Vec<(Share, Plan)>,
    /// What keeps a conversation on its choice: the first of them that a request has. None has it drawn anew each time.
    pub sticky: Vec<StickyBy>,
}

/// The cheapest that is good enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cheapest {
    /// What there is to choose from.
    pub among: Vec<Plan>,
    /// The least quality; a deployment without a score does not have it.
    pub min_quality: Option<u16>,
    /// What an answer may take.
    pub ceiling: Ceiling,
    /// Of 1,000 requests, so many go first to one that may be the cheapest, as far as is known; never more than 5 to one
    /// that was too slow lately.
    pub probe_per_mille: u16,
}

/// How long an answer may be expected to take. Deployments beyond it are asked last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// To its first token.
    pub first_token: Option<Duration>,
    /// To its end.
    pub whole: Option<Duration>,
}

/// The fastest that is good enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fastest {
    /// What there is to choose from.
    pub among: Vec<Plan>,
    /// What counts.
    pub by: Measure,
    /// The least quality; a deployment without a score does not have it.
    pub min_quality: Option<u16>,
    /// Of 1,000 requests, so many go first to another than the fastest, so that a slow past is not for ever.
    pub probe_per_mille: u16,
}

/// What makes a deployment fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The whole answer, as long as answers of this route are.
    #[default]
    Whole,
    /// Its first token.
    FirstToken,
    /// Its tokens in a second.
    TokensPerSecond,
}

/// [`Cheapest::probe_per_mille`] unless the operator says otherwise. Probes are few in all, so they come early: until
/// they have come, another than the cheapest may be asked.
pub const CHEAPEST_PROBES: u16 = 200;
/// [`Fastest::probe_per_mille`] unless the operator says otherwise.
pub const FASTEST_PROBES: u16 = 50;

/// Plans by conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct When {
    /// The first one that the request meets holds.
    pub cases: Vec<(Condition, Plan)>,
    /// Else this; nothing has the request refused.
    pub otherwise: Option<Box<Plan>>,
}

/// What must be known before a plan can be drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The tokens of the input.
    pub tokens: bool,
    /// Whether the request brings images: a long body is searched for them.
    pub images: bool,
    /// The price of each deployment.
    pub costs: bool,
    /// The headers that the plan looks at, in lower case, each once.
    pub headers: Vec<Arc<str>>,
}

/// A plan, and what is known of it before any request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The plan.
    pub plan: Plan,
    /// What must be known before it can be drawn.
    pub needs: Needs,
    /// All its deployments, each once, in written order; at least one.
    pub deployments: Vec<Arc<Deployment>>,
    /// The stored prompt that its requests get; one of a deployment's own wins there.
    pub prompt: Option<Arc<Injection>>,
    /// How its answers are kept, if they are.
    pub cache: Option<Arc<cache::Policy>>,
}

impl Route {
    /// The route of a plan, without a prompt or a cache.
    pub fn new(plan: Plan) -> Self {
        let (needs, deployments) = (plan.needs(), plan.deployments().into_iter().cloned().collect());
        Self { plan, needs, deployments, prompt: None, cache: None }
    }
}

impl Plan {
    /// The plans right below.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::To(_) => Vec::new(),
            Self::Ordered(plans) | Self::Pool(plans) => plans.iter().collect(),
            Self::Weighted(weighted) => weighted.choices.iter().map(|(_, plan)| plan).collect(),
            Self::Cheapest(cheapest) => cheapest.among.iter().collect(),
            Self::Fastest(fastest) => fastest.among.iter().collect(),
            Self::When(when) => {
                when.cases.iter().map(|(_, plan)| plan).chain(when.otherwise.as_deref()).collect()
            }
        }
    }

    /// All its deployments, each once, in written order.
    pub fn deployments(&self) -> Vec<&Arc<Deployment>> {
        let mut found: Vec<&Arc<Deployment>> = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a Arc<Deployment>>) {
        if let Self::To(deployment) = self
            && found.iter().all(|known| known.name != deployment.name)
        {
            found.push(deployment);
        }
        for part in self.parts() {
            part.collect(found);
        }
    }

    /// How many places it has for deployments, repeated ones counted again.
    pub fn places(&self) -> usize {
        match self {
            Self::To(_) => 1,
            _ => self.parts().into_iter().map(Self::places).fold(0, usize::saturating_add),
        }
    }

    /// How deep it nests; one deployment is 1.
    pub fn depth(&self) -> usize {
        1 + self.parts().into_iter().map(Self::depth).max().unwrap_or(0)
    }

    /// What must be known before it can be drawn.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        self.add_needs(&mut needs);
        needs.headers.sort();
        needs.headers.dedup();
        needs
    }

    fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Cheapest(_) => needs.costs = true,
            Self::Weighted(weighted) => {
                needs.headers.extend(weighted.sticky.iter().filter_map(StickyBy::header).cloned());
            }
            Self::When(when) => {
                for (condition, _) in &when.cases {
                    needs.tokens |= condition.input_tokens.is_some();
                    needs.images |= condition.images.is_some();
                    needs.headers.extend(condition.headers.iter().map(|header| Arc::clone(&header.name)));
                }
            }
            Self::To(_) | Self::Ordered(_) | Self::Fastest(_) | Self::Pool(_) => {}
        }
        for part in self.parts() {
            part.add_needs(needs);
        }
    }
}
