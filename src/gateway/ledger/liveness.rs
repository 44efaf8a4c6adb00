//! Which of the other processes still live. A process is alive while its beat changes, as seen by our own steady clock:
//! no two machines' clocks are ever compared, and none may be set back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::journal::Beat;

/// What we have seen of one process.
#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: i64,
    changed: Instant,
}

/// What we have seen of all others.
#[derive(Debug)]
pub(super) struct Liveness {
    own: Arc<str>,
    lease: Duration,
    seen: HashMap<Arc<str>, Seen>,
}

impl Liveness {
    pub(super) fn new(own: Arc<str>, lease: Duration) -> Self {
        Self { own, lease, seen: HashMap::new() }
    }

    /// Takes in how the processes beat, and the owners of open holds: one that never beat counts from now.
    pub(super) fn see(&mut self, beats: &[Beat], owners: &HashSet<Arc<str>>, now: Instant) {
        let lives = |instance: &Arc<str>| beats.iter().any(|beat| beat.instance == *instance && !beat.ended);
        self.seen.retain(|instance, _| lives(instance) || owners.contains(instance));
        for beat in beats.iter().filter(|beat| beat.instance != self.own && !beat.ended) {
            let seen =
                self.seen.entry(Arc::clone(&beat.instance)).or_insert(Seen { beat: beat.beat, changed: now });
            if seen.beat != beat.beat {
                *seen = Seen { beat: beat.beat, changed: now };
            }
        }
        for owner in owners.iter().filter(|owner| **owner != self.own) {
            self.seen.entry(Arc::clone(owner)).or_insert(Seen { beat: 0, changed: now });
        }
    }

    /// The processes whose lease has run out.
    pub(super) fn gone(&self, now: Instant) -> Vec<Arc<str>> {
        let silent = |seen: &Seen| now.saturating_duration_since(seen.changed) >= self.lease;
        let gone = self.seen.iter().filter(|(_, seen)| silent(seen));
        gone.map(|(instance, _)| Arc::clone(instance)).collect()
    }

    /// Whether another process may be writing.
    pub(super) fn has_others(&self) -> bool {
        !self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_process_is_gone_when_its_beat_has_not_changed_for_a_lease() {
        let lease = Duration::from_secs(10);
        let mut liveness = Liveness::new("me".into(), lease);
        let start = clock::monotonic();
        let beat = |instance: &str, beat: i64| Beat { instance: instance.into(), beat, ended: false };
        let owners = HashSet::from(["never-beat".into(), "me".into()]);
        liveness.see(&[beat("me", 1), beat("other", 7)], &owners, start);
        assert!(liveness.has_others());
        assert!(liveness.gone(start + lease / 2).is_empty());
        liveness.see(&[beat("other", 8)], &owners, start + lease / 2);
        liveness.see(&[beat("other", 8)], &owners, start + lease);
        assert!(!liveness.gone(start + lease).contains(&"other".into()));
        assert_eq!(liveness.gone(start + lease * 2).len(), 2);
        let ended = Beat { ended: true, ..beat("other", 8) };
        liveness.see(&[ended], &HashSet::new(), start + lease * 2);
        assert!(!liveness.has_others() && liveness.gone(start + lease * 9).is_empty());
    }
}
