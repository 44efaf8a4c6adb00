//! Sends the spans of what has ended to the operator's collector, in batches and away from the requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::{BackgroundService, background_service};
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::services::Exporter;
use crate::clock;
use crate::domain::outcome::Outcome;
use crate::gateway::record::Spans;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{self, Source};
use crate::telemetry::traces::Config;
use crate::upstream::collector::Collector;

/// Most requests whose spans go out in one batch.
const BATCH: usize = 256;
/// How long a batch waits for more.
const LINGER: Duration = Duration::from_secs(1);

/// Sends until the process ends.
struct Sender {
    queue: Mutex<Option<Receiver<Arc<Outcome>>>>,
    source: Source,
    collector: Collector,
    metrics: Arc<Metrics>,
    /// Told when the last request has ended.
    last: watch::Receiver<bool>,
    /// Tells that all is sent, or given up.
    done: watch::Sender<bool>,
}

/// A queue of outcomes before a collector: what takes them, never waiting, and what sends them.
pub(super) fn open(config: &Config, metrics: &Arc<Metrics>) -> (Spans, Exporter) {
    let (queue, waiting) = mpsc::channel::<Arc<Outcome>>(config.queue);
    let (last, is_last) = watch::channel(false);
    let (done, is_done) = watch::channel(false);
    let dropped = Arc::clone(metrics);
    let take = move |outcome: &Arc<Outcome>| {
        if queue.try_send(Arc::clone(outcome)).is_err() {
            dropped.process.spans_dropped.inc_by(spans::count(outcome));
        }
    };
    let flush = move || {
        last.send_replace(true);
        let mut is_done = is_done.clone();
        async move { drop(is_done.wait_for(|done| *done).await) }.boxed()
    };
    let sender = Sender {
        queue: Mutex::new(Some(waiting)),
        source: Source::new(config),
        collector: Collector::new(config),
        metrics: Arc::clone(metrics),
        last: is_last,
        done,
    };
    let exporter = Exporter {
        flush: Box::new(flush),
        serve: Box::new(|server| {
            server.add_service(background_service("spans", sender));
        }),
    };
    (Box::new(take), exporter)
}

#[async_trait]
impl BackgroundService for Sender {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(mut queue) = self.queue.lock().take() else { return };
        let mut works = true;
        loop {
            let batch = self.batch(&mut queue).await;
            if batch.is_empty() {
                self.done.send_replace(true);
                return;
            }
            works = self.send(&batch, works).await;
        }
    }
}

impl Sender {
    /// The next batch: what has come within a moment of its first. Empty when there is no more to come.
    async fn batch(&self, queue: &mut Receiver<Arc<Outcome>>) -> Vec<Arc<Outcome>> {
        let mut last = self.last.clone();
        let mut batch = Vec::new();
        let mut until = None;
        while batch.len() < BATCH {
            let more = async {
                match until {
                    None => queue.recv().await,
                    Some(until) => timeout_at(until, queue.recv()).await.ok().flatten(),
                }
            };
            let next = tokio::select! {
                biased;
                next = more => next,
                _ = last.wait_for(|last| *last) => queue.try_recv().ok(),
            };
            let Some(next) = next else { break };
            batch.push(next);
            until.get_or_insert(Instant::from_std(clock::monotonic() + LINGER));
        }
        batch
    }

    /// Sends a batch, and says in the log when that begins to fail or to work again. Whether it worked.
    async fn send(&self, batch: &[Arc<Outcome>], worked: bool) -> bool {
        let sent = self.collector.send(&self.source.message(batch)).await;
        let count = || batch.iter().map(|outcome| spans::count(outcome)).sum();
        let (dropped, why) = match sent {
            Ok(answer) => spans::rejected(&answer).unwrap_or_default(),
            Err(why) => (count(), why),
        };
        self.metrics.process.spans_dropped.inc_by(dropped);
        let (works, collector) = (dropped == 0, self.collector.authority());
        match (worked, works) {
            (true, false) => {
                tracing::warn!(collector, why, "spans are dropped until the collector takes them");
            }
            (false, true) => tracing::info!(collector, "the collector takes spans again"),
            (true, true) | (false, false) => {}
        }
        works
    }
}
