//! The response cache's rules: what may be answered from it, and what not.

pub mod directives;
pub mod eligible;
pub mod keep;
pub mod key;
pub mod replay;
mod scan;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::money::Usd;

/// Who shares answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Each key has its own.
    Key,
    /// The keys of a team share theirs; a key without one has its own.
    #[default]
    Team,
    /// All share all.
    Shared,
}

/// What somebody pays whose request joined another's that was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Joiners {
    /// Nothing: who came first pays.
    #[default]
    Free,
    /// As much as each of the others.
    Share,
}

/// Answers to questions that mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Semantic {
    /// The least similarity (cosine) of two last turns, per mille.
    pub threshold_per_mille: u16,
    /// Whether it only measures what it would have served.
    pub shadow: bool,
}

/// How a model's answers are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// For how long.
    pub ttl: Duration,
    /// For whom.
    pub scope: Scope,
    /// Whether also answers that are drawn anew each time (temperature above 0) are kept.
    pub any_temperature: bool,
    /// Whether also calls of tools are kept.
    pub tool_calls: bool,
    /// What joiners pay.
    pub joiners: Joiners,
    /// Whether questions that mean the same share an answer.
    pub semantic: Option<Semantic>,
}

/// How far a key may use the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// As the model says.
    #[default]
    On,
    /// It gets answers from it and leaves none there.
    ReadOnly,
    /// Not at all.
    Off,
}

impl KeyUse {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::On, Self::ReadOnly, Self::Off];

    /// The name in rows and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::ReadOnly => "read_only",
            Self::Off => "off",
        }
    }

    /// Reads back what [`KeyUse::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|used| used.name() == name)
    }
}

/// What one request says about the cache, in `Cache-Control` or in its body's member `cache`; the stricter holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// No kept answer will do.
    pub no_cache: bool,
    /// The answer is not kept.
    pub no_store: bool,
    /// A kept answer may be so old.
    pub max_age: Option<Duration>,
    /// The answer is kept for so long; never longer than the model says.
    pub ttl: Option<Duration>,
    /// A part of the cache of its own.
    pub namespace: Option<String>,
}

/// Why the cache was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bypass {
    /// The model keeps no answers.
    Off,
    /// The key may not.
    Key,
    /// The request wants a new answer.
    NoCache,
    /// The request wants nothing kept, and nothing was.
    NoStore,
    /// Its answer is drawn anew each time.
    Temperature,
    /// It brings tools.
    Tools,
    /// It names what a provider keeps, or wants its answer kept there.
    StoredState,
    /// Answers in sound are not kept.
    Sound,
    /// What it would have joined failed more than once.
    FlightFailed,
}

impl Bypass {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 9] = [
        Self::Off,
        Self::Key,
        Self::NoCache,
        Self::NoStore,
        Self::Temperature,
        Self::Tools,
        Self::StoredState,
        Self::Sound,
        Self::FlightFailed,
    ];

    /// The name in headers and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Key => "key",
            Self::NoCache => "no_cache",
            Self::NoStore => "no_store",
            Self::Temperature => "temperature",
            Self::Tools => "tools",
            Self::StoredState => "stored_state",
            Self::Sound => "sound",
            Self::FlightFailed => "flight_failed",
        }
    }
}

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// It had the answer.
    Hit,
    /// It had none.
    Miss,
    /// The same was being asked; its answer was shared.
    Joined,
    /// It had the answer to a question that means the same.
    Semantic,
    /// It was left alone.
    Bypass(Bypass),
}

impl CacheResult {
    /// The names of all of them, for metrics that are born at 0.
    pub const NAMES: [&'static str; 5] = ["hit", "miss", "joined", "semantic", "bypass"];

    /// The name in headers and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Joined => "joined",
            Self::Semantic => "semantic",
            Self::Bypass(_) => "bypass",
        }
    }
}

/// What the cache did for a request, as its Outcome keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cached {
    /// What it did.
    #[serde(serialize_with = "named")]
    pub result: CacheResult,
    /// What its answer would have cost, USD; nothing where an upstream answered.
    #[serde(rename = "saved_usd", skip_serializing_if = "Option::is_none")]
    pub saved: Option<Usd>,
}

fn named<S: serde::Serializer>(result: &CacheResult, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(result.name())
}
