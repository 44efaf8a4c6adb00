//! Who steps jobs: one process of all that share a database, by its lease; a bounded number of jobs at once.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::Jobs;
use crate::clock;

/// Jobs that are stepped at once.
const AT_ONCE: usize = 8;
/// Jobs that are looked for at once.
const LOOKED_FOR: i64 = 64;
/// The longest time between two looks for jobs that are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For jobs that are being stepped while the process ends: what they are at is found again by whoever goes on.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Looks for due jobs between two tellings of how all stand.
const TELL_EVERY: u32 = 15;

impl Jobs {
    /// Steps jobs until `stop`; whoever runs this owns it.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let mut stop = std::pin::pin!(stop);
        let mut running = FuturesUnordered::new();
        let mut busy: HashSet<String> = HashSet::new();
        let mut next_beat = clock::monotonic();
        let mut leads = false;
        let mut round: u32 = 0;
        let look_every = (self.config.poll / 4).clamp(Duration::from_millis(20), LOOK_EVERY);
        loop {
            let now = clock::monotonic();
            if now >= next_beat {
                leads = self.keep_lease(leads).await;
                next_beat = now + self.lease.beat_every();
            }
            if leads && running.len() < AT_ONCE {
                for id in self.due(&busy).await.into_iter().take(AT_ONCE - running.len()) {
                    busy.insert(id.clone());
                    running.push(async move {
                        self.advance(&id).await;
                        id
                    });
                }
            }
            if leads && round.is_multiple_of(TELL_EVERY) {
                self.tell_standing().await;
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = &mut stop => break,
                Some(id) = running.next() => {
                    busy.remove(&id);
                }
                () = self.wake.notified() => {}
                () = sleep(look_every) => {}
            }
        }
        let rest = async { while running.next().await.is_some() {} };
        let _ = tokio::time::timeout(END_LIMIT, rest).await;
        self.lease.free().await;
    }

    /// Beats, or takes the lease where it may. Whether it is ours.
    async fn keep_lease(&self, led: bool) -> bool {
        let now = clock::monotonic();
        let leads = match self.lease.keep(now).await {
            Ok(leads) => leads,
            Err(error) => {
                tracing::debug!(%error, "the lease of who steps jobs can't be kept right now");
                self.lease.is_ours(now)
            }
        };
        if leads && !led {
            // another process may have left jobs anywhere on their way
            self.compared.lock().clear();
            if let Err(error) = self.rows.wake_all().await {
                tracing::warn!(%error, "jobs that another process has left are taken up late");
            }
            tracing::info!("this process looks after the fine-tuning jobs");
        }
        if led && !leads {
            // another one tells how they stand now
            self.metrics.tuning.jobs(&BTreeMap::new());
        }
        leads
    }

    async fn due(&self, busy: &HashSet<String>) -> Vec<String> {
        match self.rows.due(clock::unix_ms(), LOOKED_FOR).await {
            Ok(mut due) => {
                due.retain(|id| !busy.contains(id));
                due
            }
            Err(error) => {
                tracing::debug!(%error, "jobs that are due can't be read; it is tried again");
                Vec::new()
            }
        }
    }
}
