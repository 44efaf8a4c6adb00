//! Teams: who owns keys. A team's limits and tags count for each of its keys, beside the key's own.

use std::sync::Arc;

use super::limit::RateLimits;

/// What a team's id starts with. No alias may: a team can be named by either.
pub const TEAM_ID_PREFIX: &str = "team_";

/// Where a team was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration: read-only for the admin API.
    Declared,
    /// By the admin API.
    Stored,
}

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// `team_` and 24 hex digits; for a declared team, `team_` and its alias.
    pub id: Arc<str>,
    /// The operator's name for it, unique among teams that are not archived.
    pub alias: Arc<str>,
    /// What all its keys together may ask.
    pub limits: RateLimits,
    /// On everything that its keys ask; sorted, each once.
    pub tags: Vec<Arc<str>>,
    /// When it was made, ms since 1970 UTC; 0 for a declared one.
    pub created_at_ms: i64,
    /// When it was archived, ms since 1970 UTC. It then has no live keys, and gets none.
    pub archived_at_ms: Option<i64>,
    /// Where it was made.
    pub origin: Origin,
}

impl Team {
    /// A team that the configuration declares.
    pub fn declared(alias: &str, limits: RateLimits, tags: Vec<Arc<str>>) -> Self {
        Self {
            id: format!("{TEAM_ID_PREFIX}{alias}").into(),
            alias: alias.into(),
            limits,
            tags,
            created_at_ms: 0,
            archived_at_ms: None,
            origin: Origin::Declared,
        }
    }

    /// Whether a name is this team's: its id, or its alias while it is not archived.
    pub fn is_named(&self, id_or_alias: &str) -> bool {
        *self.id == *id_or_alias || (*self.alias == *id_or_alias && self.archived_at_ms.is_none())
    }
}
