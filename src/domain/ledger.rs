//! The ledger: an append-only journal of money, and the only truth about it. Holds, settlements and bookings are entries
//! with contiguous numbers; every budget, report and metric is a fold over them.
//!
//! A request that costs money writes two entries: a hold before its upstream is called, and what ended the hold.

use std::sync::Arc;

use serde::Serialize;

use super::money::Usd;
use super::prompt::Injected;
use super::usage::{TokenCounts, UsageSource};

/// The number of an entry: 1, 2, 3, … without gaps, over all processes that share a database.
pub type Seq = i64;

/// What money was for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Answers.
    #[default]
    Inference,
    /// Fine-tuning jobs.
    Training,
    /// A deployment that costs by the hour.
    Hosting,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Training, Self::Hosting];

    /// The name in rows, reports and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Training => "training",
            Self::Hosting => "hosting",
        }
    }

    /// Reads back what [`Purpose::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

/// Whom and what money is booked on. A hold and its settlement have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub struct Attribution {
    /// The virtual key's id; empty for what no key asked for.
    pub key_id: Arc<str>,
    /// Its alias at that time.
    pub key: Arc<str>,
    /// The team that owns the key.
    pub team: Option<Arc<str>>,
    /// The end user that the application named.
    pub end_user: Option<Arc<str>>,
    /// Sorted, each once; of the key and of the request.
    pub tags: Vec<Arc<str>>,
    /// The catalog's entry that was asked for.
    pub model: Arc<str>,
    /// Which deployment bills.
    pub deployment: Arc<str>,
    /// Whose it is.
    pub provider: Arc<str>,
    /// What for.
    pub purpose: Purpose,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// Money is held: the intent to ask an upstream.
    Hold,
    /// A hold ended, and this is what it cost.
    Usage,
    /// A hold ended, and nothing was used: the upstream was never asked, or said no.
    Release,
    /// An answer came from the cache; `saved` says what it would have cost.
    CacheHit,
    /// A correction of an earlier entry, which stands in `of`.
    Adjustment,
    /// A fine-tuning job's bill.
    Training,
    /// Hours of a deployment.
    Hosting,
    /// The sum of entries that were cleaned up.
    Closing,
}

impl EntryKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Hold,
        Self::Usage,
        Self::Release,
        Self::CacheHit,
        Self::Adjustment,
        Self::Training,
        Self::Hosting,
        Self::Closing,
    ];

    /// The name in rows and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Usage => "usage",
            Self::Release => "release",
            Self::CacheHit => "cache_hit",
            Self::Adjustment => "adjustment",
            Self::Training => "training",
            Self::Hosting => "hosting",
            Self::Closing => "closing",
        }
    }

    /// Reads back what [`EntryKind::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it ends the hold that stands in `of`.
    pub const fn ends_a_hold(self) -> bool {
        matches!(self, Self::Usage | Self::Release)
    }
}

/// One entry. Flat, as it is stored; what a kind does not use is zero or empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub seq: Seq,
    /// What it says.
    pub kind: EntryKind,
    /// The moment it counts for, ms since 1970 UTC: that of the hold, also for what ends it.
    pub at_ms: i64,
    /// When it was written, ms since 1970 UTC.
    pub written_at_ms: i64,
    /// The entry it ends or corrects; 0 for none.
    pub of: Seq,
    /// The request's id, or the job's or deployment's.
    pub request_id: Arc<str>,
    /// The process that wrote it.
    pub instance: Arc<str>,
    /// Whom and what it is booked on.
    #[serde(flatten)]
    pub attribution: Arc<Attribution>,
    /// Tokens used; for a hold, the bound.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// How the tokens are known; none for what has none.
    pub source: Option<UsageSource>,
    /// What is held by a hold, or given back by what ends it.
    #[serde(rename = "held_usd")]
    pub held: Usd,
    /// What was spent; an adjustment's may be negative.
    #[serde(rename = "cost_usd")]
    pub cost: Usd,
    /// What the cache saved.
    #[serde(rename = "saved_usd")]
    pub saved: Usd,
    /// The version of the price it was computed with.
    pub price: Arc<str>,
    /// Why, where a person or a recovery wrote it.
    pub note: Option<Arc<str>>,
    /// What a stored prompt was of it: of a usage, or of what corrects one that was charged whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<Arc<Injected>>,
}

impl Entry {
    /// An entry that is about to be written: its number, time and writer are filled in when it is.
    pub fn drafted(kind: EntryKind, at_ms: i64, request_id: Arc<str>, attribution: Arc<Attribution>) -> Self {
        Self {
            seq: 0,
            kind,
            at_ms,
            written_at_ms: 0,
            of: 0,
            request_id,
            instance: Arc::default(),
            attribution,
            tokens: TokenCounts::default(),
            source: None,
            held: Usd::ZERO,
            cost: Usd::ZERO,
            saved: Usd::ZERO,
            price: Arc::default(),
            note: None,
            injected: None,
        }
    }

    /// Whether it is a hold that outlives its process: a fine-tuning job's, which the job's own row owns.
    pub fn stands(&self) -> bool {
        self.kind == EntryKind::Hold && self.attribution.purpose == Purpose::Training
    }

    /// What this entry changes of the money held.
    pub fn reserves(&self) -> Usd {
        match self.kind {
            EntryKind::Hold => self.held,
            kind if kind.ends_a_hold() => -self.held,
            _ => Usd::ZERO,
        }
    }

    /// What this entry spends.
    pub const fn spends(&self) -> Usd {
        match self.kind {
            EntryKind::Hold => Usd::ZERO,
            _ => self.cost,
        }
    }
}
