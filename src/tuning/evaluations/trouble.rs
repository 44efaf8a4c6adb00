//! An evaluation that can't go on: how long that may pass by itself, before it has failed. All that was answered is paid
//! for, so a moment's trouble must not end it; and others wait behind it, so it must not stand there for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::plan::Plan;
use super::{EvaluationError, Evaluations};
use crate::clock;
use crate::control::form::Problem;
use crate::control::teams::TeamsError;
use crate::domain::ids::ModelName;
use crate::store::StoreError;
use crate::store::evaluations::{Ended, EvaluationStatus};
use crate::tuning::TuningError;

/// How long a key, a team or a model may be unknown: another process has made it, and this one hears of it within half a
/// minute.
const UNHEARD: Duration = Duration::from_secs(60);
/// How long the folder of files may be away.
const AWAY: Duration = Duration::from_secs(600);

/// Since when evaluations can't go on.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: BTreeMap<String, Instant>,
}

impl Patience {
    /// It goes on, or is over.
    pub(super) fn renewed(&mut self, id: &str) {
        self.since.remove(id);
    }

    /// Whether a trouble has lasted too long. One that may last for ever says nothing of another that began before it.
    fn is_over(&mut self, id: &str, error: &EvaluationError, now: Instant) -> bool {
        match most(error) {
            Some(most) => self.tried(id, now) >= most,
            None => {
                self.renewed(id);
                false
            }
        }
    }

    /// How long this one can't go on already.
    fn tried(&mut self, id: &str, now: Instant) -> Duration {
        let since = *self.since.entry(id.to_owned()).or_insert(now);
        now.saturating_duration_since(since)
    }
}

/// A mistake in a plan.
pub(super) fn wrong(path: &str, message: String) -> EvaluationError {
    EvaluationError::Invalid(vec![Problem { path: path.to_owned(), message }])
}

/// How long a trouble may last; none where it may for ever, as nothing else could go on either.
fn most(error: &EvaluationError) -> Option<Duration> {
    match error {
        EvaluationError::Store(StoreError::Damaged(_)) => Some(Duration::ZERO),
        EvaluationError::Store(_)
        | EvaluationError::Team(TeamsError::Directory(_) | TeamsError::Store(_) | TeamsError::Random(_))
        | EvaluationError::Random(_) => None,
        EvaluationError::Invalid(_) | EvaluationError::Team(_) => Some(UNHEARD),
        EvaluationError::File(TuningError::Unavailable(_)) => Some(AWAY),
        EvaluationError::File(_)
        | EvaluationError::Unknown(_)
        | EvaluationError::Ended(_)
        | EvaluationError::NoReport { .. } => Some(Duration::ZERO),
    }
}

/// Why it has failed, for its operator.
fn words(error: &EvaluationError) -> String {
    match error {
        EvaluationError::Store(StoreError::Damaged(_)) => {
            "what is kept of it can't be read: another version has written it, or it is damaged".to_owned()
        }
        EvaluationError::Invalid(problems) => {
            problems.iter().map(|problem| &*problem.message).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

impl Evaluations {
    /// An evaluation can't go on: ends it where that lasts too long.
    pub(super) async fn stumbles(&self, id: &str, error: &EvaluationError, patience: &Mutex<Patience>) {
        if !patience.lock().is_over(id, error, clock::monotonic()) {
            tracing::warn!(%error, evaluation = id, "an evaluation can't go on right now; it is tried again");
            return;
        }
        let ended = Ended {
            status: EvaluationStatus::Failed,
            why: words(error),
            report: None,
            keeps_words: false,
            at_ms: clock::unix_ms(),
        };
        match self.close(id, &ended).await {
            Ok(()) => patience.lock().renewed(id),
            Err(error) => {
                tracing::warn!(%error, evaluation = id, "an evaluation's end can't be written; it is tried again");
            }
        }
    }

    /// Whether all models are there that a plan asks.
    pub(super) fn are_known(&self, plan: &Plan) -> Result<(), EvaluationError> {
        let live = self.gateway.catalog.load();
        let is_known =
            |name: &str| ModelName::parse(name).is_ok_and(|name| live.catalog.resolve(&name).is_some());
        let asked = plan.models.iter().map(|one| &one.model).chain(plan.judge.iter().map(|one| &one.model));
        match asked.into_iter().find(|name| !is_known(name)) {
            Some(name) => Err(wrong("models", format!("there is no model {name}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_waited_for() {
        let away = || TuningError::Unavailable("away".to_owned());
        let gone = || TuningError::not_found(crate::tuning::Noun::File, "file-1");
        let (none, now) = (Some(Duration::ZERO), clock::monotonic());
        let cases: [(EvaluationError, Option<Duration>); 7] = [
            (StoreError::Moving.into(), None),
            (TeamsError::Store(StoreError::Moving).into(), None),
            (away().into(), Some(AWAY)),
            (wrong("key", "no live key".to_owned()), Some(UNHEARD)),
            (TeamsError::Unknown("ops".to_owned()).into(), Some(UNHEARD)),
            (gone().into(), none),
            (StoreError::Damaged("eval_1".to_owned()).into(), none),
        ];
        for (error, want) in cases {
            assert_eq!(most(&error), want, "{error}");
        }
        let mut patience = Patience::default();
        let at = |seconds| now + Duration::from_secs(seconds);
        for (id, seconds, want) in [("a", 0, 0), ("a", 7, 7), ("b", 9, 0), ("b", 12, 3), ("a", 20, 20)] {
            assert_eq!(patience.tried(id, at(seconds)), Duration::from_secs(want), "{id} at {seconds}");
        }
    }

    #[test]
    fn only_what_lasts_ends_it() {
        let now = clock::monotonic();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (away, database) =
            (TuningError::Unavailable("away".to_owned()).into(), StoreError::Moving.into());
        let mut patience = Patience::default();
        let mut is_over = |error: &EvaluationError, seconds| patience.is_over("a", error, at(seconds));
        assert!(!is_over(&away, 0) && !is_over(&away, 599));
        assert!(!is_over(&database, 600), "for as long as it takes");
        assert!(!is_over(&away, 9_000), "a trouble of its own");
        assert!(!is_over(&away, 9_599) && is_over(&away, 9_600));
        assert!(!is_over(&database, 9_601));
        patience.is_over("a", &away, at(10_000));
        patience.renewed("a");
        assert!(!patience.is_over("a", &away, at(20_000)), "it went on meanwhile");
    }
}
