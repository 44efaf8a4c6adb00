//! Whose files, jobs and models are: a team's, a key's that has no team, or the operator's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::key::{Tuning, VirtualKey};
use crate::domain::team::Team;

/// Who owns something. Nobody else finds it, but operators.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A team, by its id.
    Team(Arc<str>),
    /// A key without a team, by its id.
    Key(Arc<str>),
    /// Whoever holds the admin key.
    Operator,
}

/// A text that names no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no owner: `team:NAME`, `key:ID` or `operator` stands here")]
pub struct UnknownOwner;

impl Owner {
    /// Whose the things are that a key makes.
    pub fn of(key: &VirtualKey) -> Self {
        match &key.terms.team {
            Some(team) => Self::Team(Arc::clone(team)),
            None => Self::Key(Arc::clone(&key.id)),
        }
    }

    /// The team, where it is one.
    pub const fn team(&self) -> Option<&Arc<str>> {
        match self {
            Self::Team(team) => Some(team),
            Self::Key(_) | Self::Operator => None,
        }
    }
}

/// As rows and reports have it.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Team(team) => write!(f, "team:{team}"),
            Self::Key(key) => write!(f, "key:{key}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

impl FromStr for Owner {
    type Err = UnknownOwner;

    fn from_str(text: &str) -> Result<Self, UnknownOwner> {
        match text.split_once(':') {
            None if text == "operator" => Ok(Self::Operator),
            Some(("team", team)) if !team.is_empty() => Ok(Self::Team(team.into())),
            Some(("key", key)) if !key.is_empty() => Ok(Self::Key(key.into())),
            _ => Err(UnknownOwner),
        }
    }
}

/// Who asks for files, jobs and models.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An application, by its key.
    Key {
        /// The key.
        key: Arc<VirtualKey>,
        /// The team that owns it.
        team: Option<Arc<Team>>,
    },
    /// An operator, who sees all; what they make is the named team's, else the operator's own.
    Operator {
        /// The team that they act for.
        team: Option<Arc<Team>>,
    },
}

impl Caller {
    /// Whose the things are that the caller makes.
    pub fn owner(&self) -> Owner {
        match self {
            Self::Key { key, .. } => Owner::of(key),
            Self::Operator { team: Some(team) } => Owner::Team(Arc::clone(&team.id)),
            Self::Operator { team: None } => Owner::Operator,
        }
    }

    /// Whose things the caller finds; none for all.
    pub fn scope(&self) -> Option<Owner> {
        match self {
            Self::Operator { team: None } => None,
            _ => Some(self.owner()),
        }
    }

    /// Whether something of an owner's is the caller's to find.
    pub fn finds(&self, owner: &Owner) -> bool {
        self.scope().is_none_or(|scope| scope == *owner)
    }

    /// What the caller may do.
    pub fn right(&self) -> Tuning {
        match self {
            Self::Key { key, .. } => key.terms.rights.tuning,
            Self::Operator { .. } => Tuning::DeleteModels,
        }
    }

    /// The key, where one asks.
    pub const fn key(&self) -> Option<&Arc<VirtualKey>> {
        match self {
            Self::Key { key, .. } => Some(key),
            Self::Operator { .. } => None,
        }
    }

    /// The team that the caller belongs to, or acts for.
    pub const fn team(&self) -> Option<&Arc<Team>> {
        match self {
            Self::Key { team, .. } | Self::Operator { team } => team.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit::RateLimits;

    #[test]
    fn an_owner_is_read_back_as_written() {
        for owner in [Owner::Team("support:eu".into()), Owner::Key("key_1".into()), Owner::Operator] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        for text in ["", "team:", "key:", "operator:", "x:y", "team"] {
            assert_eq!(text.parse::<Owner>(), Err(UnknownOwner), "{text}");
        }
    }

    #[test]
    fn only_an_operator_who_acts_for_nobody_finds_all() {
        let all = Caller::Operator { team: None };
        assert!(all.finds(&Owner::Operator) && all.finds(&Owner::Team("a".into())));
        let team = Team::declared("a", RateLimits::default(), Vec::new());
        let its = Owner::Team(Arc::clone(&team.id));
        let one = Caller::Operator { team: Some(Arc::new(team)) };
        assert!(one.finds(&its));
        assert!(!one.finds(&Owner::Team("b".into())) && !one.finds(&Owner::Operator));
    }
}
