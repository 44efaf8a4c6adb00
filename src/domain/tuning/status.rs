//! How a job stands, in OpenAI's words; those of other providers and times are translated.

use serde::{Deserialize, Serialize};

/// How a fine-tuning job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Its files are being looked at.
    ValidatingFiles,
    /// It waits for its turn.
    Queued,
    /// It trains.
    Running,
    /// It will stop training at the next step.
    Pausing,
    /// It has stopped, and can go on.
    Paused,
    /// There is a model.
    Succeeded,
    /// There is none, by a mistake of somebody's.
    Failed,
    /// There is none, as asked.
    Cancelled,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ValidatingFiles,
        Self::Queued,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// OpenAI's word: the name in answers, rows and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads any provider's word. `created` is of August 2023, `pending` and `notRunning` are Azure's; a word that nobody
    /// knows is of a job that goes on.
    pub fn read(word: &str) -> Self {
        match word {
            "created" | "pending" | "notRunning" => Self::Queued,
            "canceled" => Self::Cancelled,
            _ => Self::from_name(word).unwrap_or(Self::Running),
        }
    }

    /// Reads back what [`JobStatus::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_providers_words_are_known() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::read(status.name()), status);
        }
        for (word, want) in [
            ("created", JobStatus::Queued),
            ("pending", JobStatus::Queued),
            ("notRunning", JobStatus::Queued),
            ("canceled", JobStatus::Cancelled),
            ("resuming", JobStatus::Running),
        ] {
            assert_eq!(JobStatus::read(word), want, "{word}");
        }
        assert!(JobStatus::Failed.is_final() && !JobStatus::Paused.is_final());
    }
}
