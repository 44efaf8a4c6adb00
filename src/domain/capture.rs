//! Traffic that is kept to train a successor on: whose, how much of it, for how long, and what people thought of it.
//!
//! Off unless a model says so. Pure: what is drawn follows from the request's id alone.

pub mod example;
mod feedback;
pub mod rows;

use std::sync::Arc;

use tunegate_dataset::hash;

pub use self::feedback::{Feedback, MOST_TEXT_BYTES, Rating, Wanted};

/// The seed of the draw: another one would draw other requests.
const SEED: u64 = 0x6361_7074_7572_6531;
/// A day, ms.
pub const DAY_MS: i64 = 86_400_000;

/// What is kept of a model's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// So many requests of a million.
    pub sample_ppm: u64,
    /// How long a row is kept, ms.
    pub retention_ms: i64,
    /// Whether personal data and keys give way to words such as `[EMAIL]` before anything is written.
    pub mask: bool,
    /// Most rows of the model; the oldest go.
    pub max_rows: u64,
    /// The longest row, bytes.
    pub max_row_bytes: usize,
    /// Whose answers; none for those of every deployment.
    pub deployments: Option<Vec<Arc<str>>>,
}

impl Policy {
    /// All requests, of a million.
    pub const ALL: u64 = 1_000_000;

    /// Whether a request is one of those that are kept. The same id is always drawn alike, on every gateway, and a larger
    /// sample has all of a smaller one.
    pub fn draws(&self, request_id: &str) -> bool {
        hash::of(SEED, request_id.as_bytes()) % Self::ALL < self.sample_ppm
    }

    /// Whether answers of a deployment are kept.
    pub fn takes(&self, deployment: &str) -> bool {
        self.deployments.as_ref().is_none_or(|all| all.iter().any(|name| **name == *deployment))
    }
}

/// What became of an answer that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureResult {
    /// It is a row.
    Kept,
    /// The queue was full: the request was served, and its row let go.
    Dropped,
    /// It is larger than a row may be.
    TooLarge,
    /// It broke off, was cut, filtered or refused, or is none.
    Unfinished,
    /// No training row can have it: another endpoint, several choices, a file, hosted tools.
    Unfit,
    /// It has an image, which can't be masked.
    Unmaskable,
    /// The client said `store: false`.
    OptedOut,
    /// The database did not take it.
    Failed,
}

impl CaptureResult {
    /// All of them, for metrics that are born at 0.
    pub const ALL: [Self; 8] = [
        Self::Kept,
        Self::Dropped,
        Self::TooLarge,
        Self::Unfinished,
        Self::Unfit,
        Self::Unmaskable,
        Self::OptedOut,
        Self::Failed,
    ];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::TooLarge => "too_large",
            Self::Unfinished => "unfinished",
            Self::Unfit => "unfit",
            Self::Unmaskable => "unmaskable",
            Self::OptedOut => "opted_out",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A policy that keeps everything, masked.
    pub(crate) fn policy() -> Policy {
        Policy {
            sample_ppm: Policy::ALL,
            retention_ms: 30 * DAY_MS,
            mask: true,
            max_rows: 1_000,
            max_row_bytes: 64 << 10,
            deployments: None,
        }
    }

    #[test]
    fn the_same_request_is_always_drawn_alike_and_a_larger_sample_has_the_smaller() {
        let of = |sample_ppm| Policy { sample_ppm, ..policy() };
        let (none, tenth, half, all) = (of(0), of(100_000), of(500_000), of(Policy::ALL));
        let mut drawn = [0_u32; 2];
        for number in 0..20_000 {
            let id = format!("req_{number:024x}");
            assert!(!none.draws(&id) && all.draws(&id), "{id}");
            assert!(!tenth.draws(&id) || half.draws(&id), "{id}");
            drawn[0] += u32::from(tenth.draws(&id));
            drawn[1] += u32::from(half.draws(&id));
        }
        assert!((1_850..2_150).contains(&drawn[0]) && (9_700..10_300).contains(&drawn[1]), "{drawn:?}");
        // never another one: rows of two gateways, and of today and tomorrow, belong together
        let first: Vec<u32> = (0..40).filter(|number| tenth.draws(&format!("req_{number}"))).collect();
        assert_eq!(first, [28, 36, 37]);
    }

    #[test]
    fn whose_answers_are_kept() {
        let some = Policy { deployments: Some(vec!["a".into(), "b".into()]), ..policy() };
        assert!(some.takes("a") && some.takes("b") && !some.takes("c"));
        assert!(policy().takes("c"));
    }
}
