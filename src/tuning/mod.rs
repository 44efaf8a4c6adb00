//! The training plane: files, quotes, jobs, the models that come of them and what these are worth, and the clock of those that
//! cost by the hour. One flow for all providers; whatever costs money goes through the ledger.

pub mod captures;
pub mod evaluations;
pub mod files;
pub mod hosting;
pub mod jobs;
pub mod lease;
pub mod paces;
pub mod priced;
pub mod quote;
pub mod registry;

use std::sync::Arc;

use crate::domain::budget::Exceeded;
use crate::domain::key::Tuning;

/// What something is that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// A file.
    File,
    /// An upload in parts.
    Upload,
    /// A part of one.
    Part,
    /// A fine-tuning job.
    Job,
    /// A model that a job made.
    Model,
    /// A request that was served.
    Request,
}

impl Noun {
    /// As OpenAI's errors name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "File object",
            Self::Upload => "Upload",
            Self::Part => "Upload part",
            Self::Job => "fine-tuning job",
            Self::Model => "Model",
            Self::Request => "request",
        }
    }
}

/// Every way the training plane says no. Which status that is, `http/respond.rs` decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TuningError {
    /// There is none, or it is another's: which of the two is not told.
    #[error("No such {}: {id}", .noun.name())]
    NotFound {
        /// What.
        noun: Noun,
        /// The id that was asked for.
        id: String,
    },
    /// The key lacks the right.
    #[error(
        "this key may not do that: it needs the right `tuning = {}` and has `{}`; your operator gives it by \
         `tunegate keys update ALIAS --tuning {}`", .needs.name(), .has.name(), .needs.name()
    )]
    Forbidden {
        /// What would be enough.
        needs: Tuning,
        /// What it has.
        has: Tuning,
    },
    /// What was sent is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong and what to do.
        message: String,
        /// The member at fault.
        param: Option<String>,
        /// Such as `invalid_value`.
        code: &'static str,
    },
    /// It is too large to be taken.
    #[error("{0}")]
    TooLarge(String),
    /// It came too slowly.
    #[error("{0}")]
    TooSlow(String),
    /// It is not in a state for that.
    #[error("{message}")]
    Conflict {
        /// Why, and what to do.
        message: String,
        /// The member at fault.
        param: Option<String>,
    },
    /// No route has this path or method.
    #[error("{0}")]
    NoSuchRoute(String),
    /// A budget has not enough left.
    #[error("{words}")]
    Budget {
        /// Which one, and its figures.
        exceeded: Box<Exceeded>,
        /// For people.
        words: String,
    },
    /// Nobody knows what it costs.
    #[error("{0}")]
    Unpriced(String),
    /// The provider said no: its words, then ours.
    #[error("{message}")]
    Provider {
        /// Its name.
        provider: Arc<str>,
        /// Its status.
        status: u16,
        /// Its words without any credential, then ours.
        message: String,
        /// Its code.
        code: Option<String>,
        /// The parameter that it names.
        param: Option<String>,
    },
    /// The provider gave no answer.
    #[error("provider `{provider}` could not answer: {message}")]
    ProviderAway {
        /// Its name.
        provider: Arc<str>,
        /// What went wrong.
        message: String,
    },
    /// The folder of files is full, or its disk.
    #[error("{0}")]
    StorageFull(String),
    /// Too much is under way at once.
    #[error("{0}")]
    Busy(String),
    /// Our database, disk or ledger can't be used; what it is stands in the log.
    #[error("{0}")]
    Unavailable(String),
}

impl TuningError {
    /// A member that is wrong.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param.to_owned()), code: "invalid_value" }
    }

    /// A member that is missing.
    pub fn missing(param: &str) -> Self {
        Self::Invalid {
            message: format!("Missing required parameter: '{param}'."),
            param: Some(param.to_owned()),
            code: "missing_required_parameter",
        }
    }

    /// Nothing of the caller's has that id.
    pub fn not_found(noun: Noun, id: &str) -> Self {
        Self::NotFound { noun, id: id.chars().take(128).collect() }
    }

    /// Our code for it, stable; the provider's own where it refused.
    pub fn code(&self) -> &str {
        match self {
            Self::Provider { code: Some(code), .. } => code,
            other => other.label(),
        }
    }

    /// Our code for it, one of [`CODES`]: the label of metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotFound { noun: Noun::Model, .. } => "model_not_found",
            Self::NotFound { .. } => "not_found",
            Self::Forbidden { .. } => "tuning_not_allowed",
            Self::Invalid { code, .. } => code,
            Self::TooLarge(_) => "request_too_large",
            Self::TooSlow(_) => "request_timeout",
            Self::Conflict { .. } => "conflict",
            Self::NoSuchRoute(_) => "unsupported_endpoint",
            Self::Budget { .. } => "project_spend_limit_exceeded",
            Self::Unpriced(_) => "unpriced_model",
            Self::Provider { .. } => "provider_refused",
            Self::ProviderAway { .. } => "upstream_unreachable",
            Self::StorageFull(_) => "storage_full",
            Self::Busy(_) => "overloaded",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The member of the request to point at.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } | Self::Conflict { param, .. } | Self::Provider { param, .. } => {
                param.as_deref()
            }
            Self::Unpriced(_) => Some("model"),
            _ => None,
        }
    }
}

/// The codes that only this room has, for metrics that begin at zero.
pub const CODES: [&str; 6] =
    ["conflict", "not_found", "provider_refused", "storage_full", "tuning_not_allowed", "unavailable"];
