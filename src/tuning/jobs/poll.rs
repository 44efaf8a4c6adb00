//! Who steps jobs: one process of all that share a database, by its lease; a bounded number of jobs at once.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{Config, Jobs};
use crate::clock;

/// Jobs that are stepped at once.
const AT_ONCE: usize = 8;
/// Of these, so many of one provider: one that hangs leaves places for the others' jobs.
const AT_ONE_PROVIDER: usize = 4;
/// Jobs that are looked for at once: those of a provider that hangs may be many.
const LOOKED_FOR: i64 = 1_000;
/// No job waits longer for its next look, whatever its provider says, unless the configuration does.
const LONGEST: Duration = Duration::from_secs(1_200);
/// The longest time between two looks for jobs that are due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For jobs that are being stepped while the process ends: what they are at is found again by whoever goes on.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Looks for due jobs between two tellings of how all stand.
const TELL_EVERY: u32 = 15;

impl Jobs {
    /// Steps jobs until `stop`; whoever runs this owns it.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel(AT_ONCE);
        let busy: Mutex<HashMap<String, String>> = Mutex::default();
        // jobs go on while others are looked for: one of them may hold the database's lock that the look waits for
        let ids = stream::poll_fn(|context| receiver.poll_recv(context));
        let work = ids.for_each_concurrent(AT_ONCE, |id: String| {
            let busy = &busy;
            async move {
                // what could not be stepped would be due at once again
                if !self.advance(&id).await {
                    sleep(LOOK_EVERY).await;
                }
                busy.lock().remove(&id);
                self.wake.notify_one();
            }
        });
        let mut work = pin!(work);
        tokio::select! {
            () = self.lead(stop, sender, &busy) => {}
            () = &mut work => {}
        }
        // what is cut off here is found again by whoever goes on
        let _ = timeout(END_LIMIT, work).await;
        self.lease.free().await;
    }

    /// Keeps the lease, and hands out the jobs that are due.
    async fn lead(
        &self,
        stop: impl Future<Output = ()> + Send,
        sender: mpsc::Sender<String>,
        busy: &Mutex<HashMap<String, String>>,
    ) {
        let mut stop = pin!(stop);
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
            if leads {
                self.hand_out(&sender, busy).await;
                if round.is_multiple_of(TELL_EVERY) {
                    self.tell_standing().await;
                }
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = &mut stop => return,
                () = self.wake.notified() => {}
                () = sleep(look_every) => {}
            }
        }
    }

    /// Hands out jobs that are due, to as many places as are free. `busy` has the jobs that are being stepped, and their
    /// providers.
    async fn hand_out(&self, sender: &mpsc::Sender<String>, busy: &Mutex<HashMap<String, String>>) {
        if busy.lock().len() >= AT_ONCE {
            return;
        }
        for (id, provider) in self.due().await {
            let is_new = {
                let mut busy = busy.lock();
                let beside = busy.values().filter(|other| **other == provider).count();
                let fits = busy.len() < AT_ONCE && beside < AT_ONE_PROVIDER && !busy.contains_key(&id);
                if fits {
                    busy.insert(id.clone(), provider);
                }
                fits
            };
            // there is a place for each that is busy
            if is_new && sender.try_send(id.clone()).is_err() {
                busy.lock().remove(&id);
            }
        }
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
            self.metrics.tuning.stood_down();
        }
        leads
    }

    /// Jobs that are due, and their providers.
    async fn due(&self) -> Vec<(String, String)> {
        let now_ms = clock::unix_ms();
        let Config { poll_max, lease, .. } = self.config;
        let longest = LONGEST.max(poll_max.saturating_mul(2)).max(lease.saturating_mul(2));
        let latest_ms = now_ms.saturating_add(i64::try_from(longest.as_millis()).unwrap_or(i64::MAX));
        let due = self.rows.due(now_ms, latest_ms, LOOKED_FOR).await;
        due.unwrap_or_else(|error| {
            tracing::debug!(%error, "jobs that are due can't be read; it is tried again");
            Vec::new()
        })
    }
}
