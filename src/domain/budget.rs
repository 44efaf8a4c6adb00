//! Budgets: ceilings on money. What a budget has spent and holds is a fold over the ledger's entries, kept in
//! [`Books`]; a hold is decided on all budgets that apply, at once, or not at all.

mod books;
mod counter;
pub mod draft;
pub mod reach;
pub mod watch;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::{Attribution, Purpose};
use super::money::Usd;
use super::window::Window;

pub use books::{Books, Crossing, Drift, Exceeded, Grant, Overview, Spent, Standing};

/// Longest name of a budget, bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// What a budget gives each value of its own counter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Each {
    /// Each virtual key.
    Key,
    /// Each team.
    Team,
    /// Each end user; requests that name none share one counter.
    EndUser,
    /// Each model of the catalog.
    Model,
}

/// Which money a budget is for. What is not given is not asked: an empty scope is for everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// The team that owns the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<Arc<str>>,
    /// The key's alias or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// The end user that the application names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<Arc<str>>,
    /// One of the tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Arc<str>>,
    /// The catalog's model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
    /// The deployment that bills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Arc<str>>,
    /// Its provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Arc<str>>,
    /// Inference, training or hosting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// A counter, and the whole limit, for each of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
}

impl Scope {
    /// Whether a booking is within it.
    pub fn covers(&self, on: &Attribution) -> bool {
        let is =
            |wanted: &Option<Arc<str>>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let is_optional = |wanted: &Option<Arc<str>>, found: &Option<Arc<str>>| {
            wanted.is_none() || wanted.as_deref() == found.as_deref()
        };
        is_optional(&self.team, &on.team)
            && self.key.as_deref().is_none_or(|key| *key == *on.key || *key == *on.key_id)
            && is_optional(&self.end_user, &on.end_user)
            && self.tag.as_ref().is_none_or(|tag| on.tags.contains(tag))
            && is(&self.model, &on.model)
            && is(&self.deployment, &on.deployment)
            && is(&self.provider, &on.provider)
            && self.purpose.is_none_or(|purpose| purpose == on.purpose)
    }

    /// Whose counter a booking belongs to; empty where there is only one.
    pub fn subject(&self, on: &Attribution) -> Arc<str> {
        let of = |name: &Option<Arc<str>>| name.clone().unwrap_or_default();
        match self.each {
            None => Arc::default(),
            Some(Each::Key) => Arc::clone(&on.key_id),
            Some(Each::Team) => of(&on.team),
            Some(Each::EndUser) => of(&on.end_user),
            Some(Each::Model) => Arc::clone(&on.model),
        }
    }
}

/// As a line of words: `team acme, each end_user`, or `everything`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            ("team", &self.team),
            ("key", &self.key),
            ("end user", &self.end_user),
            ("tag", &self.tag),
            ("model", &self.model),
            ("deployment", &self.deployment),
            ("provider", &self.provider),
        ];
        let mut words: Vec<String> =
            named.iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_deref()?))).collect();
        words.extend(self.purpose.map(|purpose| purpose.name().to_owned()));
        words.extend(self.each.map(|each| {
            let each = match each {
                Each::Key => "key",
                Each::Team => "team",
                Each::EndUser => "end user",
                Each::Model => "model",
            };
            format!("each {each}")
        }));
        match words.is_empty() {
            true => f.write_str("everything"),
            false => f.write_str(&words.join(", ")),
        }
    }
}

/// What happens to a request that a budget has no money for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is refused.
    #[default]
    Refuse,
    /// Its output cap is lowered to what is left, as long as that is worth it.
    Clamp,
    /// A cheaper deployment of its route is asked, if there is one.
    Downgrade,
}

/// More money for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// Added to the limit.
    #[serde(rename = "by_usd")]
    pub by: Usd,
    /// Until then, ms since 1970 UTC.
    pub until_ms: i64,
}

/// A ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The operator's name for it, unique.
    pub name: Arc<str>,
    /// Which money it is for.
    pub scope: Scope,
    /// The most that may be spent in a window.
    pub limit: Usd,
    /// How its money comes back.
    pub window: Window,
    /// Percentages of the limit at which somebody is told; ascending, each once.
    pub alert_at: Vec<u8>,
    /// What happens where it has no money left.
    pub action: Action,
    /// More for a while.
    pub raise: Option<Raise>,
    /// Whether it stands in the configuration's file, where alone it can be changed.
    pub declared: bool,
}

impl Budget {
    /// The limit at a moment, a raise included.
    pub fn limit_at(&self, now_ms: i64) -> Usd {
        match self.raise {
            Some(raise) if now_ms < raise.until_ms => self.limit + raise.by,
            _ => self.limit,
        }
    }

    /// Whether another one counts the same money in the same windows.
    pub fn counts_like(&self, other: &Self) -> bool {
        self.scope == other.scope && self.window == other.window
    }
}

#[cfg(test)]
mod tests;
