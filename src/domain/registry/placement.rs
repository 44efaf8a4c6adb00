//! What the registry has put on a route, and how a move changes that.
//!
//! A placement is the whole of it: undoing a move is putting the placement of before it back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Most of a route that a canary gets, percent.
pub const MAX_PERCENT: u8 = 99;

/// How far a model is on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Out of all routes for good.
    Retired,
    /// Asked only by who asks for it: `ROUTE@candidate`, or its own name.
    Candidate,
    /// Asked for a part of the route's requests.
    Canary,
    /// Asked for all of them.
    Production,
}

impl Stage {
    /// All of them, from the first to the last.
    pub const ALL: [Self; 4] = [Self::Candidate, Self::Canary, Self::Production, Self::Retired];

    /// The name in rows, answers and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Canary => "canary",
            Self::Production => "production",
            Self::Retired => "retired",
        }
    }

    /// Reads back what [`Stage::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Where a model goes next when nobody says where.
    pub const fn next(before: Option<Self>) -> Self {
        match before {
            None | Some(Self::Retired) => Self::Candidate,
            Some(Self::Candidate) => Self::Canary,
            Some(Self::Canary | Self::Production) => Self::Production,
        }
    }
}

/// A part of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Who gets it: a model's name, or a checkpoint's.
    pub model: Arc<str>,
    /// How large it is, 1 to [`MAX_PERCENT`].
    pub percent: u8,
}

/// What the registry has put on a route, by names of models or checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Behind the label `candidate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Arc<str>>,
    /// Who gets a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Who gets all else, before what the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub production: Option<Arc<str>>,
    /// Who did before, and is now asked where that one fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<Arc<str>>,
}

/// A placement and its route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The route: a model of the configuration, by its own name.
    pub route: Arc<str>,
    /// What is put on it.
    pub placement: Placement,
}

/// Why there is no such move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMove {
    /// Nothing would change.
    #[error("{model} is {} there already", .stage.name())]
    There {
        /// The model.
        model: Arc<str>,
        /// Where it is.
        stage: Stage,
    },
    /// A share that is none.
    #[error("a canary gets 1 to {MAX_PERCENT} percent; all of a route is `--to production`")]
    Percent,
    /// Retiring is of the whole model.
    #[error("a model is retired from all routes at once: `tunegate models retire`")]
    Retired,
}

impl Placement {
    /// Whether nothing is put there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How far a model is here.
    pub fn stage_of(&self, model: &str) -> Option<Stage> {
        let is_it = |name: Option<&Arc<str>>| name.is_some_and(|name| **name == *model);
        if is_it(self.production.as_ref()) {
            return Some(Stage::Production);
        }
        if is_it(self.canary.as_ref().map(|canary| &canary.model)) {
            return Some(Stage::Canary);
        }
        is_it(self.candidate.as_ref()).then_some(Stage::Candidate)
    }

    /// All that stand here in any way, each once.
    pub fn models(&self) -> Vec<&Arc<str>> {
        let canary = self.canary.as_ref().map(|canary| &canary.model);
        let mut found: Vec<&Arc<str>> = Vec::new();
        for name in [self.production.as_ref(), canary, self.candidate.as_ref(), self.former.as_ref()] {
            found.extend(name.filter(|name| !found.contains(name)));
        }
        found
    }

    /// The placement behind a move of a model to a stage.
    ///
    /// # Errors
    ///
    /// When nothing would change, or the share is none.
    pub fn moved(&self, model: &Arc<str>, to: Stage, percent: u8) -> Result<Self, NoMove> {
        let mut next = self.without(model);
        match to {
            Stage::Retired => return Err(NoMove::Retired),
            Stage::Candidate => next.candidate = Some(Arc::clone(model)),
            Stage::Canary if !(1..=MAX_PERCENT).contains(&percent) => return Err(NoMove::Percent),
            Stage::Canary => next.canary = Some(Canary { model: Arc::clone(model), percent }),
            Stage::Production => {
                if self.production.as_ref() != Some(model) {
                    next.former = next.production.take();
                } else {
                    next.former.clone_from(&self.former);
                }
                next.production = Some(Arc::clone(model));
                // all of the route is the model's
                next.canary = None;
            }
        }
        if next == *self {
            return Err(NoMove::There { model: Arc::clone(model), stage: to });
        }
        Ok(next)
    }

    /// The placement once a model is out of it; where it had the production, the one before has it again.
    pub fn without(&self, model: &str) -> Self {
        let mut next = self.clone();
        let is_it = |name: &Arc<str>| **name == *model;
        next.candidate = next.candidate.filter(|name| !is_it(name));
        next.canary = next.canary.filter(|canary| !is_it(&canary.model));
        next.former = next.former.filter(|name| !is_it(name));
        if next.production.as_ref().is_some_and(is_it) {
            next.production = next.former.take();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(candidate: &str, canary: (&str, u8), production: &str, former: &str) -> Placement {
        let named = |name: &str| (!name.is_empty()).then(|| Arc::<str>::from(name));
        let canary = named(canary.0).map(|model| Canary { model, percent: canary.1 });
        Placement {
            candidate: named(candidate),
            canary,
            production: named(production),
            former: named(former),
        }
    }

    #[test]
    fn a_model_goes_up_step_by_step_and_down_again() {
        let (v1, v2): (Arc<str>, Arc<str>) = ("v1".into(), "v2".into());
        let mut at = Placement::default();
        for (model, to, percent, want) in [
            (&v1, Stage::Candidate, 10, placed("v1", ("", 0), "", "")),
            (&v1, Stage::Canary, 10, placed("", ("v1", 10), "", "")),
            (&v1, Stage::Canary, 50, placed("", ("v1", 50), "", "")),
            (&v1, Stage::Production, 10, placed("", ("", 0), "v1", "")),
            (&v2, Stage::Candidate, 10, placed("v2", ("", 0), "v1", "")),
            (&v2, Stage::Canary, 10, placed("", ("v2", 10), "v1", "")),
            (&v2, Stage::Production, 10, placed("", ("", 0), "v2", "v1")),
            (&v1, Stage::Production, 10, placed("", ("", 0), "v1", "v2")),
            (&v1, Stage::Candidate, 10, placed("v1", ("", 0), "v2", "")),
        ] {
            at = at.moved(model, to, percent).expect("a move");
            assert_eq!(at, want, "{model} to {}", to.name());
            assert_eq!(at.stage_of(model), Some(to));
        }
        assert_eq!(at.without("v2").without("v1"), Placement::default());
    }

    #[test]
    fn what_is_no_move_is_said() {
        let model: Arc<str> = "v1".into();
        let production = placed("", ("", 0), "v1", "v0");
        let again = production.moved(&model, Stage::Production, 10);
        assert_eq!(again, Err(NoMove::There { model: Arc::clone(&model), stage: Stage::Production }));
        for percent in [0, 100, 255] {
            assert_eq!(Placement::default().moved(&model, Stage::Canary, percent), Err(NoMove::Percent));
        }
        assert_eq!(production.moved(&model, Stage::Retired, 1), Err(NoMove::Retired));
    }

    #[test]
    fn a_placement_is_read_back_as_written() {
        let whole = placed("a", ("b", 7), "c", "d");
        let text = serde_json::json!(whole).to_string();
        assert_eq!(serde_json::from_str::<Placement>(&text).expect("read"), whole);
        assert_eq!(serde_json::json!(Placement::default()).to_string(), "{}");
        assert_eq!(whole.models().len(), 4);
    }

    #[test]
    fn the_next_stage_is_the_one_above() {
        let mut stage = None;
        for want in [Stage::Candidate, Stage::Canary, Stage::Production, Stage::Production] {
            let next = Stage::next(stage);
            assert_eq!(next, want);
            stage = Some(next);
        }
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.name()), Some(stage));
        }
    }
}
