//! Tells people, beside the log: each alert goes to the operator's webhook, one after the other, away from the requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use serde::Serialize;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::clock;
use crate::domain::alert::Alert;
use crate::telemetry::metrics::Metrics;
use crate::upstream::webhook::{self, Webhook};

/// Alerts that may wait to be told; more are dropped and counted.
const QUEUE: usize = 256;
/// How long one alert of a deployment stands for others of its kind.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// An alert and when it was given, ms since 1970 UTC.
type Given = (i64, Alert);

/// Where alerts are handed in, from anywhere and without waiting.
#[derive(Clone)]
pub(super) struct Alerts {
    queue: Sender<Given>,
    metrics: Arc<Metrics>,
}

impl Alerts {
    /// Hands an alert in.
    pub(super) fn give(&self, alert: Alert) {
        if self.queue.try_send((clock::unix_ms(), alert)).is_err() {
            self.metrics.money.alerts_dropped.inc();
        }
    }
}

/// Takes alerts until the process ends. Those that still wait then are in the log only.
pub(super) struct Teller {
    queue: Mutex<Option<Receiver<Given>>>,
    webhook: Option<Webhook>,
    metrics: Arc<Metrics>,
}

/// Alerts, and the service that tells them.
pub(super) fn alerts(webhook: Option<webhook::Config>, metrics: &Arc<Metrics>) -> (Alerts, Teller) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let teller = Teller {
        queue: Mutex::new(Some(receiver)),
        webhook: webhook.map(Webhook::new),
        metrics: Arc::clone(metrics),
    };
    (Alerts { queue: sender, metrics: Arc::clone(metrics) }, teller)
}

#[async_trait]
impl BackgroundService for Teller {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Some(mut queue) = self.queue.lock().take() else { return };
        let mut repeats = Repeats::default();
        while let Some((at_ms, alert)) = queue.recv().await {
            let Some(held_back) = repeats.turn(&alert, clock::monotonic()) else { continue };
            if let Alert::Unpriced(unpriced) = &alert {
                // each one would be a line a request
                tracing::warn!(
                    model = %unpriced.model,
                    deployment = %unpriced.deployment,
                    upstream_model = %unpriced.upstream_model,
                    held_back,
                    "a model without a known price was asked: it is booked as `on_unpriced` says"
                );
            }
            let Some(webhook) = &self.webhook else { continue };
            let id = format!("alert_{:016x}", rand::random::<u64>());
            let body = body(&Message { id: &id, at_ms, held_back, alert: &alert });
            if let Err(why) = webhook.tell(&body).await {
                self.metrics.money.webhook_failures.inc();
                tracing::warn!(alert = id, webhook = webhook.authority(), why, "an alert could not be told");
            }
        }
    }
}

/// What the webhook reads.
#[derive(Serialize)]
struct Message<'a> {
    /// The same in each try.
    id: &'a str,
    at_ms: i64,
    /// Alerts of the kind and the deployment since the last that was told.
    held_back: u64,
    #[serde(flatten)]
    alert: &'a Alert,
}

#[expect(clippy::expect_used, reason = "texts and numbers are always JSON")]
fn body(message: &Message<'_>) -> Vec<u8> {
    serde_json::to_vec(message).expect("an alert is JSON")
}

/// What was told lately, by kind and deployment.
#[derive(Default)]
struct Repeats(HashMap<(&'static str, Arc<str>), (Instant, u64)>);

impl Repeats {
    /// Whether it is this alert's turn; if so, how many like it were held back before.
    fn turn(&mut self, alert: &Alert, now: Instant) -> Option<u64> {
        let Some(deployment) = alert.repeats_for() else { return Some(0) };
        let (told, held_back) = match self.0.get_mut(&(alert.kind(), Arc::clone(deployment))) {
            None => {
                self.0.insert((alert.kind(), Arc::clone(deployment)), (now, 0));
                return Some(0);
            }
            Some((told, held_back)) => (told, held_back),
        };
        if now.saturating_duration_since(*told) < REPEAT_AFTER {
            *held_back += 1;
            return None;
        }
        *told = now;
        Some(std::mem::take(held_back))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::alert::Overshoot;
    use crate::domain::money::Usd;

    fn overshoot(deployment: &str) -> Alert {
        Alert::Overshoot(Overshoot {
            request_id: "req_1".into(),
            key: "app".into(),
            model: "m".into(),
            deployment: deployment.into(),
            held: Usd::from_nanos(100_000_000),
            cost: Usd::from_nanos(300_000_000),
            excess: Usd::from_nanos(200_000_000),
        })
    }

    #[test]
    fn a_message_is_one_flat_object() {
        let alert = overshoot("d");
        let body = body(&Message { id: "alert_1", at_ms: 7, held_back: 2, alert: &alert });
        let found: Value = serde_json::from_slice(&body).expect("JSON");
        let want = json!({
            "id": "alert_1", "at_ms": 7, "held_back": 2, "kind": "overshoot", "request_id": "req_1", "key": "app",
            "model": "m", "deployment": "d", "held_usd": 0.1, "cost_usd": 0.3, "excess_usd": 0.2,
        });
        assert_eq!(found, want);
    }

    #[test]
    fn one_overshoot_a_minute_stands_for_the_others() {
        let (mut repeats, start) = (Repeats::default(), clock::monotonic());
        for (seconds, deployment, turn) in [
            (0, "a", Some(0)),
            (1, "a", None),
            (1, "b", Some(0)),
            (59, "a", None),
            (60, "a", Some(2)),
            (61, "a", None),
        ] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(repeats.turn(&overshoot(deployment), now), turn, "{deployment} after {seconds} s");
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let metrics = Arc::new(Metrics::new(crate::telemetry::metrics::Config::default()).expect("metrics"));
        let (alerts, _teller) = alerts(None, &metrics);
        for _ in 0..QUEUE + 3 {
            alerts.give(overshoot("d"));
        }
        assert_eq!(metrics.money.alerts_dropped.get(), 3);
    }
}
