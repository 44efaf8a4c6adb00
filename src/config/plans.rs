//! Plans as operators write them: read into drafts first, then led to deployments, also through other models' plans.
//!
//! All that is wrong in a plan is said at once, each with its place, such as `models.support-bot.plan.weighted[1].to`.

mod condition;
mod read;
mod routes;
mod table;
#[cfg(test)]
mod tests;

use crate::domain::route::{Ceiling, Condition, Measure, Ramp, StickyBy};

use super::problem::Place;

pub(super) use read::{listed, read};
pub(super) use routes::{Id, Root, Routes};
pub(super) use table::NO_MOMENT;

/// A plan as it is written: names, not yet what they lead to.
pub(super) struct Draft {
    place: Place,
    kind: Kind,
}

/// What a draft is.
enum Kind {
    /// Something was wrong there, and has been said.
    Broken,
    /// A deployment's name, and nothing else.
    Deployment(String),
    /// The name of a deployment or of a model.
    Name(String),
    Ordered(Vec<Draft>),
    Weighted {
        choices: Vec<Choice>,
        sticky: Vec<StickyBy>,
    },
    Cheapest {
        among: Vec<Draft>,
        min_quality: Option<u16>,
        ceiling: Ceiling,
        probe_per_mille: u16,
    },
    Fastest {
        among: Vec<Draft>,
        by: Measure,
        min_quality: Option<u16>,
        probe_per_mille: u16,
    },
    Pool(Vec<Draft>),
    When {
        /// A condition that could not be read has been said.
        cases: Vec<(Option<Condition>, Draft)>,
        otherwise: Option<Box<Draft>>,
    },
}

/// A choice of a split.
struct Choice {
    weight: u32,
    ramp: Option<Ramp>,
    to: Draft,
}

impl Draft {
    /// The first name in it, as it is written.
    fn first_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Broken => None,
            Kind::Deployment(name) | Kind::Name(name) => Some(name),
            Kind::Ordered(among)
            | Kind::Pool(among)
            | Kind::Cheapest { among, .. }
            | Kind::Fastest { among, .. } => among.iter().find_map(Self::first_name),
            Kind::Weighted { choices, .. } => choices.iter().find_map(|choice| choice.to.first_name()),
            Kind::When { cases, otherwise } => {
                cases.iter().map(|(_, plan)| plan).chain(otherwise.as_deref()).find_map(Self::first_name)
            }
        }
    }
}
